"""Changes of clustered pairs and of mean scores: against statsmodels, against each other, and in their own words."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_rel

from redinstruct.stats import (
    detectable,
    detectable_mean,
    holm,
    holm_levels,
    paired,
    paired_by_cluster,
    paired_by_question,
    paired_means,
)

pairs = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 7)), min_size=1, max_size=60)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


@settings(max_examples=60)
@given(rows=pairs)
def test_questions_asked_once_are_tested_by_mcnemar_and_tango(rows: list[tuple[bool, bool, int]]) -> None:
    before, after, _ = columns(rows)
    found, plain = paired_by_question(before, after), paired(before, after)
    assert found == paired_by_question(before, after, range(len(before)))
    assert found.difference == plain.difference
    # From .0082 up the mid-p is the larger of the two tests' p-values.
    assert found.p_value == pytest.approx(plain.p_value) or plain.p_value < found.p_value < 0.0082
    assert found.low <= plain.low
    assert found.high >= plain.high
    assert plain.low == found.low or found.low == 0
    assert plain.high == found.high or found.high == 0
    assert (found.design_effect, found.clusters) == (1.0, None)


@settings(max_examples=60)
@given(rows=pairs, confidence=st.sampled_from([0.8, 0.95, 0.99, 1 - 0.05 / 12]))
def test_the_test_and_the_interval_agree(rows: list[tuple[bool, bool, int]], confidence: float) -> None:
    before, after, names = columns(rows)
    for questions in (None, names):
        found = paired_by_question(before, after, questions, confidence=confidence)
        in_general = paired_by_cluster(before, after, names, confidence=confidence)
        assert (in_general.p_value > 1 - confidence) == (in_general.low <= 0 <= in_general.high)
        assert (found.p_value > 1 - confidence) == (found.low <= 0 <= found.high)
        assert found.low <= found.difference <= found.high


def test_near_the_level_the_interval_follows_the_test() -> None:
    """10 against 21: Tango's interval by itself excludes 0 where McNemar's mid-p does not reject it."""
    before, after = [True] * 21 + [False] * 79, [False] * 21 + [True] * 10 + [False] * 69
    plain, found = paired(before, after), paired_by_question(before, after)
    assert plain.high < 0 < 0.05 < plain.p_value
    assert found.p_value == pytest.approx(plain.p_value)
    assert found.high == 0.0


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40), times=st.sampled_from([2, 3, 10])
)
def test_repeats_that_always_say_the_same_add_nothing(rows: list[tuple[bool, bool]], times: int) -> None:
    before, after = columns(rows)
    once = paired_by_question(before, after)
    often = paired_by_question(before * times, after * times, [*range(len(rows))] * times)
    assert often.difference == pytest.approx(once.difference)
    assert often.p_value >= once.p_value - 1e-9
    assert often.low <= once.low + 1e-9
    assert often.high >= once.high - 1e-9
    assert 1 <= often.design_effect <= times


def test_repeats_that_differ_say_more_than_one_of_them() -> None:
    generator = np.random.default_rng(4)
    before, after = (generator.random((60, 5)) < rate for rate in (0.5, 0.35))
    names = np.repeat(np.arange(60), 5)
    many = paired_by_question(before.ravel().tolist(), after.ravel().tolist(), names.tolist())
    first = paired_by_question(before[:, 0].tolist(), after[:, 0].tolist())
    assert many.high - many.low < 0.7 * (first.high - first.low)
    assert many.freedom == 59


def test_no_change_in_few_questions_is_no_proof_however_often_they_are_asked() -> None:
    once, often = (
        paired_by_question([False] * 20, [False] * 20),
        paired_by_question([False] * 200, [False] * 200, [*range(20)] * 10),
    )
    assert often.high >= once.high > 0.15
    assert paired_by_question([False] * 9, [True] * 9, ["one"] * 9).low == -1.0


@settings(max_examples=100)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12), level=st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_s_levels_decide_as_holm_s_adjusted_p_values(p_values: list[float], level: float) -> None:
    levels, adjusted = holm_levels(p_values, level), holm(p_values)
    for p, at, held in zip(p_values, levels, adjusted, strict=True):
        assert level / len(p_values) <= at <= level
        if abs(held - level) > 1e-9:
            assert (p <= at) == (held <= level)
    assert len({at for p, at in zip(p_values, levels, strict=True) if p > at}) <= 1


@settings(max_examples=40)
@given(rows=pairs, margin=st.sampled_from([0.0, 0.02, 0.3]))
def test_swapping_the_runs_mirrors_the_change(rows: list[tuple[bool, bool, int]], margin: float) -> None:
    before, after, topics = columns(rows)
    one, other = (paired_by_cluster(*x, topics, margin=margin) for x in ((before, after), (after, before)))
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-9)
    assert (one.gained, one.lost) == (other.lost, other.gained)
    assert one.design_effect == pytest.approx(other.design_effect)


@settings(max_examples=40)
@given(rows=pairs, margin=st.sampled_from([0.0, 0.02, 0.3]))
def test_clusters_never_add_evidence(rows: list[tuple[bool, bool, int]], margin: float) -> None:
    before, after, topics = columns(rows)
    plain = paired(before, after)
    found = paired_by_cluster(before, after, topics, margin=margin)
    assert found.low <= plain.low + 1e-12
    assert found.high >= plain.high - 1e-12
    assert found.p_value >= plain.p_value
    assert found.low <= found.difference <= found.high


@settings(max_examples=40)
@given(rows=pairs, margin=st.sampled_from([0.01, 0.1, 0.5]))
def test_the_margin_s_test_and_the_interval_agree(rows: list[tuple[bool, bool, int]], margin: float) -> None:
    before, after, topics = columns(rows)
    for found in (
        paired_by_question(before, after, margin=margin),
        paired_by_question(before, after, topics, margin=margin),
        paired_by_cluster(before, after, topics, margin=margin),
    ):
        if abs(found.high - margin) > 1e-9:
            assert (found.p_margin < 0.025) == (found.high < margin)


def by_matrices(values: Sequence[float], groups: Sequence[int]) -> tuple[float, float]:
    """Bell & McCaffrey's variance of a mean and its degrees of freedom, as their paper writes them."""
    y, of, n = np.array(values, float), np.array(groups), len(values)
    hat = np.full((n, n), 1 / n)
    residuals, columns_of = y - y.mean(), []
    total = 0.0
    for group in np.unique(of):
        inside = np.flatnonzero(of == group)
        kept, vectors = np.linalg.eigh(np.eye(len(inside)) - hat[np.ix_(inside, inside)])
        root = vectors @ np.diag(kept**-0.5) @ vectors.T  # (I - H_gg) to the power of -1/2
        column = (np.eye(n) - hat)[:, inside] @ root @ np.full(len(inside), 1 / n)
        total += float((root @ residuals[inside]).sum() / n) ** 2
        columns_of.append(column)
    gram = np.array(columns_of) @ np.array(columns_of).T
    return total, float(np.trace(gram) ** 2 / (gram**2).sum())


