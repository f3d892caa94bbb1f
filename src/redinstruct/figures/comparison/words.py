"""One result of a comparison in sentences that need no statistics to read. Pure functions of the result."""

from __future__ import annotations

import math

from redinstruct.figures.comparison.values import Difference, Result
from redinstruct.figures.numbers import p_in_words


def why_in_words(result: Result) -> str:
    """One sentence: the change, its interval, of what; the p-value; and what holds beyond, or could have been seen."""
    change = result.difference
    assert change is not None
    moved = f"{change_in_words(result)}{_of_these(result)}, {p_in_words(change.p_holm)}"
    if result.verdict != "no difference shown":
        return "; ".join(filter(None, (moved, beyond_in_words(result))))
    if result.by == "people":
        return moved
    seen = detectable_in_words(result)
    return f"{moved}; " + (
        f"{seen} would show in four of five cases" if seen else "so few pairs could not show any difference"
    )


def change_in_words(result: Result) -> str:
    """``+1.2 points [-0.3, +2.7]``; scores that are no shares as they are."""
    change = result.difference
    assert change is not None
    if result.points:
        return _points(change)
    return f"{change.estimate:+.4g} [{change.low:+.4g}, {change.high:+.4g}]"


def _of_these(result: Result) -> str:
    """What the verdict is about."""
    if result.pairs is None or result.beyond is None:
        return ""
    topics, questions = result.pairs.topics, f"{result.pairs.questions:,} questions"
    where = f"on these {questions}" + (f" of {topics:,} topics" if topics > 1 else "")
    return f" {where}, by people's labels" if result.by == "people" else f" {where}"


def beyond_in_words(result: Result) -> str:
    """Whether it holds for topics in general; empty where nothing is to be said of that. Without a full stop."""
    if result.beyond is None or result.pairs is None or result.verdict not in ("better", "worse"):
        return ""
    topics, number = result.topics, result.pairs.topics
    if topics is None:
        few = {
            0: "the bank names no topics, and nothing is said of others",
            1: "all lie in one topic, which tells nothing of others",
        }
        return few.get(number, f"{number} topics are too few to tell of others")
    by = f"{topics.clusters:,} {topics.clustered_by}s"
    judge = "" if result.judge_difference is None else ", by the judge's labels"
    if result.beyond == "shown":
        return f"shown for topics in general too ({by}, {p_in_words(topics.p_holm)}{judge})"
    low, high = (f"{signed(end)}" for end in topics.spread)
    return (
        f"not shown for topics in general ({by}, {p_in_words(topics.p_holm)}{judge}): in single {topics.clustered_by}s"
        f" the change goes from {low} to {high} points"
    )


def people_in_words(result: Result) -> str:
    """What the judge by itself makes of a difference that people's labels decide, where that is another verdict."""
    people, judge = result.difference, result.judge_difference
    if people is None or judge is None:
        return ""
    said = f"by the judge's own labels it would be {_points(judge)}, {p_in_words(judge.p_value)}"
    level = 1 - judge.confidence
    sure = judge.p_value <= level and judge.estimate != 0
    if result.verdict in ("better", "worse"):
        if sure and (judge.estimate > 0) is not (people.estimate > 0):
            return f"{said}: people say the opposite of the judge"
        return "" if sure else f"{said}: the judge does not show what people's labels show"
    return f"{said}: people's labels do not show the difference that the judge shows" if sure else ""


def _points(change: Difference) -> str:
    return f"{signed(change.estimate)} points [{signed(change.low)}, {signed(change.high)}]"


def signed(share: float) -> str:
    """A difference in points with its sign; what rounds to nothing has none of its own."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def detectable_in_words(result: Result) -> str:
    """``8.5 points``; empty where nothing could be shown, or nothing is said of it."""
    seen = result.detectable
    if seen is None or seen >= (1 if result.points else math.inf):
        return ""
    return f"{100 * seen:.1f} points" if result.points else f"{seen:.3g}"
