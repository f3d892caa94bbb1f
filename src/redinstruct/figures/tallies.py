"""Outcomes counted: by how they came out where each question was asked once, question by question where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from redinstruct.figures.report import CorrectedRate, Counts, Details, Rate
from redinstruct.run import Outcomes, Planned, has_repeats
from redinstruct.run.planned import Way
from redinstruct.stats import Rates, rates_by_question, rates_of, tallied
from redinstruct.types import DETAILS, Measure


def rates_in(recorded: Outcomes, measure: Measure, confidence: float = 0.95) -> Rates:
    """The rates of recorded attempts, by question.

    Raises:
        ValueError: a label is not the measure's.
    """
    if not recorded.repeated:
        return rates_of(told_of(recorded.told), measure, confidence)
    said = [(way.label or "", way.reason) for way in recorded.ways]
    attempts = ((unit, *said[way]) for unit, way in zip(recorded.unit, recorded.way, strict=True))
    return rates_by_question(attempts, measure, confidence)


def told_of(ways: Counter[Way]) -> Counter[tuple[str, str | None]]:
    """Label and reason of what is recorded, counted."""
    found: Counter[tuple[str, str | None]] = Counter()
    for way, count in ways.items():
        if way.label is not None:
            found[way.label, way.reason] += count
    return found


def tries_of(outcomes: Outcomes, measure: Measure) -> tuple[list[int], list[int]]:
    """Successes and recorded attempts of each question."""
    recorded = outcomes.where(lambda way: way.label is not None)
    return tallied(recorded.hits(measure.first), recorded.unit)


def questions_hit(cells: Sequence[Outcomes], measure: Measure) -> tuple[int, int]:
    """Of the questions of one bank how many had a success under some prompt, and how many have an attempt recorded."""
    seen = bytearray(1 + max((max(cell.unit) for cell in cells if cell), default=0))
    for cell in cells:
        mark = [0 if way.label is None else 3 if way.label == measure.first else 1 for way in cell.ways]
        for unit, way in zip(cell.unit, cell.way, strict=True):
            seen[unit] |= mark[way]
    return seen.count(3), len(seen) - seen.count(0)


def rows_asked(cells: Sequence[Outcomes]) -> int:
    """How many rows of a bank were asked, under any prompt."""
    if len(cells) == 1 and not has_repeats(cells[0].row):
        return len(cells[0])
    return len(set().union(*(cell.row for cell in cells)))


class Tally(NamedTuple):
    """What the labels of some attempts come to, before people and other judges are asked."""

    planned: int
    counts: Counts
    details: Details
    rate: Rate
    coverage: float
    provisional: bool

    def corrected(self, rate: CorrectedRate | None, run: CorrectedRate | None = None) -> Tally:
        """The same with what people's labels make of its rate."""
        return self._replace(rate=msgspec.structs.replace(self.rate, corrected=rate, corrected_run=run))


def tally(measure: Measure, found: Sequence[Planned]) -> Tally:
    """Count outcomes; every rate by question, 95 % intervals."""
    outcomes = Outcomes.of(found)
    return tally_of(measure, len(outcomes), outcomes.told, outcomes if outcomes.repeated else None)


def tally_of(measure: Measure, planned: int, told: Counter[Way], repeated: Outcomes | None = None) -> Tally:
    """The same of counted ways; ``repeated`` holds the attempts where questions were asked more than once."""
    labels, details = Counter[str | None](), Counter[str]()
    for way, count in told.items():
        labels[way.label] += count
        if way.detail is not None:
            details[way.detail] += count
    if repeated is None:
        found = rates_of(told_of(told), measure)
    else:
        found = rates_in(repeated.where(lambda way: way.label is not None), measure)
    return Tally(
        planned,
        Counts(measure.name, found.total, *(labels[label] for label in measure.labels)),
        Details(**{name: details[name] for name in DETAILS if name != "promise" or details[name]}),
        Rate(found.judged, found.all, found.bounds),
        found.coverage,
        found.provisional,
    )
