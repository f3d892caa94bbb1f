"""A utility check's part of the run store: its configuration, and every task's items and values as rows.

The same promises as the rest of the store: rows are only added, a committed row is never changed, lost or doubled. A
task is committed whole, its items with it, so that an interrupted check goes on with the next task. A task that was
asked again (with a larger limit) is a new row: the newest one counts.
"""

from __future__ import annotations

import math
import time

import msgspec

from redinstruct.run.database import Store
from redinstruct.run.rows import blob
from redinstruct.safetext import restore, storable

ITEM_BYTES = 16


class UtilityTaskRow(msgspec.Struct, frozen=True):
    """One task as it was carried out: its name, its card (JSON in ASCII), its items and their values.

    ``items`` are content hashes of 16 bytes, in the task's order. ``values`` holds one sequence per metric of the card,
    each as long as ``items``; None where the metric is not defined for an item.
    """

    name: str
    card: str
    items: tuple[bytes, ...]
    values: tuple[tuple[float | None, ...], ...]


class UtilityStore:
    """The rows of a utility check in an open :class:`Store`; used by one thread at a time, as that is."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def config(self) -> str | None:
        """The newest configuration (JSON), None in a run that was never begun.

        Raises:
            ConfigError: the run is of another kind.
        """
        return self.store.newest_config("utility check", str)

    def begin(self, digest: str, body: str) -> None:
        """Note an invocation, and its configuration (JSON in ASCII) when it is new or larger."""
        with self.store.beginning("utility check", digest, body):
            pass

    def commit(self, row: UtilityTaskRow) -> None:
        """Commit a task with all its items, in one transaction, synced to the disk.

        Raises:
            ValueError: a metric has not one value for each item, or one that is no finite number.
        """
        lengths = {len(values) for values in row.values}
        if lengths - {len(row.items)} or any(len(item) != ITEM_BYTES for item in row.items):
            raise ValueError("a task needs one value per item and metric")
        if any(value is not None and not math.isfinite(value) for values in row.values for value in values):
            raise ValueError("a value must be a finite number, or None")
        with self.store.writing("recording a task", durable=True) as db:
            task = db.execute(
                "INSERT INTO utility_tasks (name, card, at) VALUES (?, ?, ?)",
                (storable(row.name), row.card, time.time()),
            ).lastrowid
            db.executemany(
                "INSERT INTO utility_items (task, metric, row, item, value) VALUES (?,?,?,?,?)",
                [
                    (task, metric, number, item, value)
                    for metric, values in enumerate(row.values)
                    for number, (item, value) in enumerate(zip(row.items, values, strict=True))
                ],
            )

    def spend(self, read: int, written: int) -> None:
        """Note tokens, of a task that came to nothing too: what the run has cost so far."""
        if read or written:
            before = self.tokens()
            told = b"%d %d" % (before[0] + read, before[1] + written)
            with self.store.writing("recording what it cost") as db:
                db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('tokens', ?)", (told,))

    def tokens(self) -> tuple[int, int]:
        """Tokens read and written so far, as far as the model tells them."""
        with self.store.reading("reading what it cost") as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'tokens'").fetchone()
            read, written = (0, 0) if row is None else map(int, blob(row[0]).split())
        return read, written

    def cards(self) -> dict[str, str]:
        """Task -> its newest card, in the order in which the tasks were first done."""
        with self.store.reading("reading the tasks") as db:
            rows = db.execute("SELECT name, card FROM utility_tasks ORDER BY id")
            return {restore(name): str(card) for name, card in rows}

    def tasks(self) -> list[UtilityTaskRow]:
        """Every task's newest row, in the order in which the tasks were first done."""
        with self.store.reading("reading the tasks") as db:
            newest: dict[str, tuple[int, str]] = {}
            for row, name, card in db.execute("SELECT id, name, card FROM utility_tasks ORDER BY id"):
                newest[restore(name)] = (row, str(card))
            return [UtilityTaskRow(name, card, *self._values(row)) for name, (row, card) in newest.items()]

    def _values(self, task: int) -> tuple[tuple[bytes, ...], tuple[tuple[float | None, ...], ...]]:
        items: list[bytes] = []
        values: dict[int, list[float | None]] = {}
        for metric, item, value in self.store.db.execute(
            "SELECT metric, item, value FROM utility_items WHERE task = ? ORDER BY metric, row", (task,)
        ):
            if metric == 0:
                items.append(blob(item))
            values.setdefault(metric, []).append(None if value is None else float(value))
        return tuple(items), tuple(tuple(column) for column in values.values())
