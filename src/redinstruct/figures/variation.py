"""Where a run's outcomes vary: between questions, prompts, samples; between wordings of a frame; between topics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from redinstruct.run import Planned
from redinstruct.stats import Reading, shrunken, tallied, variance_shares, wilson_by_question
from redinstruct.types import MEASURES, Measure

FEWEST_TO_SHRINK = 5
"""With fewer topics nobody can say how unlike they are."""
FRAME = "cou"
"""The prompts that are wordings of one frame: this one, and those whose names go on from it (``cou-...``)."""


def variation(
    measure: Measure,
    outcomes: Sequence[Planned],
    names: Mapping[str, str],
    history: Mapping[bytes, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The keys ``variance`` and ``wording`` of one bank under one judge, over all prompts; ``names`` by sha256.

    ``history`` holds every label of the answers that the judge read more than once.

    ``variance`` is :class:`redinstruct.stats.Shares` by name, null where all came out alike or nothing was repeated.
    ``wording`` is null with fewer than two wordings of the CoU frame, else the mean of their rates (``estimate``),
    their ``range``, and the ``spread``: the standard deviation between wordings beyond what samples of questions make.
    """
    two, read = measure.labels[:2], history or {}
    judged = [o for o in outcomes if o.label in two]
    readings = [
        Reading(o.unit, o.prompt, o.key, label == measure.first)
        for o in judged
        for label in read.get(o.key, [o.label or ""])
        if label in two
    ]
    shares = variance_shares(readings)
    several = shares is not None and any(share is not None for share in (*shares[:3], shares.reading))
    frames = [r for r in readings if names[str(r.prompt)] == FRAME or names[str(r.prompt)].startswith(f"{FRAME}-")]
    return {
        "variance": shares._asdict() if shares is not None and several else None,
        "wording": _wording(frames, names),
    }


def _wording(readings: Sequence[Reading], names: Mapping[str, str]) -> dict[str, Any] | None:
    rates: dict[str, list[int]] = {}
    for reading in readings:
        row = rates.setdefault(names[str(reading.prompt)], [0, 0])
        row[0] += reading.hit
        row[1] += 1
    if len(rates) < 2:
        return None
    found = [hits / total for hits, total in rates.values()]
    shares = variance_shares(readings)
    between = 0.0 if shares is None or shares.prompt is None else shares.prompt * shares.total
    return {
        "prompts": list(rates),
        "estimate": sum(found) / len(found),
        "range": [min(found), max(found)],
        "spread": math.sqrt(between),
    }


def shrink(result: dict[str, Any], effect: float = 1.0) -> None:
    """Put each topic's rate of the judged, drawn to the other topics', into a result: ``shrunken``, null without one.

    ``effect`` answers weigh as much as one independent one, where questions were asked several times.
    """
    measure = MEASURES[result["measure"]]
    counts = [
        [math.ceil(part["counts"][label] / effect) for label in measure.labels[:2]] for part in result["by_topic"]
    ]
    judged = [index for index, (first, second) in enumerate(counts) if first + second]
    enough = len(judged) >= FEWEST_TO_SHRINK
    drawn = shrunken([counts[i][0] for i in judged], [sum(counts[i]) for i in judged]) if enough else []
    by_topic = dict(zip(judged, drawn, strict=False))
    for index, part in enumerate(result["by_topic"]):
        found = by_topic.get(index)
        part["shrunken"] = None if found is None else {
            "estimate": found.estimate, "ci": [found.low, found.high], "method": found.method
        }  # fmt: skip


def repeated_judging(
    measure: Measure, outcomes: Sequence[Planned], history: Mapping[bytes, Sequence[str]]
) -> dict[str, Any] | None:
    """How far a judge agrees with itself on the answers of one bank and prompt that it read more than once; else None.

    ``same`` is the share of them whose first and last label are one, by question; ``first`` and ``last`` are the rates
    of the two readings among those that got one of the measure's two labels both times: where they differ, the judge
    has drifted, and nothing of the model has.
    """
    two = measure.labels[:2]
    read = [(o, history[o.key]) for o in outcomes if o.key in history]
    if not read:
        return None
    same = wilson_by_question(*tallied([labels[0] == labels[-1] for _, labels in read], [o.unit for o, _ in read]))
    ends = [(labels[0], labels[-1]) for _, labels in read]
    both = [(one == measure.first, other == measure.first) for one, other in ends if one in two and other in two]
    return {
        "answers": len(read),
        "readings": max(len(labels) for _, labels in read),
        "same": {"estimate": same.estimate, "ci": [same.low, same.high], "method": same.method},
        "first": sum(first for first, _ in both) / len(both) if both else None,
        "last": sum(last for _, last in both) / len(both) if both else None,
    }
