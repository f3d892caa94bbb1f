"""How each attempt of a run came out, with what it needs to be paired with the same question in another run."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, overload

from redinstruct.errors import DamagedStore
from redinstruct.questions import same_text
from redinstruct.run.database import Store
from redinstruct.run.encryption import outside
from redinstruct.run.rows import SELECT_PLANNED, blobs, from_json, in_lots, over_newest
from redinstruct.safetext import restore
from redinstruct.types import DETAILS, MEASURES, JudgeCard

T = TypeVar("T")


class Planned(NamedTuple):
    """One planned attempt. ``bank`` and ``prompt`` are sha256; ``label`` None: nothing is recorded yet.

    ``unit`` is the question that statistics count it under: its row, or, in a bank whose texts are repeated as a rule
    (one question under many templates, say), the first row with the same text. Such rows are many to ask, and one to
    learn from; a stray duplicate is not worth the difference. ``detail`` and ``reason`` as in a verdict.
    """

    key: bytes
    bank: str
    row: int
    topic: str | None
    prompt: str
    epoch: int
    label: str | None
    unit: int
    reason: str | None = None
    detail: str | None = None
    subtopic: str | None = None


class Way(NamedTuple):
    """How an attempt came out: few ways, many attempts."""

    label: str | None
    detail: str | None
    reason: str | None


TopicPair = tuple[str | None, str | None]
"""Topic and subtopic."""
_KEY = 32
_COLUMNS = ("attempt", "row", "unit", "way", "group", "epoch")


class _Table:
    """What the attempts of a run came out as, and where they belong: each once."""

    def __init__(self) -> None:
        self.ways: list[Way] = []
        self.groups: list[TopicPair] = []
        self._ways: dict[Way, int] = {}
        self._groups: dict[TopicPair, int] = {}

    def way(self, *found: str | None) -> int:
        """Its place."""
        return _place(self.ways, self._ways, Way(*found))

    def group(self, *found: str | None) -> int:
        """Its place."""
        return _place(self.groups, self._groups, (found[0], found[1]))


def _place(every: list[T], places: dict[T, int], one: T) -> int:
    found = places.get(one)
    if found is None:
        found = places[one] = len(every)
        every.append(one)
    return found


class Outcomes(Sequence[Planned]):
    """The attempts of one bank and prompt in the planned order, as columns: 60 bytes each, and an object when asked.

    ``way`` and ``group`` are places in ``ways`` and ``groups``, in which the attempts of the run came out, and the
    topics, with subtopics, that it has; ``attempt`` is the row in the store, ``unit`` as of :class:`Planned`.
    """

    def __init__(self, bank: str, prompt: str, table: _Table | None = None) -> None:
        self.bank, self.prompt = bank, prompt
        self._table = _Table() if table is None else table
        self.ways: Sequence[Way] = self._table.ways
        self.groups: Sequence[TopicPair] = self._table.groups
        self._keys = bytearray()
        self._odd: dict[int, bytes] = {}
        self.attempt, self.row, self.unit = array("I"), array("I"), array("I")
        self.way, self.group, self.epoch = array("I"), array("I"), array("I")

    @classmethod
    def of(cls, planned: Iterable[Planned]) -> Outcomes:
        """The same attempts of one bank and prompt as columns."""
        if isinstance(planned, Outcomes):
            return planned
        rows = list(planned)
        made = cls(rows[0].bank, rows[0].prompt) if rows else cls("", "")
        table = made._table
        made.extend(
            [one.key for one in rows],
            range(len(rows)),
            [one.row for one in rows],
            [one.unit for one in rows],
            [table.way(one.label, one.detail, one.reason) for one in rows],
            [table.group(one.topic, one.subtopic) for one in rows],
            [one.epoch for one in rows],
        )
        return made

    def extend(self, keys: Sequence[bytes], *columns: Iterable[int]) -> None:
        """The next attempts: their keys, and the columns in the order of :data:`_COLUMNS`."""
        if set(map(len, keys)) - {_KEY}:  # of a value that no store holds
            self._odd.update((len(self.way) + at, key) for at, key in enumerate(keys) if len(key) != _KEY)
            keys = [key[:_KEY].ljust(_KEY, b"\0") for key in keys]
        self._keys += b"".join(keys)
        for name, column in zip(_COLUMNS, columns, strict=True):
            getattr(self, name).extend(column)

    def key(self, at: int) -> bytes:
        """An attempt's key."""
        return self._odd[at] if at in self._odd else bytes(self._keys[_KEY * at : _KEY * at + _KEY])

    def every_key(self) -> Iterator[bytes]:
        """Every key, in order."""
        return map(self.key, range(len(self)))

    def find(self, keys: Collection[bytes]) -> dict[bytes, int]:
        """Key -> place, of those of the keys that are here, in order."""
        return {key: at for at, key in enumerate(self.every_key()) if key in keys} if keys else {}

    @cached_property
    def counts(self) -> Counter[int]:
        """How many came out each way."""
        return Counter(self.way)

    @cached_property
    def told(self) -> Counter[Way]:
        """How many came out each way, without what is not recorded yet."""
        found: Counter[Way] = Counter()
        for way, count in self.counts.items():
            if self.ways[way].label is not None:
                found[self.ways[way]] += count
        return found

    @cached_property
    def by_topic(self) -> dict[str | None, Counter[Way]]:
        """The same of each topic, what is not recorded too, in the order of first appearance."""
        found: dict[str | None, Counter[Way]] = {}
        for (group, way), count in Counter(zip(self.group, self.way, strict=True)).items():
            found.setdefault(self.groups[group][0], Counter())[self.ways[way]] += count
        return found

    @cached_property
    def repeated(self) -> bool:
        """Whether a question was asked more than once."""
        return has_repeats(self.unit)

    def where(self, wanted: Callable[[Way], bool]) -> Outcomes:
        """Those that came out in a wanted way."""
        if all(wanted(self.ways[way]) for way in self.counts):
            return self
        good = [wanted(way) for way in self.ways]
        return self.taken(array("I", (at for at, way in enumerate(self.way) if good[way])))

    def taken(self, places: Sequence[int]) -> Outcomes:
        """Those at some places."""
        made = Outcomes(self.bank, self.prompt, self._table)
        for name in _COLUMNS:
            column = getattr(self, name)
            setattr(made, name, array("I", map(column.__getitem__, places)))
        for number, at in enumerate(places):
            made._keys += self._keys[_KEY * at : _KEY * at + _KEY]
            if at in self._odd:
                made._odd[number] = self._odd[at]
        return made

    def topics(self) -> list[str | None]:
        """The topic of each."""
        named = [topic for topic, _ in self.groups]
        return list(map(named.__getitem__, self.group))

    def hits(self, first: str) -> list[bool]:
        """Of each, whether it has that label."""
        has = [way.label == first for way in self.ways]
        return list(map(has.__getitem__, self.way))

    def __len__(self) -> int:
        return len(self.way)

    @overload
    def __getitem__(self, at: int) -> Planned: ...

    @overload
    def __getitem__(self, at: slice) -> Outcomes: ...

    def __getitem__(self, at: int | slice) -> Planned | Outcomes:
        if isinstance(at, slice):
            return self.taken(range(len(self))[at])
        return self._made(range(len(self))[at])

    def __iter__(self) -> Iterator[Planned]:
        return map(self._made, range(len(self)))

    def _made(self, at: int) -> Planned:
        label, detail, reason = self.ways[self.way[at]]
        topic, subtopic = self.groups[self.group[at]]
        return Planned(
            self.key(at), self.bank, self.row[at], topic, self.prompt, self.epoch[at], label, self.unit[at], reason,
            detail, subtopic,
        )  # fmt: skip


