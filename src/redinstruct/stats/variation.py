"""Where the outcomes of a run vary: between questions, prompts, samples and readings; and topics drawn to each other.

Promised: parts of the variance are unbiased but for being cut at 0, whatever is missing of the crossing; a group's
shrunken rate lies between its own and the mean. Not promised: intervals of the shares; intervals of shrunken rates know
nothing of the uncertainty in how unlike the groups are, and are too narrow with fewer than about ten groups.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, SupportsIndex

from redinstruct.stats.checks import checked_alpha
from redinstruct.stats.clusters import checked_clusters
from redinstruct.stats.values import Interval

SHRUNKEN = "empirical bayes, beta-binomial"


class RepeatedVerdict(NamedTuple):
    """One verdict: of which question under which prompt, on which answer, and whether it was a hit."""

    question: Hashable
    prompt: Hashable
    answer: Hashable
    hit: bool


class Shares(NamedTuple):
    """Shares of the variance of one verdict, summing to 1. None where nothing was repeated that could tell.

    ``question`` and ``prompt`` are those of their rates, ``together`` of what a prompt does to single questions (with
    ``sample`` where none was sampled twice), ``sample`` of the answers to one question under one prompt, ``reading`` of
    the verdicts on one answer (in ``sample`` where none was read twice). ``total`` is the variance that they share.
    """

    question: float | None
    prompt: float | None
    together: float | None
    sample: float
    reading: float | None
    total: float


def variance_shares(readings: Iterable[RepeatedVerdict]) -> Shares | None:
    """How much of the outcomes' variance lies between questions, prompts, samples and readings.

    Each part is the mean product of two deviations over all pairs of verdicts that share what it names and nothing
    closer, less the part above it: pairs on one question under different prompts give the question's, and so on.

    Returns:
        The shares; None of fewer than two verdicts, of such as came out alike, and of few whose parts all come to 0.

    Source: the crossed random-effects model of Searle, Casella & McCulloch, Variance Components (1992), section 5.1, by
    products of pairs (Koch, Technometrics 9 (1967) 93-118), which needs no balance.
    """
    found = list(readings)
    if len({reading.hit for reading in found}) < 2:
        return None
    mean = sum(reading.hit for reading in found) / len(found)
    levels = (
        lambda r: r.question,
        lambda r: r.prompt,
        lambda r: (r.question, r.prompt),
        lambda r: (r.question, r.prompt, r.answer),
    )
    question, prompt, cell, answer = (_pairs([(level(r), r.hit - mean) for r in found]) for level in levels)
    alone = len({r.prompt for r in found}) == 1
    every = _pairs([(None, r.hit - mean) for r in found])
    apart = every[0] - question[0] - prompt[0] + cell[0], every[1] - question[1] - prompt[1] + cell[1]
    if alone:  # under one prompt alone the pairs that share no question share nothing, and a cell is a question
        apart, question, cell = (every[0] - question[0], every[1] - question[1]), cell, answer
    # Pairs that share nothing: their mean product is what the estimated mean takes from all others.
    base = apart[0] / apart[1] if apart[1] else 0.0
    # Pairs within a question less those within a cell are those of one question under two prompts; and so on down.
    of_question = _mean(question, cell, base) if apart[1] else None
    of_prompt = _mean(prompt, cell, base) if apart[1] and not alone else None
    of_cell = None if alone else _mean(cell, answer, base)
    of_answer = _mean(answer, (0.0, 0), base)
    whole = mean * (1 - mean) - base
    between = max(of_question or 0.0, 0.0) + max(of_prompt or 0.0, 0.0)
    together = None if of_cell is None else max(of_cell - between, 0.0)
    above = between + (together or 0.0)
    reading = None if of_answer is None else max(whole - max(of_answer, above), 0.0)
    parts = [of_question, of_prompt, together, reading]
    told = [None if part is None else max(part, 0.0) for part in parts]
    rest = max(whole - sum(part for part in told if part is not None), 0.0)
    total = rest + sum(part for part in told if part is not None)
    if total == 0:
        return None
    shares = [None if part is None else part / total for part in told]
    return Shares(shares[0], shares[1], shares[2], rest / total, shares[3], total)


def _pairs(values: Iterable[tuple[Hashable, float]]) -> tuple[float, int]:
    """The sum of products over all pairs of one group, and how many pairs there are."""
    sums: dict[Hashable, list[float]] = {}
    for group, value in values:
        row = sums.setdefault(group, [0.0, 0.0, 0.0])
        row[0] += value
        row[1] += value * value
        row[2] += 1
    products = math.fsum((total * total - squares) / 2 for total, squares, _ in sums.values())
    return products, sum(int(n * (n - 1) // 2) for _, _, n in sums.values())


def _mean(outer: tuple[float, int], inner: tuple[float, int], base: float) -> float | None:
    pairs = outer[1] - inner[1]
    return (outer[0] - inner[0]) / pairs - base if pairs else None


def shrunken(
    successes: Sequence[SupportsIndex], totals: Sequence[SupportsIndex], confidence: float = 0.95
) -> list[Interval]:
    """The rates of several groups, each drawn towards their mean as far as its own size does not speak for it.

    Args:
        successes: how many trials of each group succeeded; shape (G,).
        totals: how many trials each holds, not none; shape (G,), G at least 2.
        confidence: of each interval by itself, a proportion inside (0, 1).

    Returns:
        The mean and the central interval of each group's posterior, whose beta prior has the groups' mean and the
        correlation within groups that their differences show, and weighs between one trial and all of them: groups that
        differ no more than chance makes them are drawn together, to what all of them tell.

    Raises:
        ValueError: as :func:`redinstruct.stats.clustered`; or fewer than two groups, or an empty one.

    Source: the beta-binomial model, its correlation by analysis of variance (Donner, Biometrics 42 (1986) 401-408;
    Ridout, Demétrio & Firth, Biometrics 55 (1999) 137-148); empirical Bayes as Efron & Morris, JASA 70 (1975) 311-319.
    """
    from scipy.special import betaincinv

    alpha = checked_alpha(confidence)
    pairs = checked_clusters(successes, totals)
    if len(pairs) < 2 or len(pairs) < len(totals):
        raise ValueError("groups to shrink must be at least two, none of them empty")
    hits, size, groups = sum(x for x, _ in pairs), sum(n for _, n in pairs), len(pairs)
    # Half a success and half a failure: a mean of 0 or 1 is no prior.
    mean = (hits + 0.5) / (size + 1)
    alike = max(_correlation(pairs, size, groups), 0.0)
    # All groups together are what the mean is told from: as a prior it weighs no more than they do, nor less than one.
    weight = min(max((1 - alike) / alike if alike else math.inf, 1.0), float(size))
    found = []
    for x, n in pairs:
        a, b = x + mean * weight, n - x + (1 - mean) * weight
        low, high = (float(betaincinv(a, b, tail)) for tail in (alpha / 2, 1 - alpha / 2))
        estimate = a / (a + b)
        found.append(Interval(estimate, min(low, estimate), max(high, estimate), SHRUNKEN))
    return found


def _correlation(pairs: Sequence[tuple[int, int]], size: int, groups: int) -> float:
    rate = sum(x for x, _ in pairs) / size
    inside = size - groups
    typical = (size - sum(n * n for _, n in pairs) / size) / (groups - 1)
    if inside <= 0 or typical <= 0:
        return 0.0
    between = math.fsum(n * (x / n - rate) ** 2 for x, n in pairs) / (groups - 1)
    within = math.fsum(x * (1 - x / n) for x, n in pairs) / inside
    spread = between + (typical - 1) * within
    return (between - within) / spread if spread > 0 else 0.0
