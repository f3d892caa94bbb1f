"""What a run is to ask, as rows: configurations, banks, templates, questions and attempts.

A plan is no record: what of it was never answered may be taken back. Answers and verdicts never are.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redinstruct.run.config import RunConfig
from redinstruct.run.rows import INSERT_QUESTION, from_json, question_values, stored, to_json
from redinstruct.safetext import storable
from redinstruct.types import Attempt, Bank, PromptTemplate


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
) -> None:
    """Write a plan; rows that stand already stay, the configuration is added when it is new or larger."""
    body = to_json(config)
    last = db.execute("SELECT body FROM configs ORDER BY id DESC LIMIT 1").fetchone()
    if last is None or last[0] != body:
        db.execute("INSERT INTO configs (digest, body, at) VALUES (?, ?, ?)", (config.digest, body, time.time()))
    for bank in banks:
        db.execute("INSERT OR IGNORE INTO banks (name, sha256) VALUES (?, ?)", (stored(bank.name), bank.sha256))
    for t in templates:
        db.execute(
            "INSERT OR IGNORE INTO templates (name, sha256, text, translation_of) VALUES (?, ?, ?, ?)",
            (stored(t.name), t.sha256, storable(t.text), stored(t.translation_of)),
        )
    _add_attempts(db, attempts)


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


def _add_attempts(db: sqlite3.Connection, attempts: Iterable[Attempt]) -> None:
    bank_rows = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM banks")}
    template_rows = {sha: row for row, sha in db.execute("SELECT id, sha256 FROM templates")}
    known: dict[str, int] = {
        f"{sha}:{row}": key
        for key, sha, row in db.execute("SELECT q.id, b.sha256, q.row FROM questions q JOIN banks b ON b.id = q.bank")
    }
    rows: list[tuple[bytes, int, int, int]] = []
    for attempt in attempts:
        question = attempt.question
        if question.id not in known:
            cursor = db.execute(
                INSERT_QUESTION,
                (None, bank_rows[question.id.partition(":")[0]], question.row, *question_values(question)),
            )
            assert cursor.lastrowid is not None
            known[question.id] = cursor.lastrowid
        rows.append((attempt.key, known[question.id], template_rows[attempt.template.sha256], attempt.epoch))
    db.executemany("INSERT OR IGNORE INTO attempts (key, question, template, epoch) VALUES (?,?,?,?)", rows)
