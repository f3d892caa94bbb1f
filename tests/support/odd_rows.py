"""Runs whose rows hold what this program never writes: every column of every table, a hostile value each."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from redinstruct.run import STORE_NAME

VALUES: tuple[object, ...] = (
    None, 0, -1, 2**62, 1.5, float("inf"), b"", b"\xff\x00", "", "x", "\x00", "[]", "{}", "[" * 100_000, '{"a":1e999}',
    '{"model":5}', "9" * 5000,
)  # fmt: skip


def columns(run: Path) -> list[tuple[str, str]]:
    """Every (table, column) in which the run has a row."""
    with contextlib.closing(sqlite3.connect(run / STORE_NAME)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        full = [table for table in tables if db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]
        return [(table, row[1]) for table in full for row in db.execute(f"PRAGMA table_info({table})")]


def odd_runs(
    run: Path, place: Path, table: str, column: str, values: Sequence[object] = VALUES
) -> Iterator[tuple[object, bool]]:
    """``place`` becomes the run with one value of the column changed, value by value; those that SQLite takes."""
    for value in values:
        for first in (True, False):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(run, place)
            (place / "run.lock").write_bytes(b"")
            if _changed(place, table, column, value, first=first):
                yield value, first


def _changed(run: Path, table: str, column: str, value: object, *, first: bool) -> bool:
    with contextlib.closing(sqlite3.connect(run / STORE_NAME, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        key = next((row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[5]), "rowid")
        one = f"{key} = (SELECT {'min' if first else 'max'}({key}) FROM {table})"
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA ignore_check_constraints=ON")
            changed = db.execute(f"UPDATE {table} SET {column} = ? WHERE {one}", (value,)).rowcount
            for _, sql in triggers:
                db.execute(sql)
            return changed > 0
        return False