@pytest.mark.parametrize("sizes", [[15] * 8, [4, 8, 15, 16, 23, 42], [2, 1, 90]])
def test_the_variance_and_its_freedom_are_bell_and_mccaffrey_s(sizes: list[int]) -> None:
    generator = random.Random(3)
    rows = [
        (generator.random() < 0.5, generator.random() < 0.1 + 0.1 * g, g) for g, m in enumerate(sizes) for _ in range(m)
    ]
    before, after, topics = columns(rows)
    changes = np.array(after, float) - np.array(before, float)
    variance, freedom = by_matrices(changes.tolist(), topics)
    found = paired_by_cluster(before, after, topics)
    assert found.freedom == pytest.approx(freedom, rel=1e-9)
    assert found.design_effect == pytest.approx(max(1.0, variance / (changes.var() / len(changes))), rel=1e-9)
    p = 2 * student.sf(abs(changes.mean()) / math.sqrt(variance), freedom)
    assert found.p_value >= max(p, paired(before, after).p_value) * (1 - 1e-9)


def test_with_equal_clusters_the_variance_is_the_one_of_statsmodels() -> None:
    import statsmodels.api as sm

    generator = random.Random(3)
    rows = [(generator.random() < 0.5, generator.random() < 0.1 + 0.1 * g, g) for g in range(8) for _ in range(15)]
    before, after, topics = columns(rows)
    changes = np.array(after, float) - np.array(before, float)
    fit = sm.OLS(changes, np.ones(len(changes))).fit(cov_type="cluster", cov_kwds={"groups": np.array(topics)})
    # Its correction is G / (G - 1) times (n - 1) / (n - k), which is 1 here.
    found = paired_by_cluster(before, after, topics)
    independent = changes.var() / len(changes)
    assert found.design_effect == pytest.approx(max(1.0, fit.cov_params()[0, 0] / independent), rel=1e-9)
    assert found.design_effect > 1.2
    assert found.freedom == pytest.approx(7)