def has_repeats(numbers: Sequence[int]) -> bool:
    """Whether a number stands twice among them; a byte for each number up to the largest, and no object."""
    if not numbers:
        return False
    most = max(numbers)
    if most > 64 * len(numbers) + 2**16:
        return len(set(numbers)) < len(numbers)
    seen = bytearray(most + 1)
    for number in numbers:
        seen[number] = 1
    return seen.count(1) < len(numbers)


def outcomes_of_cells(store: Store, judge: int) -> dict[tuple[str, str], Outcomes]:
    """Bank and prompt (sha256) -> how every planned attempt came out under one judge, in the planned order.

    Raises:
        StoreError: the store does not read.
        DamagedStore: a label or detail that the judge's measure does not have.
    """
    table = _Table()
    cells: dict[tuple[int, int], Outcomes] = {}
    with store.reading("reading outcomes") as db:
        units, (measure, labels) = _units(store, db), _labels(db, judge)
        banks = dict(db.execute("SELECT id, sha256 FROM banks"))
        prompts = dict(db.execute("SELECT id, sha256 FROM templates"))

        def way(found: tuple[str | None, ...]) -> int:
            label, detail, reason = found
            if not (label is None or label in labels) or not (detail is None or detail in DETAILS):
                raise DamagedStore(f"the run store is damaged: it holds a label that {measure} does not have")
            return table.way(label, detail, restore(reason))

        ways, groups = _Places(way), _Places(lambda found: table.group(*map(restore, found)))
        for lot in in_lots(over_newest(db, SELECT_PLANNED, (judge,))):
            attempts, keys, bank, question, row, topic, subtopic, prompt, epoch, *outcome = zip(*lot, strict=True)
            blobs(keys, _KEY)
            columns = (
                attempts,
                row,
                row if units is None else tuple(map(units.__getitem__, question)),
                tuple(map(ways.__getitem__, zip(*outcome, strict=True))),
                tuple(map(groups.__getitem__, zip(topic, subtopic, strict=True))),
                epoch,
            )
            for place, here in _each(tuple(zip(bank, prompt, strict=True))):
                if place not in cells:
                    cells[place] = Outcomes(banks[place[0]], prompts[place[1]], table)
                cells[place].extend(tuple(compress(keys, here)), *(compress(column, here) for column in columns))
    return {(cell.bank, cell.prompt): cell for cell in cells.values()}


