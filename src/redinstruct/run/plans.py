"""What a run is to ask, as rows: configurations, banks, templates, questions and attempts.

A plan is no record: what of it was never answered may be taken back. Answers and verdicts never are.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redinstruct.run.config import RunConfig
from redinstruct.run.lots import LOT, Lot, in_lots, write_questions
from redinstruct.run.opened import keep_config
from redinstruct.run.rows import from_json, to_json
from redinstruct.run.schema import INDEX_ATTEMPTS, UNINDEX_ATTEMPTS
from redinstruct.safetext import storable
from redinstruct.types import Attempt, Bank, PromptTemplate

_MOST_ROWS = 1 << 30
_MOST_SORTED = 2_000_000
"""Attempts that an index is made of at once, in memory: a key takes 100 bytes of it."""
_ADD_ATTEMPTS = (
    "INSERT OR IGNORE INTO attempts (key, question, template, epoch) SELECT substr(?1, 1 + 32 * (id - ?4), 32), id, ?2,"
    " ?3 FROM main.questions WHERE id >= ?4 AND id < ?5 ORDER BY id"
)


class Mark(NamedTuple):
    """Where a plan ends: the last rows of its three growing tables, 0 for none."""

    config: int
    question: int
    attempt: int


def stands(db: sqlite3.Connection, config: RunConfig) -> bool:
    """Whether this very plan was written already: plans are added whole, with their configuration.

    Raises:
        ValueError: the configuration does not read.
    """
    last = db.execute("SELECT body FROM configs ORDER BY id DESC LIMIT 1").fetchone()
    if last is None:
        return False
    stored = from_json(last[0], RunConfig)
    return (stored.digest, stored.limit, stored.epochs) == (config.digest, config.limit, config.epochs)


def add(
    db: sqlite3.Connection,
    config: RunConfig,
    banks: Sequence[Bank],
    templates: Sequence[PromptTemplate],
    attempts: Iterable[Attempt | Lot],
    *,
    sealed: bool,
) -> None:
    """Write a plan; rows that stand already stay, the configuration is added when it is new or larger."""
    keep_config(db, "evaluation", config.digest, to_json(config))
    for bank in banks:
        db.execute("INSERT OR IGNORE INTO banks (name, sha256) VALUES (?, ?)", (storable(bank.name), bank.sha256))
    for t in templates:
        db.execute(
            "INSERT OR IGNORE INTO templates (name, sha256, text, translation_of) VALUES (?, ?, ?, ?)",
            (storable(t.name), t.sha256, storable(t.text), storable(t.translation_of)),
        )
    _add_attempts(db, attempts, sealed=sealed)


def mark(db: sqlite3.Connection) -> Mark:
    """Where the plan ends now."""
    found = db.execute(
        "SELECT (SELECT coalesce(max(id), 0) FROM configs), (SELECT coalesce(max(id), 0) FROM questions),"
        " (SELECT coalesce(max(id), 0) FROM attempts)"
    ).fetchone()
    return Mark(*found)


def take_back(db: sqlite3.Connection, to: Mark) -> None:
    """Forget what was planned after the mark; nothing, if one of its attempts was answered."""
    if db.execute("SELECT 1 FROM completions WHERE attempt > ? LIMIT 1", (to.attempt,)).fetchone() is not None:
        return
    db.execute("DELETE FROM attempts WHERE id > ?", (to.attempt,))
    db.execute("DELETE FROM main.questions WHERE id > ?", (to.question,))
    db.execute("DELETE FROM configs WHERE id > ?", (to.config,))


def _add_attempts(db: sqlite3.Connection, attempts: Iterable[Attempt | Lot], *, sealed: bool) -> None:
    banks = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM banks")}
    templates = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM templates")}
    known = _KnownQuestions(db)
    written = 0
    db.execute("PRAGMA cache_size=-32000")  # keys come in no order
    try:
        indexed = db.execute("SELECT 1 FROM attempts LIMIT 1").fetchone() is not None
        if not indexed:
            _execute(db, UNINDEX_ATTEMPTS)
        for lot in in_lots(attempts, LOT):
            asked = lot.questions
            bank = banks[asked.sha256]
            numbers, new = known.numbers(bank, asked.rows)
            if new:
                write_questions(db, numbers[new[0]], bank, asked.taken(new), sealed=sealed)
            _write_attempts(db, lot.keys, numbers, templates[lot.template], lot.epoch)
            written += len(numbers)
            if not indexed and written >= _MOST_SORTED:
                _execute(db, INDEX_ATTEMPTS)
                indexed = True
        if not indexed:
            _execute(db, INDEX_ATTEMPTS)
    finally:
        db.execute("PRAGMA cache_size=-2000")  # SQLite's own, in KiB


def _execute(db: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        db.execute(statement)


def _write_attempts(
    db: sqlite3.Connection, keys: Sequence[bytes], numbers: Sequence[int], template: int, epoch: int
) -> None:
    """Attempts at questions of these numbers: in one piece those that follow one another."""
    start = 0
    breaks = () if isinstance(numbers, range) else range(1, len(numbers))
    for end in (*(at for at in breaks if numbers[at] != numbers[at - 1] + 1), len(numbers)):
        first = numbers[start]
        db.execute(_ADD_ATTEMPTS, (b"".join(keys[start:end]), template, epoch, first, first + end - start))
        start = end


class _KnownQuestions:
    """A question's number in the store by its bank's number and its row there: 8 bytes each."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._numbers: dict[int, array[int]] = {}
        self._last = 0
        for number, bank, row in db.execute("SELECT id, bank, row FROM questions"):
            self._place(bank, row)[row] = number
            self._last = max(self._last, number)

    def _place(self, bank: int, row: int) -> array[int]:
        if not 0 <= row < _MOST_ROWS:
            raise ValueError("a row that no bank has")
        numbers = self._numbers.setdefault(bank, array("q"))
        if row >= len(numbers):
            numbers.frombytes(bytes(numbers.itemsize * (max(row + 1, len(numbers) * 9 // 8) - len(numbers))))
        return numbers

    def numbers(self, bank: int, rows: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """The number of each row, and the places of those that were given one just now: one after another."""
        known = self._place(bank, max(rows))
        if min(rows) < 0:
            raise ValueError("a row that no bank has")
        if isinstance(rows, range) and rows.step == 1 and not any(known[rows.start : rows.stop]):  # most are so
            given = range(self._last + 1, self._last + 1 + len(rows))
            known[rows.start : rows.stop] = array("q", given)
            self._last += len(rows)
            return given, range(len(rows))
        new = [at for at, row in enumerate(rows) if not known[row]]
        for number, at in enumerate(new, self._last + 1):
            known[rows[at]] = number
        self._last += len(new)
        return [known[row] for row in rows], new
