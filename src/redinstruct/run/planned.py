"""How each attempt of a run came out, with what it needs to be paired with the same question in another run."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, TypeVar

from redinstruct.questions import same_text
from redinstruct.run.database import Store
from redinstruct.run.encryption import outside
from redinstruct.run.rows import SELECT_PLANNED, blob, restored
from redinstruct.safetext import restore

T = TypeVar("T", bound="str | None")


class Planned(NamedTuple):
    """One planned attempt. ``bank`` and ``prompt`` are sha256; ``label`` None: nothing is recorded yet.

    ``unit`` is the question that statistics count it under: its row, or, in a bank whose texts are repeated as a rule
    (one question under many templates, say), the first row with the same text. Such rows are many to ask, and one to
    learn from; a stray duplicate is not worth the difference. ``detail`` and ``reason`` as in a verdict.
    """

    key: bytes
    bank: str
    row: int
    topic: str | None
    prompt: str
    epoch: int
    label: str | None
    unit: int
    reason: str | None = None
    detail: str | None = None
    subtopic: str | None = None


def planned_attempts(store: Store, judge: int) -> list[Planned]:
    """Every planned attempt of a run, under one judge, in the planned order.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading outcomes") as db:
        units = _units(store)
        # SQLite makes every string anew: a million rows name a few banks, topics and labels.
        same = _Same().one
        return [
            Planned(
                blob(key), same(bank), row, same(restored(topic)), same(prompt), epoch, same(label), units[question],
                same(restored(reason)), same(detail), same(restored(subtopic)),
            )
            for key, bank, question, row, topic, subtopic, prompt, epoch, label, detail, reason in db.execute(
                SELECT_PLANNED, (judge,)
            )
        ]  # fmt: skip


class _Same:
    """Of equal strings the first one."""

    def __init__(self) -> None:
        self._known: dict[str | None, Any] = {}

    def one(self, text: T) -> T:
        """The first one that is equal."""
        found: T = self._known.setdefault(text, text)
        return found


REPEATED_FROM = 1.5
"""From how many rows a text, over a bank, its texts are repeated as a rule: then rows of one text are one question."""


_QUESTIONS = "SELECT id, bank, row, text, earlier FROM questions ORDER BY bank, row"
_SEALED = "SELECT id, bank, row, text, earlier FROM main.questions ORDER BY bank, row"


def _units(store: Store) -> dict[int, int]:
    """A question's row in the store -> the bank's row that it is counted under."""
    first: dict[tuple[int, str | int, str | int | None], int] = {}
    found: list[tuple[int, int, int, int]] = []
    for question, bank, row, text, earlier in store.db.execute(_SEALED if store.locked else _QUESTIONS):
        told: tuple[str | int, str | int | None] = (
            (outside(text).mark, None if earlier is None else outside(earlier).mark)
            if store.locked
            else (same_text(restore(text)), earlier)
        )
        found.append((question, bank, row, first.setdefault((bank, *told), row)))
    texts, asked = Counter(bank for bank, _, _ in first), Counter(bank for _, bank, _, _ in found)
    repeated = {bank for bank in texts if asked[bank] >= REPEATED_FROM * texts[bank]}
    return {question: unit if bank in repeated else row for question, bank, row, unit in found}
