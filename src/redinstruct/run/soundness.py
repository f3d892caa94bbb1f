"""Is what stands in a store's rows what this program writes there? Asked when something fails on them.

SQLite keeps any kind of value in any column, and a folder may come from elsewhere: what then fails far from here is
damage, told as such, and not a fault of this program. Looking at every row takes seconds for a million, so that it is
done then, and not at every opening.
"""

from __future__ import annotations

import re
import sqlite3
from typing import get_args

from redinstruct.run.config import RunConfig
from redinstruct.run.encryption import SEALED_COLUMNS
from redinstruct.run.rows import from_json
from redinstruct.safetext import storable
from redinstruct.types import DETAILS, MEASURES, Act, CompletionOutcome, JudgeCard

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KINDS = {
    "TEXT": str | None,
    "BLOB": bytes | None,
    "INTEGER": int | None,
    "REAL": float | int | None,
}
_OUTCOMES = frozenset(get_args(CompletionOutcome))
_COLUMNS = "SELECT name, type FROM pragma_table_info(?, 'main')"  # a sealed run's views have no types
EVERY_ROW = {
    "meta": "SELECT * FROM main.meta",
    "sessions": "SELECT * FROM main.sessions",
    "configs": "SELECT * FROM main.configs",
    "banks": "SELECT * FROM main.banks",
    "templates": "SELECT * FROM main.templates",
    "questions": "SELECT * FROM main.questions",
    "attempts": "SELECT * FROM main.attempts",
    "completions": "SELECT * FROM main.completions",
    "judges": "SELECT * FROM main.judges",
    "verdicts": "SELECT * FROM main.verdicts",
    "selftests": "SELECT * FROM main.selftests",
    "samples": "SELECT * FROM main.samples",
    "collections": "SELECT * FROM main.collections",
    "calls": "SELECT * FROM main.calls",
    "utility_runs": "SELECT * FROM main.utility_runs",
    "utility_tasks": "SELECT * FROM main.utility_tasks",
    "utility_items": "SELECT * FROM main.utility_items",
    "draws": "SELECT * FROM main.draws",
    "annotations": "SELECT * FROM main.annotations",
}


def why_unsound(db: sqlite3.Connection) -> str | None:
    """What in the rows this program never writes; None: nothing that is looked for."""
    try:
        return _odd_kind(db) or _odd_plan(db) or _odd_verdict(db)
    except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "rows that do not read"


def _odd_kind(db: sqlite3.Connection) -> str | None:
    for table, statement in EVERY_ROW.items():
        kinds = {name: _KINDS[kind] for name, kind in db.execute(_COLUMNS, (table,))}
        sealed = db.execute("SELECT 1 FROM main.meta WHERE key = 'seal'").fetchone() is not None
        if sealed:  # what is encrypted is bytes in a column of text
            kinds |= {name: str | bytes | None for name in kinds if f"{table}.{name}" in SEALED_COLUMNS}
        rows = db.execute(statement)
        columns = [(column[0], kinds[column[0]]) for column in rows.description]
        for row in rows:
            for value, (column, kind) in zip(row, columns, strict=True):
                if not isinstance(value, kind):
                    return f"a value of another kind in {table}.{column}"
    return None


def _odd_plan(db: sqlite3.Connection) -> str | None:
    banks = {sha for (sha,) in db.execute("SELECT sha256 FROM banks")}
    templates = {sha for (sha,) in db.execute("SELECT sha256 FROM templates")}
    if not all(_SHA256.fullmatch(sha) for sha in banks | templates):
        return "a hash that is none"
    for (body,) in db.execute("SELECT body FROM configs"):
        config = from_json(body, RunConfig)
        if config.measure not in MEASURES:
            return "a configuration of no known measure"
        if not {one.sha256 for one in config.banks} <= banks or not {one.sha256 for one in config.prompts} <= templates:
            return "a configuration of other banks or prompts than it holds"
    if db.execute("SELECT 1 FROM attempts WHERE length(key) <> 32 LIMIT 1").fetchone():
        return "an attempt's key that is none"
    return None


def _odd_verdict(db: sqlite3.Connection) -> str | None:
    if not {one for (one,) in db.execute("SELECT DISTINCT outcome FROM completions")} <= _OUTCOMES:
        return "an outcome of an answer that there is not"
    if not {one for (one,) in db.execute("SELECT DISTINCT act FROM annotations")} <= set(get_args(Act)):
        return "an act of a person that there is not"
    for row, card_id, body in db.execute("SELECT id, card_id, card FROM judges").fetchall():
        card = from_json(body, JudgeCard)
        if storable(card.id) != card_id:
            return "a judge's card that is not its own"
        labels = MEASURES[card.measure].labels
        for label, detail in db.execute("SELECT DISTINCT label, detail FROM verdicts WHERE judge = ?", (row,)):
            if label not in labels or (detail is not None and detail not in DETAILS):
                return "a label that its measure does not have"
    return None
