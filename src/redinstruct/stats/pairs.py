"""Two runs over the same questions: what changed, and whether chance explains it.

Promised: exact sums and closed equations, no simulation; swapping the runs mirrors the result. Three questions, three
functions. :func:`paired` is the plain pair of methods, McNemar's mid-p and Tango's interval: near p = 0.05 one may
exclude "no change" where the other does not. :func:`paired_by_question` is about these very topics, their questions
being the sample: several samples of one question weigh as much as they tell, and test and interval agree.
:func:`paired_by_cluster` is about topics in general: those that were asked are the sample.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import SupportsIndex

from redinstruct.stats.checks import check_as_many, checked_alpha, checked_count, checked_labels
from redinstruct.stats.clusters import robust
from redinstruct.stats.intervals import edge, quantile
from redinstruct.stats.values import Change, Paired, grouped

_NOTHING = 1e-9
"""A design effect that rounding makes: clusters that moved alike hold no variance."""

_GUARD = 0.5
"""How much of a question that rose in all its samples, and of one that fell, is added before it is told how unlike the
questions' changes are: few changes tell little of that, and none nothing. What the interval covers with it:
docs/experiments/verdicts.md."""


def paired(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Paired:
    """The change of a rate between two runs over the same questions, in the same order.

    Args:
        before: each question's label in the first run; shape (N,).
        after: its label in the second; shape (N,).
        confidence: the nominal coverage of the interval, a proportion inside (0, 1).

    Returns:
        The rate after minus the rate before, Tango's score interval for it, and McNemar's two-sided mid-p.

    Raises:
        ValueError: the two differ in length or are empty, a label is neither true nor false, or the confidence is not
            in (0, 1).

    Source: Tango, Statistics in Medicine 17 (1998) 891-908, equations 24 to 26; Fagerland, Lydersen & Laake, BMC
    Medical Research Methodology 13 (2013) 91, for the mid-p; the same authors, Statistics in Medicine 33 (2014)
    2850-2875, recommend both for paired proportions.
    """
    alpha = checked_alpha(confidence)
    changes = _changes(before, after)
    gained, lost, n = changes.count(1), changes.count(-1), len(changes)
    return Paired((gained - lost) / n, *_tango(gained, lost, n, -quantile(alpha / 2)), mcnemar_midp(lost, gained))


def paired_by_question(
    before: Sequence[bool],
    after: Sequence[bool],
    questions: Sequence[Hashable] | None = None,
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
) -> Change:
    """The change in these very topics, their questions being the sample; test and interval are one inversion.

    With one sample a question: McNemar's mid-p and Tango's interval. With several, both at the pairs' number divided by
    the design effect, which says how many samples of one question weigh as much as one independent pair, from 1 to the
    samples a question has; Student's quantile with one degree of freedom less than there are questions. A difference of
    0 is rejected where both the mid-p and the score test reject it, and is then outside the interval; where it is not
    rejected, the interval holds it.

    Args:
        before: each pair's label in the first run; shape (N,).
        after: its label in the second; shape (N,).
        questions: the question of each pair; shape (N,). None: each is asked once.
        margin: the rise that still counts as no rise, a proportion in [0, 1).
        confidence: the nominal coverage of the interval, and one minus the level of the test; inside (0, 1).

    Returns:
        The change. ``p_margin`` is one-sided, against a rise by the margin or more; below ``(1 - confidence) / 2``
        exactly when the interval's upper end lies below the margin. Without repeats ``clusters`` is None.

    Raises:
        ValueError: as :func:`paired`, the questions are not as many as the pairs, or the margin is not in [0, 1).

    Source: McNemar's mid-p and Tango's score interval as in :func:`paired`; counts at an effective number of pairs as
    Korn & Graubard, Survey Methodology 24 (1998) 193-201. What it covers and how often it is wrong, simulated:
    docs/experiments/verdicts.md.
    """
    alpha = checked_alpha(confidence)
    changes, of = _checked_changes(before, after, questions, margin)
    return _by_question(changes, of, margin, alpha)


def paired_by_cluster(
    before: Sequence[bool],
    after: Sequence[bool],
    clusters: Sequence[Hashable],
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
) -> Change:
    """:func:`paired` for pairs that come in clusters, topics say, of which those that were asked are a sample.

    How much more the clusters' changes differ than independent pairs would is the design effect, at least 1
    (:func:`redinstruct.stats.clusters.robust`: unequal clusters leave fewer degrees of freedom). The interval holds
    Tango's, and Tango's at the pairs' number divided by that effect, with Student's quantile. The p-value is the
    largest of McNemar's mid-p, of the score test that this interval inverts, and of Student's t over the clusters;
    where it does not reject, the interval holds 0. So clusters never add evidence; where the topics move alike, the
    pairs count as independent but for the few degrees of freedom.

    Args:
        before: each pair's label in the first run; shape (N,).
        after: its label in the second; shape (N,).
        clusters: the cluster of each pair; shape (N,).
        margin: the rise that still counts as no rise, a proportion in [0, 1).
        confidence: the nominal coverage of the interval, a proportion inside (0, 1).

    Returns:
        The change. ``p_margin`` is one-sided, against a rise by the margin or more; below ``(1 - confidence) / 2``
        exactly when the interval's upper end lies below the margin. One cluster says nothing about others: the
        interval is [-1, 1], both p-values are 1, and the design effect is infinite.

    Raises:
        ValueError: as :func:`paired`, the clusters are not as many as the pairs, or the margin is not in [0, 1).

    Source: the effective size as Korn & Graubard, Survey Methodology 24 (1998) 193-201; the t statistic and its
    variance as Bell & McCaffrey, Survey Methodology 28 (2002) 169-181; the margin's score test as Tango (1998),
    equation 13. What it covers, simulated: docs/experiments/compare.md.
    """
    plain = paired(before, after, confidence)
    changes, of = _checked_changes(before, after, clusters, margin)
    if len(of) == 1:
        return Change(plain.difference, -1.0, 1.0, 1.0, 1.0, changes.count(1), changes.count(-1), math.inf, 1)
    return _clustered(plain, changes, list(of.values()), margin, checked_alpha(confidence))


def _changes(before: Sequence[bool], after: Sequence[bool]) -> list[int]:
    """Each pair's change: -1, 0 or 1."""
    first, second = checked_labels("before", before), checked_labels("after", after)
    check_as_many("before and after must be as many", first, second)
    if not first:
        raise ValueError("before and after must hold at least one pair")
    return [int(a) - int(b) for b, a in zip(first, second, strict=True)]


