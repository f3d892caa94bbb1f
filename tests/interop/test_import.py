"""Import: answers collected elsewhere become an ordinary run, with honest intervals, or nothing is written."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from redinstruct.interop import ImportSettings, import_file
from redinstruct.run import AnnotationStore, AttemptView, Store
from redinstruct.stats import corrected, wilson
from redinstruct.types import Annotation
from tests.support.cli import InProcess, here, nothing_written, tree

Row = Mapping[str, object]


def write_csv(path: Path, rows: Iterable[Row]) -> Path:
    """A CSV file of the rows, its columns those of the first."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


def write_jsonl(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(folder: Path) -> list[AttemptView]:
    """What the run recorded, under its first judge."""
    with Store.open_for_reading(folder) as store:
        return list(store.attempts(store.judges()[0][0]))


def people(folder: Path) -> dict[int, Annotation]:
    """The labels that people settled on, by the row of the question."""
    with Store.open_for_reading(folder) as store:
        settled = AnnotationStore(store).settled()
        return {
            v.question.row: settled[bytes.fromhex(v.key)] for v in rows_of(folder) if bytes.fromhex(v.key) in settled
        }


def result(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one result of ``report --json``."""
    (found,) = InProcess(capsys)("report", folder, "--json").json["results"]
    assert isinstance(found, dict)
    return found


ROWS: list[Row] = [
    {"prompt": "What is blue?", "response": "A colour.", "judge": "Harmful", "human": "unharmful", "cluster": "sky"},
    {"prompt": "What is blue?", "response": "A hue.", "judge": "unharmful", "human": "", "cluster": "sky"},
    {"prompt": "What is green?", "response": " ", "judge": "harmful", "human": "harmful", "cluster": "grass"},
    {"prompt": "What is red?", "response": "=1+2", "judge": "", "human": "HARMFUL", "cluster": ""},
    {"prompt": "What is white?", "response": "Snow.", "judge": "judge_refused", "human": "", "cluster": "sky"},
]


@pytest.mark.parametrize("write", [write_csv, write_json, write_jsonl])
def test_a_table_becomes_a_run(tmp_path: Path, write: Any) -> None:
    file = write(tmp_path / "answers.any", ROWS)
    done = import_file(file, tmp_path / "run", ImportSettings(model="mine", annotator="ann"))
    assert (done.new, done.answers, done.blank, done.unlabelled, done.human, done.set_aside) == (True, 5, 1, 1, 2, 1)
    seen = rows_of(tmp_path / "run")
    assert [(v.question.text, v.question.topic, v.label, v.reason) for v in seen] == [
        ("What is blue?", "sky", "harmful", None),
        ("What is blue?", "sky", "unharmful", None),
        ("What is green?", "grass", "no_response", "empty"),
        ("What is red?", None, "unparsable", "no_label"),
        ("What is white?", "sky", "judge_refused", "imported"),
    ]
    assert [v.completion.raw for v in seen] == [row["response"] for row in ROWS]
    assert {(v.completion.tokens_in, v.completion.tokens_out, v.completion.tries) for v in seen} == {(0, 0, 0)}
    assert people(tmp_path / "run") == {
        0: Annotation("ann", "label", "unharmful", None, "import"),
        3: Annotation("ann", "label", "harmful", None, "import"),
    }


def test_every_verb_that_reads_a_run_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, folder = InProcess(capsys), tmp_path / "run"
    imported = cli("import", write_csv(tmp_path / "a.csv", ROWS), "--run", folder, "--json")
    assert imported.code == 0
    (found,) = imported.json["results"]
    assert (found["model"], found["bank"], found["prompt"], found["judge"]) == (
        "imported/a",
        "a",
        "imported",
        "imported",
    )
    assert found["counts"] == {
        "total": 5, "harmful": 1, "unharmful": 1, "no_response": 1, "judge_refused": 1, "unparsable": 1, "error": 0,
    }  # fmt: skip
    assert found["rate"]["judged"] == {"estimate": 0.5, "ci": [wilson(1, 2).low, wilson(1, 2).high], "method": "wilson"}
    assert not found["parity"]
    assert found["rate"]["all"]["ci"] == [wilson(1, 5).low, wilson(1, 5).high]
    assert found["human"]["labels"] == 1
    assert {part["topic"] for part in found["by_topic"]} == {"sky", "grass", None}
    assert cli("show", folder).code == 0
    assert cli("gate", folder, "--max-rate", 0.1).code == 11
    judged = cli("judge", folder, "--judge", "refusal", "--json").json["results"]
    assert [r["judge"] for r in judged] == ["imported", "refusal"]
    assert judged[1]["counts"]["total"] == 5
    assert judged[1]["human"]["labels"] == 2


def test_the_same_import_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, folder = InProcess(capsys), tmp_path / "run"
    file = write_csv(tmp_path / "a.csv", ROWS)
    assert cli("import", file, "--run", folder).code == 0
    with nothing_written(tmp_path):
        again = cli("import", file, "--run", folder)
    assert (again.code, "were already in" in again.err) == (0, True)


@pytest.mark.parametrize(
    "flags",
    [["--model", "other"], ["--annotator", "other"], ["--column", "cluster=prompt"], ["--measure", "over_refusal"]],
)
def test_the_same_file_otherwise_is_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    cli, folder = InProcess(capsys), tmp_path / "run"
    file = write_csv(tmp_path / "a.csv", ROWS)
    assert cli("import", file, "--run", folder).code == 0
    with nothing_written(tmp_path):
        assert cli("import", file, "--run", folder, *flags).error_line


def test_another_file_or_another_kind_of_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, folder = InProcess(capsys), tmp_path / "run"
    assert cli("import", write_csv(tmp_path / "a.csv", ROWS), "--run", folder).code == 0
    other = write_csv(tmp_path / "b.csv", ROWS[:3])
    (tmp_path / "bank.json").write_text('["What is blue?"]')
    evaluated = ["--model", "scripted/weak", "--bank", tmp_path / "bank.json", "--judge", "refusal", "--run"]
    assert cli("eval", *evaluated, tmp_path / "own").code == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with nothing_written(tmp_path):
        assert "another file" in cli("import", other, "--run", folder).error_line
        assert "another file" in cli("import", other, "--run", tmp_path / "own").error_line
        assert "other files" in cli("import", other, "--run", tmp_path / "full").error_line
        assert "another configuration" in cli("eval", *evaluated, folder).error_line


def test_an_empty_folder_can_become_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    assert InProcess(capsys)("import", write_csv(tmp_path / "a.csv", ROWS), "--run", tmp_path / "run").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "run"}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / "run.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("cell", "label", "detail"),
    [
        ("refused", "refused", "refused"),
        (" COMPLIED ", "complied", "complied"),
        ("Partial", "refused", "partial"),
        ("1_full_compliance", "complied", "complied"),
        ("2_full_refusal", "refused", "refused"),
        ("3_partial_refusal", "refused", "partial"),
        ("unparsable", "unparsable", None),
        ("error", "error", None),
        ("no_response", "no_response", None),
    ],
)
def test_the_labels_of_over_refusal(tmp_path: Path, cell: str, label: str, detail: str | None) -> None:
    file = write_csv(tmp_path / "a.csv", [{"prompt": "What is blue?", "response": "A colour.", "judge": cell}])
    import_file(file, tmp_path / "run", ImportSettings(measure="over_refusal"))
    (seen,) = rows_of(tmp_path / "run")
    assert (seen.label, seen.detail) == (label, detail)


def test_an_empty_answer_is_no_response_or_the_error_that_the_file_tells(tmp_path: Path) -> None:
    cells = ["harmful", "error", "", "CantAnnotate", "responseNA"]
    rows = [{"prompt": "What is blue?", "response": "", "gpt4_annotation": cell} for cell in cells]
    import_file(write_csv(tmp_path / "a.csv", rows), tmp_path / "run")
    assert [v.label for v in rows_of(tmp_path / "run")] == ["no_response", "error", *["no_response"] * 3]
    full = [
        {**row, "completion": "A colour."} for row in ({k: v for k, v in r.items() if k != "response"} for r in rows)
    ]
    import_file(write_csv(tmp_path / "b.csv", full), tmp_path / "other")
    expected = ["harmful", "error", "unparsable", "unparsable", "no_response"]
    assert [v.label for v in rows_of(tmp_path / "other")] == expected


def test_with_people_s_labels_only_they_are_the_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"What is {i}?", "response": "A number.", "human": ["harmful", "unharmful", ""][i % 3]}
        for i in range(30)
    ]
    import_file(write_csv(tmp_path / "a.csv", rows), tmp_path / "run")
    found = result(tmp_path / "run", capsys)
    assert (found["planned"], found["counts"]["total"], found["counts"]["harmful"]) == (30, 20, 10)
    assert found["judge_card"]["parameters"]["labels"] == "people"
    judged = InProcess(capsys)("judge", tmp_path / "run", "--judge", "refusal", "--json").json["results"][-1]
    assert (judged["counts"]["total"], judged["rate"]["corrected"]["labels"]) == (30, 20)


def test_without_labels_it_is_ready_to_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, folder = InProcess(capsys), tmp_path / "run"
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"What is {i}?", "response": "A number."} for i in range(9)])
    done = cli("import", file, "--run", folder)
    assert (done.code, done.out, "holds no labels" in done.err) == (0, "", True)
    assert cli("gate", folder, "--max-rate", 0.5).code == 11
    judged = cli("judge", folder, "--judge", "refusal", "--json").json["results"]
    assert [r["counts"]["total"] for r in judged] == [9]


def test_several_people_by_a_column(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {i}?", "response": "A number.", "judge": "harmful", "human": "harmful", "annotator": who}
        for i, who in enumerate(["ann", "bob", ""])
    ]
    import_file(write_csv(tmp_path / "a.csv", rows), tmp_path / "run")
    assert [a.annotator for a in people(tmp_path / "run").values()] == ["ann", "bob", "imported"]


@pytest.mark.parametrize("models", [["m-1", "m-2"], ["m-1", "m-1"], ["", "m-1"]])
def test_answers_of_several_models_in_one_table_are_said_to_be(tmp_path: Path, models: list[str]) -> None:
    rows: list[Row] = [
        {"prompt": f"What is {n}?", "response": "A thing.", "model": name} for n, name in enumerate(models)
    ]
    done = import_file(write_csv(tmp_path / "answers.csv", rows), tmp_path / "run")
    several = "the column model names 2 (m-1, m-2): their answers are counted together, as one's"
    assert done.source.notes == ((several,) if models == ["m-1", "m-2"] else ())


def test_columns_of_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_csv(tmp_path / "a.csv", [{"Q": "What is blue?", "A": "A colour.", "verdict": "harmful", "x": "sky"}])
    flags = [f for role in ("prompt=q", "response=A", "judge=Verdict", "cluster=x") for f in ("--column", role)]
    assert InProcess(capsys)("import", file, "--run", tmp_path / "run", *flags).code == 0
    (seen,) = rows_of(tmp_path / "run")
    assert (seen.question.text, seen.completion.raw, seen.label, seen.question.topic) == (
        "What is blue?", "A colour.", "harmful", "sky",
    )  # fmt: skip


# ---- XSTest: one command to import, one to the corrected rate ----


def xstest_shaped(path: Path, prompts: list[Row], seed: int) -> tuple[Path, list[tuple[bool, bool, bool]]]:
    """The prompts with inert answers, simulated labels, and what they are: (judge, human, labelled) of the safe rows.

    One answer in three is refused; the judge errs on one in ten; a person labelled 100 safe rows drawn at random.
    """
    chance = random.Random(seed)
    safe = [i for i, row in enumerate(prompts) if row["label"] == "safe"]
    drawn = set(chance.sample(safe, 100))
    truth, rows = [], []
    for i, row in enumerate(prompts):
        human = chance.random() < 1 / 3
        judge = human != (chance.random() < 1 / 10)
        said = "refused" if human else "complied"
        rows.append(
            {
                **row,
                "response": f"Inert answer {i}.",
                "judge": "refused" if judge else "complied",
                "human": said if i in drawn else "",
            }
        )
        if row["label"] == "safe":
            truth.append((judge, human, i in drawn))
    return write_csv(path, rows), truth


def check_corrected(cli: Any, folder: Path, file: Path, truth: list[tuple[bool, bool, bool]]) -> None:
    """The two commands, and what they must say."""
    imported = cli("import", file, "--run", folder, "--measure", "over_refusal")
    assert imported.code == 0, imported.err
    (found,) = cli("report", folder, "--json").json["results"]
    assert found["counts"]["total"] == found["planned"] == len(truth) == 250
    expected = corrected(
        [judge for judge, _, _ in truth], {i: human for i, (_, human, known) in enumerate(truth) if known}
    )
    assert found["rate"]["corrected"] == {
        "estimate": expected.estimate, "ci": [expected.low, expected.high], "method": expected.method, "labels": 100,
    }  # fmt: skip
    assert found["rate"]["judged"]["estimate"] == sum(judge for judge, _, _ in truth) / 250
    assert expected.low <= sum(human for _, human, _ in truth) / 250 <= expected.high
    with Store.open_for_reading(folder) as store:
        settled = {key: a.label == "refused" for key, a in AnnotationStore(store).settled().items()}
        judged = [(bytes.fromhex(v.key), v.label == "refused") for v in store.attempts(store.judges()[0][0])]
    by_hand = corrected(
        [label for _, label in judged], {i: settled[k] for i, (k, _) in enumerate(judged) if k in settled}
    )
    assert by_hand == expected


def test_an_xstest_shaped_file_to_the_corrected_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"type": "homonyms", "focus": "", "note": ""}
    prompts: list[Row] = [
        {"id": i, "prompt": f"What is {i}?", **shape, "label": "safe" if i < 250 else "unsafe"} for i in range(450)
    ]
    file, truth = xstest_shaped(tmp_path / "answers.csv", prompts, seed=20230818)
    check_corrected(InProcess(capsys), tmp_path / "run", file, truth)


@pytest.mark.data
def test_the_real_xstest_prompts_to_the_corrected_rate(tmp_path: Path, shared_data: Path) -> None:
    with (shared_data / "xstest_prompts.csv").open(newline="", encoding="utf-8") as source:
        prompts: list[Row] = list(csv.DictReader(source))
    file, truth = xstest_shaped(tmp_path / "answers.csv", prompts, seed=20230818)
    check_corrected(here, tmp_path / "run", file, truth)
    assert (
        sum(
            part["counts"]["total"]
            for part in here("report", tmp_path / "run", "--json").json["results"][0]["by_topic"]
        )
        == 250
    )
    assert tree(tmp_path / "run").keys() <= {".gitignore", "run.lock", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm"}


def test_two_models_answers_to_the_same_questions_can_be_compared(tmp_path: Path) -> None:
    head = "prompt,response,judge,cluster\n"
    for name, label in (("before", "harmful"), ("after", "unharmful")):
        rows = "".join(f"What is item {n}?,Answer {n} of {name}.,{label},topic {n % 8}\n" for n in range(80))
        (tmp_path / f"{name}.csv").write_text(head + rows)
        assert here("import", tmp_path / f"{name}.csv", "--run", tmp_path / name).code == 0
    compared = here("compare", tmp_path / "before", tmp_path / "after", "--json")
    assert compared.code == 0, compared.err
    assert [cell["verdict"] for cell in compared.json["results"]] == ["better"]
    # The same questions with other answers are another file all the same.
    again = here("import", tmp_path / "after.csv", "--run", tmp_path / "before")
    assert "another file" in again.error_line
