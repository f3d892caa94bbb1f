"""Where a run's outcomes vary: between questions, prompts, samples; between wordings of a frame; between topics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from redinstruct.run import Planned
from redinstruct.stats import (
    Interval,
    RepeatedVerdict,
    Shares,
    grouped,
    shrunken,
    tallied,
    variance_shares,
    wilson_by_question,
)
from redinstruct.types import Measure

FEWEST_TO_SHRINK = 5
"""With fewer topics nobody can say how unlike they are."""
FRAME = "cou"
"""The prompts that are wordings of one frame: this one, and those whose names go on from it (``cou-...``)."""


class Wording(msgspec.Struct, frozen=True):
    """How far a frame's wordings move its rate: the mean of their rates, its range, and the standard deviation between
    them beyond what samples of questions make.
    """

    prompts: tuple[str, ...]
    estimate: float
    range: tuple[float, float]
    spread: float


class Rereading(msgspec.Struct, frozen=True):
    """How far a judge agrees with itself on the answers that it read more than once.

    ``same`` is the share of them whose first and last label are one, by question; ``first`` and ``last`` are the rates
    of the two readings among those that got one of the measure's two labels both times: where they differ, the judge
    has drifted, and nothing of the model has.
    """

    answers: int
    readings: int
    same: Interval
    first: float | None
    last: float | None


class Variation(NamedTuple):
    """Of one bank under one judge, over all prompts: None where all came out alike, or nothing was repeated; and None
    with fewer than two wordings of the CoU frame.
    """

    variance: Shares | None
    wording: Wording | None


def variation(
    measure: Measure,
    outcomes: Sequence[Planned],
    names: Mapping[str, str],
    history: Mapping[bytes, Sequence[str]] | None = None,
) -> Variation:
    """Where the outcomes vary. Prompts' ``names`` are by sha256; ``history`` holds every label of the answers that the
    judge read more than once.
    """
    two, read = measure.labels[:2], history or {}
    judged = [o for o in outcomes if o.label in two]
    readings = [
        RepeatedVerdict(o.unit, o.prompt, o.key, label == measure.first)
        for o in judged
        for label in read.get(o.key, [o.label or ""])
        if label in two
    ]
    shares = variance_shares(readings)
    several = shares is not None and any(share is not None for share in (*shares[:3], shares.reading))
    frames = [r for r in readings if names[str(r.prompt)] == FRAME or names[str(r.prompt)].startswith(f"{FRAME}-")]
    return Variation(shares if several else None, _wording(frames, names))


def _wording(readings: Sequence[RepeatedVerdict], names: Mapping[str, str]) -> Wording | None:
    hits = grouped([names[str(reading.prompt)] for reading in readings], [reading.hit for reading in readings])
    if len(hits) < 2:
        return None
    found = [sum(of) / len(of) for of in hits.values()]
    shares = variance_shares(readings)
    between = 0.0 if shares is None or shares.prompt is None else shares.prompt * shares.total
    return Wording(tuple(hits), sum(found) / len(found), (min(found), max(found)), math.sqrt(between))


def shrunken_topics(counts: Sequence[tuple[int, int]], effect: float = 1.0) -> list[Interval | None]:
    """Each topic's rate of the judged, drawn to the other topics'; None of a topic, or of so few, without one.

    ``counts`` are the topics' two labels. ``effect`` answers weigh as much as one independent one, where questions were
    asked several times.
    """
    whole = [(math.ceil(first / effect), math.ceil(second / effect)) for first, second in counts]
    judged = [(first, first + second) for first, second in whole if first + second]
    if len(judged) < FEWEST_TO_SHRINK:
        return [None] * len(counts)
    drawn = iter(shrunken([hits for hits, _ in judged], [total for _, total in judged]))
    return [next(drawn) if sum(pair) else None for pair in whole]


def repeated_judging(
    measure: Measure, outcomes: Sequence[Planned], history: Mapping[bytes, Sequence[str]]
) -> Rereading | None:
    """How far a judge agrees with itself on one bank and prompt; None where it read every answer once."""
    if not history:
        return None
    two = measure.labels[:2]
    read = [(o, history[o.key]) for o in outcomes if o.key in history]
    if not read:
        return None
    same = wilson_by_question(*tallied([labels[0] == labels[-1] for _, labels in read], [o.unit for o, _ in read]))
    ends = [(labels[0], labels[-1]) for _, labels in read]
    both = [(one == measure.first, other == measure.first) for one, other in ends if one in two and other in two]
    return Rereading(
        len(read),
        max(len(labels) for _, labels in read),
        same,
        sum(first for first, _ in both) / len(both) if both else None,
        sum(last for _, last in both) / len(both) if both else None,
    )
