"""How each attempt of a run came out, with what it needs to be paired with the same question in another run."""

from __future__ import annotations

from typing import NamedTuple

from redinstruct.store.database import Store, _reading
from redinstruct.store.rows import SELECT_PLANNED, blob, restored


class Planned(NamedTuple):
    """One planned attempt. ``bank`` and ``prompt`` are sha256; ``label`` None: nothing is recorded yet."""

    key: bytes
    bank: str
    row: int
    topic: str | None
    prompt: str
    epoch: int
    label: str | None


def planned_attempts(store: Store, judge: int) -> list[Planned]:
    """Every planned attempt of a run, under one judge, in the planned order.

    Raises:
        StoreError: the store does not read.
    """
    with _reading("reading outcomes"):
        return [
            Planned(blob(key), bank, row, restored(topic), prompt, epoch, label)
            for key, bank, row, topic, prompt, epoch, label in store._db.execute(SELECT_PLANNED, (judge,))
        ]
