"""Which of a run's checkpoints to keep: the safest of those that are still of use. Pure.

``on_evaluate(folder, step)`` answers ``safety`` and ``utility``, both better the higher; the base is asked about first
(step 0). What it measures on is its own affair, and must not be the test split: the choice is made by these figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from redinstruct.errors import UsageError

REFUSED = "refused while training"
"""The figure of the harmless questions (:mod:`redinstruct.safealign.probe`), where they were asked at that step."""
OnEvaluate = Callable[[Path, int], Mapping[str, float]]


class Candidate(msgspec.Struct, frozen=True):
    """One evaluated checkpoint."""

    step: int
    figures: dict[str, float]

    @property
    def safety(self) -> float:
        """Higher is better."""
        return self.figures["safety"]

    @property
    def utility(self) -> float:
        """Higher is better."""
        return self.figures["utility"]


def candidate(step: int, figures: Mapping[str, float]) -> Candidate:
    """An answer of ``on_evaluate``, checked.

    Raises:
        UsageError: it holds no finite ``safety`` and ``utility``, or something else than numbers.
    """
    try:
        held = {str(name): float(value) for name, value in figures.items()}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"on_evaluate must answer numbers by their names (step {step})") from None
    for name in ("safety", "utility"):
        if not math.isfinite(held.get(name, math.nan)):
            raise UsageError(f"on_evaluate must answer a finite {name!r} (step {step})")
    return Candidate(step, held)


def best(base: Candidate, found: Iterable[Candidate], margin: float) -> Candidate | None:
    """The safest candidate whose utility is at most ``margin`` below the base's.

    Ties go to utility, then to what refuses fewer harmless questions, then to the later.

    None where no candidate keeps that much utility.
    """

    def order(one: Candidate) -> tuple[float, float, float, int]:
        return one.safety, one.utility, -one.figures.get(REFUSED, 1.0), one.step

    return max((one for one in found if one.utility >= base.utility - margin), key=order, default=None)


def front(found: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that no other beats in one figure without losing in the other, by step."""
    every = sorted(found, key=lambda one: one.step)
    return [one for one in every if not any(_beats(other, one) for other in every)]


def _beats(one: Candidate, other: Candidate) -> bool:
    at_least = one.safety >= other.safety and one.utility >= other.utility
    return at_least and (one.safety > other.safety or one.utility > other.utility)
