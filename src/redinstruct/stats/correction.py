"""A judge's rate corrected by labels that people (or a stronger judge) gave to part of this very run.

The labelled attempts split by the judge's own label. In each part the labels estimate how often the judge's label is
truly positive; the judge's counts over the whole run weigh the two parts together:

    rate = W * PPV + (1 - W) * FOR        W    share of the run that the judge calls positive
                                          PPV  true rate among those, FOR true rate among the others

Where the labels were drawn by something else as well (another judge's labels), each combination is a part of its own.

Promised: the interval holds the rate of the population that the run was drawn from, and the run's own human rate, at
the stated confidence as far as docs/experiments shows (coverage.md; verdicts.md for questions asked several times);
nothing is assumed about the judge, which may be useless. Required: within each part, which attempts were labelled is a
matter of chance. Labels of the interesting cases only give a wrong figure, and nothing here can notice it. Not
promised: anything about topics.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from redinstruct.stats.by_question import question_effect
from redinstruct.stats.checks import check_as_many, checked_alpha, checked_count, checked_human, checked_labels
from redinstruct.stats.intervals import log_confidence
from redinstruct.stats.parts import Part, checked_part, repeats, sides, strata, tallied
from redinstruct.stats.values import Interval, grouped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

POSTSTRATIFIED = "post-stratified jeffreys"
TWO_JUDGES = "two judges, post-stratified jeffreys"


def corrected(
    judge: Sequence[bool],
    human: Mapping[int, bool],
    confidence: float = 0.95,
    *,
    drawn_by: Sequence[Hashable] | None = None,
    questions: Sequence[Hashable] | None = None,
) -> Interval:
    """The rate that people would have found, from the judge's labels on everything and theirs on a random part.

    Args:
        judge: the judge's label of each attempt; true is the measure's first label.
        human: index into ``judge`` -> the human label. Drawn at random from the run, or at random within each label
            of the judge (any share of each).
        confidence: the nominal coverage, a proportion inside (0, 1).
        drawn_by: what the draw looked at besides, or instead of, the judge's label: one value of each attempt, such as
            the label of the judge that the answers were drawn for. Drawn at random within each value then.
        questions: the question that each attempt asked; where one was asked several times, labels and shares count at
            the number of independent ones that they are worth. Left out: each attempt asked a question of its own.

    Returns:
        The post-stratified estimate and its interval, as proportions; ``method`` is ``"post-stratified jeffreys"``.
        None and [0, 1] without a human label. A judge's label without a single human label counts as "anything
        between 0 and 1", 1/2 in the estimate. With a judge that says the same of everything, it is :func:`jeffreys`
        of the human labels.

    Raises:
        ValueError: a label is neither true nor false, an index lies outside ``judge``, ``human`` is no mapping, the
            confidence is not in (0, 1), or ``drawn_by`` or ``questions`` and ``judge`` differ in length.

    Source: the estimate is post-stratification (Holt & Smith, JRSS A 142 (1979) 33-46); the interval is Zou, Huang &
    Zhang, Computational Statistics & Data Analysis 53 (2009) 1080-1085, for a linear function of proportions, over
    Jeffreys intervals with the boundary rule; see :func:`poststratified` and :func:`stratified`.
    """
    labels, alpha = checked_labels("judge", judge), checked_alpha(confidence)
    known = checked_human(human, len(labels))
    check_as_many("drawn_by and judge must be as many", labels if drawn_by is None else drawn_by, labels)
    asked = questions if repeats(questions, len(labels)) else None
    if drawn_by is None and asked is None:
        return corrected_of(*sides(labels, known), confidence)
    if not known:
        return Interval(None, 0.0, 1.0, POSTSTRATIFIED)
    # In the attempts' order, so that sums of floats have the same digits however the labels came.
    inside = dict(sorted(known.items()))
    parts = strata(labels if drawn_by is None else list(zip(labels, drawn_by, strict=True)), inside, asked)
    effects = (1.0, 1.0)
    if asked is not None:
        share, drawn = question_effect(*tallied(labels, asked)), {asked[index] for index in known}
        effects = _of_few(share, len(set(asked)), alpha), _of_few(parts[0].effect, len(drawn), alpha)
    return Interval(*stratified([part[:3] for part in parts], alpha=alpha, effects=effects), POSTSTRATIFIED)


def corrected_of(flagged: Part, rest: Part, confidence: float = 0.95) -> Interval:
    """:func:`corrected` from counts: of the attempts that the judge flagged and of the others, each of a question of
    its own.

    Raises:
        ValueError: a part's counts do not fit together, or the confidence is not in (0, 1).
    """
    alpha, counts = checked_alpha(confidence), [checked_part(part) for part in (flagged, rest)]
    if not any(part.labelled for part in counts):
        return Interval(None, 0.0, 1.0, POSTSTRATIFIED)
    import numpy as np

    (size, hits, drawn), (others, other_hits, other_drawn) = counts[0][:3], counts[1][:3]
    row = (size, size + others, hits, drawn, other_hits, other_drawn)
    found = poststratified(*np.array([row], dtype=np.int64).T, alpha=alpha)
    estimate, low, high = (float(end[0]) for end in found)
    return Interval(estimate, low, high, POSTSTRATIFIED)


def two_judges(
    cheap: Sequence[bool],
    strong: Mapping[int, bool],
    confidence: float = 0.95,
    *,
    questions: Sequence[Hashable] | None = None,
) -> Interval:
    """The rate that the strong judge would have found, asked on a random part only; the cheap one judged everything.

    The same estimate as :func:`corrected`, with the strong judge in the place of people: it removes the cheap judge's
    errors, not the strong judge's. ``method`` says so. Arguments, result and errors are those of :func:`corrected`.

    Source: two-phase (double) sampling, Tenenbein, JASA 65 (1970) 1350-1361: at a correlation phi of the two judges,
    about ``1 - phi**2`` of the strong judge's calls reach the same width. Draw its part with :func:`draw_part`.
    """
    return corrected(cheap, strong, confidence, questions=questions)._replace(method=TWO_JUDGES)


def part_sizes(flagged: int, others: int, size: int) -> tuple[int, int]:
    """How many attempts of either label :func:`draw_part` draws, of so many with the first label and the second."""
    wanted = min(size, flagged + others)
    roots = math.sqrt(flagged), math.sqrt(others)
    first = round(wanted * roots[0] / sum(roots)) if wanted else 0
    # One label of each part, if there is any: of a part without one nothing is known.
    first = min(max(first, min(1, flagged)), max(wanted - min(1, others), 0))
    first = min(max(first, wanted - others), flagged, wanted)
    return first, wanted - first


def draw_part(judge: Sequence[bool], size: SupportsIndex, seed: int) -> list[int]:
    """Which attempts to label, or to show the strong judge: at random within each of the judge's two labels.

    The rarer label gets more than its share: the two numbers are as the square roots of how often the judge gives each
    label. That is near Neyman's allocation for a judge that errs as often in one direction as in the other, and asks
    for no pilot. The corrections of this module stay right, as they look at each label by itself; the plain rate of
    the drawn labels does not.

    Args:
        judge: the judge's label of each attempt; shape (N,).
        size: how many to draw; an integer, 0 or more; all of them if there are not more.
        seed: the same seed draws the same attempts.

    Returns:
        Indices into ``judge``, ascending.

    Raises:
        ValueError: a label is neither true nor false, or the size is negative or no integer.

    Source: Cochran, Sampling Techniques (3rd ed. 1977), section 5.5 (Neyman's allocation).
    """
    labels, wanted = checked_labels("judge", judge), checked_count("size", size)
    parts = [[i for i, label in enumerate(labels) if label is side] for side in (True, False)]
    first, second = part_sizes(len(parts[0]), len(parts[1]), wanted)
    generator = random.Random(seed)
    return sorted(generator.sample(parts[0], first) + generator.sample(parts[1], second))


def corrected_by(
    judge: Sequence[bool],
    human: Mapping[int, bool],
    groups: Sequence[Hashable],
    confidence: float = 0.95,
    *,
    drawn_by: Sequence[Hashable] | None = None,
    questions: Sequence[Hashable] | None = None,
) -> dict[Hashable, Interval]:
    """:func:`corrected` for each group of attempts (each topic) from its own attempts and its own labels alone.

    Args:
        judge: the judge's label of each attempt; shape (N,).
        human: index into ``judge`` -> the human label.
        groups: the group of each attempt; shape (N,).
        confidence: of each interval by itself, a proportion inside (0, 1).
        drawn_by: as for :func:`corrected`.
        questions: as for :func:`corrected`.

    Returns:
        Group -> interval, in the order of first appearance. Groups without a human label: None and [0, 1]. A hundred
        labels over a hundred topics say next to nothing about each, and the intervals show it.

    Raises:
        ValueError: as :func:`corrected`, or ``groups`` and ``judge`` differ in length.
    """
    labels = checked_labels("judge", judge)
    known = checked_human(human, len(labels))
    for name, column in (("groups", groups), ("drawn_by", drawn_by), ("questions", questions)):
        check_as_many(f"{name} and judge must be as many", labels if column is None else column, labels)
    return {
        group: corrected(
            [labels[i] for i in inside],
            {number: known[i] for number, i in enumerate(inside) if i in known},
            confidence,
            drawn_by=None if drawn_by is None else [drawn_by[i] for i in inside],
            questions=None if questions is None else [questions[i] for i in inside],
        )
        for group, inside in grouped(groups, range(len(labels))).items()
    }


def _of_few(effect: float, questions: int, alpha: float) -> float:
    """A design effect as wide as Student's quantile makes its interval: it is itself told from so many questions."""
    if effect == 1 or questions < 2:
        return effect
    from scipy.special import ndtri, stdtrit

    # Student's is the larger; near the median scipy's is 0 at some degrees of freedom.
    return effect * max(1.0, float(stdtrit(questions - 1, alpha / 2) / ndtri(alpha / 2))) ** 2


def poststratified(
    flagged: Array,
    total: Array,
    hits_flagged: Array,
    drawn_flagged: Array,
    hits_rest: Array,
    drawn_rest: Array,
    *,
    alpha: float,
) -> tuple[Array, Array, Array]:
    """The estimate and the two ends, for R runs at once. Counts are trusted: :func:`corrected` checks them.

    Around each part's rate, and around W, lies a Jeffreys interval with the boundary rule. The distances from the
    parts' posterior medians to its ends are added as squares (the method of variance estimates recovery), each side on
    its own, so that the interval is as lopsided as its parts are. A part without a positive label counts as rate 0
    towards the lower end, one without a negative label as rate 1 towards the upper: what no label showed moves no end
    inwards.

    Args:
        flagged: how many attempts the judge calls positive; shape (R,), as all of these.
        total: how many attempts there are, at least 1.
        hits_flagged: positive human labels among the flagged.
        drawn_flagged: human labels among the flagged.
        hits_rest: positive human labels among the others.
        drawn_rest: human labels among the others; with ``drawn_flagged`` at least 1.
        alpha: one minus the nominal coverage.

    Returns:
        Estimate, lower end, upper end; each of shape (R,), proportions.

    Source: Zou, Huang & Zhang (2009), equations 3 and 4, around medians in place of the observed rates (they use
    several centres; medians are narrower where the judge is good, at the same coverage); the share W, itself an
    estimate, is one more term, by its first-order effect ``PPV - FOR`` (Zou & Donner, Statistics in Medicine 27 (2008)
    1693-1702).
    """
    import numpy as np

    ppv = np.where(drawn_flagged == 0, 0.5, hits_flagged / np.maximum(drawn_flagged, 1))
    rest = np.where(drawn_rest == 0, 0.5, hits_rest / np.maximum(drawn_rest, 1))
    estimate = (flagged * ppv + (total - flagged) * rest) / total
    share = _share(flagged, total, alpha)
    parts = (hits_flagged, drawn_flagged), (hits_rest, drawn_rest)
    mirrored = (drawn_flagged - hits_flagged, drawn_flagged), (drawn_rest - hits_rest, drawn_rest)
    low, high = _low(share, *parts, alpha=alpha), 1.0 - _low(share, *mirrored, alpha=alpha)
    return estimate, np.minimum(low, estimate), np.maximum(high, estimate)


def stratified(
    parts: Sequence[Sequence[float]], *, alpha: float, effects: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float, float]:
    """:func:`poststratified` for any number of parts of one run, at least one label among them.

    Args:
        parts: attempts, positive human labels and human labels of each part; shape (K, 3).
        alpha: one minus the nominal coverage.
        effects: how many attempts, and how many labels, weigh as much as one independent one.

    Returns:
        Estimate, lower end, upper end; proportions. The parts' shares, themselves estimates, add the multinomial
        variance of the mean of the parts' centres (two parts have their own Jeffreys interval instead, there).

    Source: as :func:`poststratified`; for more than two terms Zou, Huang & Zhang (2009), equation 5.
    """
    import numpy as np
    from scipy.special import ndtri

    size, hits, drawn = np.array(parts, dtype=float).T
    size, hits, drawn = size / effects[0], hits / effects[1], drawn / effects[1]
    weight, z = size / size.sum(), float(ndtri(1 - alpha / 2))

    def low_end(positive: Array) -> float:
        if not positive.sum():
            return 0.0
        centre, low = _part(positive, drawn, alpha)
        mean = float(weight @ centre)
        spread = max(float(weight @ centre**2) - mean**2, 0.0) * z**2 / float(size.sum())
        return max(mean - math.sqrt(float(((weight * (centre - low)) ** 2).sum()) + spread), 0.0)

    # Weights that are no whole numbers may sum to a little more than 1.
    estimate = min(float(weight @ np.where(drawn == 0, 0.5, hits / np.where(drawn == 0, 1, drawn))), 1.0)
    return estimate, min(low_end(hits), estimate), max(1.0 - low_end(drawn - hits), estimate)


def _low(
    share: tuple[Array, Array, Array], one: tuple[Array, Array], other: tuple[Array, Array], *, alpha: float
) -> Array:
    """The lower end, from the share and (positive labels, labels) of either part; the upper end is its mirror image."""
    import numpy as np

    weight, least, most = share
    (p, p_low), (q, q_low) = _part(*one, alpha), _part(*other, alpha)
    # Where the flagged are the less harmful part, a larger share lowers the rate.
    drop = np.where(p > q, weight - least, most - weight) * (p - q)
    distance = np.sqrt((weight * (p - p_low)) ** 2 + ((1 - weight) * (q - q_low)) ** 2 + drop**2)
    low = np.clip(weight * p + (1 - weight) * q - distance, 0.0, 1.0)
    # Exactly 0, whatever the rounding, when no label was positive.
    return np.where(one[0] + other[0] == 0, 0.0, low)


def _part(hits: Array, drawn: Array, alpha: float) -> tuple[Array, Array]:
    """The centre and the lower end of a part's rate; both 0 without a positive label."""
    import numpy as np

    # The median of Beta(a, b) is (a - 1/3) / (a + b - 2/3), nearly (Kerman, arXiv 1111.0433, equation 1.2).
    centre = np.where(hits == 0, 0.0, (hits + 1 / 6) / (drawn + 1 / 3))
    # At confidences below one half the quantile may pass the centre.
    return centre, np.minimum(_jeffreys_low(hits, drawn, alpha), centre)


def _share(flagged: Array, total: Array, alpha: float) -> tuple[Array, Array, Array]:
    """W and its ends. A judge that never, or always, says yes leaves one part: then its share is no estimate."""
    import numpy as np

    share, single = flagged / total, (flagged == 0) | (flagged == total)
    low = np.minimum(_jeffreys_low(flagged, total, alpha), share)
    high = np.maximum(1.0 - _jeffreys_low(total - flagged, total, alpha), share)
    return share, np.where(single, share, low), np.where(single, share, high)


def _jeffreys_low(hits: Array, drawn: Array, alpha: float) -> Array:
    """``intervals._jeffreys_low`` for arrays."""
    import numpy as np
    from scipy.special import betaincinv

    low = np.where(hits == 0, 0.0, betaincinv(hits + 0.5, drawn - hits + 0.5, alpha / 2))
    lowest_of_one = -np.expm1(log_confidence(alpha) / np.maximum(drawn, 1))
    # Effective numbers need not be whole: less than one hit is guarded as one.
    return np.where(hits <= 1, np.minimum(low, lowest_of_one), low)
