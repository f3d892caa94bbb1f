"""stats: the rate of these very answers, and corrections where questions were asked several times."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.figures.people import enough_labels
from redinstruct.stats import (
    Interval,
    Part,
    corrected,
    corrected_by,
    finite,
    run_difference,
    run_rate,
    strata,
    two_judges,
)

quick = settings(max_examples=80, deadline=None)


@st.composite
def some_parts(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(0, 40))
        labelled = draw(st.integers(0, size))
        found.append((size, draw(st.integers(0, labelled)), labelled))
    return found


def beta_binomial(k: int, n: int, a: float, b: float) -> float:
    """The mass of k in n, written down from its definition."""

    def beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return math.comb(n, k) * math.exp(beta(k + a, n - k + b) - beta(a, b)) if n else 1.0


def brute(parts: list[tuple[int, int, int]]) -> float:
    """The lower end by adding up every combination of predicted numbers."""
    total, known = sum(p[0] for p in parts), sum(p[1] for p in parts)
    ranges = []
    for size, hits, drawn in parts:
        left = size - drawn if hits else 0
        prior = (hits, drawn - hits + 1) if hits == 1 else (hits + 0.5, drawn - hits + 0.5)
        ranges.append([(k, beta_binomial(k, left, *prior)) for k in range(left + 1)])
    masses: dict[int, float] = {}
    for chosen in itertools.product(*ranges):
        number = sum(k for k, _ in chosen)
        masses[number] = masses.get(number, 0.0) + float(np.prod([mass for _, mass in chosen]))
    reached = 0.0
    for number in sorted(masses):
        reached += masses[number]
        if reached >= 0.025:
            return (known + number) / total
    raise AssertionError("the masses do not sum to one")


@settings(max_examples=25, deadline=None)
@given(some_parts())
def test_the_lower_end_is_the_quantile_of_every_combination(parts: list[tuple[int, int, int]]) -> None:
    found = run_rate(parts)
    if not any(labelled for _, _, labelled in parts):
        assert found == Interval(None, 0.0, 1.0, "beta-binomial prediction")
        return
    assert found.estimate is not None
    assert found.low == pytest.approx(min(brute(parts), found.estimate), abs=1e-9)


@quick
@given(some_parts(), some_parts())
def test_counting_the_other_label_mirrors_and_swapping_the_runs_negates(
    one: list[tuple[int, int, int]], other: list[tuple[int, int, int]]
) -> None:
    found, mirrored = run_rate(one), run_rate([(n, d - x, d) for n, x, d in one])
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)
    change, back = run_difference(one, other), run_difference(other, one)
    assert (change.low, change.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    if change.estimate is not None:
        assert change.low <= change.estimate <= change.high


@quick
@given(some_parts())
def test_what_is_labelled_whole_is_known_exactly(parts: list[tuple[int, int, int]]) -> None:
    whole = [(size, min(hits, size), size) for size, hits, _ in parts]
    if not sum(size for size, _, _ in whole):
        return
    rate = sum(hits for _, hits, _ in whole) / sum(size for size, _, _ in whole)
    found = run_rate(whole)
    assert found.low == found.estimate == found.high == pytest.approx(rate)
    change = run_difference(whole, whole)
    assert change.low == change.estimate == change.high == 0


def test_a_difference_with_one_run_known_is_the_other_s_prediction() -> None:
    known, part = [(50, 10, 50)], [(200, 8, 40)]
    rate, change = run_rate(part), run_difference(known, part)
    assert (change.low, change.high) == pytest.approx((rate.low - 0.2, rate.high - 0.2), abs=1e-9)


@pytest.mark.parametrize("part", [(10, 3, 2), (5, 1, 6), (5, -1, 3), (5, 1.0, 3)])
def test_counts_that_do_not_fit_are_refused(part: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        run_rate([part])


def test_the_run_s_rate_holds_what_people_would_find() -> None:
    """Coverage in two cells of the many of docs/experiments/verdicts.md: 600 runs each, seed 8."""
    chance = np.random.default_rng(8)
    for rate, sensitivity, specificity in ((0.1, 0.9, 0.8), (0.5, 0.7, 0.7)):
        held = 0
        for _ in range(300):
            truth = chance.random(300) < rate
            judge = np.where(truth, chance.random(300) < sensitivity, chance.random(300) < 1 - specificity)
            parts = []
            for side in (True, False):
                inside = np.flatnonzero(judge == side)
                drawn = chance.permutation(inside)[:30]
                parts.append((len(inside), int(truth[drawn].sum()), len(drawn)))
            found = run_rate(parts)
            held += found.low - 1e-9 <= truth.mean() <= found.high + 1e-9
        assert held >= 0.93 * 300


# ---- questions asked several times -----------------------------------------------------------------------------------


def run_with(seed: int, questions: int, times: int) -> tuple[list[bool], dict[int, bool], list[int]]:
    """Every question alike in all its tries: the judge's labels, people's of one half, the questions."""
    chance = random.Random(seed)
    truth = [chance.random() < 0.3 for _ in range(questions)]
    judge = [label if chance.random() < 0.8 else not label for label in truth]
    places = [i for i in range(questions) if chance.random() < 0.5]
    asked = [i for i in range(questions) for _ in range(times)]
    return [judge[i] for i in asked], {j: truth[i] for j, i in enumerate(asked) if i in places}, asked


@quick
@given(st.integers(0, 50))
def test_questions_asked_once_change_nothing(seed: int) -> None:
    judge, human, asked = run_with(seed, 60, 1)
    assert corrected(judge, human, questions=asked) == corrected(judge, human)
    assert two_judges(judge, human, questions=asked) == two_judges(judge, human)
    by_topic = corrected_by(judge, human, [i % 3 for i in asked], questions=asked)
    assert by_topic == corrected_by(judge, human, [i % 3 for i in asked])


@pytest.mark.parametrize("times", [2, 5, 10])
def test_identical_repeats_correct_no_better_than_once(times: int) -> None:
    once, often = run_with(3, 80, 1), run_with(3, 80, times)
    one = corrected(once[0], once[1], questions=once[2])
    many = corrected(often[0], often[1], questions=often[2])
    naive = corrected(often[0], often[1])
    assert many.estimate == pytest.approx(one.estimate)
    assert many.high - many.low >= 0.9 * (one.high - one.low) > naive.high - naive.low
    parts = strata(often[0], often[1], often[2])
    assert all(part.effect >= 0.9 * times for part in parts)


def test_labels_of_one_try_a_question_are_independent_and_the_rest_as_alike_as_can_be() -> None:
    judge, asked = [True] * 30, [i // 3 for i in range(30)]
    (part,) = strata(judge, {i: i % 2 == 0 for i in range(0, 30, 3)}, asked)
    assert part == Part(30, 5, 10, 1.0, 2.0)
    plain = run_rate([part[:3]])
    alike = run_rate([part])
    assert alike.high - alike.low >= plain.high - plain.low


@quick
@given(st.data(), st.sampled_from([1e-9, 0.5, 0.95]))
def test_a_corrected_rate_is_a_share_at_every_confidence(data: st.DataObject, confidence: float) -> None:
    """A test that inverts the interval asks for it down to a confidence of 1e-9."""
    questions, times = data.draw(st.integers(1, 8)), data.draw(st.integers(2, 3))
    asked = [i % questions for i in range(questions * times)]
    judge = data.draw(st.lists(st.booleans(), min_size=len(asked), max_size=len(asked)))
    human = data.draw(st.dictionaries(st.integers(0, len(asked) - 1), st.booleans(), min_size=1))
    found = corrected(judge, human, confidence, questions=asked)
    assert found.estimate is not None
    assert 0 <= found.low <= found.estimate <= found.high <= 1


@pytest.mark.parametrize(
    ("judge", "human"),
    [
        ([1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0], {0: 0, 1: 0, 2: 0, 3: 1, 4: 0, 6: 0, 7: 1, 8: 0, 9: 1}),
        ([0, 0, 1, 0, 1, 0, 1, 0, 1], dict.fromkeys(range(9), 1)),
    ],
    ids=["a quantile of 0", "weights of a little more than 1"],
)
def test_the_same_where_rounding_once_made_it_none(judge: list[int], human: dict[int, int]) -> None:
    asked = [i % (6 if len(judge) == 12 else 3) for i in range(len(judge))]
    truth = {i: bool(label) for i, label in human.items()}
    found = corrected([bool(label) for label in judge], truth, 1e-9, questions=asked)
    assert found.estimate is not None
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_as_many_questions_as_attempts() -> None:
    with pytest.raises(ValueError, match="questions"):
        corrected([True, False], {0: True}, questions=[1])


# ---- how many labels an estimate needs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "enough"),
    [
        ([(60, 1, 1), (140, 0, 0)], False),  # "gave in to 65.0 %", of one label
        ([(60, 60, 60), (140, 0, 0)], False),  # "15.0 %": half of the unlabelled 30 %
        ([(60, 4, 4), (140, 5, 5)], False),
        ([(60, 5, 5), (140, 5, 5)], True),
        ([(2, 1, 2), (198, 0, 5)], True),
        ([(3, 1, 3)], True),
        ([(3, 0, 0)], False),
        ([], False),
    ],
)
def test_an_estimate_needs_five_labels_of_each_part_or_all(parts: list[tuple[int, int, int]], enough: bool) -> None:
    assert enough_labels([Part(*part) for part in parts]) is enough


@pytest.mark.parametrize("seed", range(12))
def test_of_many_answers_not_every_number_is_looked_at_and_the_ends_stay(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    parts = []
    for _ in range(2):
        size, labelled = chance.choice((40_000, 200_000)), chance.choice((5, 60, 300, 30_000))
        positive = chance.choice((0, 1, labelled // 50, labelled // 2, labelled))
        parts.append(Part(size, positive, labelled, chance.choice((1.0, 1.7)), chance.choice((1.0, 2.3))))
    quick = run_rate(parts)
    monkeypatch.setattr(finite, "_POINTS", 1 << 40)
    exact = run_rate(parts)
    assert quick.estimate == exact.estimate
    width = exact.high - exact.low
    assert abs(quick.low - exact.low) < 0.001 * width
    assert abs(quick.high - exact.high) < 0.001 * width
