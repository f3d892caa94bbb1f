"""What a report asks of a run store beside the counts: what comes first, and what was spent."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from redinstruct.run.database import Store
from redinstruct.run.rows import (
    SELECT_ATTEMPT,
    SELECT_FOREMOST,
    AttemptView,
    view_from,
)
from redinstruct.safetext import restore
from redinstruct.types import Measure


class Spent(msgspec.Struct, frozen=True):
    """What one role of a run took.

    ``calls`` counts requests, retries included. The tokens are what the endpoints told; ``untold`` answers came without
    a count. Answers that were asked again are in it: they were paid for.
    """

    calls: int
    answers: int
    tokens_in: int
    tokens_out: int
    untold: int


_TARGET = (
    "SELECT total(tries), count(*), total(tokens_in), total(tokens_out),"
    " total(outcome = 'text' AND tokens_out IS NULL) FROM completions"
)
_JUDGES = (
    "SELECT judge, total(tries), count(*), total(tokens_in), total(tokens_out),"
    " total(tries > 0 AND tokens_out IS NULL) FROM verdicts GROUP BY judge ORDER BY judge"
)


class SummaryStore:
    """Reading for reports in an open :class:`Store`; used by one thread at a time, as that is."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def versions(self) -> list[str]:
        """The versions of this program that wrote the run, in order of first use."""
        with self.store.reading("reading the versions") as db:
            rows = db.execute("SELECT version FROM sessions ORDER BY id").fetchall()
        return list(dict.fromkeys(restore(str(row[0])) for row in rows))

    def spent_on_target(self) -> Spent:
        """What the target took."""
        with self.store.reading("summing what was spent") as db:
            return Spent(*map(int, db.execute(_TARGET).fetchone()))

    def spent_on_judges(self) -> dict[int, Spent]:
        """Judge's row -> what its verdicts took; self-tests apart."""
        with self.store.reading("summing what was spent") as db:
            return {judge: Spent(*map(int, sums)) for judge, *sums in db.execute(_JUDGES)}

    def spent_on_selftests(self) -> tuple[int, int]:
        """Tokens of all self-tests, in and out."""
        with self.store.reading("summing what was spent") as db:
            sums = "SELECT total(tokens_in), total(tokens_out) FROM selftests"
            tokens_in, tokens_out = db.execute(sums).fetchone()
        return int(tokens_in), int(tokens_out)

    def foremost(self, judge: int, measure: Measure, limit: int) -> Iterator[AttemptView]:
        """The first recorded attempts: the measure's first label, then what has no verdict, then its second label.

        Within each, in the order of banks, prompts and rows.
        """
        with self.store.reading("reading attempts") as db:
            first = (judge, measure.first, measure.second, limit)
            # Keys first: sorting a hundred thousand answers by their labels must not carry their texts along.
            keys = [key for key, _ in db.execute(SELECT_FOREMOST, first)]
            for key in keys:
                yield view_from(*db.execute(SELECT_ATTEMPT, (judge, key)).fetchone())