def test_topics_of_unequal_size_are_fewer_than_they_look() -> None:
    """Half of all pairs in one of ten topics: 200 draws in which nothing changed on the whole."""
    generator = np.random.default_rng(11)
    sizes = [5, 5, 8, 10, 10, 15, 20, 30, 60, 120]
    topics = np.repeat(np.arange(10), sizes)
    said = 0
    for _ in range(200):
        rises = generator.beta(1.2, 1.2, 10)[topics]
        moved, up = generator.random(len(topics)) < 0.3, generator.random(len(topics)) < rises
        before, after = (moved & ~up).tolist(), (moved & up).tolist()
        said += paired_by_cluster(before, after, topics.tolist()).p_value <= 0.05
    # With a t of nine degrees of freedom it was 30 of 200; the seed is fixed.
    assert said <= 20


def test_topics_that_move_alike_leave_the_pairs_independent() -> None:
    before, after = [True] * 8 + [False] * 12, [False] * 8 + [False] * 12
    alike = paired_by_cluster(before * 10, after * 10, [g for g in range(10) for _ in range(20)])
    plain = paired(before * 10, after * 10)
    assert alike[:4] == plain


def test_one_cluster_says_nothing_about_others() -> None:
    found = paired_by_cluster([True] * 50, [False] * 50, ["topic"] * 50)
    assert (found.low, found.high, found.p_value, found.p_margin) == (-1.0, 1.0, 1.0, 1.0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="as many as the pairs"):
        paired_by_cluster([True], [False], [1, 2])
    with pytest.raises(ValueError, match="margin"):
        paired_by_question([True], [False], margin=-0.1)
    with pytest.raises(ValueError, match="as many"):
        paired_by_question([True], [False, True])
    with pytest.raises(ValueError, match="at least one pair"):
        paired_by_question([], [])
    with pytest.raises(ValueError, match="margin"):
        paired_means([0.5], [0.5], margin=math.nan)
    with pytest.raises(ValueError, match="as many"):
        paired_means([0.5], [0.5, 1.0])
    with pytest.raises(ValueError, match="finite"):
        paired_means([math.nan], [0.5])
    with pytest.raises(ValueError, match="parts"):
        paired_means([0.5, 0.1], [0.5, 0.2], ["a"])
    with pytest.raises(ValueError, match="pairs"):
        detectable(0, 0.1)
    with pytest.raises(ValueError, match="in order"):
        detectable_mean(0.2, 0.1, level=0.05)


# ---- mean scores -----------------------------------------------------------------------------------------------------

scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=40)


def test_scores_are_tested_by_student_s_paired_t() -> None:
    generator = np.random.default_rng(5)
    before, after = generator.random(60), generator.random(60)
    found, known = paired_means(before.tolist(), after.tolist(), margin=0.1), ttest_rel(after, before)
    assert (found.p_value, found.difference) == pytest.approx((known.pvalue, float(np.mean(after - before))))
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    below = ttest_rel(after, before + 0.1, alternative="less")
    assert found.p_margin == pytest.approx(below.pvalue)


