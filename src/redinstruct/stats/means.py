"""Mean scores of two runs over the same items, and the smallest change that so many pairs can be expected to show.

Promised: closed equations; swapping the runs mirrors the result. Not promised: exactness of the t interval for a
handful of items, or for scores that hardly ever differ.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from redinstruct.stats.checks import check_as_many, checked_alpha, checked_rate
from redinstruct.stats.intervals import edge, quantile
from redinstruct.stats.pairs import mcnemar_midp, paired_by_question
from redinstruct.stats.values import Change, grouped

ROUNDING = 1e-6
"""What batches of another size, or another order of summing, do to a score; relative where scores are large."""

POWER = 0.8
"""The chance of showing a change of the detectable size, where nobody says otherwise."""


def paired_means(
    before: Sequence[float],
    after: Sequence[float],
    parts: Sequence[Hashable] | None = None,
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
) -> Change:
    """The change of a mean score between two runs over the same items, in the same order, held against a margin.

    Scores that are all 0 or 1 are pairs (:func:`redinstruct.stats.paired_by_question`). Otherwise: Student's interval
    for the mean of the differences. Where all differences are equal the data hold no variance; scores in [0, 1] then
    get an interval as wide as Tango's for pairs none of which changed. Differences below :data:`ROUNDING` are none,
    and scores beyond 0 or 1 by less than that are 0 or 1.

    Args:
        before: each item's score in the first run; shape (N,); finite, of any range.
        after: its score in the second; shape (N,).
        parts: the part of each item where the figure is the mean of the parts' means; None: the mean of all items.
        margin: the rise that still counts as no rise, 0 or more, in the scores' units.
        confidence: the nominal coverage of the interval, a proportion inside (0, 1).

    Returns:
        The change; the items are independent (``design_effect`` 1, ``clusters`` None). A single item, or a part of one
        item, holds no variance: the interval is unbounded ([-1, 1] for scores in [0, 1]), both p-values are 1.

    Raises:
        ValueError: the lengths differ or are 0, a score is not finite, the margin is negative, or the confidence not in
            (0, 1).

    Source: the paired t statistic, as Miller, arXiv 2411.00640 (2024), recommends for two models on one benchmark; over
    parts the stratified mean, Cochran, Sampling Techniques (3rd ed. 1977), section 5.4.
    """
    checked_alpha(confidence)
    first, second = [_score(x) for x in before], [_score(x) for x in after]
    if len(first) != len(second) or not first:
        raise ValueError(f"before and after must be as many, and some, not {len(first)} and {len(second)}")
    if not 0.0 <= margin < math.inf:
        raise ValueError(f"the margin must be 0 or more, not {margin!r}")
    if parts is None and {0.0, 1.0}.issuperset((*first, *second)) and margin < 1:
        pairs = [bool(x) for x in first], [bool(x) for x in second]
        return paired_by_question(*pairs, margin=margin, confidence=confidence)
    found = _mean_of([_change(a, b) for a, b in zip(first, second, strict=True)], parts)
    return _held(found, min(*first, *second) >= 0.0 and max(*first, *second) <= 1.0, margin, confidence)


class _Mean(NamedTuple):
    """A mean of changes: its variance (None: nothing is known of it), that one's degrees of freedom, and counts."""

    mean: float
    variance: float | None
    freedom: int
    gained: int
    lost: int
    items: int

    def change(self, low: float, high: float, p_value: float, p_margin: float) -> Change:
        """The change of independent items, with this interval and these p-values."""
        return Change(self.mean, low, high, p_value, p_margin, self.gained, self.lost, 1.0, None)


def _score(value: float) -> float:
    score = float(value)
    if not math.isfinite(score):
        raise ValueError(f"a score must be a finite number, not {value!r}")
    # A sum of probabilities may come out as 1.0000001.
    nearest = min(max(score, 0.0), 1.0)
    return nearest if abs(score - nearest) < ROUNDING else score


def _change(before: float, after: float) -> float:
    """The difference; 0 where only rounding makes one."""
    return 0.0 if abs(after - before) < ROUNDING * max(1.0, abs(before), abs(after)) else after - before


