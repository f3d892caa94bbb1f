"""Metrics: the figures of ``report`` over Inspect's scores, in which 1 is the measure's first label and 0 its second.

Inspect hands on one score a sample: with epochs their mean, from which ``tries`` (the number of epochs) gives the count
of successes back. Scores without a verdict are left out by Inspect itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from inspect_ai.scorer import Metric, SampleScore, Score, ScoreReducer, mean_score, metric, score_reducer

from redinstruct.inspect_tasks.notes import note_of
from redinstruct.stats import corrected as corrected_rate
from redinstruct.stats import hit_at_k
from redinstruct.stats.by_question import wilson_by_question
from redinstruct.stats.values import Interval


@score_reducer
def share() -> ScoreReducer:
    """The mean over a sample's epochs, as Inspect's; what people edited of a single one stays, for `corrected`."""
    mean = mean_score()

    def of(scores: list[Score]) -> Score:
        found = mean(scores)
        return found if len(scores) > 1 else found.model_copy(update={"history": list(scores[0].history)})

    return of


@metric
def judged() -> Metric:
    """The share of the judged that have the measure's first label: the paper's convention."""

    def of(scores: list[SampleScore]) -> float:
        values = [score.score.as_float() for score in scores]
        return sum(values) / len(values) if values else math.nan

    return of


@metric
def by_question(tries: int = 1) -> Metric:
    """The rate with its interval by question: one asked under several prompts, or several times, is one."""

    def of(scores: list[SampleScore]) -> dict[str, float]:
        successes: dict[object, int] = {}
        asked: dict[object, int] = {}
        for score in scores:
            question = note_of(score.sample_metadata).question or score.sample_id
            successes[question] = successes.get(question, 0) + round(score.score.as_float() * tries)
            asked[question] = asked.get(question, 0) + tries
        found = wilson_by_question(list(successes.values()), list(asked.values())) if asked else None
        return _told("by_question", found)

    return of


@metric
def at_k(tries: int = 1) -> Metric:
    """The share of samples with a success in k tries, without bias, for k from 1 to the number of epochs."""

    def of(scores: list[SampleScore]) -> dict[str, float]:
        counts = [round(score.score.as_float() * tries) for score in scores]
        return {f"at_{k}": _mean(hit_at_k(count, tries, k) for count in counts) for k in range(1, tries + 1)}

    return of


@metric
def corrected() -> Metric:
    """The rate that people would have found: those who edited or confirmed scores in Inspect's viewer drew at random.

    A score with a history is a person's label; what stood first in it is the judge's. NaN before anybody labelled, and
    with several epochs.
    """

    def of(scores: list[SampleScore]) -> dict[str, float]:
        judge: list[bool] = []
        people: dict[int, bool] = {}
        for place, score in enumerate(scores):
            history: list[Any] = list(score.score.history)
            now = score.score.as_float()
            first = history[0].value if history else now
            judge.append((first if isinstance(first, int | float) else now) > 0.5)
            if history:
                people[place] = now > 0.5
        return _told("corrected", corrected_rate(judge, people) if people else None)

    return of


def _told(name: str, found: Interval | None) -> dict[str, float]:
    if found is None or found.estimate is None:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held) if held else math.nan