def test_scores_of_0_and_1_are_pairs() -> None:
    before, after = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]
    same = paired_by_question([True, False, True, True], [False, False, True, False], margin=0.1)
    assert paired_means(before, after, margin=0.1) == same


def test_the_mean_of_the_parts_weighs_parts_alike() -> None:
    before, after = [0.0] * 12, [1.0, 0.0] + [0.5, 0.3] * 5
    parts = ["small"] * 2 + ["large"] * 10
    found = paired_means(before, after, parts)
    assert found.difference == pytest.approx((0.5 + 0.4) / 2)
    variances = [np.var(x, ddof=1) / len(x) for x in (after[:2], after[2:])]
    error = math.sqrt(sum(variances)) / 2
    assert found.difference - found.low == pytest.approx(student.ppf(0.975, 10) * error)


@settings(max_examples=80)
@given(rows=scores, by_part=st.booleans(), margin=st.sampled_from([0.0, 0.05]))
def test_swapping_mirrors_scores_too(rows: list[tuple[float, float, int]], by_part: bool, margin: float) -> None:
    before, after, parts = columns(rows)
    of = parts if by_part else None
    one, other = paired_means(before, after, of, margin=margin), paired_means(after, before, of, margin=margin)
    assert one.difference == pytest.approx(-other.difference, abs=1e-12)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-9)
    assert -1 <= one.low <= one.difference + 1e-12
    assert one.difference - 1e-12 <= one.high <= 1


def test_what_rounding_does_to_scores_is_no_change() -> None:
    generator = np.random.default_rng(8)
    before = generator.random(40)
    after = before + generator.normal(0, 1e-8, 40)
    found, same = (paired_means(before.tolist(), x.tolist(), margin=0.02) for x in (after, before))
    assert found == same
    # A sum of probabilities that came out a little over 1 is still a share.
    over = paired_means([1.0000001, 0.5, 0.2], [0.9, 0.4, 0.3])
    assert over == paired_means([1.0, 0.5, 0.2], [0.9, 0.4, 0.3])


def test_equal_scores_are_not_certainty() -> None:
    few, many = (paired_means([0.3] * n, [0.3] * n, margin=0.02) for n in (10, 1000))
    assert few.p_value == many.p_value == 1.0
    assert few.low < -0.2 < 0.2 < few.high
    assert (few.p_margin < 0.025, many.p_margin < 0.025) == (False, True)
    assert paired_means([0.3], [0.4]).p_value == 1.0


# ---- what so many pairs can show -------------------------------------------------------------------------------------


def test_the_detectable_change_by_hand() -> None:
    # Connor (1987), equation 1: 200 pairs, 30 % discordant, 5 % two-sided, 80 % power.
    change = detectable(200, 0.3)
    z, power = 1.959963984540054, 0.8416212335729143
    assert change * math.sqrt(200) == pytest.approx(z * math.sqrt(0.3) + power * math.sqrt(0.3 - change**2))


@settings(max_examples=60)
@given(
    n=st.integers(1, 5000),
    changed=st.floats(0, 1),
    more=st.integers(1, 5000),
    effect=st.floats(1, 10),
    freedom=st.none() | st.floats(0.5, 100),
)
def test_more_pairs_show_smaller_changes(
    n: int, changed: float, more: int, effect: float, freedom: float | None
) -> None:
    one = detectable(n, changed, design_effect=effect, freedom=freedom)
    assert 0 < one <= 1
    assert detectable(n + more, changed, design_effect=effect, freedom=freedom) <= one
    assert detectable(n, changed, design_effect=effect * 2, freedom=freedom) >= one
    assert detectable(n, changed, confidence=0.99, design_effect=effect, freedom=freedom) >= one


def test_a_mean_s_detectable_change_comes_from_its_interval() -> None:
    # An interval of half-width 1.96 errors, at the same level: 2.8 errors.
    assert detectable_mean(-0.0196, 0.0196, level=0.05) == pytest.approx(0.028, abs=2e-4)
