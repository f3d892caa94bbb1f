"""Is a rate above or below a limit? A test that stays valid however often one looks, for ``--stop-when-decided``.

A Wilson interval that is looked at after every item excludes the true rate sooner or later. Here the evidence against a
rate is a wealth that a fair game could not make: under that rate its expectation never exceeds 1, so by Ville's
inequality it reaches 1/alpha, ever, with probability alpha at most.

Promised: over all looks together, the chance of a wrong side, or of either side when the rate is exactly the limit, is
at most ``1 - confidence``. Required: the items come in random order (topics stand together in a bank: shuffle first),
and are counted in that order; an answer that is faster because it is a refusal must not be counted sooner. Not
promised: the shortest run; a rate near the limit is not decided in a small bank, and the estimate at the stop is biased
away from the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, SupportsIndex

from redinstruct.stats.checks import checked_alpha, checked_counts, checked_rate
from redinstruct.stats.intervals import edge
from redinstruct.stats.values import Decision

STRENGTH = 8.0
"""How many items the mixture's prior is worth. Tuned on limits and rates other than those of the reported figures."""


def decide(successes: SupportsIndex, total: SupportsIndex, limit: float, confidence: float = 0.95) -> Decision:
    """On which side of a limit the rate lies, if the items so far decide it. Look as often as you like.

    Args:
        successes: how many of the items so far succeeded; an integer in [0, total].
        total: how many items there are so far; an integer, 0 or more.
        limit: the rate to compare with, inside (0, 1).
        confidence: one minus the chance of a wrong decision over all looks, a proportion inside (0, 1).

    Returns:
        The side, the interval (a confidence sequence) and the p-value. The side is not None exactly when the limit
        lies outside the interval.

    Raises:
        ValueError: a count is negative or no integer, successes exceed the total, or limit or confidence is not in
            (0, 1).

    Source: the beta-binomial mixture of Robbins, Annals of Mathematical Statistics 41 (1970) 1397-1409; as a
    confidence sequence, Howard, Ramdas, McAuliffe & Sekhon, Annals of Statistics 49 (2021) 1055-1080, section 3.2. The
    mixture is Beta(8 limit, 8 (1 - limit)): any choice is valid, this one is quick on rates around the limit.
    """
    x, n = checked_counts(successes, total)
    rate, alpha = checked_rate("limit", limit), checked_alpha(confidence)
    mixture = _log_mixture(x, n, rate)
    evidence = mixture - _log_likelihood(x, n, rate)
    side: Literal["above", "below"] | None = None
    if evidence >= -math.log(alpha):
        side = "above" if x > n * rate else "below"
    low = _end(x, n, mixture + math.log(alpha), upwards=False)
    high = _end(x, n, mixture + math.log(alpha), upwards=True)
    # The ends are found by bisection: where rounding puts the limit on the wrong side of one, the test above wins.
    low, high = _agreeing(low, high, rate, side)
    return Decision(side, low, high, min(1.0, math.exp(min(0.0, -evidence))))


