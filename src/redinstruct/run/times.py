"""When a run was made, how long that took, and how long its answers took: from its own rows, never from a clock."""

from __future__ import annotations

from array import array
from itertools import chain

import msgspec

from redinstruct.errors import DamagedStore
from redinstruct.run.database import Store
from redinstruct.run.marks import UNTIL

_SESSIONS = "SELECT id, at FROM sessions ORDER BY id"
_MARKS = "SELECT key, value FROM meta WHERE key GLOB 'until *'"
_ANSWERED = "SELECT seconds FROM completions WHERE outcome = 'text' AND seconds > 0"


class Invocation(msgspec.Struct, frozen=True):
    """One command that worked on a run, in seconds since 1970; ``until`` is when it last recorded an answer or verdict.

    ``until`` is None where it recorded none, or was written by a version that did not note it.
    """

    at: float
    until: float | None

    @property
    def seconds(self) -> float:
        """How long it took, as far as is known."""
        return 0.0 if self.until is None else max(0.0, self.until - self.at)


class Times(msgspec.Struct, frozen=True):
    """The commands that worked on a run; how long its ``answers`` took that said so, in seconds; ``all`` is the sum."""

    invocations: tuple[Invocation, ...]
    answers: int
    all: float
    median: float | None
    slow: float | None
    """Nineteen of twenty answers took no longer."""

    @property
    def began(self) -> float | None:
        """When the first command began."""
        return self.invocations[0].at if self.invocations else None

    @property
    def seconds(self) -> float | None:
        """How long all commands took together; None where no version noted it."""
        known = [one.seconds for one in self.invocations if one.until is not None]
        return sum(known) if known else None


def times_of(store: Store) -> Times:
    """When a run was made and how long it took.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading the times") as db:
        marks = dict(db.execute(_MARKS))
        sessions = db.execute(_SESSIONS).fetchall()
        seconds = array("d", chain.from_iterable(db.execute(_ANSWERED)))
    total = sum(seconds)
    ordered = sorted(seconds)
    median, slow = (ordered[int(share * (len(ordered) - 1))] if ordered else None for share in (0.5, 0.95))
    try:
        found = tuple(
            Invocation(float(at), None if (mark := marks.get(f"{UNTIL}{session}")) is None else float(mark))
            for session, at in sessions
        )
    except (TypeError, ValueError):
        raise DamagedStore(f"{store.folder}: the run store is damaged: a time that is none") from None
    return Times(found, len(seconds), total, median, slow)
