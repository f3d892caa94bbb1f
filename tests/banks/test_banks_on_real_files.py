"""The reader on the public files themselves: their counts, and the hashes that the registry pins.

The files lie beside the repository; nothing of them is in it, and no message of these tests shows their text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from redinstruct.banks import KNOWN
from redinstruct.questions import read_bank, select
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("name", "file"),
    [("harmfulqa", "harmfulqa.json"), ("dangerousqa", "dangerousqa.json"), ("xstest", "xstest_prompts.csv")],
)
def test_the_registry_pins_the_file_that_is_published(shared_data: Path, name: str, file: str) -> None:
    bank = read_bank(shared_data / file, name)
    assert bank.sha256 == KNOWN[name].sha256
    assert len(bank.questions) == KNOWN[name].questions


def test_harmfulqa_is_1960_questions_of_which_1938_are_distinct(shared_data: Path) -> None:
    questions = read_bank(shared_data / "harmfulqa.json").questions
    per_subtopic = Counter((question.topic, question.subtopic) for question in questions)
    assert len(questions) == 1960
    assert len({topic for topic, _ in per_subtopic}) == 10
    assert len(per_subtopic) == 98
    assert set(per_subtopic.values()) == {20}
    assert len({question.text for question in questions}) == 1938


def test_harmfulqa_is_asked_whole_unless_its_repeats_are_left_out(shared_data: Path) -> None:
    bank = read_bank(shared_data / "harmfulqa.json")
    assert len(select(bank, measure=ATTACK_SUCCESS, limit=None, dedupe=False).questions) == 1960
    assert len(select(bank, measure=ATTACK_SUCCESS, limit=None, dedupe=True).questions) == 1938


def test_dangerousqa_is_200_distinct_questions_without_topics(shared_data: Path) -> None:
    questions = read_bank(shared_data / "dangerousqa.json").questions
    assert len({question.text for question in questions}) == len(questions) == 200
    assert not any(question.topic or question.label for question in questions)


def test_xstest_is_250_safe_prompts_and_200_unsafe_and_the_measure_chooses(shared_data: Path) -> None:
    bank = read_bank(shared_data / "xstest_prompts.csv")
    assert Counter(question.label for question in bank.questions) == {"safe": 250, "unsafe": 200}
    assert len({question.topic for question in bank.questions}) == 18
    assert len(select(bank, measure=OVER_REFUSAL, limit=None, dedupe=False).questions) == 250
    assert len(select(bank, measure=ATTACK_SUCCESS, limit=None, dedupe=False).questions) == 200
