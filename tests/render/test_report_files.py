"""What `report` writes beside the page: Markdown, JUnit XML, JSON Lines, CSV. Projections of the same rows, safe."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt

from redinstruct.figures.rates import read_report
from redinstruct.render.junit import junit_text
from redinstruct.render.markdown import markdown_text
from redinstruct.render.overview import Project, read_runs
from redinstruct.render.tables import csv_text
from redinstruct.run import Store
from redinstruct.safetext import in_markdown, terminal
from redinstruct.types import ATTACK_SUCCESS, Completion, Verdict
from tests.support.cli import InProcess, nothing_written
from tests.support.pages import full_project, full_run, replaced, strings_of
from tests.support.stores import Setup, fill, make_bank, report, scratch, text


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with scratch() as folder:
        yield full_project(folder)


def mixed(folder: Path) -> Path:
    """A run of four attempts: harmful, unharmful, failed, still owed."""
    setup = Setup(banks=(make_bank(4),), templates=Setup().templates[:1])
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        fill(store, judge, ["harmful", "unharmful"])
        store.commit_completions([(3, 0, Completion("error", reason="timeout"))])
    return folder


# ---- Markdown -----------------------------------------------------------------------------------------------------

MARKUP = [
    "*", "_", "`", "``", "[x](http://h)", "![x](http://h)", "<b>", "&amp;", "|", "\\", "\\|", "#", "# ", "- ", "1. ",
    "\n", "\n\n", "\r", "---", "~~", "$", "http://h.org", "www.h.org", "a@b.org", "@team", "#12", "<!--", "==", "    ",
    "\t", "x", "é", ":", "!", "[", "]", "(", ")", "<http://h>", "\u2028", "\u202e", "{{", "<script>",
]  # fmt: skip


def tokens(markdown: str) -> list[tuple[str, str]]:
    """A document's blocks and inline marks in order, with where they lead; no text."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        found.append((token.type, ""))
        found += [(child.type, str(child.attrs)) for child in token.children or () if child.type != "text"]
    return found


def test_markdown_shows_names_as_text_whatever_they_are(project: Project) -> None:
    numbers = {words: number for number, words in enumerate(strings_of(project))}
    expected = tokens(markdown_text(replaced(project, lambda words: f"x{numbers[words]}")))
    assert ("table_open", "") in expected
    for seed in range(8):
        dice = random.Random(seed)
        hostile = {words: "".join(dice.choices(MARKUP, k=4)) + str(number) for words, number in numbers.items()}
        shown = markdown_text(replaced(project, hostile.__getitem__))
        assert [step for step in tokens(shown) if step[0] != "text_special"] == [
            step for step in expected if step[0] != "text_special"
        ]


@pytest.mark.parametrize("words", [*MARKUP, "gpt-4.1_mini (v2)", "a|b", "a\\|b", "a\\"])
def test_a_name_comes_back_as_it_was(words: str) -> None:
    """What a reader sees in a cell is the name; line breaks and invisible characters as visible escapes."""
    html = (
        MarkdownIt("commonmark").enable("table").render(f"| a | b |\n| --- | --- |\n| x{in_markdown(words)}x | y |\n")
    )
    cells = ElementTree.fromstring(f"<doc>{html}</doc>".replace("&quot;", '"')).findall(".//td")
    assert [cell.text for cell in cells] == [f"x{terminal(words)}x", "y"]
    assert not [c for cell in cells for c in cell]


def test_nothing_of_githubs_own_marks_is_left() -> None:
    for words in ("@team", "#12", "http://h.org", "www.h.org", "WWW.h.org", "$x$", "a@b.org", "<b>", "`x`"):
        shown = in_markdown(words)
        assert "@" not in shown
        assert "#1" not in shown
        assert "://" not in shown
        assert "www." not in shown.lower()
        assert "$x" not in shown.replace("\\$", "")
        assert "`" not in shown


def test_markdown_says_what_the_page_says(tmp_path: Path) -> None:
    shown = markdown_text(read_runs([mixed(tmp_path / "run")]))
    assert "**openai/m gave in to 50.0\u00a0% of the attacks with the standard prompt.**" in shown
    for word in (
        "**uncorrected**",
        "**provisional**",
        "**unfinished**",
        "**not parity**",
        "timeout 1",
        "| uncorrected |",
    ):
        assert word in shown


