"""Banks in little memory, and banks that a run holds already: told by their hash, and not read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from redinstruct.banks import resolve_bank
from redinstruct.questions import read_bank
from redinstruct.questions.packed import Packing, Questions, Unread
from redinstruct.redeval import EvalSettings, Plan, evaluate, narrowing, prepare
from redinstruct.run import is_run
from redinstruct.run.rows import (
    CLEAR_COMPLETION,
    CLEAR_QUESTION,
    CLEAR_VERDICT,
    INSERT_COMPLETION,
    INSERT_QUESTION,
    INSERT_VERDICT,
)
from redinstruct.types import Bank, Message, Question


def of_rows() -> tuple[Questions, tuple[Question, ...]]:
    packing, rows = Packing("h"), []
    for row, text in enumerate(("What is rain?", "Straße é 雨", "", "What is snow?")):
        earlier = (Message("user", "Hello."),) if row == 1 else ()
        packing.add(text, ("water", None, None if row else "en"), earlier)
        rows.append(Question(f"h:{row}", text, row, "water", None, None if row else "en", None, earlier))
    return Questions(packing), tuple(rows)


def test_a_packed_bank_is_the_sequence_of_its_questions() -> None:
    questions, rows = of_rows()
    assert tuple(questions) == rows
    assert questions == rows
    assert questions != rows[:3]
    assert questions[1:3] == rows[1:3]
    assert questions[-1] == rows[-1]
    assert questions.taken([3, 0]) == (rows[3], rows[0])
    halves = questions.labelled(["safe", None, "unsafe", None])
    assert [question.label for question in halves.taken([2, 1])] == ["unsafe", None]
    assert [question.label for question in questions.labelled("safe")] == ["safe"] * 4
    assert questions != "What is rain?"
    assert questions != 4
    assert {questions: "found"}[of_rows()[0]] == "found"
    assert repr(questions) == "Questions(4 of bank h)"


def test_unread_questions_are_read_once_and_only_where_one_is_asked_for() -> None:
    rows, read = of_rows()[1], list[int]()

    def reader() -> tuple[Question, ...]:
        read.append(1)
        return rows

    unread = Unread(len(rows), reader)
    assert len(unread) == 4
    assert not read
    assert unread[1] == rows[1]
    assert unread[1:3] == rows[1:3]
    assert tuple(unread) == rows
    assert read == [1]


def test_lines_that_are_not_as_nearly_all_are_read_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "bank.jsonl"
    lines = [json.dumps({"question": f"What is item {i}?", "topic": f"t{i % 3}"}) for i in range(7)]
    lines[3] = f"  {lines[3]}\t"
    for ends in ("\n", "\r\n", "\r"):
        file.write_bytes(ends.join(lines).encode())
        bank = read_bank(file)
        assert [(q.text, q.topic, q.row) for q in bank.questions] == [
            (f"What is item {i}?", f"t{i % 3}", i) for i in range(7)
        ]


def test_a_run_that_stands_goes_on_without_its_bank_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, run = tmp_path / "bank.jsonl", tmp_path / "run"
    file.write_text("".join(json.dumps({"question": f"What is item {i}?"}) + "\n" for i in range(5)))

    def plan(limit: int | None = None) -> Plan:
        asked = EvalSettings(model="scripted/weak", banks=(file,), judge="refusal", prompts=("standard",), limit=limit)
        return prepare(asked, run=run)

    assert evaluate(plan(), run).complete
    assert is_run(run)
    read: list[str] = []

    def counted(spec: str, columns: Mapping[str, str] | None = None) -> Bank:
        read.append(spec)
        return resolve_bank(spec, columns)

    monkeypatch.setattr(narrowing, "resolve_bank", counted)
    again = plan()
    assert evaluate(again, run).calls == 0
    assert again.total == 5
    assert read == []
    assert [q.text for q in again.questions[0]] == [f"What is item {i}?" for i in range(5)]
    plan(limit=3)
    assert len(read) == 2
    file.write_text(file.read_text() + json.dumps({"question": "One more?"}) + "\n")
    assert plan().total == 6


@pytest.mark.parametrize(
    ("statement", "clear"),
    [(INSERT_QUESTION, CLEAR_QUESTION), (INSERT_COMPLETION, CLEAR_COMPLETION), (INSERT_VERDICT, CLEAR_VERDICT)],
)
def test_an_insert_into_a_run_in_clear_names_the_same_columns_without_a_call(statement: str, clear: str) -> None:
    assert "seal(" in statement
    assert "seal" not in clear
    columns = statement.partition("(")[2].partition(")")[0].count(",") + 1
    assert [f"?{at}" in clear for at in range(1, columns + 1)] == [True] * columns
