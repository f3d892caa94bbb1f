"""The rate of these very answers, as people would label them all: what is labelled is known, the rest is predicted.

Where :func:`redinstruct.stats.corrected` speaks of the model that gave the answers, these functions speak of the
answers that it gave: the unlabelled ones of each part are predicted from its labelled ones. Promised: the interval is a
point once everything is labelled, and holds at .93 or more in the cells of docs/experiments/verdicts.md. Required:
within a part, chance chose which answers were labelled. Not promised: anything about another run of the same model.
"""

from __future__ import annotations

import math
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
_FAR = 9.0
"""Standard deviations beyond which a count's mass is as little."""
_AT_ENDS = 16
_POINTS = 1 << 13
"""At so many numbers, or up to twice as many, the masses of a large part are taken: a million cost a third of a second.
The ends of an interval then are right to some thousandth of its width."""


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
        numbers, own = _beta_binomial(groups, part)
        values, mass = _sum(values, mass, numbers * (unlabelled / groups), own)
    return values, mass


def _beta_binomial(tries: int, part: Part) -> tuple[Array, Array]:
    """The masses of the numbers of positives among the tries, without those of nought; of many tries in bins, each with
    its middle: at the ends, where the mass may have a pole, added up, in between the middle's mass times their number.
    """
    import numpy as np

    hits, drawn = part.positive / part.effect, part.labelled / part.effect
    a, b = (hits, drawn - hits + 1.0) if hits <= 1 else (hits + 0.5, drawn - hits + 0.5)
    least, most = _reach(tries, a, b)
    step = max(1, (most - least) // _POINTS)
    if step == 1:
        values = np.arange(least, most + 1, dtype=float)
        mass = _masses(values, tries, a, b)
    else:
        starts = np.arange(least, most + 1, step, dtype=float)
        values = starts + (step - 1) / 2
        inner = slice(_AT_ENDS, len(starts) - _AT_ENDS)
        mass = np.zeros(len(starts))
        mass[inner] = step * _masses(values[inner], tries, a, b)
        for first, last in ((0, _AT_ENDS), (inner.stop, len(starts))):
            each = np.arange(starts[first], min(starts[last - 1] + step, most + 1))
            mass[first:last] = np.add.reduceat(_masses(each, tries, a, b), np.arange(0, len(each), step))
    mass /= mass.sum()
    kept = np.flatnonzero(mass > _TINY)
    return values[kept[0] : kept[-1] + 1], mass[kept[0] : kept[-1] + 1]


def _masses(k: Array, tries: int, a: float, b: float) -> Array:
    import numpy as np
    from scipy.special import betaln

    logs = -betaln(k + 1.0, tries - k + 1.0) - np.log(tries + 1.0) + betaln(k + a, tries - k + b) - betaln(a, b)
    mass: Array = np.exp(logs)
    return mass


def _reach(tries: int, a: float, b: float) -> tuple[int, int]:
    """Between which numbers of positives all mass lies that is not nought: the beta's ends, and chance beyond them."""
    if tries <= _POINTS:
        return 0, tries
    from scipy.special import betaincinv

    low, high = float(betaincinv(a, b, _TINY)), 1.0 - float(betaincinv(b, a, _TINY))
    down, up = (_FAR * (math.sqrt(tries * p * (1.0 - p)) + _FAR) for p in (low, high))
    return max(0, math.floor(tries * low - down)), min(tries, math.ceil(tries * high + up))


def _sum(one: Array, one_mass: Array, other: Array, other_mass: Array) -> tuple[Array, Array]:
    """The distribution of a sum of two independent numbers."""
    import numpy as np

    if len(one) == 1:
        return other + one[0], other_mass
    steps = [float(of[1] - of[0]) if len(of) > 1 else 0.0 for of in (one, other)]
    if len(other) == 1 or np.isclose(steps[0], steps[1]):
        start = one[0] + other[0]
        size = len(one) + len(other) - 1
        if len(one) * len(other) < 1 << 22:
            mass = np.convolve(one_mass, other_mass)
        else:
            mass = np.fft.irfft(np.fft.rfft(one_mass, size) * np.fft.rfft(other_mass, size), size).clip(0.0)
        return start + np.arange(size) * steps[0], mass
    # Of unlike steps: rounded to whole ones of the larger, which is finer than any figure that is shown.
    step = max(1.0, *(float(round(step)) for step in steps))
    return _sum(*_rounded(one, one_mass, step), *_rounded(other, other_mass, step))


def _rounded(values: Array, mass: Array, step: float) -> tuple[Array, Array]:
    """The same numbers rounded to multiples of a step, every one between the ends among them."""
    import numpy as np

    rounded = np.rint(values / step).astype(np.int64)
    start = rounded[0]
    return np.arange(start, rounded[-1] + 1) * step, np.bincount(rounded - start, weights=mass)


def _quantile(values: Array, mass: Array, alpha: float) -> float:
    import numpy as np

    place = int(np.searchsorted(mass.cumsum(), alpha / 2))
    return float(values[min(place, len(values) - 1)])