def _checked_changes(
    before: Sequence[bool], after: Sequence[bool], groups: Sequence[Hashable] | None, margin: float
) -> tuple[list[int], dict[Hashable, list[int]]]:
    """Each pair's change, and the same by group; nothing where every pair is a group of its own."""
    changes = _changes(before, after)
    if not 0.0 <= margin < 1.0:
        raise ValueError(f"the margin must lie in [0, 1), not {margin!r}")
    if groups is None:
        return changes, {}
    check_as_many("clusters must be as many as the pairs", groups, changes)
    return changes, grouped(groups, changes)


def _by_question(changes: Sequence[int], of: Mapping[Hashable, Sequence[int]], margin: float, alpha: float) -> Change:
    """:func:`paired_by_question` of each pair's change (-1, 0 or 1), and the same by question, where that is known."""
    gained, lost, n = changes.count(1), changes.count(-1), len(changes)
    repeated = 0 < len(of) < n
    # One question alone says nothing of others, asked however often.
    effect, freedom = (_of_repeats(of, gained + lost), len(of) - 1.0) if repeated else (1.0, None)
    if freedom == 0.0:
        return Change((gained - lost) / n, -1.0, 1.0, 1.0, 1.0, gained, lost, effect, 1)
    counts = gained / effect, lost / effect, n / effect
    low, high = _tango(*counts, -quantile(alpha / 2, freedom))
    p_value = max(
        _midp(counts[1], counts[0]), 2 * _below(-abs(_tango_score(*counts, 0.0)), freedom) if gained != lost else 1.0
    )
    if p_value > alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    rise = _below(_tango_score(*counts, margin), freedom)
    return Change(
        (gained - lost) / n, low, high, p_value, rise, gained, lost, effect, len(of) if repeated else None, freedom
    )


