"""Attempts planned in columns are the attempts that they are one by one: their keys, questions and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.questions.packed import Packing, Questions, columns_of
from redinstruct.run import Store
from redinstruct.run.config import AttemptKeys, attempt_key
from redinstruct.run.lots import Lot, in_lots
from redinstruct.types import Attempt, Bank, Message, Question
from tests.support.stores import Setup, make_bank

TEXTS = st.text(alphabet='"\\,[] aé\u2028\x7f\n\0\U0001f600\ud800', max_size=6)


@given(st.lists(TEXTS, min_size=1, max_size=6), st.sampled_from(["", "Be kind.", "\ud800"]), st.booleans())
def test_a_key_is_the_same_by_columns_and_by_itself(texts: Sequence[str], system: str, turns: bool) -> None:
    earlier = (Message("user", "Hello."),) if turns else ()
    questions = [
        Question(f"h:{row}", text, row, earlier=earlier if row % 2 else ()) for row, text in enumerate(texts, 3)
    ]
    setup = Setup()
    config = msgspec.structs.replace(setup.config, system=system or None)
    template = setup.templates[0]
    found = AttemptKeys(config, template, 2).keys(columns_of(questions))
    assert found == [attempt_key(config, question, template, 2) for question in questions]


def packed(count: int, odd: str = "") -> Questions:
    """Questions as a bank of lines makes them; the names vary where ``odd`` says so, as does what stands before."""
    packing = Packing("h")
    for row in range(count):
        subtopic = f"s{row % 5}" if odd == "names" else None
        earlier = (Message("user", "Hello."),) if odd == "turns" and row == 7 else ()
        text = f"Straße \U0010f8d8 {row}" if odd == "letters" and row % 50 == 3 else f"What is item {row}?"
        packing.add(text, (f"t{row % 3}", subtopic, "en"), earlier)
    return Questions(packing).labelled(["safe", "unsafe"] * (count // 2) if odd == "halves" else None)


@pytest.mark.parametrize("odd", ["", "names", "turns", "letters", "halves"])
def test_columns_are_those_of_the_questions_one_by_one(odd: str) -> None:
    questions = packed(20, odd)
    for some in (questions, questions[4:9], questions.taken([3, 7, 8, 19]), questions[9:4], questions[::3]):
        assert [list(c) for c in columns_of(some)[1:-1]] == [list(c) for c in columns_of(tuple(some))[1:-1]]
        assert columns_of(some).earlier == columns_of(tuple(some)).earlier


@pytest.mark.parametrize("odd", ["", "names", "turns", "letters", "halves"])
def test_hundreds_of_questions_are_stored_as_each_by_itself(tmp_path: Path, odd: str) -> None:
    """Some in a statement for a hundred, the rest by themselves; then more of the bank, and the same once more."""
    questions = packed(330, odd)
    bank = Bank("bank", "h", questions)
    small, whole = (Setup(banks=(bank,), limit=limit, epochs=epochs) for limit, epochs in ((150, 1), (None, 2)))
    with Store.open_for_writing(tmp_path / "run") as store:
        for setup in (small, whole):
            lots = list(_packed_lots(setup, questions[: setup.limit]))
            judge = store.plan(setup.config, setup.banks, setup.templates, lots, setup.card)
        owed = store.owed(judge)
        numbers = store.db.execute("SELECT id, row FROM questions ORDER BY id").fetchall()
    assert numbers == [(row + 1, row) for row in range(330)]
    expected = {one.key: one for one in whole.attempts}
    assert {one.attempt.key: one.attempt for one in owed} == expected
    assert [one.row for one in owed] == list(range(1, len(expected) + 1))


def _packed_lots(setup: Setup, questions: Questions) -> list[Lot]:
    made = []
    for epoch in range(1, setup.epochs + 1):
        for template in setup.templates:
            for start in range(0, len(questions), 130):
                columns = columns_of(questions[start : start + 130])
                made.append(
                    Lot(columns, template.sha256, epoch, AttemptKeys(setup.config, template, epoch).keys(columns))
                )
    return made


def test_attempts_one_by_one_come_in_lots_of_one_bank_prompt_and_epoch() -> None:
    setup = Setup(banks=(make_bank(7), make_bank(2, "other")), epochs=2)
    lots = list(in_lots(setup.attempts, 3))
    assert [len(lot.keys) for lot in lots] == [3, 3, 1, 2] * (len(setup.attempts) // 9)
    assert [key for lot in lots for key in lot.keys] == [one.key for one in setup.attempts]
    mixed: list[Attempt | Lot] = [setup.attempts[0], lots[1], setup.attempts[1]]
    assert [lot.keys for lot in in_lots(mixed, 3)] == [[setup.attempts[0].key], lots[1].keys, [setup.attempts[1].key]]
