"""How far a command got, noted with what it records: so that a run can say how long it took, a killed one too."""

from __future__ import annotations

import sqlite3
import time

UNTIL = "until "
_NEWEST = "SELECT max(id) FROM sessions"
_MARK = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


def mark_until(db: sqlite3.Connection) -> None:
    """Note, in an open transaction, that the newest command has got as far as now."""
    (session,) = db.execute(_NEWEST).fetchone()
    if session is not None:
        db.execute(_MARK, (f"{UNTIL}{session}", repr(time.time()).encode()))
