"""stats: the corners that the larger tests do not come by, each against its definition."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from redinstruct.stats import (
    Interval,
    at_k,
    design_effect,
    hit_at_k,
    krippendorff_alpha,
    paired_means,
    questions_needed,
    smallest_level,
    unlike_from,
    wilson,
    wilson_by_question,
)
from redinstruct.stats.correction import POSTSTRATIFIED, corrected_of
from redinstruct.stats.finite import _sum
from redinstruct.stats.parts import Part
from redinstruct.stats.sequential import Watch


def ordinal_by_hand(ratings: list[list[int | None]], order: list[int]) -> float | None:
    """Krippendorff's alpha from all ordered pairs: the square of the uses from one label to the other, ends by half."""
    items = [[label for label in column if label is not None] for column in zip(*ratings, strict=True)]
    items = [labels for labels in items if len(labels) > 1]
    uses = Counter(label for labels in items for label in labels)

    def apart(one: int, other: int) -> float:
        low, high = sorted((order.index(one), order.index(other)))
        return float(sum(uses[order[at]] for at in range(low, high + 1)) - (uses[one] + uses[other]) / 2) ** 2

    observed = sum(
        apart(one, other) / (len(labels) - 1) for labels in items for one, other in itertools.permutations(labels, 2)
    )
    every = [label for labels in items for label in labels]
    expected = sum(apart(one, other) for one, other in itertools.permutations(every, 2))
    return None if expected == 0 else 1 - (len(every) - 1) * observed / expected


@pytest.mark.parametrize("seed", range(20))
def test_ordinal_alpha_is_that_of_all_pairs(seed: int) -> None:
    dice = random.Random(seed)
    order = [1, 2, 3, 4, 5]
    ratings = [[dice.choice([None, 1, 2, 2, 3, 4, 5]) for _ in range(12)] for _ in range(3)]
    found, wanted = krippendorff_alpha(ratings, order), ordinal_by_hand(ratings, order)
    assert found == pytest.approx(wanted)


def test_ordinal_alpha_needs_labels_that_differ_and_have_a_place() -> None:
    assert krippendorff_alpha([[1, 1], [1, 1]], [1, 2]) is None
    with pytest.raises(ValueError, match="1 labels have no place"):
        krippendorff_alpha([[1, 9], [1, 1]], [1, 2])
    with pytest.raises(ValueError, match="as many items"):
        krippendorff_alpha([[1, 2], [1]])


def test_success_at_k() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        at_k([1], [2], 0)
    assert at_k([1, 0], [2, 3], 5) == Interval(None, 0.0, 1.0, wilson_by_question([1, 0], [2, 2]).method)
    assert at_k([1, 0, 3], [3, 3, 3], 3) == wilson(2, 3)
    assert at_k([1, 0, 3], [3, 3, 3], 1) == wilson_by_question([1, 0, 3], [3, 3, 3])
    successes, tries = [1, 0, 3, 2, 9], [3, 4, 6, 2, 9]
    found = at_k(successes, tries, 2)
    shares = [hit_at_k(x, n, 2) for x, n in zip(successes, tries, strict=True)]
    assert found.estimate == pytest.approx(sum(shares) / 5)
    assert found.estimate is not None
    assert 0 <= found.low < found.estimate < found.high <= 1
    wider = at_k(successes, tries, 2, 0.99)
    assert (wider.low, wider.high) < (found.low, 1.0)
    assert wider.high > found.high
    alone = at_k([2], [5], 2)
    assert alone.low < hit_at_k(2, 5, 2) < alone.high


def test_the_design_effect_of_clusters() -> None:
    assert design_effect([3], [5]) == math.inf
    assert design_effect([0, 0], [5, 5]) == 1.0
    assert design_effect([5, 0, 5, 0], [5, 5, 5, 5]) > 5
    assert unlike_from(1) == math.inf
    assert [round(unlike_from(clusters), 2) for clusters in (5, 10, 98)] == [2.37, 1.88, 1.25]


def test_a_sum_of_two_numbers_has_the_convolved_masses() -> None:
    dice = np.random.default_rng(1)
    one, other = (dice.random(2_100) for _ in range(2))
    one, other = one / one.sum(), other / other.sum()
    values, mass = _sum(np.arange(2_100.0), one, np.arange(2_100.0), other)  # by Fourier: over 4 million products
    assert values[0] == 0
    assert values[-1] == 2 * 2_099
    assert mass == pytest.approx(np.convolve(one, other), abs=1e-12)
    # Unlike steps are rounded to whole numbers: no mass is lost, and the mean is kept within one.
    values, mass = _sum(
        np.array([0.0, 1.5, 3.0]), np.array([0.2, 0.3, 0.5]), np.array([0.0, 1.0]), np.array([0.5, 0.5])
    )
    assert mass.sum() == pytest.approx(1)
    assert float(values @ mass) == pytest.approx(0.3 * 1.5 + 0.5 * 3 + 0.5, abs=1)


def test_means_that_are_no_shares() -> None:
    found = paired_means([1.0, 5.0, 9.0, 4.0], [3.0, 9.0, 8.0, 9.0])
    assert found.difference == pytest.approx(2.5)
    assert found.high > 1, "not cut at the ends of a share"
    alike = paired_means([1.0, 5.0, 9.0], [3.0, 7.0, 11.0])
    assert (alike.low, alike.difference, alike.high) == (2, 2, 2)


def test_corners_of_levels_sizes_and_watches() -> None:
    assert smallest_level(lambda level: False) == 1.0
    with pytest.raises(ValueError, match="needs a result"):
        questions_needed(0.1, 0.2, cells=0)
    assert questions_needed(0.1, 0.1000001).questions is None
    watch = Watch(0.5)
    assert watch.mean is None
    watch.add(1.0)
    assert watch.mean == 1.0


def test_without_a_label_nothing_is_known_of_the_run() -> None:
    assert corrected_of(Part(5, 0, 0), Part(7, 0, 0)) == Interval(None, 0.0, 1.0, POSTSTRATIFIED)


def test_a_sum_with_a_number_that_is_certain_is_the_other_one_moved() -> None:
    values, mass = _sum(np.array([2.0]), np.array([1.0]), np.array([0.0, 1.0, 4.0]), np.array([0.2, 0.3, 0.5]))
    assert list(values) == [2.0, 3.0, 6.0]
    assert list(mass) == [0.2, 0.3, 0.5]


@pytest.mark.parametrize("name", ["size", "positive", "labelled"])
def test_a_part_s_bad_count_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        corrected_of(Part(5, 1, 2)._replace(**{name: -1}), Part(7, 0, 0))
