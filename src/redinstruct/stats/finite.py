"""The rate of these very answers, as people would label them all: what is labelled is known, the rest is predicted.

Where :func:`redinstruct.stats.corrected` speaks of the model that gave the answers, these functions speak of the
answers that it gave: the unlabelled ones of each part are predicted from its labelled ones. Promised: the interval is a
point once everything is labelled, and holds at .93 or more in the cells of docs/experiments/verdicts.md. Required:
within a part, chance chose which answers were labelled. Not promised: anything about another run of the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from redinstruct.stats.checks import checked_alpha
from redinstruct.stats.parts import Part, checked_part
from redinstruct.stats.values import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

METHOD = "beta-binomial prediction"
_TINY = 1e-15
"""The mass at which a tail of a distribution is cut: it moves no end at any confidence that a float can hold."""


def run_rate(parts: Sequence[Part | Sequence[SupportsIndex]], confidence: float = 0.95) -> Interval:
    """The share of the positive among all answers of a run, of which people labelled some.

    Args:
        parts: size, positive labels and labels of each part; which of a part's answers are labelled was chance.
        confidence: the nominal coverage, a proportion inside (0, 1).

    Returns:
        The post-stratified estimate (a part without a label counts 1/2), and the central interval of the number of
        positive answers that the labels predict, as proportions. A point where all are labelled; None and [0, 1]
        without answers, or without a label.

    Raises:
        ValueError: a count is negative or no integer, more labels than answers, more positive labels than labels, or
            the confidence is not in (0, 1).

    Source: the number of positives among the unlabelled has the beta-binomial distribution of Jeffreys' posterior
    (Geisser, Predictive Inference (1993), section 2.2); at one positive label the prior is that of the exact lower
    limit, Beta(1, n), and at none the lower end counts none, as :func:`redinstruct.stats.jeffreys` does at its
    boundary; the upper end mirrors this. Parts are independent, so their numbers are convolved.
    """
    alpha = checked_alpha(confidence)
    checked = [checked_part(part) for part in parts]
    if not any(part.labelled for part in checked):
        return Interval(None, 0.0, 1.0, METHOD)
    estimate = _estimate(checked)
    if _whole_known(checked):
        return Interval(estimate, estimate, estimate, METHOD)
    total = sum(part.size for part in checked)
    low = _low(checked, alpha) / total
    high = 1.0 - _low([part.mirrored for part in checked], alpha) / total
    return Interval(estimate, min(low, estimate), max(high, estimate), METHOD)


def run_difference(
    before: Sequence[Part | Sequence[SupportsIndex]],
    after: Sequence[Part | Sequence[SupportsIndex]],
    confidence: float = 0.95,
) -> Interval:
    """The rate of one run's very answers minus that of another's: after minus before, each as :func:`run_rate`.

    Returns:
        The difference of the estimates, and the central interval of the predicted difference, inside [-1, 1]. A point
        where all answers of both are labelled; None and [-1, 1] where one has none, or no label. The two predictions
        are taken as independent: never too narrow for pairs that agree more often than chance.

    Raises:
        ValueError: as :func:`run_rate`.
    """
    alpha = checked_alpha(confidence)
    old, new = [checked_part(part) for part in before], [checked_part(part) for part in after]
    if not any(part.labelled for part in old) or not any(part.labelled for part in new):
        return Interval(None, -1.0, 1.0, METHOD)
    estimate = _estimate(new) - _estimate(old)
    if _whole_known([*old, *new]):
        return Interval(estimate, estimate, estimate, METHOD)
    low = _lowest_difference(new, old, alpha)
    high = -_lowest_difference(old, new, alpha)
    return Interval(estimate, min(low, estimate), max(high, estimate), METHOD)


def _whole_known(parts: Sequence[Part]) -> bool:
    return all(part.labelled == part.size for part in parts)


def _estimate(parts: Sequence[Part]) -> float:
    found = sum(part.size * (part.positive / part.labelled if part.labelled else 0.5) for part in parts)
    return found / sum(part.size for part in parts)


def _low(parts: Sequence[Part], alpha: float) -> float:
    """The fewest positive answers of a run that its labels leave plausible, one-sided at alpha / 2."""
    values, mass = _positives([part for part in parts if part.positive])
    return sum(part.positive for part in parts) + _quantile(values, mass, alpha)


def _lowest_difference(one: Sequence[Part], other: Sequence[Part], alpha: float) -> float:
    """The lower end of the first rate minus the second: of the first the low prediction, of the second the high."""
    import numpy as np

    sizes = sum(part.size for part in one), sum(part.size for part in other)
    values, mass = _positives([part for part in one if part.positive])
    values = (values + sum(part.positive for part in one)) / sizes[0]
    # The second run's positives are its answers minus its negatives, of which the low prediction is taken.
    missed = [part.mirrored for part in other]
    lost, lost_mass = _positives([part for part in missed if part.positive])
    lost = (lost + sum(part.positive for part in missed)) / sizes[1] - 1.0
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.concatenate([[0.0], np.cumsum(mass[order])])

    # P(values + lost <= x), whose smallest x at alpha / 2 is found by halving over the reachable range.
    def reached(x: float) -> float:
        return float(lost_mass @ below[np.searchsorted(values, x - lost, side="right")])

    least, most = float(values[0] + lost.min()), float(values[-1] + lost.max())
    if reached(least) >= alpha / 2:
        return least
    for _ in range(60):
        middle = (least + most) / 2
        least, most = (least, middle) if reached(middle) >= alpha / 2 else (middle, most)
    return most


def _positives(parts: Sequence[Part]) -> tuple[Array, Array]:
    """How many unlabelled answers of these parts are positive: the possible numbers, and the mass of each.

    Answers that come in alike groups (``unlabelled_effect``) are predicted group by group, each of that many answers.
    """
    import numpy as np

    values, mass = np.zeros(1), np.ones(1)
    for part in parts:
        unlabelled = part.size - part.labelled
        if not unlabelled:
            continue
        groups = max(round(unlabelled / part.unlabelled_effect), 1)
        start, own = _beta_binomial(groups, part)
        step = unlabelled / groups
        values, mass = _sum(values, mass, (start + np.arange(len(own))) * step, own)
    return values, mass


def _beta_binomial(tries: int, part: Part) -> tuple[int, Array]:
    """The masses of the number of positives among the tries, and the first number whose mass is not nought."""
    import numpy as np
    from scipy.special import betaln

    hits, drawn = part.positive / part.effect, part.labelled / part.effect
    a, b = (hits, drawn - hits + 1.0) if hits <= 1 else (hits + 0.5, drawn - hits + 0.5)
    k = np.arange(tries + 1)
    logs = -betaln(k + 1.0, tries - k + 1.0) - np.log(tries + 1.0) + betaln(k + a, tries - k + b) - betaln(a, b)
    mass = np.exp(logs)
    mass /= mass.sum()
    kept = np.flatnonzero(mass > _TINY)
    return int(kept[0]), mass[kept[0] : kept[-1] + 1]


def _sum(one: Array, one_mass: Array, other: Array, other_mass: Array) -> tuple[Array, Array]:
    """The distribution of a sum of two independent numbers."""
    import numpy as np

    if len(one) == 1:
        return other + one[0], other_mass
    step = other[1] - other[0] if len(other) > 1 else 1.0
    if len(other) == 1 or np.isclose(one[1] - one[0], step):
        start = one[0] + other[0]
        size = len(one) + len(other) - 1
        if len(one) * len(other) < 1 << 22:
            mass = np.convolve(one_mass, other_mass)
        else:
            mass = np.fft.irfft(np.fft.rfft(one_mass, size) * np.fft.rfft(other_mass, size), size).clip(0.0)
        return start + np.arange(size) * (one[1] - one[0]), mass
    # Groups of unlike size: rounded to whole answers, which is finer than any figure that is shown.
    return _sum(*_whole(one, one_mass), *_whole(other, other_mass))


def _whole(values: Array, mass: Array) -> tuple[Array, Array]:
    """The same numbers rounded to whole ones, every one between the ends among them."""
    import numpy as np

    rounded = np.rint(values).astype(np.int64)
    start = rounded[0]
    return np.arange(start, rounded[-1] + 1, dtype=float), np.bincount(rounded - start, weights=mass)


def _quantile(values: Array, mass: Array, alpha: float) -> float:
    import numpy as np

    place = int(np.searchsorted(mass.cumsum(), alpha / 2))
    return float(values[min(place, len(values) - 1)])
