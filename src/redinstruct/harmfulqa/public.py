"""The public schema of HARMFULQA, in both directions: ``declare-lab/HarmfulQA`` (Bhardwaj & Poria 2023).

Promised: export, import, export gives the same bytes; what is read is counted, no published figure is believed. Not
promised: that it gives back what went in. The schema has no place for thoughts, labels, weights and sources. The
published file misses keys (null once Arrow has read it) and holds empty turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from redinstruct.errors import UsageError
from redinstruct.files import JsonFile, Malformed
from redinstruct.harmfulqa.formats import released
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Colour, Dialogue, Speaker, Turn
from redinstruct.safetext import terminal

_SPEAKERS: Mapping[str, Speaker] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


def to_public(rows: Sequence[Collected], *, include_red: bool) -> list[dict[str, Any]]:
    """``{id, topic, subtopic, question, blue_conversations: {"0": [{"from", "value"}]}, red_conversations: {...}}``.

    A red conversation has the key of the blue one whose human turns it has; any other has a key that no blue one has.
    Every row has all six keys, every question a row.
    """
    return [
        {
            "id": row.question.id,
            "topic": row.question.topic,
            "subtopic": row.question.subtopic,
            "question": row.question.text,
            "blue_conversations": {str(i): _public_turns(dialogue) for i, dialogue in enumerate(row.blue)},
            "red_conversations": {str(key): _public_turns(dialogue) for key, dialogue in _red_keys(row)},
        }
        for row in released(rows, include_red=include_red)
    ]


def _public_turns(dialogue: Dialogue) -> list[dict[str, str]]:
    return [{"from": turn.speaker, "value": turn.text} for turn in dialogue.turns]


def _red_keys(row: Collected) -> list[tuple[int, Dialogue]]:
    """The red conversations with their keys, in the keys' order."""
    twins = {blue.id: (key, blue) for key, blue in enumerate(row.blue)}
    keyed: dict[int, Dialogue] = {}
    alone: list[Dialogue] = []
    for red in row.red:
        key, blue = twins.get(red.parent or "", (-1, None))
        if blue is not None and key not in keyed and _same_questions(red, blue):
            keyed[key] = red
        else:
            alone.append(red)
    keyed.update(enumerate(alone, len(row.blue)))
    return sorted(keyed.items())


def _same_questions(red: Dialogue, blue: Dialogue) -> bool:
    """Whether the red conversation has the blue one's human turns, up to where it was cut."""
    asked = [turn.text for turn in red.turns if turn.speaker == "human"]
    return bool(asked) and asked == [turn.text for turn in blue.turns if turn.speaker == "human"][: len(asked)]


def from_public(documents: Iterable[object], where: str) -> list[Collected]:
    """Read rows of the public schema as they are published. ``where`` names their origin in messages.

    A conversation that is null is not there, nor is a null turn; a turn without text is an empty one. Keys may be
    numbers, or text, or be missing (a list of conversations). A missing id is the row's number, from 0; a missing topic
    is empty. A red conversation's ``parent`` is the blue one of the same key, if the human turns are its own.

    Raises:
        UsageError: a row is none of the schema's: ``where``, the row counted from 1, and what is wrong; no text.
    """
    rows, taken = [], set[str]()
    for number, document in enumerate(documents):
        try:
            row = _collected(document, number, taken)
        except Malformed as error:
            raise UsageError(f"{terminal(where)}: row {number + 1}: {error}") from None
        taken.add(row.question.id)
        rows.append(row)
    return rows


def _collected(document: object, number: int, taken: set[str]) -> Collected:
    if not isinstance(document, Mapping):
        raise Malformed(f"is {_kind(document)}, expected an object with a question")
    text = document.get("question")
    if not isinstance(text, str):
        raise Malformed(f"its question is {_kind(text)}, expected text")
    question = CollectedQuestion(
        id=_identifier(document.get("id"), number),
        topic=_name(document, "topic"),
        subtopic=_name(document, "subtopic"),
        text=text,
    )
    # Ids of conversations are to be unique in the file even where those of its rows are not.
    base = question.id if question.id not in taken else f"{question.id}#{number}"
    blue = _dialogues(document, "blue", question.id, base)
    red = _dialogues(document, "red", question.id, base)
    return Collected(
        question=question,
        blue=tuple(blue.values()),
        red=tuple(
            replace(dialogue, parent=blue[key].id) if key in blue and _same_questions(dialogue, blue[key]) else dialogue
            for key, dialogue in red.items()
        ),
    )


def _identifier(value: object, number: int) -> str:
    if value is None:
        return str(number)
    # A column of ids with a gap comes out of a data frame as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int):
        return str(value)
    raise Malformed(f"its id is {_kind(value)}, expected text or a whole number")


def _name(document: Mapping[object, object], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"its {key} is {_kind(value)}, expected text")
    return value


def _dialogues(document: Mapping[object, object], colour: Colour, question: str, base: str) -> dict[str, Dialogue]:
    """The conversations of one colour by their keys, in the keys' order where these are numbers."""
    held = document.get(f"{colour}_conversations")
    if isinstance(held, list | tuple):
        held = dict(enumerate(held))
    if held is None:
        return {}
    if not isinstance(held, Mapping):
        raise Malformed(f"its {colour}_conversations are {_kind(held)}, expected an object")
    pairs = [(str(key), turns) for key, turns in held.items() if turns is not None]
    if all(key.isascii() and key.isdigit() and len(key) < 10 for key, _ in pairs):
        pairs.sort(key=lambda pair: int(pair[0]))
    found: dict[str, Dialogue] = {}
    for place, (key, turns) in enumerate(pairs, 1):
        if key in found:
            raise Malformed(f"two of its {colour} conversations have the same key")
        try:
            said = _turns(turns)
        except Malformed as error:
            raise Malformed(f"{colour} conversation {place}: {error}") from None
        found[key] = Dialogue(f"{base}/{colour}/{key}", question, colour, said, source="published")
    return found


def _turns(turns: object) -> tuple[Turn, ...]:
    if not isinstance(turns, list | tuple):
        raise Malformed(f"is {_kind(turns)}, expected a list of turns")
    made = []
    for place, turn in enumerate(turns, 1):
        if turn is None:
            continue
        if not isinstance(turn, Mapping):
            raise Malformed(f"turn {place} is {_kind(turn)}, expected an object")
        said, value = turn.get("from"), turn.get("value")
        speaker = _SPEAKERS.get(said.strip().casefold()) if isinstance(said, str) else None
        if speaker is None:
            raise Malformed(f"turn {place} is from neither human nor gpt")
        if value is not None and not isinstance(value, str):
            raise Malformed(f"the value of turn {place} is {_kind(value)}, expected text")
        made.append(Turn(speaker, value or ""))
    return tuple(made)


_KINDS: Mapping[type[object], str] = {
    type(None): "missing",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "something else")


def read_public(path: Path) -> list[Collected]:
    """Read a file of the public schema: one JSON list, one object, or one object a line; told apart by content.

    Raises:
        UsageError: the file cannot be read, or a row of it is none of the schema's; the file and the row are named.
    """
    name = terminal(str(path))
    held = JsonFile(path, name)
    found = from_public(held, str(path))
    if held.empty:
        raise UsageError(f"{name}: is empty")
    return found
