"""A rate over questions that come in clusters: topics, or several samples of one question.

Promised: as wide as the clusters' differences demand, never narrower than treating all trials as independent. Not
promised: much with few clusters (under about 10 it is wide and only approximate); and where every trial had the same
outcome, the data say nothing about clustering, and none is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex

from redinstruct.stats.checks import check_as_many, checked_alpha, checked_counts
from redinstruct.stats.intervals import quantile, score_low
from redinstruct.stats.values import Interval

METHOD = "clustered wilson"


class Robust(NamedTuple):
    """How uncertain a mean over clusters is: its variance, and the degrees of freedom of that variance."""

    variance: float
    freedom: float


def robust(residuals: Sequence[float], sizes: Sequence[float]) -> Robust:
    """The cluster-robust variance of a mean, freed of its bias for few and unequal clusters (CR2).

    Args:
        residuals: each cluster's sum of deviations from the mean; shape (G,), G at least 2.
        sizes: how many trials each cluster holds, above 0; shape (G,).

    Returns:
        The variance, in the square of the deviations' unit, and Satterthwaite's degrees of freedom: both as if the
        trials were independent, where they are right. With equal clusters the variance is the usual one with
        ``G / (G - 1)``, and the degrees are ``G - 1``; the more unequal the clusters, the fewer they are.

    Source: Bell & McCaffrey, Survey Methodology 28 (2002) 169-181, for a regression on a constant alone; Imbens &
    Kolesár, Review of Economics and Statistics 98 (2016) 701-712, recommend it.
    """
    n = math.fsum(sizes)
    weights = [1.0 / (n * n * (1.0 - size / n)) for size in sizes]
    variance = math.fsum(w * r * r for w, r in zip(weights, residuals, strict=True))
    # Of independent trials of variance 1 the residuals' sums covary by -size * other / n, and vary by size * (1 -
    # size / n): the variance's mean is 1 / n, its own variance twice this sum of squares.
    squares = math.fsum((size / n / n) ** 2 for size in sizes)
    crossed = math.fsum(w * size * size for w, size in zip(weights, sizes, strict=True)) ** 2
    crossed -= math.fsum((w * size * size) ** 2 for w, size in zip(weights, sizes, strict=True))
    return Robust(variance, 1.0 / (n * n * (squares + crossed / n / n)))


def clustered(
    successes: Sequence[SupportsIndex], totals: Sequence[SupportsIndex], confidence: float = 0.95
) -> Interval:
    """The pooled rate, with a Wilson interval at the effective number of trials.

    The cluster-robust variance of the rate (:func:`robust`) says how many independent trials would be as uncertain (at
    most the real number); the normal quantile is replaced by Student's, with that variance's degrees of freedom.

    Args:
        successes: how many trials of each cluster succeeded; shape (G,).
        totals: how many trials each cluster holds; shape (G,). Empty clusters are ignored.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The pooled estimate and the interval, as proportions; ``method`` is ``"clustered wilson"``. One cluster says
        nothing about others: [0, 1]. Without trials the estimate is None as well.

    Raises:
        ValueError: the two differ in length, a count is negative or no integer, successes exceed a cluster's total, or
            the confidence is not in (0, 1).

    Source: the effective size as Korn & Graubard, Survey Methodology 24 (1998) 193-201; Wilson at the effective size
    as Franco et al., Journal of Survey Statistics and Methodology 7 (2019) 334-364.
    """
    alpha = checked_alpha(confidence)
    pairs = checked_clusters(successes, totals)
    hits, size = sum(x for x, _ in pairs), sum(n for _, n in pairs)
    if size == 0:
        return Interval(None, 0.0, 1.0, METHOD)
    if len(pairs) == 1:
        return Interval(hits / size, 0.0, 1.0, METHOD)
    estimate = hits / size
    effect, freedom = _effect(pairs)
    # At least 1, and with Student's quantile all the same: rare successes hide how unlike the clusters are.
    effective, t = size / max(1.0, effect), -quantile(alpha / 2, freedom)
    w, missed = t * t / effective, 1 - estimate
    low, high = score_low(estimate, missed, w), 1.0 - score_low(missed, 1 - missed, w)
    return Interval(estimate, min(low, estimate), max(high, estimate), METHOD)


def design_effect(successes: Sequence[SupportsIndex], totals: Sequence[SupportsIndex]) -> float:
    """How many trials that come in these clusters weigh as much as one independent trial, at least 1.

    Arguments and errors are those of :func:`clustered`. Infinite for one cluster; 1 where all outcomes are the same.
    """
    pairs = checked_clusters(successes, totals)
    return math.inf if len(pairs) < 2 else max(1.0, _effect(pairs)[0])


def unlike_from(clusters: int, level: float = 0.05) -> float:
    """The design effect that so many equal clusters exceed by chance with probability ``level``.

    Over equal clusters ``(G - 1) * effect`` is chi-squared with G - 1 degrees of freedom, nearly: 2.37 for 5 clusters,
    1.88 for 10, 1.25 for 98. Infinite for one.

    Source: Cochran, Biometrics 10 (1954) 417-451, section 3 (the variance test of homogeneity of proportions).
    """
    from scipy.special import chdtri

    return float(chdtri(clusters - 1, level)) / (clusters - 1) if clusters > 1 else math.inf


def checked_clusters(successes: Sequence[SupportsIndex], totals: Sequence[SupportsIndex]) -> list[tuple[int, int]]:
    """Successes and trials of each cluster that is not empty.

    Raises:
        ValueError: as :func:`clustered`, the confidence apart.
    """
    check_as_many("successes and totals must be as many", successes, totals)
    pairs = [checked_counts(x, n) for x, n in zip(successes, totals, strict=True)]
    return [pair for pair in pairs if pair[1] > 0]


def _effect(pairs: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The robust variance over the one of independent trials, and its degrees of freedom; at least two clusters."""
    size = sum(n for _, n in pairs)
    rate = sum(x for x, _ in pairs) / size
    variance, freedom = robust([x - n * rate for x, n in pairs], [n for _, n in pairs])
    independent = rate * (1 - rate) / size
    return (variance / independent if independent > 0 else 1.0), freedom
