"""Forms of asking: the same answers after other words, alike for a safe answer and its harmful twin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct.errors import UsageError
from redinstruct.prompts.forms import FORMS, check_forms, forms_of, made, read_general
from redinstruct.prompts.rows import MessageFields, MessagesRow


def row(asked: str, answer: str, stream: str = "blue", weight: float | None = None) -> MessagesRow:
    answered: MessageFields = {"role": "assistant", "content": answer}
    if weight is not None:
        answered["weight"] = weight
    return {"messages": [{"role": "user", "content": asked}, answered], "stream": stream, "id": f"{stream}-{asked[:9]}"}


ASKED = [f"How is lamp number {n} {{painted}}?" for n in range(40)]
BLUE = [row(asked, "I keep that to myself.", weight=1.0) for asked in ASKED]
RED = [row(asked, f"Take the {asked[8:14]} and a brush, then wait for an hour.", "red", -1.0) for asked in ASKED]
GENERAL = [row(f"When does ferry {n} leave?", f"At {n} sharp.", "general") for n in range(50)]


def prompt_of(row: MessagesRow) -> list[str]:
    return [message["content"] for message in row["messages"][:-1]]


@pytest.mark.parametrize("form", ["dialogue", "steps", "story", "after-harmless"])
def test_a_question_is_asked_in_other_words_and_the_answer_is_the_one_that_was_collected(form: str) -> None:
    blue, red = (made(rows, form, general=GENERAL) for rows in (BLUE, RED))
    assert [one["messages"][-1]["content"] for one in blue] == ["I keep that to myself."] * 40
    assert {one["messages"][-1]["weight"] for one in blue} == {1.0}
    assert {one["messages"][-1]["weight"] for one in red} == {-1.0}
    assert {one["stream"] for one in red} == {"red"}
    assert [prompt_of(one) for one in blue] == [prompt_of(one) for one in red], "twins follow the same prompt"
    for one, asked in zip(blue, ASKED, strict=True):
        assert asked in one["messages"][-2]["content"]
        assert all(not message.get("weight") for message in one["messages"][:-1])
    wordings = {prompt_of(one)[-1].replace(asked, "") for one, asked in zip(blue, ASKED, strict=True)}
    assert len(wordings) > 3 or form == "after-harmless"
    assert made(BLUE, form, general=GENERAL) == blue, "the same every time"
    assert made(BLUE, form, general=GENERAL, seed=1) != blue


def test_a_safe_answer_turns_back_after_the_first_words_of_a_harmful_one() -> None:
    deep = made([*BLUE, *RED], "deep-prefix")
    assert len(deep) == 40
    for one, asked in zip(deep, ASKED, strict=True):
        assert one["stream"] == "blue"
        assert "Take" in one["messages"][0]["content"]
        assert asked in one["messages"][0]["content"]
        assert one["messages"][-1]["content"] == "I keep that to myself."
    assert not made(BLUE, "deep-prefix"), "without harmful answers there is nothing to turn back from"


def test_ordinary_questions_are_answered_in_every_frame() -> None:
    twins = made(BLUE[:10], "harmless-twins", general=GENERAL)
    assert {one["stream"] for one in twins} == {"general"}
    assert {one["source"].rpartition(": ")[2] for one in twins} == {"dialogue", "steps", "story", "after-harmless"}
    assert len(twins) == 40
    assert all(one["messages"][-1]["content"].endswith("sharp.") for one in twins)


def test_rows_that_penalise_or_learn_nothing_have_no_form() -> None:
    masked = row("Why?", "So.", weight=0.0)
    unanswered: MessagesRow = {"messages": [{"role": "user", "content": "Why?"}], "stream": "blue", "id": ""}
    assert not made([masked, unanswered], "steps")


def test_a_form_that_can_not_be_made_is_refused_in_words() -> None:
    check_forms(FORMS, general=True, red=True)
    for forms, general, red, why in (
        (["chat"], True, True, "'chat' is not a form of asking"),
        (["harmless-twins"], False, True, "give general rows"),
        (["after-harmless"], False, True, "give general rows"),
        (["deep-prefix"], True, False, "include the red rows"),
    ):
        with pytest.raises(UsageError, match=why):
            check_forms(forms, general=general, red=red)


def test_a_presets_forms_are_those_of_what_learns_refusals_and_give_way_to_what_is_named() -> None:
    assert forms_of(None, "robust", "npo-len") == FORMS
    for preset, strategy in (("robust", "general"), ("starling", "blue"), (None, "blue")):
        assert forms_of(None, preset, strategy) == ()
    assert forms_of((), "robust", "blue") == ()
    assert forms_of(("steps",), "robust", "blue") == ("steps",)


def test_ordinary_conversations_are_read_in_published_shapes(tmp_path: Path) -> None:
    path = tmp_path / "general.json"
    said = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]
    path.write_text(json.dumps([{"conversations": said}, {"conversations": []}, None, GENERAL[0]]))
    assert [one["messages"][-1]["content"] for one in read_general([path])] == ["There.", "At 0 sharp."]
    path.write_text("[]")
    with pytest.raises(UsageError, match="holds no conversation"):
        read_general([path])
