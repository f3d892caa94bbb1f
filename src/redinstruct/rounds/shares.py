"""Shares of a demo's tables, from a report's counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from redinstruct.figures.report import ResultFigures
from redinstruct.rounds.run import Measured
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


def by_prompt(model: Measured, kind: str) -> dict[str, ResultFigures]:
    """A model's results on the banks whose names begin so, by the way of asking."""
    return {result.prompt: result for result in model.results if result.bank.startswith(kind)}


def in_sense(result: ResultFigures) -> float:
    """The share of harmless questions that were answered, and not with a garbled text."""
    assert result.measure == OVER_REFUSAL.name
    return (result.counts.second - result.details.garbled) / result.counts.total