def _mean_of(changes: Sequence[float], parts: Sequence[Hashable] | None) -> _Mean:
    """The mean of the parts' means. Its variance is None where a part has one item, and 0 where all changed alike."""
    check_as_many("parts must be as many as the items", changes if parts is None else parts, changes)
    strata = grouped(parts or [None] * len(changes), changes)
    means = [math.fsum(values) / len(values) for values in strata.values()]
    found = _Mean(
        math.fsum(means) / len(means), None, len(changes) - len(strata), sum(c > 0 for c in changes),
        sum(c < 0 for c in changes), len(changes),
    )  # fmt: skip
    if any(len(values) < 2 for values in strata.values()):
        return found
    spread = 0.0
    for centre, values in zip(means, strata.values(), strict=True):
        spread += math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values)
    # Differences that are equal but for rounding have no variance.
    none = spread <= (1e-14 * max(map(abs, changes))) ** 2 * len(strata)
    return found._replace(variance=0.0 if none else spread / len(strata) ** 2)


def _held(found: _Mean, unit: bool, margin: float, confidence: float) -> Change:
    """Student's interval for the mean change; ``unit``: the scores lie in [0, 1]."""
    if found.variance is None:
        most = 1.0 if unit else math.inf
        return found.change(-most, most, 1.0, 1.0)
    if found.variance == 0.0:
        return _without_variance(found, unit, margin, confidence)
    from scipy.special import stdtr

    mean, freedom, error = found.mean, found.freedom, math.sqrt(found.variance)
    t = -quantile(checked_alpha(confidence) / 2, freedom)
    low, high = mean - t * error, mean + t * error
    if unit:
        low, high = max(low, -1.0), min(high, 1.0)
    two_sided = min(1.0, 2 * float(stdtr(freedom, -abs(mean) / error)))
    return found.change(low, high, two_sided, float(stdtr(freedom, (mean - margin) / error)))


def _without_variance(found: _Mean, unit: bool, margin: float, confidence: float) -> Change:
    """All items changed alike, or none did: McNemar's test; scores in [0, 1] get the interval of unchanged pairs."""
    mean, p_value = found.mean, mcnemar_midp(found.lost, found.gained)
    if not unit:
        return found.change(mean, mean, p_value, p_value / 2 if mean < margin else 1.0)
    half = paired_by_question([False] * found.items, [False] * found.items, confidence=confidence).high
    below = NormalDist().cdf(-quantile(checked_alpha(confidence) / 2) * (mean - margin) / half)
    return found.change(max(mean - half, -1.0), min(mean + half, 1.0), p_value, below)


def detectable(
    pairs: float,
    changed: float,
    *,
    confidence: float = 0.95,
    power: float = POWER,
    design_effect: float = 1.0,
    freedom: float | None = None,
) -> float:
    """The smallest true change of a rate that so many pairs show with the given chance (the MDE).

    Args:
        pairs: how many pairs there are, above 0.
        changed: the share of pairs that change in either direction, in [0, 1]; where the change itself is larger, the
            share is taken to be the change.
        confidence: of the two-sided test.
        power: the wanted chance, inside (0, 1).
        design_effect: how many clustered pairs weigh as much as one independent pair; at least 1.
        freedom: of the clusters' variance; Student's quantiles then, the normal ones where it is None.

    Returns:
        The change, a proportion; 1 where no change could be shown.

    Raises:
        ValueError: an argument is outside its range.

    Source: Connor, Biometrics 43 (1987) 207-211, equation 1, for the pairs of McNemar's test, solved for the change.
    """
    if not (pairs > 0 and 0.0 <= changed <= 1.0 and design_effect >= 1.0 and (freedom is None or freedom > 0)):
        raise ValueError(
            "detectable needs pairs, a share of changed ones in [0, 1], a design effect of 1 or more, and degrees of "
            "freedom above 0"
        )
    z_test = -quantile(checked_alpha(confidence) / 2, freedom)
    z_power = quantile(checked_rate("power", power), freedom)
    root = math.sqrt(pairs / design_effect)

    def shown(change: float) -> bool:
        share = max(changed, change)
        return change * root >= z_test * math.sqrt(share) + z_power * math.sqrt(max(share - change**2, 0.0))

    return edge(lambda change: not shown(change), 0.0, 1.0)[1] if shown(1.0) else 1.0


def detectable_mean(low: float, high: float, *, confidence: float = 0.95, level: float, power: float = POWER) -> float:
    """The same for a mean, from its interval: the error that the interval implies, times the two quantiles' sum.

    Args:
        low: the interval's lower end.
        high: its upper end.
        confidence: the interval's.
        level: of the two-sided test, inside (0, 1).
        power: the wanted chance, inside (0, 1).

    Raises:
        ValueError: an argument is outside its range.
    """
    if not low <= high:
        raise ValueError(f"an interval's ends must be in order, not {low!r} and {high!r}")
    z_interval, z_test = -quantile(checked_alpha(confidence) / 2), -quantile(checked_rate("level", level) / 2)
    return (high - low) / 2 / z_interval * (z_test + quantile(checked_rate("power", power)))
