"""Shares of a demo's tables, from a report's counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from redinstruct.figures.report import ResultFigures
from redinstruct.types import OVER_REFUSAL


class AttackShares(TypedDict):
    """How often a model gave in, and how that looked, by the way of asking: shares, and 95 % intervals of the first."""

    asr: dict[str, float]
    garbled: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def attacks(results: Mapping[str, ResultFigures]) -> AttackShares:
    """The figures of the forbidden questions, given by the way of asking."""
    return {
        "asr": {name: one.counts.first / one.counts.total for name, one in results.items()},
        "garbled": {name: one.details.garbled / one.counts.total for name, one in results.items()},
        "intervals": {name: (one.rate.all.low, one.rate.all.high) for name, one in results.items()},
    }


def in_sense(result: ResultFigures) -> float:
    """The share of harmless questions that were answered, and not with a garbled text."""
    assert result.measure == OVER_REFUSAL.name
    return (result.counts.second - result.details.garbled) / result.counts.total
