"""Confidence intervals for one binomial proportion.

Promised: pure functions of counts; symmetric (counting failures instead mirrors the interval); ends in [0, 1], exactly
0 when nothing succeeded and exactly 1 when everything did; [0, 1] with the estimate None when nothing was counted.
Not promised: anything about dependent trials. Questions of one topic, or several samples of one question, are
clusters, and these intervals are then too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import SupportsIndex

from redinstruct.stats.checks import checked_alpha, checked_counts
from redinstruct.stats.values import Interval


def wilson(successes: SupportsIndex, total: SupportsIndex, confidence: float = 0.95) -> Interval:
    """The score interval: all rates that a two-sided score test at level ``1 - confidence`` does not reject.

    Args:
        successes: how many of the trials succeeded; an integer in [0, total].
        total: how many trials there were; an integer, 0 or more.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The estimate ``successes / total`` and the interval, as proportions; ``method`` is ``"wilson"``.

    Raises:
        ValueError: a count is negative or no integer, successes exceed the total, or the confidence is not in (0, 1).

    Source: Wilson, JASA 22 (1927) 209-212; Brown, Cai & DasGupta, Statistical Science 16 (2001) 101-133, section
    3.1.1, which recommends it, with Jeffreys', for n of 40 or less.
    """
    x, n = checked_counts(successes, total)
    alpha = checked_alpha(confidence)
    if n == 0:
        return Interval(None, 0.0, 1.0, "wilson")
    z = -quantile(alpha / 2)
    estimate = x / n
    # The interval always holds the estimate; where it is narrower than a float's rounding, that must be said.
    # The division of integers comes first, so that no count is too large for a float.
    missed, w = (n - x) / n, z * z * (1 / n)
    low, high = score_low(estimate, missed, w), 1.0 - score_low(missed, estimate, w)
    return Interval(estimate, min(low, estimate), max(high, estimate), "wilson")


def mean_of_rates(parts: Sequence[tuple[SupportsIndex, SupportsIndex]], confidence: float = 0.95) -> Interval:
    """The plain mean of several independent rates, whatever the size of each: its interval is made of theirs.

    A normal interval of such a mean has no width where every rate is 0 or 1, however few were counted.

    Args:
        parts: of each rate how many of how many succeeded; at least one trial each, and at least one rate.
        confidence: as for :func:`jeffreys`.

    Returns:
        The mean and the interval, as proportions; ``method`` is ``"mover"``.

    Source: Zou, Huang & Zhang, Computational Statistics & Data Analysis 53 (2009) 1080-1085, equations 3 and 4 (MOVER:
    the squared distances of the limits are added, as variances are), with Jeffreys' limits (Laud, Pharmaceutical
    Statistics 16 (2017) 334-348). Of four rates of .9 (.98, .995) over 50 items each it covers .94 (.92, .92), with
    Wilson's limits .92 (.90, .92), the normal interval .93 (.91, .64).
    """
    found = [jeffreys(*part, confidence) for part in parts]
    known = [(one.estimate, one.low, one.high) for one in found if one.estimate is not None]
    if not known or len(known) < len(found):
        raise ValueError("every rate needs at least one trial")
    mean = math.fsum(rate for rate, _, _ in known) / len(known)
    below = math.sqrt(math.fsum((rate - low) ** 2 for rate, low, _ in known)) / len(known)
    above = math.sqrt(math.fsum((high - rate) ** 2 for rate, _, high in known)) / len(known)
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above), "mover")


def score_low(p: float, q: float, w: float) -> float:
    """The lower score limit of a rate p; q is 1 - p, w is z²/n. The smaller root of (1 + w) π² - (2p + w) π + p² = 0.

    As p² over the larger root's numerator (Vieta) instead of a difference of two nearly equal numbers, so that small
    rates keep their digits.
    """
    return p * p / (p + w / 2 + math.sqrt(w * (p * q + w / 4))) if p else 0.0


def jeffreys(successes: SupportsIndex, total: SupportsIndex, confidence: float = 0.95) -> Interval:
    """The equal-tailed interval of the posterior Beta(x + 1/2, n - x + 1/2), with its boundary rule.

    The boundary rule: the lower end is 0 at x = 0, and at x = 1 it is at most the rate at which any success at all has
    probability ``1 - confidence``; the upper end mirrors both. Without the first half the coverage falls to zero as
    the rate approaches 0 or 1. Without the second it is 0.905 at n = 20 and a rate of 0.005, as Wilson's is: one
    success, with probability 0.095, then puts the lower end above the rate.

    The estimate is ``successes / total``, not the posterior's mean. At confidences far below one half it may lie
    outside the interval.

    Args:
        successes: how many of the trials succeeded; an integer in [0, total].
        total: how many trials there were; an integer, 0 or more.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The estimate and the interval, as proportions; ``method`` is ``"jeffreys"``.

    Raises:
        ValueError: a count is negative or no integer, successes exceed the total, or the confidence is not in (0, 1).

    Source: Brown, Cai & DasGupta, Statistical Science 16 (2001) 101-133, section 3.1.3; the rule at x = 1 is the one
    that its section 4.1.1 gives Wilson's interval, with the binomial probability in place of the Poisson one. (Its own
    modification of this interval, in 4.1.2, lets a rate of 0 stand although something succeeded.)
    """
    x, n = checked_counts(successes, total)
    alpha = checked_alpha(confidence)
    if n == 0:
        return Interval(None, 0.0, 1.0, "jeffreys")
    return Interval(x / n, _jeffreys_low(x, n, alpha), 1.0 - _jeffreys_low(n - x, n, alpha), "jeffreys")


def _jeffreys_low(x: int, n: int, alpha: float) -> float:
    if x == 0:
        return 0.0
    # Imported here: scipy costs more than everything else that a command imports.
    from scipy.special import betaincinv

    low = float(betaincinv(x + 0.5, n - x + 0.5, alpha / 2))
    # The rate at which n trials hold any success with probability alpha: 1 - (1 - alpha)**(1/n), in full digits.
    return min(low, -math.expm1(log_confidence(alpha) / n)) if x == 1 else low


def quantile(share: float, freedom: float | None = None) -> float:
    """Below which such a share of Student's distribution lies; of the normal one without degrees of freedom."""
    if freedom is None:
        return NormalDist().inv_cdf(share)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def edge(holds: Callable[[float], bool], inside: float, outside: float) -> tuple[float, float]:
    """The neighbouring floats between which something ceases to hold that holds inside, and outside does not."""
    while inside != (middle := (inside + outside) / 2) != outside:
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside, outside


def log_confidence(alpha: float) -> float:
    """``log(1 - alpha)``; minus infinity where a tiny confidence has rounded alpha to 1."""
    return math.log1p(-alpha) if alpha < 1.0 else -math.inf