def _each(places: Sequence[T]) -> Iterator[tuple[T, Sequence[bool]]]:
    """Every different one among them, and which they are; of a lot nearly always one."""
    for place in dict.fromkeys(places):
        yield place, [one == place for one in places]


class _Places(dict[tuple[str | None, ...], int]):
    """The place of what came, made when it comes first."""

    def __init__(self, make: Callable[[tuple[str | None, ...]], int]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, found: tuple[str | None, ...]) -> int:
        place = self[found] = self._make(found)
        return place


def _labels(db: sqlite3.Connection, judge: int) -> tuple[str, frozenset[str]]:
    """A judge's measure with its labels; those of every measure where the run has no such judge."""
    for (card,) in db.execute("SELECT card FROM judges WHERE id = ?", (judge,)):
        measure = MEASURES[from_json(card, JudgeCard).measure]
        return measure.name, frozenset(measure.labels)
    return "any measure", frozenset(label for measure in MEASURES.values() for label in measure.labels)


def planned_attempts(store: Store, judge: int) -> list[Planned]:
    """Every planned attempt of a run, under one judge, in the planned order: an object each.

    Raises:
        StoreError: the store does not read.
    """
    cells = outcomes_of_cells(store, judge).values()
    found = [(attempt, cell, at) for cell in cells for at, attempt in enumerate(cell.attempt)]
    return [cell[at] for _, cell, at in sorted(found, key=itemgetter(0))]


REPEATED_FROM = 1.5
"""From how many rows a text, over a bank, its texts are repeated as a rule: then rows of one text are one question."""


_QUESTIONS = "SELECT id, bank, row, text, earlier FROM questions ORDER BY bank, row"
_SEALED = "SELECT id, bank, row, text, earlier FROM main.questions ORDER BY bank, row"


def _units(store: Store, db: sqlite3.Connection) -> dict[int, int] | None:
    """A question's row in the store -> the bank's row that it is counted under; None: each under its own."""
    marks: dict[int, array[int]] = {}
    for _, banks, _, told in _told(store, db):
        hashes = array("q", map(hash, told))
        for bank, here in _each(banks):
            marks.setdefault(bank, array("q")).extend(compress(hashes, here))
    repeated = {bank for bank, of in marks.items() if len(of) >= REPEATED_FROM * _different(of)}
    if not repeated:
        return None
    first: dict[tuple[int, Any], int] = {}
    found: dict[int, int] = {}
    for lot in _told(store, db):
        for question, bank, row, one in zip(*lot, strict=True):
            found[question] = first.setdefault((bank, one), row) if bank in repeated else row
    return found


_TextMark = tuple[str | int, str | int | None]
"""What tells a question's text from others: the text and the turns before it, or their marks where they are sealed."""


def _told(
    store: Store, db: sqlite3.Connection
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[_TextMark]]]:
    """Of each question its row in the store, its bank, its row there, and what tells its text from others."""
    for lot in in_lots(db.execute(_SEALED if store.locked else _QUESTIONS)):
        questions, banks, rows, texts, earlier = zip(*lot, strict=True)
        if store.locked:
            told: list[_TextMark] = [
                (outside(text).mark, None if turns is None else outside(turns).mark)
                for text, turns in zip(texts, earlier, strict=True)
            ]
            yield questions, banks, rows, told
        else:
            yield questions, banks, rows, list(zip(map(same_text, map(restore, texts)), earlier, strict=True))


def _different(marks: array[int]) -> int:
    """How many different ones: sorted, since a set of a million numbers takes 60 MB."""
    import numpy as np

    found = np.sort(np.frombuffer(marks, dtype=np.int64))
    return int(1 + np.count_nonzero(found[1:] != found[:-1])) if len(found) else 0
