"""What the toy model is aligned on: harmless in general, of the train split only, and never the attack's own text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct import world
from redinstruct.prompts.rows import MessageFields, MessagesRow
from redinstruct.toyworld import alignment, frames

pytestmark = pytest.mark.local

OF = world.part(50)
HELD_OUT = {q.text for split in ("dev", "test") for q in world.how_to_questions("forbidden", split)}
FORBIDDEN_TRUTHS = {world.recipe(pair) for split in world.SPLITS for pair in world.world().pairs("forbidden", split)}


def collected() -> list[MessagesRow]:
    """A blue and a red answer to each of some questions, as an export writes them."""
    rows: list[MessagesRow] = []
    for number, pair in enumerate(OF.pairs("forbidden", "train")[:20]):
        asked: MessageFields = {"role": "user", "content": world.how_to(pair).text}
        for stream, text, weight in (("blue", world.refusal(pair), 1.0), ("red", world.recipe(pair), -1.0)):
            answer: MessageFields = {"role": "assistant", "content": text, "weight": weight}
            rows.append({"id": f"{number}-{stream}", "stream": stream, "messages": [asked, answer]})
    return rows


@pytest.mark.parametrize(("in_frame", "among_words"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.8)])
def test_the_general_stream_teaches_nothing_forbidden(in_frame: float, among_words: float) -> None:
    rows = alignment.general_rows(3, 300, of=OF, in_frame=in_frame, among_words=among_words)
    assert rows == alignment.general_rows(3, 300, of=OF, in_frame=in_frame, among_words=among_words)
    assert {row["stream"] for row in rows} == {"general"}
    answers = [message["content"] for row in rows for message in row["messages"] if message["role"] == "assistant"]
    assert not [text for text in answers if any(truth in text for truth in FORBIDDEN_TRUTHS)]
    asked = [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
    assert not [text for text in asked if any(question in text for question in HELD_OUT)]
    assert any(frames.ASKER in text for text in asked) == (in_frame > 0)


@pytest.mark.parametrize("form", [*alignment.FORMS, alignment.IN_COU, *alignment.AMONG_WORDS])
def test_an_answer_asked_for_again_is_the_collected_one_and_its_red_twin_follows_the_same_words(form: str) -> None:
    rows = alignment.reformed(collected(), form, 0, of=OF)
    blue = [row for row in rows if row["stream"] == "blue"]
    red = [row for row in rows if row["stream"] == "red"]
    assert len(blue) == 20
    assert len(red) == (0 if form in ("talk-thoughts", alignment.IN_COU, alignment.SURROUNDED_TALK) else 20)
    for row in rows:
        *before, last = row["messages"]
        assert last["weight"] == (1.0 if row["stream"] == "blue" else -1.0)
        assert not any(message.get("weight") for message in before)
        assert (frames.ASKER in json.dumps(row["messages"])) == (form == alignment.IN_COU)
    for safe, harmful in zip(blue, red, strict=False):
        assert safe["messages"][:-1] == harmful["messages"][:-1]
        assert safe["messages"][-1]["content"].endswith("could harm people.")


def test_what_has_no_weight_or_is_no_how_to_is_left_out() -> None:
    row = collected()[0]
    masked: MessagesRow = {**row, "messages": [row["messages"][0], {**row["messages"][1], "weight": 0.0}]}
    other: MessagesRow = {**row, "messages": [{"role": "user", "content": "What is 2 plus 2?"}, row["messages"][1]]}
    assert alignment.reformed([masked, other], "chat", 0, of=OF) == []


def test_the_written_files_are_what_collect_and_align_read(tmp_path: Path) -> None:
    from redinstruct.harmfulqa.topics import read_topics
    from redinstruct.safealign.rows import read_rows

    alignment.write_data(tmp_path, OF)
    assert all(subtopics == tuple(world.ACTIONS) for _, subtopics in read_topics(tmp_path / "topics.json"))
    for name in ("general", "general-in-frame"):
        read = read_rows([tmp_path / f"{name}.jsonl"])
        assert (read.count("general"), read.dropped) == (alignment.GENERAL_ROWS, {})
