"""What came back instead of an answer or a verdict: by reason, with the endpoint's own words, counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from redinstruct.run.database import Store
from redinstruct.run.rows import SELECT_FAILURES, over_newest
from redinstruct.safetext import redact, restore, terminal


class Failure(msgspec.Struct, frozen=True):
    """Attempts of one bank and prompt (or calls of one step) that failed alike.

    ``label`` is ``error`` or another that is no verdict; ``words`` are the endpoint's own, safe to show and without
    secrets, those of the first where they differ in numbers only; empty where it said nothing.
    """

    where: str
    label: str
    reason: str
    words: str
    count: int

    def __str__(self) -> str:
        return f"{self.reason} {self.count:,}" + (f": {self.words}" if self.words else "")


Failures = tuple[Failure, ...]
MOST_ERRORS = 0.05
"""The share of a result's attempts that may be errors, and the run still counts as done (design 5)."""
_CALLS = (
    "SELECT step, outcome, reason, note, count(*) FROM calls c WHERE outcome <> 'text'"
    " AND asked = (SELECT max(asked) FROM calls WHERE key = c.key) GROUP BY 1, 2, 3, 4 ORDER BY min(id)"
)
_STEPS = (
    "SELECT step, count(*), total(outcome = 'error') FROM calls c"
    " WHERE asked = (SELECT max(asked) FROM calls WHERE key = c.key) GROUP BY step ORDER BY min(id)"
)
# Waits, request ids, token counts: what differs between two tellings of one thing.
_NUMBERS = re.compile(r"\b(?=\w*\d)[\w.-]{6,}|\d+(?:\.\d+)?")


def failures(store: Store, judge: int) -> Failures:
    """The attempts without a usable answer or a verdict by this judge, most frequent first in each bank and prompt.

    Raises:
        StoreError: the rows do not read.
    """
    with store.reading("reading what failed") as db:
        rows = over_newest(db, SELECT_FAILURES, (judge,)).fetchall()
        return _merged([(f"{restore(bank)}/{restore(prompt)}", *rest) for bank, prompt, *rest in rows])


def failed_calls(store: Store) -> Failures:
    """The calls of a collection that gave nothing, by step. Raises as :func:`failures`."""
    with store.reading("reading what failed") as db:
        return _merged(db.execute(_CALLS).fetchall())


def calls_by_step(store: Store) -> dict[str, tuple[int, int]]:
    """Step -> its calls as they stand now, and how many of them are errors. Raises as :func:`failures`."""
    with store.reading("counting calls") as db:
        return {step: (int(total), int(errors)) for step, total, errors in db.execute(_STEPS)}


def too_many_errors(recorded: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """A line for each place of which, of so many in all, too many are errors (5 %; design 5)."""
    for where, (total, errors) in recorded.items():
        if errors > MOST_ERRORS * total:
            yield f"{where}: {errors:,} of {total:,} are errors"


def _merged(rows: list[tuple[str, ...]]) -> Failures:
    found: dict[tuple[str, str, str, str], Failure] = {}
    for where, label, reason, note, count in rows:
        words = terminal(redact(restore(note))) if note else ""
        key = (where, label, restore(reason or label), _NUMBERS.sub("#", words))
        before = found.get(key)
        found[key] = Failure(where, label, key[2], words, int(count)) if before is None else msgspec.structs.replace(
            before, count=before.count + int(count)
        )  # fmt: skip
    order = {where: number for number, where in enumerate(dict.fromkeys(f.where for f in found.values()))}
    return tuple(sorted(found.values(), key=lambda f: (order[f.where], -f.count)))
