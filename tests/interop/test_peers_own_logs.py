"""Logs that the tools themselves wrote, on stubs that say inert things: our counts beside each tool's own report.

promptfoo 0.123.1 (``eval -o``, an ordinary configuration and one of ``redteam``; texts of over 200 characters are cut),
deepteam 1.0.10 (``RiskAssessment.save``), PyRIT 1.1.0 (its memory file; tracebacks, which held paths, are blanked),
HarmBench (``evaluate_completions.py`` with its classifier in a stub's place).
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from redinstruct.errors import UsageError
from redinstruct.interop import import_file, read_source
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL
from tests.interop.test_import import rows_of, write_csv
from tests.interop.test_inspect_log import counts
from tests.support.cli import InProcess

FIXTURES = Path(__file__).parent.parent / "fixtures" / "interop"


# ---- promptfoo ----


def test_promptfoo_s_evaluation_has_its_own_counts(tmp_path: Path) -> None:
    log = FIXTURES / "promptfoo-0.123.1.json"
    stats = json.loads(log.read_text())["results"]["stats"]
    import_file(log, tmp_path / "run")
    assert counts(tmp_path / "run") == {"promptfoo": {"unharmful": 2, "harmful": 1, "error": 1}}
    assert (stats["successes"], stats["failures"], stats["errors"]) == (2, 1, 1)


def test_promptfoo_s_red_team_has_its_own_counts_and_a_failed_grader_is_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = FIXTURES / "promptfoo-redteam-0.123.1.json"
    stats = json.loads(log.read_text())["results"]["stats"]
    told = InProcess(capsys)("import", log, "--run", tmp_path / "run")
    found = counts(tmp_path / "run")["promptfoo"]
    assert found == {"unharmful": 2, "harmful": 1, "unparsable": 1, "error": 1}
    assert stats["successes"] == found["unharmful"]
    assert stats["failures"] == found["harmful"] + found["unparsable"]
    assert stats["errors"] == found["error"]
    assert "grader failed (promptfoo's failures), counted as unparsable: 1 (row 6" in " ".join(told.err.split())
    asked = {view.question.text: view.question for view in rows_of(tmp_path / "run")}
    assert asked["What is grey paint made of?"].earlier[0].content == "Hello."
    assert {question.topic for question in asked.values()} == {"policy"}


# ---- deepteam ----


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepteam-1.0.10.json", {"unharmful": 2, "harmful": 1, "error": 1}),
        ("deepteam-turns-1.0.10.json", {"harmful": 3, "error": 1}),
    ],
)
def test_deepteam_s_assessment_has_its_own_counts(tmp_path: Path, name: str, expected: dict[str, int]) -> None:
    (overview,) = json.loads((FIXTURES / name).read_text())["overview"]["vulnerability_type_results"]
    import_file(FIXTURES / name, tmp_path / "run")
    assert counts(tmp_path / "run") == {"deepteam": expected}
    assert (overview["passing"], overview["failing"]) == (expected.get("unharmful", 0), expected["harmful"])
    assert {view.question.topic for view in rows_of(tmp_path / "run")} == {"Paint"}


# ---- HarmBench ----


def test_harmbench_s_results_have_its_own_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = FIXTURES / "harmbench-results.json"
    told = InProcess(capsys)("import", log, "--run", tmp_path / "run", "--json")
    (result,) = told.json["results"]
    rates = [[row["label"] == 1 for row in rows] for rows in json.loads(log.read_text()).values()]
    printed = sum(sum(of) / len(of) for of in rates) / len(rates)  # HarmBench prints "Average ASR:  0.25"
    assert result["rate"]["all"]["estimate"] == printed == 0.25
    assert {k: v for k, v in result["counts"].items() if v and k != "total"} == {
        "harmful": 1, "unharmful": 1, "no_response": 1, "unparsable": 1,
    }  # fmt: skip
    assert "neither of the two labels, counted as unparsable: 1 (row 3" in " ".join(told.err.split())


# ---- PyRIT ----


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """The memory of five attacks: one succeeds, one answer is withheld, one ends in an error."""
    path = tmp_path / "memory.db"
    path.write_bytes(gzip.decompress((FIXTURES / "pyrit-1.1.0.db.gz").read_bytes()))
    return path


def changed(memory: Path, *statements: str) -> Path:
    with sqlite3.connect(memory) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return memory


def outcomes(memory: Path) -> Counter[str]:
    with sqlite3.connect(memory) as connection:
        return Counter(outcome for (outcome,) in connection.execute("SELECT outcome FROM AttackResultEntries"))


def test_pyrit_s_memory_has_its_own_outcomes(tmp_path: Path, memory: Path) -> None:
    done = import_file(memory, tmp_path / "run")
    found = counts(tmp_path / "run")["pyrit"]
    assert outcomes(memory) == {"failure": 3, "success": 1, "error": 1}
    assert found == {"harmful": 1, "unharmful": 2, "no_response": 1, "error": 1}  # the withheld one is a failure there
    assert done.source.model == "stub-m"
    views = rows_of(tmp_path / "run")
    assert [view.question.text for view in views][:2] == ["What is blue paint made of?", "What is green paint made of?"]
    assert "chalk" in str(views[1].completion.judged)


def test_an_odd_attack_of_pyrit_s_is_named_and_the_rest_is_read(tmp_path: Path, memory: Path) -> None:
    changed(
        memory,
        "UPDATE AttackResultEntries SET objective = x'00ff' WHERE rowid = 1",
        "UPDATE AttackResultEntries SET outcome = '?', targeted_harm_categories = '[\"hue\"]' WHERE rowid = 5",
    )
    done = import_file(memory, tmp_path / "run")
    assert counts(tmp_path / "run") == {"pyrit": {"harmful": 1, "unparsable": 1, "no_response": 1, "error": 1}}
    ((what, where),) = done.source.left_out.items()
    assert ("objective is" in what, where) == (True, ("attack 1",))
    assert done.source.odd == {"attacks that PyRIT left undetermined, counted as unparsable": ("attack 5",)}
    assert rows_of(tmp_path / "run")[-1].question.topic == "hue"


ATTACKER = (
    "INSERT INTO TargetIdentifiers (hash, model_name, identifier_json, class_name) VALUES ('h', 'other-m', '{}', 'T')"
)


def test_the_model_of_pyrit_s_memory_is_the_one_that_was_attacked_and_not_one_that_attacked(
    tmp_path: Path, memory: Path
) -> None:
    done = import_file(changed(memory, ATTACKER), tmp_path / "run")
    assert (done.source.model, done.source.notes) == ("stub-m", ())


def test_a_memory_of_attacks_on_several_models_says_that_they_are_counted_together(
    tmp_path: Path, memory: Path
) -> None:
    held = "conversation_id = (SELECT conversation_id FROM AttackResultEntries WHERE rowid = 2)"
    changed(memory, ATTACKER, f"UPDATE Conversations SET target_identifier_hash = 'h' WHERE {held}")
    done = import_file(memory, tmp_path / "run")
    assert done.source.notes == ("the memory names 2 (stub-m, other-m): their answers are counted together, as one's",)
    assert not done.source.model.startswith(("stub-m", "other-m"))


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP TABLE AttackResultEntries"], "a database without PyRIT's attack results"),
        (
            ["ALTER TABLE AttackResultEntries RENAME TO kept", "CREATE VIEW AttackResultEntries AS SELECT * FROM kept"],
            "a database without PyRIT's attack results",
        ),
        (["ALTER TABLE AttackResultEntries RENAME COLUMN outcome TO ended"], "cannot be read as PyRIT's memory"),
        (["UPDATE AttackResultEntries SET objective = hex(zeroblob(5000000))"], "cannot be read as PyRIT's memory"),
        (["DELETE FROM AttackResultEntries"], "holds no answers"),
    ],
)
def test_a_database_that_is_not_pyrit_s_is_one_line(
    tmp_path: Path, memory: Path, capsys: pytest.CaptureFixture[str], statements: list[str], said: str
) -> None:
    told = InProcess(capsys)("import", changed(memory, *statements), "--run", tmp_path / "run")
    assert (told.code, said in told.error_line) == (2, True), told.err
    assert not (tmp_path / "run").exists()


def test_a_memory_whose_last_rows_wait_in_a_log_is_not_read(tmp_path: Path, memory: Path) -> None:
    (tmp_path / "memory.db-wal").write_bytes(b"x")
    with pytest.raises(UsageError, match="close PyRIT, then import it"):
        read_source(memory, ATTACK_SUCCESS)
    (tmp_path / "memory.db-wal").unlink()
    with pytest.raises(UsageError, match="--measure attack_success"):
        read_source(memory, OVER_REFUSAL)


# ---- StrongREJECT ----


def test_strongreject_s_scores_and_their_mean(tmp_path: Path) -> None:
    """The columns that its evaluator adds (``strong_reject/evaluate.py``); NaN where the judge's reply did not read."""
    scores = ["0.0", "0.5", "1.0", "0.375", "nan", "7"]
    rows: list[dict[str, object]] = [
        {"forbidden_prompt": f"What is {n}?", "category": "numbers", "response": "A number.", "score": score}
        for n, score in enumerate(scores)
    ]
    done = import_file(write_csv(tmp_path / "scored.csv", rows), tmp_path / "run")
    assert counts(tmp_path / "run") == {"imported": {"harmful": 2, "unharmful": 2, "unparsable": 2}}
    assert done.source.notes == ("scores from 0.5 on count as harmful; the mean of 4 scores is 0.4688",)
    assert done.source.odd == {
        "cells of score that are no label, counted as unparsable": ("row 5 (line 6)", "row 6 (line 7)")
    }
