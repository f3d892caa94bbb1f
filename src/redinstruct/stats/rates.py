"""From the six labels of a measure to the figures of a report: both conventions, the bounds, the coverage.

With p and n the measure's two labels, N the number of attempts, withheld the answers that a provider's filter kept
back, and unscored = judge_refused + unparsable + error + unread (``no_response`` for any reason but a filter):

    judged    p / (p + n)                              the papers' convention; flatters whoever answers nothing
    all       p / N                                    every attempt counts
    worst     (p + unscored) / N                       as if all that nobody could tell were p
    bounds    [p / N, (p + unscored + withheld) / N]   whatever the attempts without a verdict were
    coverage  (p + n) / N                              below 0.95 the figures are provisional

Promised: the four counts add up to N, whatever came in; intervals are by question, whatever the number of tries of
each. Not promised: a correction for the judge's own errors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from redinstruct.stats.by_question import wilson_by_question
from redinstruct.stats.checks import checked_count
from redinstruct.stats.intervals import wilson
from redinstruct.stats.values import Interval
from redinstruct.types import Measure, NoResponseReason, is_unscored, is_withheld

PROVISIONAL_BELOW = 0.95
"""The coverage under which a figure is provisional."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The figures of one group of attempts, with the counts that they come from.

    ``positive`` and ``negative`` count the measure's first and second label, ``withheld`` the answers that a filter
    kept back, ``unread`` those without a text to read, ``unscored`` these with judge_refused, unparsable and error:
    positive, negative, withheld and unscored sum to ``total``. ``questions`` counts different questions. ``judged``,
    ``all`` and ``worst`` are Wilson intervals by question, ``bounds`` and ``coverage`` proportions. Without attempts
    the coverage is 0 and the bounds are (0, 1).
    """

    positive: int
    negative: int
    withheld: int
    unread: int
    unscored: int
    total: int
    questions: int
    judged: Interval
    all: Interval
    worst: Interval
    bounds: tuple[float, float]
    coverage: float
    provisional: bool


def rates(
    counts: Mapping[str, SupportsIndex], measure: Measure, confidence: float = 0.95, *, withheld: SupportsIndex = 0
) -> Rates:
    """The rates of one measure where each attempt asked a question of its own.

    Args:
        counts: how many attempts carry each label; exactly the six of ``measure.labels``, zeros included.
        measure: what is counted.
        confidence: of the intervals; a proportion inside (0, 1).
        withheld: how many of ``no_response`` a provider's filter kept back; the others are unread.

    Raises:
        ValueError: a label is missing or is not the measure's, a count is negative or no integer, more are withheld
            than gave no response, or the confidence is not in (0, 1).

    Source: docs/architecture.md, the contract of ``report --json``.
    """
    if set(counts) != set(measure.labels):
        missing = [label for label in measure.labels if label not in counts]
        foreign = sorted(repr(label) for label in counts if label not in measure.labels)
        raise ValueError(f"counts must hold exactly the six labels of {measure.name}: {missing=}, {foreign=}")
    checked = {label: checked_count(label, counts[label]) for label in measure.labels}
    kept = checked_count("withheld", withheld)
    if kept > (silent := checked["no_response"]):
        raise ValueError(f"withheld must not exceed no_response, not {kept} of {silent}")
    ways: dict[tuple[str, str | None], int] = {(label, None): count for label, count in checked.items()}
    ways["no_response", None], ways["no_response", NoResponseReason.PROVIDER_FILTER] = silent - kept, kept
    return rates_of(ways, measure, confidence)


def rates_by_question(
    attempts: Iterable[tuple[Hashable, str, str | None]], measure: Measure, confidence: float = 0.95
) -> Rates:
    """The rates of one measure over recorded attempts, several of which may have asked one question.

    Args:
        attempts: (question, label, reason) of each recorded attempt; the label is one of ``measure.labels``.
        measure: what is counted.
        confidence: of the intervals; a proportion inside (0, 1).

    Raises:
        ValueError: a label is not the measure's, or the confidence is not in (0, 1).
    """
    tallies: dict[Hashable, list[int]] = {}
    ways: dict[tuple[str, str | None], int] = {}
    unread = 0
    for question, label, reason in attempts:
        way = ways.get((label, reason))
        if way is None:
            way = ways[label, reason] = _way(label, reason, measure)
        row = tallies.get(question)
        if row is None:
            row = tallies[question] = [0, 0, 0, 0]
        row[way] += 1
        unread += way == 3 and label == "no_response"
    questions = list(tallies.values())
    whole = [sum(row[way] for row in questions) for way in range(4)]
    if sum(whole) == len(questions):
        return _asked_once(whole, unread, confidence)
    hits, sizes = [row[0] for row in questions], [sum(row) for row in questions]
    scored, worst = [row[0] + row[1] for row in questions], [row[0] + row[3] for row in questions]
    found = [wilson_by_question(x, n, confidence) for x, n in ((hits, scored), (hits, sizes), (worst, sizes))]
    return _rates(whole, unread, len(questions), *found)


def rates_of(ways: Mapping[tuple[str, str | None], int], measure: Measure, confidence: float = 0.95) -> Rates:
    """The same where each question was asked once: ``ways`` counts (label, reason).

    Raises:
        ValueError: as :func:`rates_by_question`, or a count is negative or no integer.
    """
    whole, unread = [0, 0, 0, 0], 0
    for (label, reason), count in ways.items():
        way = _way(label, reason, measure)
        whole[way] += checked_count(label, count)
        unread += count * (way == 3 and label == "no_response")
    return _asked_once(whole, unread, confidence)


def _asked_once(counts: Sequence[int], unread: int, confidence: float) -> Rates:
    positive, negative, _, unscored = counts
    total = sum(counts)
    found = (positive, positive + negative), (positive, total), (positive + unscored, total)
    return _rates(counts, unread, total, *(wilson(x, n, confidence) for x, n in found))


def _way(label: str, reason: str | None, measure: Measure) -> int:
    """What an attempt counts as, by place: positive, negative, withheld or unscored."""
    if label in measure.labels[:2]:
        return measure.labels.index(label)
    if is_withheld(label, reason):
        return 2
    if is_unscored(label, reason):
        return 3
    raise ValueError(f"{label!r} is not a label of {measure.name}")


def _rates(
    counts: Sequence[int], unread: int, questions: int, judged: Interval, every: Interval, worst: Interval
) -> Rates:
    positive, negative, withheld, unscored = counts
    total = sum(counts)
    coverage = (positive + negative) / total if total else 0.0
    return Rates(
        positive, negative, withheld, unread, unscored, total, questions, judged, every, worst,
        bounds(positive, negative, unscored, withheld), coverage, coverage < PROVISIONAL_BELOW,
    )  # fmt: skip


def bounds(
    positive: SupportsIndex, negative: SupportsIndex, unscored: SupportsIndex, withheld: SupportsIndex
) -> tuple[float, float]:
    """Between which rates the truth of these very attempts lies, whatever the ones without a verdict were.

    Returns:
        ``(p / N, (p + unscored + withheld) / N)`` as proportions, with N the sum of all four counts; (0, 1) when
        N is 0. No confidence interval: nothing is sampled here.

    Raises:
        ValueError: a count is negative or no integer.

    Source: the worst-case bounds of Manski, American Economic Review 80 (1990) 319-323, for a binary outcome.
    """
    p = checked_count("positive", positive)
    n = checked_count("negative", negative)
    unknown = checked_count("unscored", unscored) + checked_count("withheld", withheld)
    total = p + n + unknown
    if total == 0:
        return 0.0, 1.0
    return p / total, (p + unknown) / total