class Watch:
    """The same test of a mean, value by value: a question's share of successes, where it was asked several times.

    Values lie in [0, 1] and come in random order. With values of 0 and 1 alone it is :func:`decide`. A value between
    them counts as so much of a success and so much of a failure: the expected wealth of a fair bet is still 1, so that
    the promise holds whatever a question's answers have in common. Source: as :func:`decide`; for bounded values
    Waudby-Smith & Ramdas, Journal of the Royal Statistical Society B 86 (2024) 1-27, section 4.1.
    """

    def __init__(self, limit: float) -> None:
        """Begin without a value.

        Raises:
            ValueError: the limit is not inside (0, 1).
        """
        self._limit = checked_rate("limit", limit)
        self._values: list[float] = []
        self._sum = self._wealth = 0.0
        self._most = (0.0, 0, 0.0)  # the strongest evidence so far, after how many values, and their sum

    def add(self, value: float) -> None:
        """The next value.

        Raises:
            ValueError: it is not in [0, 1].
        """
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a value must lie in [0, 1], not {value!r}")
        expected = (STRENGTH * self._limit + self._sum) / (STRENGTH + len(self._values))
        self._wealth += math.log(value * expected / self._limit + (1 - value) * (1 - expected) / (1 - self._limit))
        self._values.append(value)
        self._sum += value
        self._most = max(self._most, (self._wealth, len(self._values), self._sum))

    @property
    def mean(self) -> float | None:
        """Of the values so far; None without any."""
        return self._sum / len(self._values) if self._values else None

    def side(self, confidence: float = 0.95) -> Literal["above", "below"] | None:
        """On which side of the limit the mean lies; None: not decided yet."""
        evidence, n, total = self._most
        if evidence < -math.log(checked_alpha(confidence)):
            return None
        return "above" if total > n * self._limit else "below"

    def decision(self, confidence: float = 0.95) -> Decision:
        """The side, the confidence sequence and the p-value: at the moment of decision, else at the last value.

        Raises:
            ValueError: the confidence is not in (0, 1).
        """
        side, evidence = self.side(confidence), self._most[0]
        values = self._values if side is None else self._values[: self._most[1]]
        low, high = _ends(values, self._limit, -math.log(checked_alpha(confidence)))
        low, high = _agreeing(low, high, self._limit, side)
        return Decision(side, low, high, min(1.0, math.exp(-evidence)))


def _ends(values: Sequence[float], limit: float, threshold: float) -> tuple[float, float]:
    """The means against which the evidence stays under the threshold. It is convex in the mean: an interval."""
    import numpy as np

    if not values:
        return 0.0, 1.0
    y = np.array(values)
    sums = np.concatenate(([0.0], np.cumsum(y)[:-1]))
    expected = (STRENGTH * limit + sums) / (STRENGTH + np.arange(len(y)))
    hit, miss = y * expected, (1 - y) * (1 - expected)

    def evidence(mean: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.log(np.nan_to_num(hit / mean) + np.nan_to_num(miss / (1 - mean))).sum())

    low, high = 0.0, 1.0
    for _ in range(60):  # the mean that the values speak against least
        one, other = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, other) if evidence(one) < evidence(other) else (one, high)
    middle = (low + high) / 2
    return _edge(evidence, middle, 0.0, threshold), _edge(evidence, middle, 1.0, threshold)


def _edge(evidence: Callable[[float], float], inside: float, outside: float, threshold: float) -> float:
    for _ in range(50):
        between = (inside + outside) / 2
        inside, outside = (between, outside) if evidence(between) < threshold else (inside, between)
    # An end of 0 or 1 that nothing speaks against is that end.
    return round(outside) if abs(outside - round(outside)) < 1e-14 else inside


def _agreeing(low: float, high: float, limit: float, side: str | None) -> tuple[float, float]:
    if side == "above":
        return max(low, math.nextafter(limit, 1.0)), high
    if side == "below":
        return low, min(high, math.nextafter(limit, 0.0))
    return min(low, limit), max(high, limit)


def _log_mixture(x: int, n: int, limit: float) -> float:
    """The logarithm of the mean likelihood of one order of x successes in n, over the mixture's rates."""
    a, b = STRENGTH * limit, STRENGTH * (1 - limit)
    return _log_beta(a + x, b + n - x) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_likelihood(x: int, n: int, rate: float) -> float:
    """The logarithm of the likelihood at a rate in [0, 1]; minus infinity where the items rule the rate out."""
    if (rate == 0.0 and x > 0) or (rate == 1.0 and x < n):
        return -math.inf
    return (x * math.log(rate) if x else 0.0) + ((n - x) * math.log1p(-rate) if x < n else 0.0)


def _end(x: int, n: int, threshold: float, *, upwards: bool) -> float:
    """The rate farthest from x/n, on one side, whose likelihood still exceeds the threshold."""

    def likely(rate: float) -> bool:
        return _log_likelihood(x, n, rate) > threshold

    outside = float(upwards)
    return outside if likely(outside) else edge(likely, x / n if n else 0.5, outside)[0]
