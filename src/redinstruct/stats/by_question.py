"""A rate over questions that were asked several times: the question is the unit, repeats are no further evidence.

Promised: with one try a question it is :func:`redinstruct.stats.wilson` to the last bit; repeats that all come out
alike leave (nearly) the interval of one try a question; independent ones narrow it towards that of all tries, and never
past it; symmetric; the ends are 0 where nothing succeeded and 1 where everything did. What it covers, measured:
docs/experiments/verdicts.md. Not promised: anything about topics (:func:`redinstruct.stats.clustered`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import SupportsIndex

from redinstruct.stats.checks import checked_alpha
from redinstruct.stats.clusters import checked_clusters, robust
from redinstruct.stats.intervals import quantile, score_low, wilson
from redinstruct.stats.multiplicity import hit_at_k
from redinstruct.stats.values import Interval

METHOD = "wilson by question"
_RARE = 3
"""Up to how many effective successes the lower end is guarded (Brown, Cai & DasGupta, section 4.1.1)."""


def wilson_by_question(
    successes: Sequence[SupportsIndex], tries: Sequence[SupportsIndex], confidence: float = 0.95
) -> Interval:
    """The pooled rate of the tries, with a Wilson interval at the effective number of questions.

    Tries of one question are alike. How much so is the design effect DE: the rate's variance over questions against
    that of independent tries. It is taken with two questions more, one of which succeeded at every try and one at none,
    since a few rare successes say little of how alike tries are; and it is held between 1 (all tries independent) and
    that of identical tries. The interval is Wilson's at (tries / DE), with Student's quantile in place of the normal
    one, as DE itself is an estimate. Where that leaves up to three effective successes (or failures) of a rate below
    one half, the near end is at most the exact Poisson one: Wilson's interval itself covers .91 at 50 questions of rate
    .01.

    Args:
        successes: how many tries of each question succeeded; shape (Q,).
        tries: how many tries of each question count, not necessarily as many each; shape (Q,). Questions without any
            are ignored.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The pooled estimate and the interval, as proportions. ``method`` is ``"wilson"`` where no question was tried
        twice, else ``"wilson by question"``. Without a try: None and [0, 1].

    Raises:
        ValueError: the two differ in length, a count is negative or no integer, successes exceed a question's tries, or
            the confidence is not in (0, 1).

    Source: the effective size as Korn & Graubard, Survey Methodology 24 (1998) 193-201; Wilson at it as Franco et al.,
    Journal of Survey Statistics and Methodology 7 (2019) 334-364; the variance
    :func:`redinstruct.stats.clusters.robust`; adding successes and failures as Agresti & Coull, American Statistician
    52 (1998) 119-126, but to DE alone; the guard Brown, Cai & DasGupta, Statistical Science 16 (2001) 101-133, section
    4.1.1 (modified Wilson).
    """
    alpha = checked_alpha(confidence)
    pairs = checked_clusters(successes, tries)
    hits, total = sum(x for x, _ in pairs), sum(n for _, n in pairs)
    if total == len(pairs):
        return wilson(hits, total, confidence)
    effect, freedom = _effect(pairs)
    return _between(hits / total, total / effect, freedom, alpha)


def _between(estimate: float, effective: float, freedom: float | None, alpha: float) -> Interval:
    """Wilson's interval at an effective size, by Student's quantile where there are degrees of freedom, guarded."""
    t = -quantile(alpha / 2, freedom)
    low, high = _low(estimate, effective, t, alpha), 1.0 - _low(1.0 - estimate, effective, t, alpha)
    return Interval(estimate, min(low, estimate), max(high, estimate), METHOD)


def at_k(
    successes: Sequence[SupportsIndex], tries: Sequence[SupportsIndex], k: int, confidence: float = 0.95
) -> Interval:
    """The share of questions at which at least one of k tries succeeds: an attack success rate at k.

    Args:
        successes: how many tries of each question succeeded; shape (Q,).
        tries: how many tries were made at each; shape (Q,). Questions with fewer than k are left out.
        k: how many tries the attacker has, 1 or more.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The mean of :func:`redinstruct.stats.hit_at_k` over the questions, and Wilson's interval at the number of
        questions whose all-or-nothing outcomes would be as uncertain, between Q and Q * tries / k. With as many tries
        as k it is plain Wilson; at k = 1 and equally many tries it is :func:`wilson_by_question`. None and [0, 1] where
        no question had k tries.

    Raises:
        ValueError: as :func:`wilson_by_question`, or k is not at least 1.

    Source: the estimate Chen et al., arXiv 2107.03374 (2021), equation 1; the interval as :func:`wilson_by_question`.
    """
    alpha = checked_alpha(confidence)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    pairs = [(x, n) for x, n in checked_clusters(successes, tries) if n >= k]
    if not pairs:
        return Interval(None, 0.0, 1.0, METHOD)
    q = len(pairs)
    if all(n == k for _, n in pairs):
        return wilson(sum(x > 0 for x, _ in pairs), q, confidence)
    shares = [hit_at_k(x, n, k) for x, n in pairs]
    if k == 1 and len({n for _, n in pairs}) == 1:
        return wilson_by_question([x for x, _ in pairs], [n for _, n in pairs], confidence)
    estimate = math.fsum(shares) / q
    added = [*shares, 1.0, 0.0]
    mean = math.fsum(added) / len(added)
    variance = math.fsum((share - mean) ** 2 for share in added) / (len(added) * (len(added) - 1))
    most = math.fsum(n / k for _, n in pairs)
    effective = min(max(q * mean * (1 - mean) / len(added) / variance, q), most)
    return _between(estimate, effective, q - 1 if q > 1 else None, alpha)


def question_effect(successes: Sequence[SupportsIndex], tries: Sequence[SupportsIndex]) -> float:
    """How many tries weigh as much as one independent one: the DE of :func:`wilson_by_question`, at least 1."""
    pairs = checked_clusters(successes, tries)
    return 1.0 if sum(n for _, n in pairs) == len(pairs) else _effect(pairs)[0]


def residual_effect(residuals: Sequence[float], questions: Sequence[Hashable]) -> float:
    """The same of deviations from several rates: how many labels that people gave weigh as much as one independent one.

    Args:
        residuals: how far each label lies from the rate of its part; shape (n,).
        questions: the question of each; shape (n,).

    Returns:
        The squares of the questions' sums over the sum of the squares, with two questions more that lie wholly above
        and below; between 1 and the effect of identical labels.
    """
    sums: dict[Hashable, list[float]] = {}
    for residual, question in zip(residuals, questions, strict=True):
        row = sums.setdefault(question, [0.0, 0.0])
        row[0] += residual
        row[1] += 1
    square = math.fsum(residual * residual for residual in residuals)
    if len(sums) == len(residuals) or square == 0:
        return 1.0
    sizes = [size for _, size in sums.values()]
    mean, spread = len(residuals) / len(sums), square / len(residuals)
    between = math.fsum(total * total for total, _ in sums.values()) + 2 * mean * mean * spread
    return min(max(between / (square + 2 * mean * spread), 1.0), kish(sizes))


def kish(sizes: Iterable[float]) -> float:
    """The design effect of identical tries: the mean size of a try's question (Kish, Survey Sampling (1965))."""
    known = list(sizes)
    return math.fsum(n * n for n in known) / math.fsum(known)


def _effect(pairs: Sequence[tuple[int, int]]) -> tuple[float, float | None]:
    """DE, and the degrees of freedom of its variance: None of one question, which has none."""
    sizes = [n for _, n in pairs]
    total = sum(sizes)
    most = kish(sizes)
    if len(pairs) == 1:
        return most, None
    size = total / len(pairs)
    added = [*((float(x), float(n)) for x, n in pairs), (size, size), (0.0, size)]
    rate = math.fsum(x for x, _ in added) / math.fsum(n for _, n in added)
    variance = robust([x - n * rate for x, n in added], [n for _, n in added]).variance
    independent = rate * (1 - rate) / math.fsum(n for _, n in added)
    return min(max(variance / independent, 1.0), most), robust([0.0] * len(sizes), sizes).freedom


def _low(rate: float, size: float, t: float, alpha: float) -> float:
    low = score_low(rate, 1 - rate, t * t / size)
    if rate == 0 or rate > 0.5 or round(rate * size) > _RARE:
        return low
    from scipy.special import gammaincinv

    # The mean at which a Poisson count reaches the number of successes with probability alpha.
    return min(low, float(gammaincinv(max(rate * size, 1.0), alpha)) / size)
