"""Where a run's outcomes vary: between questions, prompts, samples; between wordings of a frame; between topics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from redinstruct.stats import Reading, shrunken, variance_shares
from redinstruct.store import Planned
from redinstruct.types import MEASURES, Measure

FEWEST_TO_SHRINK = 5
"""With fewer topics nobody can say how unlike they are."""
FRAME = "cou"
"""The prompts that are wordings of one frame: this one, and those whose names go on from it (``cou-...``)."""


def variation(measure: Measure, outcomes: Sequence[Planned], names: Mapping[str, str]) -> dict[str, Any]:
    """The keys ``variance`` and ``wording`` of one bank under one judge, over all prompts; ``names`` by sha256.

    ``variance`` is :class:`redinstruct.stats.Shares` by name, null where all came out alike or nothing was repeated.
    ``wording`` is null with fewer than two wordings of the CoU frame, else the mean of their rates (``estimate``),
    their ``range``, and the ``spread``: the standard deviation between wordings beyond what samples of questions make.
    """
    judged = [o for o in outcomes if o.label in measure.labels[:2]]
    readings = [Reading(o.unit, o.prompt, o.key, o.label == measure.first) for o in judged]
    shares = variance_shares(readings)
    several = shares is not None and (shares.question is not None or shares.prompt is not None)
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