def _of_repeats(of: Mapping[Hashable, Sequence[int]], changed: int) -> float:
    """How many samples of one question weigh as much as one independent pair: from 1 to the samples a question has."""
    n = sum(map(len, of.values()))
    # What samples that always say the same would weigh; with as many of each question it is their number.
    most = sum(len(group) ** 2 for group in of.values()) / n
    usual = n / len(of)
    total, size, questions = sum(map(sum, of.values())), n + 2 * _GUARD * usual, len(of) + 2 * _GUARD
    mean = total / size
    spread = sum((sum(group) - len(group) * mean) ** 2 for group in of.values())
    spread += _GUARD * ((usual - usual * mean) ** 2 + (usual + usual * mean) ** 2)
    independent = changed + 2 * _GUARD * usual - total * total / size
    return min(max(questions / (questions - 1) * spread / independent, 1.0), most)


def _clustered(
    plain: Paired, changes: Sequence[int], clusters: Sequence[Sequence[int]], margin: float, alpha: float
) -> Change:
    """Each pair's change and the same by cluster, and what they are as independent pairs, as a change of clusters."""
    gained, lost, n = changes.count(1), changes.count(-1), len(changes)
    mean = plain.difference
    variance, freedom = robust([sum(of) - len(of) * mean for of in clusters], [len(of) for of in clusters])
    # Where all pairs changed alike, the data say nothing about clusters, and none are assumed.
    independent = (gained + lost - (gained - lost) ** 2 / n) / n**2
    effect = variance / independent if independent > 0 else 1.0
    low, high, p_value = plain.low, plain.high, plain.p_value
    rise = _below(_tango_score(gained, lost, n, margin), None)
    if effect > _NOTHING:
        counts = gained / effect, lost / effect, n / effect
        wide = _tango(*counts, -quantile(alpha / 2, freedom))
        low, high = min(low, wide[0]), max(high, wide[1])
        p_value = max(p_value, 2 * _below(-abs(_tango_score(*counts, 0.0)), freedom)) if gained != lost else 1.0
        rise = max(rise, _below(_tango_score(*counts, margin), freedom))
    if variance > _NOTHING * independent:
        p_value = max(p_value, 2 * _below(-abs(mean) / math.sqrt(variance), freedom))
    if p_value > alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    return Change(mean, low, high, p_value, rise, gained, lost, max(1.0, effect), len(clusters), freedom)


def _below(score: float, freedom: float | None) -> float:
    """Student's distribution function, the normal one without degrees of freedom; at infinity too."""
    if not math.isfinite(score):
        return float(score > 0)
    if freedom is None:
        return NormalDist().cdf(score)
    from scipy.special import stdtr

    return float(stdtr(freedom, score))


def mcnemar_midp(lost: SupportsIndex, gained: SupportsIndex) -> float:
    """McNemar's two-sided mid-p: is a change as often for the better as for the worse?

    Args:
        lost: pairs that were positive before only; an integer, 0 or more.
        gained: pairs that are positive after only.

    Returns:
        The p-value in [0, 1]; 1 when nothing changed.

    Raises:
        ValueError: a count is negative or no integer.

    Source: Fagerland, Lydersen & Laake, BMC Medical Research Methodology 13 (2013) 91: the exact conditional test,
    with half the probability of what was observed.
    """
    return _midp(checked_count("lost", lost), checked_count("gained", gained))


def _midp(lost: float, gained: float) -> float:
    """The same for counts that need not be whole: the binomial distribution function as an incomplete beta function."""
    if lost == gained:
        return 1.0
    from scipy.special import betainc

    fewer, n = min(lost, gained), lost + gained
    # 2 (P(X < k) + P(X = k) / 2) as a sum of two distribution functions: nothing cancels.
    beyond = float(betainc(n - fewer + 1, fewer, 0.5)) if fewer > 0 else 0.0
    return min(1.0, beyond + float(betainc(n - fewer, fewer + 1, 0.5)))


def _tango(gained: float, lost: float, n: float, z: float) -> tuple[float, float]:
    """The differences that the score test does not reject."""
    return -_tango_high(lost, gained, n, z), _tango_high(gained, lost, n, z)


def _tango_high(gained: float, lost: float, n: float, z: float) -> float:
    """The largest difference that the score test does not reject."""
    return edge(lambda difference: _tango_score(gained, lost, n, difference) > -z, (gained - lost) / n, 1.0)[1]


def _tango_score(gained: float, lost: float, n: float, difference: float) -> float:
    """The score statistic at a supposed difference in (-1, 1); falls as the difference grows.

    The variance is taken at the likeliest probabilities that have this difference; ``q`` is the one of ``lost``.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    distance, variance = gained - lost - n * difference, n * (2 * q + difference * (1 - difference))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)
