"""Banks of conversations: the last user turn is asked, the turns before it go with it. Every text is inert."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from redinstruct.engine import Limits
from redinstruct.errors import BankError
from redinstruct.questions import read_bank, select
from redinstruct.redeval import EvalSettings, evaluate, prepare
from redinstruct.redeval.spending import forecast
from redinstruct.run import Store
from redinstruct.run.config import attempt_key
from redinstruct.types import ATTACK_SUCCESS, Message, Question
from tests.support.old_runs import unpack

SYSTEM = {"role": "system", "content": "Be brief."}
ASKS = {"role": "user", "content": "What is blue?"}
SAYS = {"role": "assistant", "content": "A colour."}
GOES_ON = {"role": "user", "content": "And red?"}


def bank(folder: Path, *rows: object, name: str = "talk.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder: Path, row: object) -> Question:
    (question,) = read_bank(bank(folder, row)).questions
    return question


WHOLE = ("And red?", [("system", "Be brief."), ("user", "What is blue?"), ("assistant", "A colour.")])
SHAPES = [
    ({"messages": [SYSTEM, ASKS, SAYS, GOES_ON]}, WHOLE),
    ({"messages": [SYSTEM, ASKS, SAYS, GOES_ON, SAYS]}, WHOLE),  # the answer is somebody's, and not asked
    ({"prompt": [SYSTEM, ASKS, SAYS, GOES_ON]}, WHOLE),  # TRL's conversational prompts
    ({"input": [SYSTEM, ASKS, SAYS, GOES_ON], "target": ""}, WHOLE),  # Inspect's samples
    ({"messages": json.dumps([SYSTEM, ASKS, SAYS, GOES_ON])}, WHOLE),
    (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is blue?"},
                {"from": "gpt", "value": "A colour."},
                {"from": "human", "value": "And red?"},
                {"from": "gpt", "value": "A hue."},
            ]
        },
        WHOLE,
    ),
    ({"messages": [{"role": "Developer", "content": "Be brief."}, ASKS, SAYS, GOES_ON]}, WHOLE),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "And "}, "red?"]}]}, ("And red?", [])),
    ({"messages": [{"role": "system", "content": " "}, GOES_ON]}, ("And red?", [])),
    ({"question_id": 1, "category": "1", "turns": ["And red?"], "prompt_style": "base"}, ("And red?", [])),
    ({"messages": [ASKS, GOES_ON], "prompt": "something else"}, ("And red?", [("user", "What is blue?")])),
    ({"prompt": "And red?", "conversations": [ASKS, SAYS]}, ("And red?", [])),
]


@pytest.mark.parametrize(("row", "expected"), SHAPES)
def test_a_conversation_in_every_published_shape(
    tmp_path: Path, row: object, expected: tuple[str, list[tuple[str, str]]]
) -> None:
    question = read(tmp_path, row)
    assert (question.text, [(turn.role, turn.content) for turn in question.earlier]) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "row 1: messages holds no turn of a user: there is nothing to ask"),
        ({"messages": [SYSTEM, SAYS]}, "row 1: messages holds no turn of a user: there is nothing to ask"),
        ({"messages": None}, "row 1: messages is null, expected a list of turns"),
        ({"messages": "What is blue?"}, "row 1: messages is a text, expected a list of turns"),
        ({"messages": ["What is blue?"]}, "row 1: messages: turn 1 is a text, expected an object"),
        ({"messages": [ASKS, {"content": "x"}]}, "row 1: messages: turn 2: role is missing, expected system"),
        ({"messages": [{"role": "tool", "content": "x"}, ASKS]}, "row 1: messages: turn 1: role is tool, expected"),
        ({"messages": [ASKS, {"role": "assistant", "content": None}, ASKS]}, "row 1: messages: turn 2 holds null"),
        ({"messages": [{"role": "user", "content": " "}]}, "row 1: messages: turn 1 is blank, expected text"),
        ({"messages": [ASKS, {"role": "assistant", "content": ""}, ASKS]}, "row 1: messages: turn 2 is blank"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "row 1: messages: turn 1 holds a part that is not text",
        ),
        ({"messages": [ASKS, {"role": "assistant", "content": "a\0b"}, ASKS]}, "row 1: messages holds a NUL character"),
    ],
)
def test_a_conversation_that_cannot_be_asked_is_one_line(tmp_path: Path, row: object, message: str) -> None:
    path = bank(tmp_path, {"prompt": "What is rain?"}, row)
    with pytest.raises(BankError) as caught:
        read_bank(path)
    assert str(caught.value).startswith(f"{path}: {message.replace('row 1', 'row 2')}")


def test_earlier_turns_are_kept_with_the_run_and_make_another_attempt(tmp_path: Path) -> None:
    path = bank(tmp_path, {"messages": [SYSTEM, ASKS, SAYS, GOES_ON]}, {"prompt": "And red?"})
    plan = prepare(EvalSettings(model="scripted/refuse", banks=(path,), judge="refusal", prompts=("standard",)))
    evaluate(plan, tmp_path / "run")
    with Store.open_for_reading(tmp_path / "run") as store:
        seen = [view.question for view in store.attempts(store.judges()[0][0])]
    assert seen == list(read_bank(path).questions)
    assert seen[0].earlier[0] == Message("system", "Be brief.")
    assert evaluate(plan, tmp_path / "run").calls == 0
    with_turns, bare = (
        attempt_key(plan.config, question, plan.templates[0], 1)
        for question in (seen[0], msgspec.structs.replace(seen[0], earlier=()))
    )
    assert with_turns != bare
    reads = forecast(plan, Limits()).total.tokens_in
    shorter = msgspec.structs.replace(plan, questions=(tuple(msgspec.structs.replace(q, earlier=()) for q in seen),))
    assert reads > forecast(shorter, Limits()).total.tokens_in


def test_the_same_last_turn_after_other_turns_is_no_repeat(tmp_path: Path) -> None:
    rows = [{"messages": [ASKS, SAYS, GOES_ON]}, {"messages": [GOES_ON]}, {"messages": [GOES_ON, SAYS]}]
    found = select(read_bank(bank(tmp_path, *rows)), measure=ATTACK_SUCCESS, limit=None, dedupe=True)
    assert [question.row for question in found.questions] == [0, 1]
    assert found.selected.repeats == 1


def test_a_run_of_the_first_edition_keeps_its_attempts(tmp_path: Path) -> None:
    run = unpack(1, tmp_path) / "evaluation"
    with Store.open_for_reading(run) as store:
        config = store.config()
        views = list(store.attempts(store.judges()[0][0]))
        templates = {template.name: template for template in store.templates()}
    assert config is not None
    assert views
    for view in views:
        assert view.question.earlier == ()
        assert attempt_key(config, view.question, templates[view.prompt], view.epoch).hex() == view.key
