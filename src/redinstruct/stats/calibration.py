"""A judge's rate corrected by its known errors on items from outside the run (Rogan-Gladen).

Weaker than :func:`redinstruct.stats.corrected`: it assumes that the judge errs on this run exactly as often as it did
on the calibration's items. Promised: the calibration's own uncertainty is part of the interval, and a judge too weak to
correct is refused. Not promised: that a calibration on other models, languages or attacks holds here.
"""

from __future__ import annotations

import math
from typing import SupportsIndex

from redinstruct.stats.checks import checked_alpha, checked_counts
from redinstruct.stats.intervals import quantile
from redinstruct.stats.values import Calibration, Interval, WeakJudge


def rogan_gladen(
    flagged: SupportsIndex, total: SupportsIndex, calibration: Calibration, confidence: float = 0.95
) -> Interval:
    """The true rate behind a judge's rate, given how it did on a calibration set.

    Args:
        flagged: how many attempts the judge calls positive; an integer in [0, total].
        total: how many attempts it judged; an integer, 0 or more.
        calibration: its counts on items of known truth; at least one item of each truth.
        confidence: the nominal coverage, a proportion inside (0, 1); the source studied 0.90 to 0.99.

    Returns:
        ``(flagged/total + specificity - 1) / (sensitivity + specificity - 1)``, cut to [0, 1], and the interval of
        Lang and Reiczigel; ``method`` is ``"rogan-gladen"``. None and [0, 1] when nothing was judged.

    Raises:
        WeakJudge: sensitivity + specificity - 1 is below 0.3; a ValueError.
        ValueError: a count is negative or no integer, a part exceeds its whole, the calibration lacks one of the two
            truths, or the confidence is not in (0, 1).

    Source: Rogan & Gladen, American Journal of Epidemiology 107 (1978) 71-76; the interval is Lang & Reiczigel,
    Preventive Veterinary Medicine 113 (2014) 13-22, equations 6, 7, 16 and 17, which Lee et al. (arXiv 2511.21140)
    use for LLM judges.
    """
    x, n = checked_counts(flagged, total)
    alpha = checked_alpha(confidence)
    tp, pos = checked_counts(calibration.true_positives, calibration.positives)
    tn, neg = checked_counts(calibration.true_negatives, calibration.negatives)
    if pos == 0 or neg == 0:
        raise ValueError("a calibration must hold at least one truly positive and one truly negative item")
    # In integers, so that a judge of exactly 0.3 is not refused by a rounding error.
    youden = tp * neg + tn * pos - pos * neg
    if 10 * youden < 3 * pos * neg:
        raise WeakJudge(
            f"sensitivity + specificity - 1 must be at least 0.3 to correct a judge, not {youden / (pos * neg):.2f}"
        )
    if n == 0:
        return Interval(None, 0.0, 1.0, "rogan-gladen")
    estimate = min(max((x / n + tn / neg - 1) / (youden / (pos * neg)), 0.0), 1.0)
    low, high = _lang_reiczigel(x, n, (tp, pos, tn, neg), -quantile(alpha / 2))
    return Interval(estimate, min(low, estimate), max(high, estimate), "rogan-gladen")


def _lang_reiczigel(x: int, n: int, known: tuple[int, int, int, int], z: float) -> tuple[float, float]:
    tp, pos, tn, neg = known
    # Each proportion is drawn towards one half, as Agresti and Coull do, so that none has variance 0.
    size, rate = n + z * z, (x + z * z / 2) / (n + z * z)
    sens, spec = (tp + 1) / (pos + 2), (tn + 1) / (neg + 2)
    youden = sens + spec - 1
    if youden <= 0:
        # Only with a handful of calibration items: they can not tell this judge from a coin.
        return 0.0, 1.0
    centre = (rate + spec - 1) / youden
    sens_variance, spec_variance = sens * (1 - sens) / (pos + 2), spec * (1 - spec) / (neg + 2)
    shift = 2 * z * z * (centre * sens_variance - (1 - centre) * spec_variance)
    variance = rate * (1 - rate) / size + centre**2 * sens_variance + (1 - centre) ** 2 * spec_variance
    half = z * math.sqrt(variance) / youden
    return min(max(centre + shift - half, 0.0), 1.0), min(max(centre + shift + half, 0.0), 1.0)
