"""The attempts on a page: an index to search through, and what one of them was asked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from redinstruct.prompts import render as render_prompt
from redinstruct.render.overview import RunView
from redinstruct.run import AttemptView
from redinstruct.safetext import shown
from redinstruct.types import PromptTemplate

ListingValue = int | str
"""A place in the list of words (-1: none), a number, or a hash."""


class Index(msgspec.Struct, frozen=True):
    """What the page's script reads: ``words`` that ``rows`` point to, and the name of each run."""

    words: list[str]
    runs: list[str]
    rows: list[list[ListingValue]]


def index_of(runs: Sequence[RunView]) -> Index:
    """The index of all runs' attempts."""
    places: dict[str, int] = {}

    def place(text: str | None) -> int:
        return -1 if text is None else places.setdefault(text, len(places))

    rows: list[list[ListingValue]] = [
        [
            number, one.key, place(one.bank), one.row, one.epoch, place(one.prompt), place(one.topic),
            place(one.label), place(one.why), one.question_hash, one.question_chars, one.answer_hash, one.answer_chars,
            place(one.flags or None),
        ]
        for number, run in enumerate(runs)
        if run.listing is not None
        for one in run.listing.index
    ]  # fmt: skip
    names = [shown(f"{number}: {run.config.model}") for number, run in enumerate(runs, 1)]
    return Index([shown(word) for word in places], names, rows)


def data_block(value: msgspec.Struct) -> Markup:
    """A value as JSON for a ``script`` element that is no script: nothing in it can end the element, or begin one."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  (of the three characters that mean something here none is left)


def as_sent(view: AttemptView, templates: Sequence[PromptTemplate]) -> str:
    """The last turn as it was sent: the question in its template, by the template's name in this run."""
    found = [template for template in templates if template.name == view.prompt]
    return render_prompt(found[0], view.question.text) if found else view.question.text