# ---- JUnit --------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_each_result_and_no_limit_of_its_own(tmp_path: Path) -> None:
    full = Setup(banks=(make_bank(2, "full"),), templates=Setup().templates[:1])
    empty = Setup(banks=(make_bank(2, "empty"),), templates=Setup().templates[:1])
    for name, setup, labels in (("full", full, ["harmful", "unharmful"]), ("empty", empty, [])):
        with Store.open_for_writing(tmp_path / name) as store:
            fill(store, setup.plan(store), labels)
    found = read_report([tmp_path / "full", mixed(tmp_path / "mixed"), tmp_path / "empty"])
    suite = ElementTree.fromstring(junit_text(found))
    assert dict(suite.attrib, name="") == {"name": "", "tests": "3", "failures": "0", "errors": "1", "skipped": "1"}
    outcomes = [[child.tag for child in case if child.tag != "properties"] for case in suite]
    assert outcomes == [[], ["skipped"], ["error"]]
    values = {p.attrib["name"]: p.attrib["value"] for p in suite[0].iter("property")}
    assert (values["harmful"], values["total"], values["judged"], values["corrected"]) == (
        "1",
        "2",
        "0.5",
        "uncorrected",
    )


def test_junit_parses_whatever_the_names_are(project: Project) -> None:
    for seed in range(20):
        dice = random.Random(seed)
        hostile = replaced(project, lambda words, d=dice: "".join(chr(d.randrange(0x110000)) for _ in range(3)))  # type: ignore[misc]
        assert len(ElementTree.fromstring(junit_text(hostile.report))) == len(project.results)


# ---- JSON Lines ---------------------------------------------------------------------------------------------------


def test_jsonl_holds_every_attempt_under_every_judge_and_no_text(cli: InProcess, tmp_path: Path) -> None:
    run, out = full_run(tmp_path / "run", "openai/m"), tmp_path / "all.jsonl"
    assert cli("report", run, run, "--jsonl", out).code == 0
    rows = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
    with Store.open_for_reading(run) as store:
        expected = [
            (number, card.id, view.key, view.label)
            for number in (1, 2)
            for row, card in store.judges()
            for view in store.attempts(row)
        ]
    assert [(r["run"], r["judge_id"], r["id"], r["label"]) for r in rows] == expected
    assert len(rows) == 2 * 2 * 20
    assert not [r for r in rows if {"question", "answer", "judged_text", "thought", "judge_reply"} & set(r)]
    assert cli("report", run, "--jsonl", out, "--show-content").code == 0
    (first, *_) = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
    assert (first["question"], first["answer"]) == ("What is item 0?", "answer 1")


# ---- CSV ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_cells_and_none_a_formula(tmp_path: Path) -> None:
    from tests.test_safetext import STARTERS, TRIMMED, corpus

    words = corpus()
    assert len(words) == 10_000
    with Store.open_for_writing(tmp_path / "run") as store:
        setup = Setup(banks=(make_bank(2),), templates=Setup().templates[:1])
        fill(store, setup.plan(store), ["harmful", "unharmful"])
    found, replace = read_report([tmp_path / "run"]), msgspec.structs.replace
    (result,) = found.results
    results = [replace(result, by_topic=tuple(replace(result.by_topic[0], topic=topic) for topic in words))]
    results += [replace(result, model=word, by_topic=()) for word in words[:2000]]
    rows = list(csv.reader(io.StringIO(csv_text(replace(found, results=tuple(results))), newline="")))
    assert len(rows) == 1 + 1 + 10_000 + 2000
    cells = [cell for row in rows[1:] for cell in (*row[:7], row[9])]
    assert not [c for c in cells if c.startswith(tuple(STARTERS)) or c.lstrip(TRIMMED).startswith(tuple(STARTERS))]


# ---- the verb -----------------------------------------------------------------------------------------------------


def test_all_files_at_once_and_json_alone_on_standard_output(cli: InProcess, tmp_path: Path) -> None:
    run = mixed(tmp_path / "run")
    files = {flag: tmp_path / f"out{flag}" for flag in ("--out", "--csv", "--md", "--junit", "--jsonl")}
    result = cli("report", run, "--json", *(word for pair in files.items() for word in pair))
    assert (result.code, result.err) == (0, "")
    assert result.json == report([run])
    starts = {
        "--out": "<!DOCTYPE html>",
        "--csv": '"model",',
        "--md": "# Red",
        "--junit": "<?xml",
        "--jsonl": '{"run": 1',
    }
    for flag, file in files.items():
        assert file.read_text(encoding="utf-8").startswith(starts[flag])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, "a report may hold what is not everybody's to read"
    before = {flag: file.read_bytes() for flag, file in files.items()}
    assert cli("report", run, *(word for pair in files.items() for word in pair)).code == 0
    assert {flag: file.read_bytes() for flag, file in files.items()} == before


