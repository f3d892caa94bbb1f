"""Before and after: two runs held against each other, and the gate that a pipeline asks."""

from __future__ import annotations

from redinstruct.comparison.before_after import compare
from redinstruct.comparison.gate import GateCheck, GateResult, gate, worst_first
from redinstruct.comparison.limit import FIGURES
from redinstruct.comparison.paired import FEWEST_TOPICS
from redinstruct.comparison.texts import comparison_markdown, gate_markdown
from redinstruct.comparison.texts import gate_junit as junit
from redinstruct.comparison.values import MARGIN, SCHEMA, Comparison, Result
from redinstruct.comparison.words import beyond_in_words, people_in_words

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
    "comparison_markdown",
    "gate",
    "gate_markdown",
    "junit",
    "people_in_words",
    "worst_first",
]
