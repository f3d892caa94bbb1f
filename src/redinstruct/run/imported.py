"""Which file an imported run was made of."""

from __future__ import annotations

from redinstruct.run.database import Store
from redinstruct.run.rows import blob


class ImportedStore:
    """The mark of an import in an open :class:`Store`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def note(self, sha256: str) -> None:
        """Keep the file's sha256 (hex)."""
        with self.store.writing("recording the imported file", durable=True) as db:
            db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('imported', ?)", (sha256.encode(),))

    def file(self) -> str | None:
        """The file's sha256 (hex), None where the run was not imported."""
        with self.store.reading("reading what was imported") as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'imported'").fetchone()
            return None if row is None else blob(row[0], 64).decode()
