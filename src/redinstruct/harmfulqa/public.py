"""The public schema of HARMFULQA, in both directions: ``declare-lab/HarmfulQA`` (Bhardwaj & Poria 2023).

Promised: export, import, export gives the same bytes; what is read is counted, no published figure is believed; a row
or a conversation that is none of the schema's is dropped and counted by its reason, and never sinks its file. Not
promised: that it gives back what went in. The schema has no place for thoughts, labels, weights and sources. The
published file misses keys (null once Arrow has read it) and holds empty turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from msgspec.structs import replace

from redinstruct.errors import UsageError
from redinstruct.files import JsonFile, Malformed, stem_of
from redinstruct.harmfulqa.formats import released
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Colour, Dialogue, Speaker, Turn
from redinstruct.prompts.rows import PublicRow, PublicTurn
from redinstruct.safetext import terminal

COLUMNS = ("blue_conversations", "red_conversations")
"""The keys by which a row of the public schema is known."""
_LOOKED_AT = 100
_SPEAKERS: Mapping[str, Speaker] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


def to_public(rows: Sequence[Collected], *, include_red: bool) -> list[PublicRow]:
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


def _public_turns(dialogue: Dialogue) -> list[PublicTurn]:
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


class Published(msgspec.Struct, frozen=True):
    """What a file of the public schema holds. ``dropped`` counts the rows and conversations left out, by reason."""

    rows: tuple[Collected, ...]
    dropped: dict[str, int]
    name: str = ""
    sha256: str = ""


def from_public(documents: Iterable[object]) -> Published:
    """Read rows of the public schema as they are published; what is none of the schema's is dropped and counted.

    A conversation that is null is not there, nor is a null turn; a turn without text is an empty one. Keys may be
    numbers, or text, or be missing (a list of conversations). A missing id is the row's number, from 0; a missing topic
    is empty. A red conversation's ``parent`` is the blue one of the same key, if the human turns are its own.
    """
    rows, taken, dropped = [], set[str](), Counter[str]()
    for number, document in enumerate(documents):
        try:
            row = _collected(document, number, taken, dropped)
        except Malformed as error:
            dropped[str(error)] += 1
            continue
        taken.add(row.question.id)
        rows.append(row)
    return Published(tuple(rows), dict(dropped))


def _collected(document: object, number: int, taken: set[str], dropped: Counter[str]) -> Collected:
    if not isinstance(document, Mapping):
        raise Malformed("rows that are no objects")
    text = document.get("question")
    if not isinstance(text, str):
        raise Malformed("rows without a question in text")
    question = CollectedQuestion(
        id=_identifier(document.get("id"), number),
        topic=_name(document, "topic"),
        subtopic=_name(document, "subtopic"),
        text=text,
    )
    # Ids of conversations are to be unique in the file even where those of its rows are not.
    base = question.id if question.id not in taken else f"{question.id}#{number}"
    blue = _dialogues(document, "blue", question.id, base, dropped)
    red = _dialogues(document, "red", question.id, base, dropped)
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
    raise Malformed("rows whose id is neither text nor a whole number")


def _name(document: Mapping[object, object], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"rows whose {key} is not text")
    return value


def conversations(held: object, colour: Colour) -> list[tuple[str, object]]:
    """The conversations of one colour with their keys, in the keys' order where these are numbers; null is none.

    Raises:
        Malformed: they are neither an object nor a list.
    """
    if isinstance(held, list | tuple):
        held = dict(enumerate(held))
    if held is None:
        return []
    if not isinstance(held, Mapping):
        raise Malformed(f"rows whose {colour}_conversations are neither an object nor a list")
    pairs = [(str(key), turns) for key, turns in held.items() if turns is not None]
    if all(key.isascii() and key.isdigit() and len(key) < 10 for key, _ in pairs):
        pairs.sort(key=lambda pair: int(pair[0]))
    return pairs


def _dialogues(
    document: Mapping[object, object], colour: Colour, question: str, base: str, dropped: Counter[str]
) -> dict[str, Dialogue]:
    found: dict[str, Dialogue] = {}
    for key, turns in conversations(document.get(f"{colour}_conversations"), colour):
        try:
            if key in found:
                raise Malformed("under a key that another one has")
            found[key] = Dialogue(f"{base}/{colour}/{key}", question, colour, _turns(turns), source="published")
        except Malformed as error:
            dropped[f"{colour} conversations {error}"] += 1
    return found


def _turns(turns: object) -> tuple[Turn, ...]:
    if not isinstance(turns, list | tuple):
        raise Malformed("that are no lists of turns")
    made = []
    for turn in turns:
        if turn is None:
            continue
        if not isinstance(turn, Mapping):
            raise Malformed("with a turn that is no object")
        said, value = turn.get("from"), turn.get("value")
        speaker = _SPEAKERS.get(said.strip().casefold()) if isinstance(said, str) else None
        if speaker is None:
            raise Malformed("with a turn from neither human nor gpt")
        if value is not None and not isinstance(value, str):
            raise Malformed("with a turn that is not text")
        made.append(Turn(speaker, value or ""))
    return tuple(made)


def is_public(path: Path) -> bool:
    """Whether the first object of a file of JSON has conversations as the public schema has them."""
    try:
        for value in islice(JsonFile(path), _LOOKED_AT):
            if isinstance(value, Mapping):
                return not value.keys().isdisjoint(COLUMNS)
    except UsageError:
        pass  # other readers say what is wrong with it
    return False


def read_public(path: Path) -> Published:
    """Read a file of the public schema: one JSON list, one object, or one object a line; told apart by content.

    Raises:
        UsageError: the file cannot be read, or no row of it is one of the schema's; why is said, no text is shown.
    """
    name = terminal(str(path))
    held = JsonFile(path, name)
    found = from_public(held)
    if not found.rows:
        why = "; ".join(f"{reason} ({count:,})" for reason, count in found.dropped.items()) or "no rows"
        raise UsageError(f"{name}: is empty" if held.empty else f"{name}: holds no question: {why}")
    return replace(found, name=terminal(stem_of(path)), sha256=held.sha256)
