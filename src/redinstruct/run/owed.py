"""What a run still owes: counted at once, and each attempt read when its turn comes, so that memory does not grow."""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from redinstruct.run.connection import connect_for_reading, reading
from redinstruct.run.encryption import attach
from redinstruct.run.rows import (
    SELECT_LABEL_COUNTS,
    SELECT_OWED,
    SELECT_OWED_BY_LENGTH,
    SELECT_OWED_ROWS,
    OwedAttempt,
    blob,
    completion_from,
    over_newest,
    question_from,
)
from redinstruct.run.schema import read_as_newest
from redinstruct.types import Attempt, PromptTemplate

_AT_ONCE = 500


class Scope(msgspec.Struct, frozen=True):
    """Of which kind what is owed may be.

    ``sample``: attempts without an answer, too, and not only without the judge's verdict. ``retry_errors`` adds what
    ended as ``error``: a failed sample is asked again, a failed judgement is judged again. ``again`` adds every answer
    that the judge has judged: the same instrument reads it once more.
    """

    sample: bool = True
    retry_errors: bool = False
    again: bool = False


class Owed:
    """The attempts that a run owes under a judge, in planned order: their rows in memory (8 bytes each), no texts.

    Iterating reads them one by one over a connection of its own, so that the store may be written meanwhile. What an
    attempt owes is what it owed when this was made.
    """

    def __init__(
        self,
        folder: Path,
        db: sqlite3.Connection,
        banks: Mapping[int, tuple[str, str]],
        templates: Mapping[int, PromptTemplate],
        judge: int,
        wanted: Scope,
    ) -> None:
        self._folder, self._db, self._judge, self._wanted = folder, db, judge, wanted
        self._banks, self._templates = banks, templates
        self._found: Counter[str | None] = Counter()
        with reading("reading what is owed"):
            self._rows = self._none_asked() or self._read()

    def _none_asked(self) -> Sequence[int]:
        """Every attempt of a run that has no answer yet; empty where each is to be looked at."""
        if not self._wanted.sample or self._db.execute("SELECT 1 FROM completions LIMIT 1").fetchone() is not None:
            return ()
        count, first, last = self._db.execute("SELECT count(*), min(id), max(id) FROM attempts").fetchone()
        if not count or last - first != count - 1:
            return ()
        self._found[None] = count
        return range(first, last + 1)

    def _read(self) -> Sequence[int]:
        rows = array("q")
        for row, label in over_newest(self._db, SELECT_OWED_ROWS, self._parameters()):
            rows.append(row)
            self._found[label] += 1
        return rows

    def _parameters(self) -> tuple[int | bool, ...]:
        w = self._wanted
        return (self._judge, w.sample, w.retry_errors, w.again, w.retry_errors)

    def __len__(self) -> int:
        return len(self._rows)

    def settled(self) -> dict[str, int]:
        """How what is not owed any more came out: label -> attempts."""
        with reading("counting labels"):
            every = Counter(dict(over_newest(self._db, SELECT_LABEL_COUNTS, (self._judge,))))
        return dict(every - self._found)

    def by_length(self) -> None:
        """From now on: one prompt at a time, and within it like lengths together."""
        with reading("reading what is owed"):
            self._rows = array("q", (r for r, _ in over_newest(self._db, SELECT_OWED_BY_LENGTH, self._parameters())))

    def __iter__(self) -> Iterator[OwedAttempt]:
        if not self._rows:
            return
        with reading("reading what is owed"), contextlib.closing(connect_for_reading(self._folder)) as db:
            read_as_newest(db)
            attach(db, self._folder, writes=False)
            for start in range(0, len(self._rows), _AT_ONCE):
                # In one transaction: each commit of the writer in between empties a reader's cache.
                db.execute("BEGIN")
                rows = [
                    db.execute(SELECT_OWED, (self._judge, row)).fetchone()
                    for row in self._rows[start : start + _AT_ONCE]
                ]
                db.execute("COMMIT")
                for found in rows:
                    yield self._attempt(*found)

    def _attempt(self, row: int, key: bytes, epoch: int, template: int, bank: int, *columns: object) -> OwedAttempt:
        at, text, *rest = columns[:7]
        name, sha256 = self._banks[bank]
        question = question_from(sha256, int(str(at)), str(text), *rest)  # type: ignore[arg-type]
        asked, judged_no, _, *completion = columns[7:]
        found = None if asked is None else completion_from(completion)
        number = 0 if asked is None else int(str(asked))
        verdict = 0 if judged_no is None else int(str(judged_no)) + 1
        if found is None or found.outcome != "text":
            number, verdict, found = (0 if asked is None else number + 1), 0, None
        what = Attempt(blob(key), question, self._templates[template], epoch)
        return OwedAttempt(row, what, number, verdict, found, name)
