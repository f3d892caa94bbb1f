"""Before and after: two runs held against each other."""

from __future__ import annotations

from redinstruct.figures.comparison.before_after import CompareSettings, compare
from redinstruct.figures.comparison.paired import FEWEST_TOPICS
from redinstruct.figures.comparison.values import MARGIN, SCHEMA, Comparison, Result
from redinstruct.figures.comparison.words import beyond_in_words, people_in_words

__all__ = [
    "FEWEST_TOPICS", "MARGIN", "SCHEMA", "CompareSettings", "Comparison", "Result", "beyond_in_words", "compare",
    "people_in_words",
]  # fmt: skip
