"""Which runs a folder holds, and each in a line: what it is, how far it is, its worst rate, when it was made.

Promised: nothing is written, no link is followed, and a run that does not read is a line that says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import RedInstructError
from redinstruct.figures.scores import utility_in
from redinstruct.run import STORE_NAME, CollectionStore, CountRow, Store, is_run, judges_of, times_of
from redinstruct.safetext import shown
from redinstruct.stats import wilson
from redinstruct.types import MEASURES, JudgeCard

DEEPEST = 5
"""How many folders below the one that was named runs are looked for."""
MOST_RUNS = 2000
"""How many runs are listed."""


class Worst(msgspec.Struct, frozen=True):
    """The highest rate of a run by the judge that leads: of the judged, with its 95 % interval."""

    prompt: str
    bank: str
    estimate: float
    low: float
    high: float
    judged: int


class ShelfLine(msgspec.Struct, frozen=True):
    """One run as a list shows it; ``place`` is its folder below the one that is looked at, ``.`` for that one itself.

    ``kind`` is ``evaluation``, ``utility``, ``collection``, ``empty`` or ``unreadable``; of the last, ``problem`` says
    why. ``done`` and ``planned`` count attempts (tasks of a utility check, calls of a collection).
    """

    place: str
    kind: str
    model: str = ""
    measure: str = ""
    banks: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    judge: str = ""
    done: int = 0
    planned: int | None = None
    worst: Worst | None = None
    told: str = ""
    began: float | None = None
    seconds: float | None = None
    problem: str = ""


class Shelf:
    """The runs below a folder. A line is read again only where its store has changed since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int], ShelfLine]] = {}

    def lines(self) -> list[ShelfLine]:
        """Every run, the newest first, those without a time last."""
        found: dict[str, tuple[tuple[int, int], ShelfLine]] = {}
        for run in runs_below(self.folder):
            place = run.relative_to(self.folder).as_posix()
            stamp, known = _stamp(run), self._known.get(place)
            found[place] = known if known is not None and known[0] == stamp else (stamp, line_of(run, place))
        self._known = found
        return sorted((line for _, line in found.values()), key=lambda line: -(line.began or 0.0))

    def run(self, place: str) -> Path | None:
        """The folder of a run that was listed; None for any other word, whatever path it makes."""
        return self.folder / place if place in self._known else None


def runs_below(folder: Path) -> Iterator[Path]:
    """The run folders at and below a folder, in the order of their names; hidden ones and links are passed by."""
    found, waiting = 0, [(folder, 0)]
    while waiting and found < MOST_RUNS:
        place, depth = waiting.pop()
        if is_run(place):
            found += 1
            yield place  # and what lies in it: the evaluations of a stress run do
        if depth < DEEPEST:
            waiting += [(Path(below), depth + 1) for below in reversed(_folders(place))]


def _folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(e.path for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _stamp(run: Path) -> tuple[int, int]:
    """By what a store is known to be the same; a write-ahead log counts where something stands in it."""
    found = []
    for name in (STORE_NAME, f"{STORE_NAME}-wal"):
        try:
            found.append((run / name).stat())
        except OSError:
            continue
    full = [one for one in found if one.st_size]
    return max((one.st_mtime_ns for one in full), default=-1), sum(one.st_size for one in full)


def line_of(run: Path, place: str) -> ShelfLine:
    """One run in a line, whatever it holds."""
    try:
        with Store.open_for_reading(run) as store:
            times = times_of(store)
            return msgspec.structs.replace(_line(store, place), began=times.began, seconds=times.seconds)
    except (RedInstructError, OSError) as error:
        return ShelfLine(place, "unreadable", problem=shown(str(error).replace(str(run), place)))


def _line(store: Store, place: str) -> ShelfLine:
    if (check := utility_in(store)) is not None:
        told = ", ".join(f"{m.task} {'-' if m.mean is None else f'{m.mean:.3g}'}" for m in check.headline[:4])
        return ShelfLine(
            place, "utility", check.model, done=len(check.cards), planned=len(check.config.tasks), told=told
        )
    if store.kind == "collection":
        return ShelfLine(place, "collection", done=CollectionStore(store).answered())
    config = store.config()
    if config is None:
        return ShelfLine(place, "empty")
    row, card = judges_of(store)[0]
    counts = store.counts(row)
    return ShelfLine(
        place,
        "evaluation",
        config.model,
        config.measure,
        tuple(bank.name for bank in config.banks),
        tuple(prompt.name for prompt in config.prompts),
        card.name if card.model is None else f"{card.name} on {card.model}",
        sum(one.count for one in counts if one.label is not None),
        sum(one.count for one in counts),
        _worst(counts, card),
    )


def _worst(counts: Sequence[CountRow], card: JudgeCard) -> Worst | None:
    measure = MEASURES[card.measure]
    tallies: dict[tuple[str, str], list[int]] = {}
    for one in counts:
        if one.label in (measure.first, measure.second):
            tally = tallies.setdefault((one.prompt, one.bank), [0, 0])
            tally[one.label == measure.second] += one.count
    if not tallies:
        return None
    (prompt, bank), (first, second) = max(tallies.items(), key=lambda pair: pair[1][0] / sum(pair[1]))
    rate = wilson(first, first + second)
    assert rate.estimate is not None
    return Worst(prompt, bank, rate.estimate, rate.low, rate.high, first + second)
