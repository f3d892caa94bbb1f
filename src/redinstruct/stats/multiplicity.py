"""Several tests at once, and several tries at one question."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import SupportsIndex

from redinstruct.stats.checks import checked_count, checked_counts, checked_rate


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, in the given order: reject those at or below the level.

    Holds the chance of any false rejection at the level, whatever the tests' dependence.

    Raises:
        ValueError: a p-value is not in [0, 1] or is not a number (NaN).

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    values = _checked(p_values)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """The level of the step at which Holm's procedure decided each p-value, in the given order.

    A p-value is rejected exactly when it is at or below its level. All that are not rejected share the level of the
    step that stopped; an interval at one minus its level says of each what the procedure says.

    Args:
        p_values: shape (N,), each in [0, 1].
        level: of the whole family, inside (0, 1).

    Raises:
        ValueError: a p-value is not in [0, 1], or the level not in (0, 1).

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    alpha, values = checked_rate("level", level), _checked(p_values)
    rejected, found = 0, [0.0] * len(values)
    for index in sorted(range(len(values)), key=values.__getitem__):
        # Once a step does not reject, none after it does: they share its level.
        found[index] = alpha / (len(values) - rejected)
        rejected += values[index] <= found[index]
    return found


def _checked(p_values: Sequence[float]) -> list[float]:
    values = [float(p) for p in p_values]
    for p in values:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"a p-value must lie in [0, 1], not {p!r}")
    return values


def smallest_level(excludes: Callable[[float], bool]) -> float:
    """The smallest level at which an interval excludes something: the p-value of the test that the interval inverts.

    Args:
        excludes: whether the interval at one minus a level does; must not become false as the level grows.

    Returns:
        The level to nine digits; at least 1e-12; 1 where it does at no level.
    """
    low, high = math.log(1e-12), math.log(1 - 1e-9)
    if not excludes(math.exp(high)):
        return 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(math.exp(middle)) else (middle, high)
    return math.exp(high)


def hit_at_k(successes: SupportsIndex, samples: SupportsIndex, k: SupportsIndex) -> float:
    """The chance that at least one of k tries at one question succeeds, without bias, from the tries that were made.

    Average it over the questions; the plain ``1 - (1 - rate)**k`` is biased upwards or downwards question by question.

    Args:
        successes: how many tries succeeded; an integer in [0, samples].
        samples: how many tries were made; an integer, at least k.
        k: how many tries the attacker has; an integer, 1 or more.

    Returns:
        ``1 - C(samples - successes, k) / C(samples, k)``, a proportion.

    Raises:
        ValueError: a count is negative or no integer, or not ``1 <= k <= samples``.

    Source: Chen et al., arXiv 2107.03374 (2021), equation 1 (there pass@k).
    """
    x, n = checked_counts(successes, samples)
    tries = checked_count("k", k)
    if not 1 <= tries <= n:
        raise ValueError(f"k must lie in [1, samples], not {tries} of {n}")
    # Whole numbers until the one division: no sum of logarithms, no rounding.
    every = math.comb(n, tries)
    return (every - math.comb(n - x, tries)) / every
