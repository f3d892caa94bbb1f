"""Hostile and broken files, and an import that dies: one clear line, nothing written, nothing lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redinstruct.interop.runs as runs
from redinstruct.errors import StoreError, UsageError
from redinstruct.interop import import_file
from redinstruct.run import Store, is_run
from tests.interop.test_import import people, rows_of, write_csv, write_jsonl
from tests.support.cli import ROOT, InProcess, command, environment, nothing_written, run
from tests.support.stores import scratch

HEAD = b"prompt,response,judge,human\n"
GOOD = b"What is blue?,A colour.,harmful,\n"
ONE = b'{"prompt":"Q?","response":"A"}\n'

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "holds no answers"),
    "header only": ("a.csv", HEAD, "holds no answers"),
    "empty list": ("a.json", b"[]", "holds no answers"),
    "no prompt": ("a.csv", b"a,response\n1,2\n", "no column holds the prompt"),
    "no response": ("a.csv", b"prompt,answers\n1,2\n", "holds the response: expected one of response"),
    "unknown judge": ("a.csv", HEAD + b"Q?,A,perhaps,\n", "row 1 (line 2): judge is 'perhaps'"),
    "unknown human": ("a.csv", HEAD + GOOD + b"Q?,A,,maybe\n", "row 2 (line 3): human is 'maybe'"),
    "a person's error": ("a.csv", HEAD + b"Q?,A,,error\n", "expected one of harmful, unharmful, or nothing"),
    "other measure": ("a.csv", HEAD + b"What is red?,A colour.,refused,\n", "--measure over_refusal"),
    "long value hidden": ("a.csv", HEAD + b"Q?,A,a whole sentence of any kind,\n", "judge is '<28 characters>'"),
    "judge is a number": ("a.json", b'[{"prompt":"Q?","response":"A","judge":1}]', "row 1: judge is a number"),
    "judge is true": ("a.json", b'[{"prompt":"Q?","response":"A","judge":true}]', "row 1: judge is true or false"),
    "response is a list": ("a.json", b'[{"prompt":"Q?","response":["A"]}]', "row 1: response is a list, expected text"),
    "prompt is null": ("a.json", b'[{"prompt":null,"response":"A"}]', "row 1: prompt is missing"),
    "prompt is blank": ("a.csv", HEAD + GOOD + b" ,A,harmful,\n", "row 2 (line 3): prompt is blank"),
    "row is a text": ("a.json", b'[{"prompt":"Q?","response":"A"}, "x"]', "row 2 is a text, expected an object"),
    "ragged short": ("a.csv", HEAD + GOOD + b"a,b\n", "row 2 (line 3) has 2 fields, expected 4"),
    "ragged long": ("a.csv", HEAD + b"a,b,,,,\n", "row 1 (line 2) has 6 fields, expected 4"),
    "ragged after a long cell": ("a.csv", HEAD + b'"a\nb",c,harmful,\nd\n', "row 2 (line 4) has 1 fields"),
    "empty line": ("a.csv", HEAD + b"\n" + GOOD, "row 1 (line 2) is an empty line"),
    "open quote": ("a.csv", HEAD + b'"a,b\n', "broken CSV"),
    "NUL": ("a.csv", HEAD + b"a\0,b,harmful,\n", "line 2 holds a NUL byte"),
    "UTF-16": ("a.csv", (HEAD + GOOD).decode().encode("utf-16-le"), "NUL byte, expected UTF-8"),
    "Latin-1": ("a.csv", HEAD + b"caf\xe9,b,harmful,\n", "line 2 is not UTF-8"),
    "doubled column": ("a.csv", b"prompt,response,response\na,b,c\n", "the header holds response twice"),
    "two spellings": ("a.json", b'[{"prompt":"Q?","response":"A","Judge":"","judge":""}]', "row 1 holds judge twice"),
    "doubled key": ("a.jsonl", ONE + b'{"prompt":"Q?","response":"A","response":"B"}\n', "row 2: an object holds"),
    "broken JSON line": ("a.jsonl", ONE + b'{"prompt":\n', "row 2: broken JSON"),
    "torn last line": ("a.jsonl", ONE + b'{"prompt":"Q?","resp', "row 2: broken JSON"),
    "broken JSON": ("a.json", b'[{"prompt":"Q?",', "broken JSON at line 1"),
    "deep JSON": ("a.json", b"[" * 100_000, "nested too deep"),
    "many digits": ("a.json", b'[{"prompt":"Q?","response":"A","n":' + b"9" * 5000 + b"}]", "too many digits"),
    "no row of the measure": ("a.csv", b"prompt,response,label\nQ?,A,safe\n", "no row is labelled unsafe"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with nothing_written(tmp_path):
        line = InProcess(capsys)("import", tmp_path / name, "--run", tmp_path / "run").error_line
    assert said in line
    assert str(tmp_path / name) in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--measure", "kindness"], "unknown --measure 'kindness'"),
        (["--column", "judge"], "expected PURPOSE=NAME"),
        (["--column", "judge=nope"], "--column judge=nope: no such column, found prompt, response, judge, human"),
        (["--column", "verdict=judge"], "columns are for prompt, response, judge"),
        (["--annotator", " "], "must not be blank"),
        (["--model", ""], "must not be blank"),
    ],
)
def test_flags_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    (tmp_path / "a.csv").write_bytes(HEAD + GOOD)
    with nothing_written(tmp_path):
        assert said in InProcess(capsys)("import", tmp_path / "a.csv", "--run", tmp_path / "run", *flags).error_line


def test_no_such_file_a_folder_and_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("none.csv", "no such file"), ("", "is a folder"), ("pipe", "is not a regular file")):
        assert said in InProcess(capsys)("import", tmp_path / name, "--run", tmp_path / "run").error_line


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_line_end_and_a_byte_order_mark(tmp_path: Path, end: bytes, mark: bytes) -> None:
    lines = [b"prompt,response,judge", b"What is blue?,A colour.,harmful", b"What is red?,A hue.,unharmful", b""]
    (tmp_path / "a.csv").write_bytes(mark + end.join(lines))
    objects = [b'{"prompt":"What is blue?","response":"A colour.","judge":"harmful"}',
               b'{"prompt":"What is red?","response":"A hue.","judge":"unharmful"}', b""]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(mark + end.join(objects))
    for name in ("a.csv", "a.jsonl"):
        import_file(tmp_path / name, tmp_path / f"run-{name}")
        assert [v.label for v in rows_of(tmp_path / f"run-{name}")] == ["harmful", "unharmful"]


def test_a_huge_cell_is_an_answer_as_any_other(tmp_path: Path) -> None:
    answer = "a long inert answer, " * 200_000
    import_file(write_csv(tmp_path / "a.csv", [{"prompt": "What is blue?", "response": answer}]), tmp_path / "run")
    (seen,) = rows_of(tmp_path / "run")
    assert seen.completion.raw == answer


# What a spreadsheet, a terminal or a database might stumble over, with what any text may hold.
TEXTS = st.one_of(
    st.sampled_from(["=1+2", "+1", "@a", "\t=1", "\x1b[31m", "a\x00b", "\ud800", "\u202eb", "\r\n", '"', "\ufeff"]),
    st.text(max_size=20),
)  # fmt: skip


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(
            TEXTS.filter(lambda t: bool(t.strip())),
            st.none() | TEXTS,
            st.sampled_from(["harmful", "unharmful", "", "error", None]),
            st.sampled_from(["harmful", "unharmful", "", None]),
            st.none() | TEXTS,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_comes_back_as_it_was(rows: list[tuple[str, str | None, str | None, str | None, str | None]]) -> None:
    names = ("prompt", "response", "judge", "human", "cluster")
    with scratch() as folder:
        file = write_jsonl(folder / "a.jsonl", [dict(zip(names, row, strict=True)) for row in rows])
        import_file(file, folder / "run")
        seen, said = rows_of(folder / "run"), people(folder / "run")
        assert [v.question.text for v in seen] == [row[0].strip() for row in rows]
        assert [v.completion.raw for v in seen] == [row[1] for row in rows]
        assert [v.question.topic for v in seen] == [(row[4] or "").strip() or None for row in rows]
        for number, (_, response, judge, human, _) in enumerate(rows):
            blank = not (response or "").strip()
            expected = (judge or "unparsable") if not blank else ("error" if judge == "error" else "no_response")
            assert seen[number].label == expected
            assert (number in said) == (not blank and bool(human))
        assert not [path for path in folder.iterdir() if path.name.endswith(".importing")]


def test_what_the_terminal_shows_of_a_hostile_file_is_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\n.csv"
    rows = [{"prompt": "\x1b]0;owned\x07", "response": "\x1b[2J", "judge": "harmful", "cluster": "\x1b[31m=cmd"}]
    cli = InProcess(capsys)
    done = cli("import", write_csv(tmp_path / name, rows), "--run", tmp_path / "run", "--model", "\x1b[31mm")
    shown = cli("show", tmp_path / "run", "--show-content")
    topics = cli("report", tmp_path / "run", "--by-topic")
    for result in (done, shown, topics):
        assert result.code == 0
        assert "\x1b" not in result.out + result.err


# ---- an import that dies ----


def test_a_failure_at_every_commit_leaves_no_run_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_CHUNK", 2)
    rows = [{"prompt": f"What is {i}?", "response": "A.", "judge": "harmful", "human": "harmful"} for i in range(5)]
    file = write_csv(tmp_path / "a.csv", rows)
    begin = Store.writing
    commits = 2 + 3 + 3 + 3  # the plan, which file it was; answers, verdicts and people's labels, by twos
    for failing in range(1, commits + 2):
        left = failing

        def sometimes(self: Store, what: str, *, durable: bool = False) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise StoreError(f"the disk is full: {what} stopped")
            return begin(self, what, durable=durable)

        monkeypatch.setattr(Store, "writing", sometimes)
        if failing > commits:
            import_file(file, tmp_path / "run")
            assert left == 1, "every commit was made to fail once"
            break
        with pytest.raises(StoreError, match="disk is full"):
            import_file(file, tmp_path / "run")
        assert {path.name for path in tmp_path.iterdir()} == {"a.csv"}
    assert len(rows_of(tmp_path / "run")) == 5


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    file = write_csv(tmp_path / "a.csv", [{"prompt": "Q?", "response": "A."}])
    with nothing_written(tmp_path), pytest.raises(UsageError, match="--run"):
        import_file(file, tmp_path / "file" / "run")


def test_an_import_under_way_keeps_a_second_one_out(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", [{"prompt": "Q?", "response": "A."}])
    with Store.open_for_writing(tmp_path / ".run.importing"), pytest.raises(StoreError, match="in use"):
        import_file(file, tmp_path / "run")
    import_file(file, tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "run"}


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_no_half_run(tmp_path: Path) -> None:
    """Thirty kills, spread over the time that an import takes: the run is whole or not there, and can be made."""
    rows = [{"prompt": f"What is {i}?", "response": "A.", "judge": "harmful", "human": "harmful"} for i in range(3000)]
    file = write_csv(tmp_path / "a.csv", rows)
    script = (
        "import os, signal, sys, itertools\n"
        "from redinstruct.cli import main\n"
        "from redinstruct.run import Store\n"
        "from redinstruct.interop import runs\n"
        "runs._CHUNK = 300\n"
        "count = itertools.count(1)\n"
        "def trace(frame, event, argument):\n"
        "    if event == 'call' and frame.f_code.co_filename.endswith(('runs.py', 'database.py', 'folder.py')):\n"
        "        if next(count) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.setprofile(trace)\n"
        "sys.exit(main(['import', sys.argv[2], '--run', sys.argv[3]]))\n"
    )
    chance = random.Random(7)
    killed = 0
    for _ in range(30):
        folder = tmp_path / "run"
        at = int(10 ** chance.uniform(0, 4.3))
        done = subprocess.run(
            [sys.executable, "-c", script, str(at), str(file), str(folder)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
        )
        killed += done.returncode == -signal.SIGKILL
        if is_run(folder):
            assert len(rows_of(folder)) == len(people(folder)) == 3000
        else:
            assert done.returncode == -signal.SIGKILL, done.stderr
            again = run("import", file, "--run", folder)
            assert again.code == 0, again.err
            assert len(rows_of(folder)) == len(people(folder)) == 3000
        assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "run"}
        assert run("purge", folder, "--yes").code == 0
    assert killed > 10


@pytest.mark.slow
def test_a_hundred_thousand_answers(tmp_path: Path) -> None:
    rows = ({"prompt": f"What is {i}?", "response": f"A {i}.", "judge": "unharmful"} for i in range(100_000))
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(command("import", file, "--run", tmp_path / "run"), env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr
    with Store.open_for_reading(tmp_path / "run") as store:
        assert sum(row.count for row in store.counts(store.judges()[0][0])) == 100_000


def test_a_report_s_own_list_of_attempts_is_no_table_of_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ``prompt`` is a template's name, its ``label`` a verdict: they were read as question and half."""
    cli, bank = InProcess(capsys), tmp_path / "bank.json"
    bank.write_text('["What is blue?"]')
    asked = cli("eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", tmp_path / "run")
    assert asked.code == 0
    assert cli("report", tmp_path / "run", "--jsonl", tmp_path / "a.jsonl", "--show-content").code == 0
    with nothing_written(tmp_path):
        told = cli("import", tmp_path / "a.jsonl", "--run", tmp_path / "other")
    assert "row 1 is an attempt of a run as `report --jsonl` lists it" in told.error_line
