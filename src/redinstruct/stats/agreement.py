"""How far raters agree beyond chance: two raters (kappa, AC1), or any number with gaps (alpha).

Promised: nominal labels of any kind; None where a coefficient is not defined, never NaN. Not promised: a verdict. Kappa
and alpha fall towards 0 when one label is rare, however well the raters agree (Feinstein & Cicchetti, Journal of
Clinical Epidemiology 43 (1990) 543-549); AC1 does not. Report it beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from redinstruct.stats.checks import check_as_many


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], weights: Sequence[float] | None = None
) -> float | None:
    """Cohen's kappa of two raters over the same items, in the same order.

    Args:
        first: one rater's labels; shape (N,).
        second: the other's; shape (N,).
        weights: how many items each one stands for (the inverse of its chance to be drawn); shape (N,), above 0.

    Returns:
        1 for full agreement, 0 for chance's, at least -1. None without items, or where both raters gave one and the
        same label throughout: chance then agrees as well as they do.

    Raises:
        ValueError: the two, or the weights, differ in length.

    Source: Cohen, Educational and Psychological Measurement 20 (1960) 37-46, equation 1.
    """
    agreed, n, ones, twos = _counted(first, second, weights)
    # All in whole numbers, unless there are weights: n² times the two shares.
    chance = sum(count * twos.get(label, 0) for label, count in ones.items())
    if len(ones) < 2 and ones.keys() == twos.keys():
        return None
    return (agreed * n - chance) / (n * n - chance)


def gwet_ac1(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    categories: int = 2,
    weights: Sequence[float] | None = None,
) -> float | None:
    """Gwet's AC1 of two raters over the same items, in the same order.

    Args:
        first: one rater's labels; shape (N,).
        second: the other's; shape (N,).
        categories: how many labels they could choose from, 2 or more; matters where not all of them occur.
        weights: as for :func:`cohen_kappa`.

    Returns:
        1 for full agreement, 0 for chance's, at least -1; None without items.

    Raises:
        ValueError: the two, or the weights, differ in length, fewer than two categories, or more labels occur than
            there are.

    Source: Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008) 29-48, equation 5 (two
    categories); Handbook of Inter-Rater Reliability (2014), section 4.4, for more.
    """
    agreed, n, ones, twos = _counted(first, second, weights)
    uses = {label: ones.get(label, 0) + twos.get(label, 0) for label in {**ones, **twos}}
    if categories < max(2, len(uses)):
        raise ValueError(f"categories must be at least 2 and at least the {len(uses)} labels that occur")
    if n == 0:
        return None
    # (2n)² (q - 1) times the chance agreement; it is at most 1/q of the whole, so the divisor below is never 0.
    chance, whole = sum(count * (2 * n - count) for count in uses.values()), 4 * n * n * (categories - 1)
    return (agreed * 4 * n * (categories - 1) - chance) / (whole - chance)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable | None]], order: Sequence[Hashable] | None = None
) -> float | None:
    """Krippendorff's alpha for nominal or ordinal labels, any number of raters, with gaps.

    Args:
        ratings: one row per rater, one column per item; shape (raters, items). None is a gap. An item that fewer than
            two raters labelled is left out.
        order: the labels from the least to the greatest, where they have an order (scores, degrees of refusal): how far
            apart two labels are then counts, by the labels between them.

    Returns:
        1 for full agreement, 0 for chance's; None where no two labels can be compared, or all are the same.

    Raises:
        ValueError: the rows differ in length, or a label is not in ``order``.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (University of Pennsylvania, 2011), section C.
    """
    if len({len(row) for row in ratings}) > 1:
        raise ValueError("every rater's row must hold as many items")
    items = [[label for label in column if label is not None] for column in zip(*ratings, strict=True)]
    items = [labels for labels in items if len(labels) > 1]
    uses = Counter(label for labels in items for label in labels)
    if order is not None and (strange := uses.keys() - set(order)):
        raise ValueError(f"{len(strange)} labels have no place in the order")
    apart = _apart if order is None else _apart_in(order, uses)
    if (expected := apart(uses)) <= 0:
        return None
    observed = sum(apart(Counter(labels)) / (len(labels) - 1) for labels in items)
    return 1.0 - (uses.total() - 1) * observed / expected


def _apart(labels: Counter[Hashable]) -> float:
    """The ordered pairs of different labels."""
    return labels.total() ** 2 - sum(count * count for count in labels.values())


def _apart_in(order: Sequence[Hashable], uses: Counter[Hashable]) -> Callable[[Counter[Hashable]], float]:
    """The same with the ordinal difference: the square of the uses between two labels, their own counted half."""
    middle: dict[Hashable, float] = {}
    below = 0
    for label in order:
        middle[label] = below + uses[label] / 2
        below += uses[label]

    def apart(labels: Counter[Hashable]) -> float:
        """The differences of all ordered pairs: 2 n (sum of squares) - 2 (sum)^2."""
        total = sum(count * middle[label] for label, count in labels.items())
        squares = sum(count * middle[label] ** 2 for label, count in labels.items())
        return 2 * (labels.total() * squares - total * total)

    return apart


def _counted(
    first: Sequence[Hashable], second: Sequence[Hashable], weights: Sequence[float] | None
) -> tuple[float, float, dict[Hashable, float], dict[Hashable, float]]:
    """The weight of the items on which two raters agree, of all, and of each label by either."""
    check_as_many("both raters must label the same items", first, second)
    known: Sequence[float] = [1] * len(first) if weights is None else weights
    check_as_many("weights must be as many as the items", known, first)
    agreed: float = 0
    ones: dict[Hashable, float] = {}
    twos: dict[Hashable, float] = {}
    for one, two, weight in zip(first, second, known, strict=True):
        agreed += weight if one == two else 0
        ones[one] = ones.get(one, 0) + weight
        twos[two] = twos.get(two, 0) + weight
    return agreed, sum(known), ones, twos