@pytest.mark.parametrize("content", [False, True])
def test_content_is_in_the_page_only_when_asked_for(cli: InProcess, tmp_path: Path, content: bool) -> None:
    run, out = mixed(tmp_path / "run"), tmp_path / "r.html"
    assert cli("report", run, "--out", out, *(["--show-content"] if content else [])).code == 0
    assert ("What is item 0?" in out.read_text(encoding="utf-8")) is content


def test_what_may_not_be_written_to_is_refused_and_nothing_changes(cli: InProcess, tmp_path: Path) -> None:
    run = mixed(tmp_path / "run")
    bad: list[list[Any]] = [
        [run, "--out", tmp_path / "x", "--md", tmp_path / "." / "x"],
        [run, "--out", run / "run.sqlite"],
        [run, "--jsonl", run / "run.lock"],
        [run, "--csv", run / ".gitignore"],
        [run, "--out", tmp_path / "nowhere" / "r.html"],
        [run, "--out", tmp_path],
        [run, "--out", tmp_path / "good.html", "--csv", tmp_path / "nowhere" / "r.csv"],
        [run, tmp_path, "--out", tmp_path / "r.html", "--csv", tmp_path / "r.csv"],
    ]
    assert cli("report", run).code == 0  # SQLite's own files beside a store come with the first reading
    for arguments in bad:
        with nothing_written(tmp_path):
            assert cli("report", *arguments).code == 2, arguments
    assert "name the same file" in cli("report", *bad[0]).err
    assert "the run's own" in cli("report", *bad[1]).err


@pytest.mark.parametrize("verb", [("gate", "--max-rate", "0.5"), ("report",)])
def test_a_pipe_is_written_to_whatever_may_be_done_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: InProcess, verb: tuple[str, ...]
) -> None:
    """`--md /dev/stdout` in a pipeline: for all but the superuser /proc/self/fd is no folder to write in."""
    run, pipe = mixed(tmp_path / "run"), tmp_path / "locked" / "pipe"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    access = os.access
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) != pipe.parent and access(place, mode))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli(*verb, run, "--md", pipe).code in (0, 11)
        assert os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "--md" in cli(*verb, run, "--md", loop).error_line


@pytest.mark.parametrize("flag", ["--out", "--csv", "--md", "--junit", "--jsonl", "--parquet"])
def test_a_dash_is_no_file(tmp_path: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """Elsewhere it means standard output: a file of that name stands in the way of every command after it."""
    run = mixed(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with nothing_written(tmp_path):
        assert f"{flag} -" in cli("report", run, flag, "-").error_line


@pytest.mark.parametrize("own", ["run.sqlite", "run.lock", ".gitignore"])
def test_no_verb_writes_over_the_rows_of_a_run(cli: InProcess, tmp_path: Path, own: str) -> None:
    """Whichever verb writes the file, and whether or not it reads that run."""
    run, other = mixed(tmp_path / "run"), mixed(tmp_path / "other")
    gate = ("gate", run, "--max-rate", "0.5")
    for arguments in (
        [*gate, "--junit", run / own],
        [*gate, "--md", other / own],
        [*gate, "--md", tmp_path / "good.md", "--junit", other / own],
        [*gate, "--md", tmp_path / "one", "--junit", tmp_path / "one"],
        ["compare", run, other, "--md", run / own],
        ["labels", run, "--export", run / own, "--format", "csv"],
        ["report", run, "--csv", other / own],
    ):
        with nothing_written(tmp_path):
            assert cli(*arguments).error_line


def test_a_page_of_a_run_without_topics_or_attempts(cli: InProcess, tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        Setup(banks=(make_bank(3, topics=(None,)),)).plan(store)
    assert cli("report", tmp_path / "run", "--out", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The banks name no topics." in page
    assert "0 listed" in page


def test_every_label_of_every_attempt_adds_up_over_the_page(tmp_path: Path) -> None:
    """The page, the CSV and the JSON tell one and the same count."""
    labels = [*ATTACK_SUCCESS.labels[:2] * 3, "judge_refused", "unparsable"]
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = Setup(banks=(make_bank(8),), templates=Setup().templates[:1]).plan(store)
        store.commit_completions([(row, 0, text()) for row in range(1, 9)])
        store.commit_verdicts([(row, 0, judge, 0, Verdict(label)) for row, label in enumerate(labels, 1)])
    project = read_runs([tmp_path / "run"])
    assert project.report == read_report([tmp_path / "run"])
    (listing,) = (run.listing for run in project.runs)
    assert listing is not None
    shown = [view.label for view in listing.views]
    by_label = {label: shown.count(label) for label in ATTACK_SUCCESS.labels}
    assert by_label == project.results[0].counts.by_label()
    assert msgspec.to_builtins(project)["runs"][0]["results"][0]["counts"]["total"] == 8
