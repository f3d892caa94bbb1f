"""What a run is to ask, as rows: configurations, banks, templates, questions and attempts.

A plan is no record: what of it was never answered may be taken back. Answers and verdicts never are.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redinstruct.run.config import RunConfig
from redinstruct.run.opened import keep_config
from redinstruct.run.rows import CLEAR_QUESTION, INSERT_QUESTION, from_json, question_values, stored, to_json
from redinstruct.run.schema import INDEX_ATTEMPTS, UNINDEX_ATTEMPTS
from redinstruct.safetext import storable
from redinstruct.types import Attempt, Bank, PromptTemplate

_CHUNK = 1_000
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
    attempts: Iterable[Attempt],
    *,
    sealed: bool,
) -> None:
    """Write a plan; rows that stand already stay, the configuration is added when it is new or larger."""
    keep_config(db, "evaluation", config.digest, to_json(config))
    for bank in banks:
        db.execute("INSERT OR IGNORE INTO banks (name, sha256) VALUES (?, ?)", (stored(bank.name), bank.sha256))
    for t in templates:
        db.execute(
            "INSERT OR IGNORE INTO templates (name, sha256, text, translation_of) VALUES (?, ?, ?, ?)",
            (stored(t.name), t.sha256, storable(t.text), stored(t.translation_of)),
        )
    _add_attempts(db, attempts, INSERT_QUESTION if sealed else CLEAR_QUESTION)


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


def _add_attempts(db: sqlite3.Connection, attempts: Iterable[Attempt], insert: str) -> None:
    banks = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM banks")}
    templates = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM templates")}
    known = _KnownQuestions(db)
    questions: list[tuple[object, ...]] = []
    sha256, bank = "", 0
    line, keys = (0, 0, 0), list[bytes]()  # template, epoch, question of the first key
    written = 0
    db.execute("PRAGMA cache_size=-32000")  # keys come in no order
    try:
        indexed = db.execute("SELECT 1 FROM attempts LIMIT 1").fetchone() is not None
        if not indexed:
            _execute(db, UNINDEX_ATTEMPTS)
        for attempt in attempts:
            asked = attempt.question
            if asked.id[:64] != sha256:
                sha256 = asked.id.partition(":")[0]
                bank = banks[sha256]
            number, is_new = known.number(bank, asked.row)
            place = templates[attempt.template.sha256], attempt.epoch, number - len(keys)
            if place != line or len(keys) == _CHUNK:
                written += _flush(db, insert, questions, line, keys)
                line = *place[:2], number
                if not indexed and written >= _MOST_SORTED:
                    _execute(db, INDEX_ATTEMPTS)
                    indexed = True
            if is_new:
                questions.append((number, bank, asked.row, *question_values(asked)))
            keys.append(attempt.key)
        _flush(db, insert, questions, line, keys)
        if not indexed:
            _execute(db, INDEX_ATTEMPTS)
    finally:
        db.execute("PRAGMA cache_size=-2000")  # SQLite's own, in KiB


def _execute(db: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        db.execute(statement)


def _flush(
    db: sqlite3.Connection,
    insert: str,
    questions: list[tuple[object, ...]],
    line: tuple[int, int, int],
    keys: list[bytes],
) -> int:
    """Write attempts at questions that follow one another, and the new ones among these; returns how many."""
    db.executemany(insert, questions)
    count = len(keys)
    db.execute(_ADD_ATTEMPTS, (b"".join(keys), *line, line[2] + count))
    questions.clear()
    keys.clear()
    return count


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

    def number(self, bank: int, row: int) -> tuple[int, bool]:
        """The number, and whether it was given just now."""
        numbers = self._numbers.get(bank)
        if numbers is None or row >= len(numbers) or row < 0:
            numbers = self._place(bank, row)
        if numbers[row]:
            return numbers[row], False
        self._last += 1
        numbers[row] = self._last
        return self._last, True
