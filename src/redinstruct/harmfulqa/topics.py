"""What is collected about: the paper's topics and subtopics (names only), or the user's own file."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path

from redinstruct.errors import UsageError
from redinstruct.files.words import Fields
from redinstruct.prompts import read_text_file
from redinstruct.safetext import terminal

Topics = tuple[tuple[str, tuple[str, ...]], ...]
"""Topic and its subtopics, in order; a topic without any asks the teacher for them."""

MOST_BYTES = 1 << 20
LONGEST_NAME = 200


@cache
def paper_topics() -> Topics:
    """The paper's 10 topics and 98 subtopics, as the keys of the released data name them (specification 2.1)."""
    text = resources.files("redinstruct.harmfulqa").joinpath("texts", "topics.json").read_text(encoding="utf-8")
    return topics_from(json.loads(text), "texts/topics.json")


def read_topics(path: Path) -> Topics:
    """The user's topics: JSON ``{topic: [subtopic]}``, or a list of topics.

    Raises:
        UsageError: no such file, no JSON, another shape, a blank name or one that stands twice.
    """
    where = f"--topics {terminal(str(path))}"
    try:
        document = json.loads(read_text_file(path, "--topics", MOST_BYTES), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: no JSON, or a topic stands twice") from None
    return topics_from(document, where)


def topics_from(document: object, where: str) -> Topics:
    """Topics as ``{topic: [subtopic]}``, or a list of topics; ``where`` stands before the message.

    Raises:
        UsageError: another shape, a blank name or one that stands twice.
    """
    if isinstance(document, list):
        document = {name: [] for name in _names(document, where)}
    if not isinstance(document, dict) or not document:
        raise UsageError(f"{where}: expected {{topic: [subtopic]}} or a list of topics")
    return tuple(
        (topic, _names(subtopics, f"{where}: topic {number}"))
        for number, (topic, subtopics) in enumerate(zip(_names(document, where), document.values(), strict=True), 1)
    )


def _once(pairs: list[tuple[str, object]]) -> Fields:
    if len({key.strip() for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _names(values: object, where: str) -> tuple[str, ...]:
    """Names in order. Each becomes part of prompts on a line of its own, so none holds a line break."""
    if not isinstance(values, list | dict):
        raise UsageError(f"{where}: expected a list of names")
    found: list[str] = []
    for row, value in enumerate(values, 1):
        name = " ".join(value.split()) if isinstance(value, str) else ""
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise UsageError(f"{where}: row {row} is no name (a text of 1 to {LONGEST_NAME} characters)")
        if name in found:
            raise UsageError(f"{where}: row {row} stands twice")
        found.append(name)
    return tuple(found)
