"""The limits under which a run was asked with ``--stop-when-decided``: its figures are a sequence's from then on."""

from __future__ import annotations

from redinstruct.errors import DamagedStore
from redinstruct.run.database import Store


def note_stop(store: Store, limit: float) -> None:
    """Keep a limit; one that is kept already becomes the last.

    Raises:
        StoreError: the store cannot be written.
    """
    known = [*(kept for kept in stops(store) if kept != limit), limit]
    with store.writing("recording the limit", durable=True) as db:
        text = " ".join(map(repr, known)).encode()
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('stops', ?)", (text,))


def stops(store: Store) -> tuple[float, ...]:
    """The limits, the last one last; empty where the run was always to be asked whole.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading the limits") as db:
        row = db.execute("SELECT value FROM meta WHERE key = 'stops'").fetchone()
    try:
        found = () if row is None else tuple(map(float, bytes(row[0]).decode().split()))
    except (TypeError, ValueError):
        found = (-1.0,)
    if not all(0 < limit < 1 for limit in found):
        raise DamagedStore(f"{store.folder}: the run store is damaged: a limit that is none")
    return found
