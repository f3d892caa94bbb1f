"""``redinstruct show`` of a collection: its conversations, or one of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from redinstruct.cli import console
from redinstruct.cli.endings import say_failures
from redinstruct.errors import UsageError
from redinstruct.run import Store, failed_calls
from redinstruct.safetext import short_hash
from redinstruct.types import Json, JsonObject

if TYPE_CHECKING:
    from redinstruct.harmfulqa.rows import Collected, Dialogue

_T = TypeVar("_T")


def show_collection(run: Path, sought: str | None, label: str | None, limit: int, content: bool, as_json: bool) -> int:
    """List the conversations (of which an answer has ``label``), or show the one whose ID begins so.

    Raises:
        UsageError: no conversation, or more than one, has that ID.
    """
    from redinstruct.harmfulqa import read_collection

    every = [(row, d) for row in read_collection(run).harvest.rows for d in (*row.blue, *row.red)]
    if sought is not None:
        found = [one for one in every if one[1].id == sought] or [one for one in every if one[1].id.startswith(sought)]
        _say_one(*only_one(found, sought, "conversation"), content, as_json)
        return 0
    wanted = (entry for entry in every if label is None or any(turn.label == label for turn in entry[1].turns))
    listed = list(itertools.islice(wanted, limit))
    more = sum(1 for _ in wanted)
    if as_json:
        console.say_json({"conversations": [_document(*entry, content) for entry in listed], "left_out": more})
        return 0
    if content:
        for entry in listed:
            _say_one(*entry, content, as_json)
    else:
        console.say_table([_row(*entry) for entry in listed], right=("turns",))
    with Store.open_for_reading(run) as store:
        say_failures(failed_calls(store))
    say_rest(len(listed), more, "conversation")
    return 0


def only_one(found: Sequence[_T], sought: str, what: str) -> _T:
    """The only one whose ID begins so.

    Raises:
        UsageError: there is none, or more than one.
    """
    if len(found) != 1:
        told = f"no {what} has" if not found else f"more than one {what} has"
        raise UsageError(f"{told} an ID that begins with {sought!r}: `redinstruct show` lists them")
    return found[0]


def say_rest(listed: int, more: int, what: str) -> None:
    """What a list does not show."""
    if not listed:
        console.note(f"no such {what}")
    elif more:
        console.note(f"{more:,} more (--limit)")


def say_fields(fields: Mapping[str, object]) -> None:
    """Names and values line by line; what says nothing is left out."""
    for name, value in fields.items():
        if value not in (None, [], ""):
            console.say(f"{name.replace('_', ' ') + ':':<15} {' '.join(value) if isinstance(value, list) else value}")


def _labels(dialogue: Dialogue) -> dict[str, int]:
    return dict(Counter(turn.label for turn in dialogue.turns if turn.label is not None))


def _row(row: Collected, dialogue: Dialogue) -> dict[str, str]:
    return {
        "id": dialogue.id,
        "colour": dialogue.colour,
        "subtopic": f"{row.question.topic} / {row.question.subtopic}",
        "question": short_hash(row.question.text)[:8],
        "turns": str(len(dialogue.turns)),
        "answers": ", ".join(f"{count} {name}" for name, count in _labels(dialogue).items()) or "(not judged)",
        "": "" if dialogue.complete else "incomplete",
    }


def _document(row: Collected, dialogue: Dialogue, content: bool) -> dict[str, Json]:
    turns: list[JsonObject] = [
        {"speaker": turn.speaker, "hash": short_hash(turn.text), "chars": len(turn.text), "label": turn.label,
         **({"text": turn.text, "thought": turn.thought} if content else {})}
        for turn in dialogue.turns
    ]  # fmt: skip
    shown: dict[str, Json] = {
        "id": dialogue.id,
        "colour": dialogue.colour,
        "topic": row.question.topic,
        "subtopic": row.question.subtopic,
        "question_hash": short_hash(row.question.text),
        "parent": dialogue.parent,
        "source": dialogue.source,
        "complete": dialogue.complete,
        "turns": turns,
    }
    return shown | ({"question": row.question.text} if content else {})


def _say_one(row: Collected, dialogue: Dialogue, content: bool, as_json: bool) -> None:
    shown = _document(row, dialogue, content)
    if as_json:
        console.say_json(shown)
        return
    say_fields({name: value for name, value in shown.items() if name != "turns"})
    for turn in dialogue.turns:
        verdict = f" ({turn.label})" if turn.label else ""
        console.say(f"--- {'Red-LM' if turn.speaker == 'human' else 'Base-LM'}{verdict}, {len(turn.text)} characters")
        if content:
            console.say(turn.text, multiline=True)
    if not content:
        console.say("(what was said is hidden; --show-content shows it)")
    console.say()
