"""``redinstruct show`` of a collection: its conversations, or one of them."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from redinstruct.cli import console
from redinstruct.cli.endings import say_failures
from redinstruct.errors import UsageError
from redinstruct.run import Store, failed_calls
from redinstruct.safetext import short_hash
from redinstruct.types import Json

if TYPE_CHECKING:
    from redinstruct.harmfulqa.rows import Collected, Dialogue


def show_collection(run: Path, sought: str | None, label: str | None, limit: int, content: bool, as_json: bool) -> int:
    """List the conversations (of which an answer has ``label``), or show the one whose ID begins so.

    Raises:
        UsageError: no conversation, or more than one, has that ID.
    """
    from redinstruct.harmfulqa import read_collection

    every = [(row, d) for row in read_collection(run).harvest.rows for d in (*row.blue, *row.red)]
    if sought is not None:
        found = [(row, d) for row, d in every if d.id == sought] or [
            (r, d) for r, d in every if d.id.startswith(sought)
        ]
        if len(found) != 1:
            what = "no conversation has" if not found else "more than one conversation has"
            raise UsageError(f"{what} an ID that begins with {sought!r}: `redinstruct show` lists them")
        _say_one(*found[0], content, as_json)
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
    if not listed:
        console.note("no such conversation")
    elif more:
        console.note(f"{more:,} more (--limit)")
    return 0


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
    texts = [{"text": turn.text, "thought": turn.thought} if content else {} for turn in dialogue.turns]
    shown: dict[str, Json] = {
        "id": dialogue.id,
        "colour": dialogue.colour,
        "topic": row.question.topic,
        "subtopic": row.question.subtopic,
        "question_hash": short_hash(row.question.text),
        "parent": dialogue.parent,
        "source": dialogue.source,
        "complete": dialogue.complete,
        "turns": [
            {
                "speaker": turn.speaker,
                "hash": short_hash(turn.text),
                "chars": len(turn.text),
                "label": turn.label,
                **text,
            }
            for turn, text in zip(dialogue.turns, texts, strict=True)
        ],
    }
    return shown | ({"question": row.question.text} if content else {})


def _say_one(row: Collected, dialogue: Dialogue, content: bool, as_json: bool) -> None:
    shown = _document(row, dialogue, content)
    if as_json:
        console.say_json(shown)
        return
    del shown["turns"]
    for name, value in shown.items():
        if value is not None:
            console.say(f"{name.replace('_', ' ') + ':':<15} {value}")
    for turn in dialogue.turns:
        verdict = f" ({turn.label})" if turn.label else ""
        console.say(f"--- {'Red-LM' if turn.speaker == 'human' else 'Base-LM'}{verdict}, {len(turn.text)} characters")
        if content:
            console.say(turn.text, multiline=True)
    if not content:
        console.say("(what was said is hidden; --show-content shows it)")
    console.say()
