"""Attempts that are planned together: columns in the place of an object for each, and how questions go into the store.

A run that is not sealed takes a hundred questions in one statement, which is half the time of a statement for each.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from redinstruct.questions.packed import QuestionColumns, columns_of
from redinstruct.run.rows import CLEAR_QUESTION, INSERT_QUESTION
from redinstruct.safetext import storable
from redinstruct.types import Attempt, Message

LOT = 1_000
"""The attempts of a lot, at most."""
_HUNDRED = 100


class Lot(NamedTuple):
    """Attempts at questions of one bank under one prompt in one epoch, in order. ``template`` is its sha256."""

    questions: QuestionColumns
    template: str
    epoch: int
    keys: Sequence[bytes]


def in_lots(attempts: Iterable[Attempt | Lot], most: int) -> Iterator[Lot]:
    """The same attempts in lots, those that come one by one in lots of ``most``."""
    waiting: list[Attempt] = []
    for one in attempts:
        if waiting and (len(waiting) == most or isinstance(one, Lot) or _place(one) != _place(waiting[0])):
            yield _lot(waiting)
            waiting.clear()
        if isinstance(one, Lot):
            yield one
        else:
            waiting.append(one)
    if waiting:
        yield _lot(waiting)


def _place(attempt: Attempt) -> tuple[str, str, int]:
    return attempt.question.id.partition(":")[0], attempt.template.sha256, attempt.epoch


def _lot(attempts: Sequence[Attempt]) -> Lot:
    _, template, epoch = _place(attempts[0])
    return Lot(columns_of([one.question for one in attempts]), template, epoch, [one.key for one in attempts])


# ---- questions into the store ----

_COLUMNS = "INSERT INTO main.questions (id, bank, row, text, topic, subtopic, language, label, earlier) VALUES "
# What is the same for all stands once: ?1 the first number, ?2 the bank, ?3 to ?6 the other columns.
_ALIKE = _COLUMNS + ", ".join(
    "(?1 + %d, ?2, ?%d, ?%d, ?%d, ?3, ?4, ?5, ?6)" % (at, 7 + 3 * at, 8 + 3 * at, 9 + 3 * at)  # noqa: UP031
    for at in range(_HUNDRED)
)
_EACH = _COLUMNS + ", ".join(
    "(?1 + %d, ?2, %s)" % (at, ", ".join("?%d" % (3 + 7 * at + of) for of in range(7)))  # noqa: UP031
    for at in range(_HUNDRED)
)


def write_questions(db: sqlite3.Connection, first: int, bank: int, columns: QuestionColumns, *, sealed: bool) -> None:
    """Questions that the store does not hold, numbered from ``first`` on."""
    texts = columns.texts if "".join(columns.texts).isascii() else list(map(storable, columns.texts))
    names = [_stored_column(column) for column in columns[3:7]]
    count, turns = len(texts), columns.earlier
    earlier = [_earlier(turns.get(at, ())) for at in range(count)] if turns else [None] * count
    every: tuple[Sequence[object], ...] = (columns.rows, texts, *names, earlier)
    alike = not turns and all(len({*column}) == 1 for column in names[1:])
    shared, own = (tuple(column[0] for column in every[3:]), every[:3]) if alike else ((), every)
    done = 0
    while not sealed and count - done >= _HUNDRED:
        values = itertools.chain.from_iterable(zip(*(column[done : done + _HUNDRED] for column in own), strict=True))
        db.execute(_ALIKE if alike else _EACH, (first + done, bank, *shared, *values))
        done += _HUNDRED
    numbers = range(first + done, first + count)
    rest = zip(numbers, itertools.repeat(bank), *(column[done:] for column in every), strict=False)
    db.executemany(INSERT_QUESTION if sealed else CLEAR_QUESTION, rest)


def _stored_column(column: Sequence[str | None]) -> list[str | None]:
    names = {name: storable(name) for name in set(column)}
    return list(map(names.__getitem__, column))


def _earlier(turns: Sequence[Message]) -> str | None:
    return json.dumps([[turn.role, turn.content] for turn in turns]) if turns else None
