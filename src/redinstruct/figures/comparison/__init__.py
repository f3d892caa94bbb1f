"""Before and after: two runs held against each other, and the gate that a pipeline asks."""

from __future__ import annotations

from redinstruct.figures.comparison.before_after import compare
from redinstruct.figures.comparison.paired import FEWEST_TOPICS
from redinstruct.figures.comparison.values import MARGIN, SCHEMA, Comparison, Result
from redinstruct.figures.comparison.words import beyond_in_words, people_in_words
from redinstruct.figures.gate import GateCheck, GateResult, gate, worst_first
from redinstruct.figures.limit import FIGURES

__all__ = [
    "FEWEST_TOPICS",
    "FIGURES",
    "MARGIN",
    "SCHEMA",
    "Comparison",
    "GateCheck",
    "GateResult",
    "Result",
    "beyond_in_words",
    "compare",
    "gate",
    "people_in_words",
    "worst_first",
]
