"""Corners of the rooms without storage that no larger test comes by: nouns, keys, thoughts, forms, banks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct import questions
from redinstruct.errors import BankError, UsageError
from redinstruct.prompts.answers import _after
from redinstruct.prompts.forms import _plain
from redinstruct.prompts.thoughts import ends_opened, is_mark
from redinstruct.questions import bank_of, read_bank
from redinstruct.safetext.secrets import Secret, forget_secrets, has_key, looks_like_key
from redinstruct.types import JudgeCard, Question, Sampled, Sampling, measure_named


def test_a_judge_whose_name_is_no_text_has_an_id() -> None:
    one, other = JudgeCard("a\udcff", "attack_success"), JudgeCard("b\udcff", "attack_success")
    assert one.id != other.id
    with pytest.raises(UsageError, match="did you mean attack_success"):
        measure_named("attack_succes")


def test_settings_take_another_sampling_whole_or_none() -> None:
    class Asked(Sampling, Sampled, frozen=True):
        model: str = "m"

    asked = Asked(max_tokens=7, seed=1)
    assert asked.with_sampling(None) is asked
    other = Sampling(temperature=0.5, stop=("x",))
    assert asked.with_sampling(other).sampling == other
    assert asked.with_sampling(other).model == "m"


def test_a_text_holds_a_key() -> None:
    assert not has_key("nothing of the kind")
    assert has_key("it is sk-0123456789abcdefghij")
    assert not looks_like_key("sk-1")
    assert looks_like_key("sk-0123456789abcdefghij")
    Secret("plainwordsecret")
    assert has_key("it is plainwordsecret.")
    forget_secrets()


def test_marks_of_thoughts() -> None:
    assert ends_opened("Answer.\n<think>\n")
    assert not ends_opened("Answer.\n<think>x</think>")
    assert not ends_opened("<think> and more")
    assert is_mark("<think>")
    assert not is_mark("word")


def test_what_stands_behind_so_many_characters() -> None:
    assert _after("ab cd ef", 3) == "d ef"
    assert _after("ab cd", 9) == ""


def test_a_row_with_a_speaker_who_is_none_has_no_plain_form() -> None:
    assert _plain({"messages": [{"role": "alien", "content": "x"}, {"role": "assistant", "content": "y"}]}) == []
    assert _plain([1]) == []


def test_a_bank_of_questions_in_a_program() -> None:
    bank = bank_of(["What is blue?", Question("", "What is red?", 0, topic="colours")])
    assert [(one.text, one.topic, one.row) for one in bank.questions] == [
        ("What is blue?", None, 0),
        ("What is red?", "colours", 1),
    ]
    assert bank.sha256 == bank_of(["What is blue?", Question("other", "What is red?", 5, topic="colours")]).sha256
    assert bank.sha256 != bank_of(["What is blue?", "What is red?"]).sha256
    assert len({one.id for one in bank.questions}) == 2
    with pytest.raises(BankError, match="holds no questions"):
        bank_of([])


def test_an_instruction_with_its_input_is_one_question(tmp_path: Path) -> None:
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Name the colour.", "input": "a blue barrel"}]))
    assert read_bank(tmp_path / "alpaca.json").questions[0].text == "Name the colour.\n\na blue barrel"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bank.json").write_text('["What is blue?"]')
    monkeypatch.setattr(questions, "digest_of", lambda path: "0" * 64)
    with pytest.raises(BankError, match="changed while it was read"):
        read_bank(tmp_path / "bank.json")
