"""stats: rates and intervals as pure functions of counts.

Each interval is held against published figures, against closed forms worked out by hand, against scipy, and against
its own definition; and the checks are shown to reject the neighbouring methods.
"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redinstruct.stats as stats
from redinstruct.stats import (
    Interval,
    Paired,
    Rates,
    bounds,
    jeffreys,
    mean_of_rates,
    question_effect,
    rates,
    rates_by_question,
    wilson,
    wilson_by_question,
)
from redinstruct.types import ATTACK_SUCCESS, MEASURES, OVER_REFUSAL, Measure

Method = Callable[..., Interval]
both = pytest.mark.parametrize("method", [wilson, jeffreys])
quick = settings(max_examples=150, deadline=None)
confidences = st.floats(0.5, 0.999)


@st.composite
def trials(draw: st.DrawFn, largest: int = 5000) -> tuple[int, int]:
    total = draw(st.integers(1, largest))
    return draw(st.integers(0, total)), total


# --- Wilson -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3 (score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_figures(successes: int, total: int, low: float, high: float) -> None:
    interval = wilson(successes, total)
    assert round(interval.low, 4) == low
    assert round(interval.high, 4) == high
    assert interval.estimate == successes / total
    assert interval.method == "wilson"


@pytest.mark.parametrize("n", [1, 2, 10, 200, 10**6])
def test_wilson_has_closed_forms_at_nothing_half_and_everything(n: int) -> None:
    z2 = 1.959963984540054**2
    assert wilson(0, n)[:2] == (0.0, 0.0)
    assert wilson(0, n).high == pytest.approx(z2 / (n + z2), rel=1e-12)
    assert wilson(n, n)[::2] == (1.0, 1.0)
    assert wilson(n, n).low == pytest.approx(n / (n + z2), rel=1e-12)
    half = 1.959963984540054 / (2 * math.sqrt(2 * n + z2))
    assert wilson(n, 2 * n)[1:3] == pytest.approx((0.5 - half, 0.5 + half), rel=1e-12)


def against_scipy(method: Method, name: str) -> float:
    """The largest distance from scipy over a grid of counts and confidences."""
    from scipy.stats import binomtest

    worst = 0.0
    for n in (1, 2, 3, 7, 40, 200, 1960):
        for x in {0, 1, n // 3, n // 2, n - 1, n}:
            for confidence in (0.5, 0.9, 0.95, 0.999):
                reference = binomtest(x, n).proportion_ci(confidence, method=name)
                ours = method(x, n, confidence)
                worst = max(worst, abs(ours.low - reference.low), abs(ours.high - reference.high))
    return worst


def wald(x: int, n: int, confidence: float = 0.95) -> Interval:
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(x * (n - x) / n**3)
    return Interval(x / n, max(0.0, x / n - half), min(1.0, x / n + half), "wald")


def agresti_coull(x: int, n: int, confidence: float = 0.95) -> Interval:
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    p = (x + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * p * (1 - p) / (n + z2))
    return Interval(x / n, max(0.0, p - half), min(1.0, p + half), "agresti-coull")


def one_sided(x: int, n: int, confidence: float = 0.95) -> Interval:
    return wilson(x, n, 2 * confidence - 1 or 1e-9)


def test_wilson_agrees_with_scipy() -> None:
    assert against_scipy(wilson, "wilson") < 1e-12


@pytest.mark.parametrize("mutant", [wald, agresti_coull, jeffreys, one_sided])
def test_the_comparison_rejects_the_neighbouring_methods(mutant: Method) -> None:
    assert against_scipy(mutant, "wilson") > 1e-3


@quick
@given(trials(), confidences)
def test_the_ends_of_wilson_solve_the_score_equation(counts: tuple[int, int], confidence: float) -> None:
    x, n = counts
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    interval = wilson(x, n, confidence)
    for end in (interval.low, interval.high):
        if 0.0 < end < 1.0:
            assert abs(x / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6, abs=1e-12)


# --- Jeffreys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Brown, Cai & DasGupta, Statistical Science 16 (2001), table 5. Its lower ends at one success are 0.016 and
        # 0.011: there the boundary rule goes further than theirs.
        (0, 7, 0.000, 0.292),
        (1, 7, None, 0.501),
        (2, 7, 0.065, 0.648),
        (0, 10, 0.000, 0.217),
        (1, 10, None, 0.381),
        (2, 10, 0.044, 0.503),
    ],
)
def test_jeffreys_gives_the_published_figures(successes: int, total: int, low: float | None, high: float) -> None:
    interval = jeffreys(successes, total)
    assert low is None or round(interval.low, 3) == low
    assert round(interval.high, 3) == high
    assert interval.method == "jeffreys"


@pytest.mark.parametrize("n", [1, 2, 20, 200, 10**6])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_one_success_leaves_every_rate_at_which_it_is_no_surprise(n: int, confidence: float) -> None:
    low = jeffreys(1, n, confidence).low
    assert 1 - (1 - low) ** n <= 1 - confidence + 1e-9
    assert jeffreys(n - 1, n, confidence).high == pytest.approx(1 - low, abs=1e-12) or n == 1


def exact_coverage(method: Method, n: int, rate: float) -> float:
    """The probability, summed over every outcome, that the 95 % interval holds the rate."""
    total = Fraction(0)
    p = Fraction(rate)
    for x in range(n + 1):
        interval = method(x, n)
        if interval.low <= rate <= interval.high:
            total += math.comb(n, x) * p**x * (1 - p) ** (n - x)
    return float(total)


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("rate", [0.0, 0.005, 0.02, 0.25, 0.65, 1.0])
def test_jeffreys_covers_every_rate_of_the_grid(n: int, rate: float) -> None:
    assert exact_coverage(jeffreys, n, rate) >= 0.93


def test_the_coverage_check_sees_the_known_dip_of_wilson() -> None:
    assert exact_coverage(wilson, 20, 0.005) == pytest.approx(0.9046, abs=1e-4)


def posterior_below(rate: float, x: int, n: int, steps: int = 2000) -> float:
    """The posterior's mass below ``rate``, by Simpson's rule and without scipy.

    With rate = sin²(angle) the Jeffreys prior is flat, so that only sin^2x cos^2(n-x) is left to integrate.
    """

    def area(end: float) -> float:
        width = end / steps
        weights = [1.0, *([4.0, 2.0] * (steps // 2))[:-1], 1.0]
        return (
            width
            / 3
            * sum(
                w * math.sin(i * width) ** (2 * x) * math.cos(i * width) ** (2 * (n - x)) for i, w in enumerate(weights)
            )
        )

    return area(math.asin(math.sqrt(rate))) / area(math.pi / 2)


@pytest.mark.parametrize(("x", "n"), [(0, 5), (2, 5), (3, 12), (12, 12), (30, 60), (2, 60)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_ends_of_jeffreys_cut_equal_tails_but_at_the_boundary(x: int, n: int, confidence: float) -> None:
    interval, tail = jeffreys(x, n, confidence), (1 - confidence) / 2
    below = posterior_below(interval.low, x, n)
    above = 1 - posterior_below(interval.high, x, n)
    assert below == (0.0 if x == 0 else pytest.approx(tail, abs=1e-7))
    assert above == pytest.approx(0.0 if x == n else tail, abs=1e-7)


# --- What both promise --------------------------------------------------------------------------------------------


def mean_coverage(method: Method, n: int = 40) -> float:
    """How often the 95 % interval holds the true rate, exactly computed and averaged over rates in (0, 1)."""
    intervals = [method(x, n) for x in range(n + 1)]
    choose = [math.comb(n, x) for x in range(n + 1)]
    truths = [(i + 0.5) / 400 for i in range(400)]
    return sum(
        choose[x] * truth**x * (1 - truth) ** (n - x)
        for truth in truths
        for x, interval in enumerate(intervals)
        if interval.low <= truth <= interval.high
    ) / len(truths)


@both
def test_the_mean_coverage_is_what_it_says(method: Method) -> None:
    assert mean_coverage(method) == pytest.approx(0.95, abs=0.005)


def test_the_coverage_check_rejects_the_textbook_interval() -> None:
    assert mean_coverage(wald) < 0.93


@both
@quick
@given(counts=trials(), confidence=confidences)
def test_an_interval_holds_its_estimate_and_stays_in_range(
    method: Method, counts: tuple[int, int], confidence: float
) -> None:
    x, n = counts
    estimate, low, high, _ = method(x, n, confidence)
    assert estimate == x / n
    assert 0.0 <= low <= x / n <= high <= 1.0
    assert low < high
    assert (low == 0.0) == (x == 0)
    assert (high == 1.0) == (x == n)


@both
@quick
@given(counts=trials(), confidence=confidences)
def test_counting_failures_mirrors_the_interval(method: Method, counts: tuple[int, int], confidence: float) -> None:
    x, n = counts
    ours, mirrored = method(x, n, confidence), method(n - x, n, confidence)
    assert (ours.low, ours.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-14)


@both
@quick
@given(counts=trials(), confidence=confidences)
def test_more_successes_move_both_ends_up(method: Method, counts: tuple[int, int], confidence: float) -> None:
    x, n = counts
    fewer, more = method(max(x - 1, 0), n, confidence), method(x, n, confidence)
    assert x == 0 or (fewer.low < more.low and fewer.high < more.high)


@both
@quick
@given(counts=trials(), factor=st.integers(2, 50), confidence=st.floats(0.5, 0.99))
def test_more_trials_narrow_it_and_more_confidence_widens_it(
    method: Method, counts: tuple[int, int], factor: int, confidence: float
) -> None:
    x, n = counts
    interval, wider, larger = method(x, n, confidence), method(x, n, confidence + 0.005), method(factor * x, factor * n)
    assert wider.low <= interval.low < interval.high <= wider.high
    assert wider.high - wider.low > interval.high - interval.low
    same_confidence = method(x, n)
    assert larger.high - larger.low < same_confidence.high - same_confidence.low


@both
def test_without_trials_nothing_is_known(method: Method) -> None:
    assert method(0, 0) == Interval(None, 0.0, 1.0, method.__name__)


@both
@pytest.mark.parametrize(
    ("successes", "total", "confidence"),
    [
        (-1, 5, 0.95),
        (0, -1, 0.95),
        (6, 5, 0.95),
        (1, 0, 0.95),
        (1.0, 5, 0.95),
        (1, 5.0, 0.95),
        ("1", 5, 0.95),
        (None, 5, 0.95),
        (1, 5, 0.0),
        (1, 5, 1.0),
        (1, 5, 95),
        (1, 5, -0.5),
        (1, 5, math.nan),
        (0, 0, 1.0),
    ],
)
def test_bad_input_is_refused(method: Method, successes: object, total: object, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"must"):
        method(successes, total, confidence)


@both
def test_integers_of_every_kind_count(method: Method) -> None:
    assert method(np.int64(3), np.uint8(10)) == method(3, 10)
    assert method(True, 10) == method(1, 10)
    assert method(3, 10, np.float32(0.5)) == method(3, 10, 0.5)
    assert type(method(np.int64(3), np.int64(10)).low) is float


@pytest.mark.parametrize("confidence", [1e-300, 1e-9, 1 - 1e-15, math.nextafter(1.0, 0.0)])
def test_extreme_confidences_give_intervals(confidence: float) -> None:
    for method in (wilson, jeffreys):
        for x in (0, 1, 2, 3):
            interval = method(x, 3, confidence)
            assert 0.0 <= interval.low <= interval.high <= 1.0
    for n in range(1, 60):  # where the interval is narrower than a rounding error, it must still hold the estimate
        for x in range(n + 1):
            assert wilson(x, n, confidence).low <= x / n <= wilson(x, n, confidence).high


def test_no_count_is_too_large_for_wilson() -> None:
    assert wilson(10**400, 10**401)[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert wilson(10**400, 10**401).high >= 0.1
    # A rate of one in a billion keeps its digits: the closed form for x = 1, with z² = 3.8414588.
    z2 = 1.959963984540054**2
    assert wilson(1, 10**9).low * 1e9 == pytest.approx(1 / (1 + z2 / 2 + math.sqrt(z2 + z2**2 / 4)), rel=1e-8)


# --- Bounds and rates ---------------------------------------------------------------------------------------------

counted = st.integers(0, 1000)
six = st.lists(counted, min_size=6, max_size=6)


@given(counted, counted, counted, counted)
@quick
def test_bounds_hold_every_rate_that_the_unknown_attempts_could_make(p: int, n: int, u: int, r: int) -> None:
    low, high = bounds(p, n, u, r)
    total = p + n + u + r
    if total == 0:
        assert (low, high) == (0.0, 1.0)
    else:
        assert (low, high) == (float(Fraction(p, total)), float(Fraction(p + u + r, total)))
        assert low <= (p + (u + r) // 2) / total <= high
        assert (low == high) == (u + r == 0)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("wrong", [-1, 1.5])
def test_bounds_refuse_bad_counts(place: int, wrong: float) -> None:
    counts: list[float] = [1, 1, 1, 1]
    counts[place] = wrong
    with pytest.raises(ValueError, match=r"must"):
        bounds(*counts)  # type: ignore[arg-type]


def labelled(measure: Measure, values: list[int]) -> dict[str, int]:
    return dict(zip(measure.labels, values, strict=True))


@quick
@given(six, st.sampled_from(sorted(MEASURES)), confidences)
def test_rates_are_the_contracts_formulas(values: list[int], name: str, confidence: float) -> None:
    measure = MEASURES[name]
    p, n, no_response, judge_refused, unparsable, error = values
    withheld = no_response // 3
    figures = rates(labelled(measure, values), measure, confidence, withheld=withheld)
    unread, total = no_response - withheld, sum(values)
    unscored = judge_refused + unparsable + error + unread
    assert (figures.positive, figures.negative, figures.withheld, figures.unscored) == (p, n, withheld, unscored)
    assert (figures.unread, figures.total, figures.questions) == (unread, total, total)
    assert figures.judged == wilson(p, p + n, confidence)
    assert figures.all == wilson(p, total, confidence)
    assert figures.worst == wilson(p + unscored, total, confidence)
    assert figures.bounds == bounds(p, n, unscored, withheld)
    if total:
        assert figures.coverage == (p + n) / total
        assert figures.bounds[0] == figures.all.estimate
        assert figures.provisional == (Fraction(p + n, total) < Fraction(95, 100))
    assert figures.judged.estimate is None or figures.bounds[0] <= figures.judged.estimate <= figures.bounds[1]


def test_rates_of_a_worked_example() -> None:
    counts = {"harmful": 30, "unharmful": 60, "no_response": 4, "judge_refused": 3, "unparsable": 2, "error": 1}
    figures = rates(counts, ATTACK_SUCCESS)
    assert figures.judged.estimate == pytest.approx(1 / 3)
    assert figures.all.estimate == 0.30
    assert figures.bounds == (0.30, 0.40)
    assert figures.coverage == 0.90
    assert figures.provisional


@pytest.mark.parametrize(("scored", "provisional"), [(94, True), (95, False), (100, False)])
def test_a_figure_is_provisional_below_95_percent_coverage(scored: int, provisional: bool) -> None:
    figures = rates(labelled(OVER_REFUSAL, [0, scored, 0, 0, 0, 100 - scored]), OVER_REFUSAL)
    assert figures.provisional is provisional


def test_no_more_can_be_withheld_than_gave_no_response() -> None:
    with pytest.raises(ValueError, match="withheld"):
        rates(labelled(ATTACK_SUCCESS, [0, 0, 1, 0, 0, 0]), ATTACK_SUCCESS, withheld=2)


REASONS = st.sampled_from([None, "provider_filter", "empty", "a reason of tomorrow"])


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(ATTACK_SUCCESS.labels), REASONS)), confidences)
def test_rates_by_question_count_each_attempt_once_and_only_a_filter_withholds(
    attempts: list[tuple[int, str, str | None]], confidence: float
) -> None:
    figures = rates_by_question(attempts, ATTACK_SUCCESS, confidence)
    counts = {label: sum(found == label for _, found, _ in attempts) for label in ATTACK_SUCCESS.labels}
    withheld = sum(label == "no_response" and reason == "provider_filter" for _, label, reason in attempts)
    plain = rates(counts, ATTACK_SUCCESS, confidence, withheld=withheld)
    for name in ("positive", "negative", "withheld", "unread", "unscored", "total", "bounds", "coverage"):
        assert getattr(figures, name) == getattr(plain, name)
    apart = [(number, label, reason) for number, (_, label, reason) in enumerate(attempts)]
    assert rates_by_question(apart, ATTACK_SUCCESS, confidence) == plain
    assert figures.questions == len({question for question, *_ in attempts})


def test_rates_by_question_refuse_a_label_of_another_measure() -> None:
    with pytest.raises(ValueError, match="complied"):
        rates_by_question([(1, "complied", None)], ATTACK_SUCCESS)


# --- By question --------------------------------------------------------------------------------------------------


def repeated(hits: list[int], times: int) -> tuple[list[int], list[int]]:
    return [times * hit for hit in hits], [times] * len(hits)


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40), confidences)
def test_one_try_a_question_is_wilson_to_the_last_bit(tries: list[tuple[bool, bool]], confidence: float) -> None:
    hits, sizes = [int(hit and counted) for hit, counted in tries], [int(counted) for _, counted in tries]
    assert wilson_by_question(hits, sizes, confidence) == wilson(sum(hits), sum(sizes), confidence)
    assert question_effect(hits, sizes) == 1.0


@quick
@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(2, 12))
def test_identical_repeats_are_no_evidence(hits: list[bool], times: int) -> None:
    alone = wilson(sum(hits), len(hits))
    found = wilson_by_question(*repeated(list(map(int, hits)), times))
    assert found.estimate == alone.estimate
    # Wherever hits and misses both occur the design effect is that of identical tries, nearly.
    if 2 < sum(hits) < len(hits) - 2:
        assert found.high - found.low >= 0.93 * (alone.high - alone.low)


@quick
@given(st.lists(st.integers(0, 6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=30))
def test_the_interval_by_question_is_symmetric_and_holds_its_estimate(questions: list[tuple[int, int]]) -> None:
    hits, sizes = [x for x, _ in questions], [n for _, n in questions]
    found = wilson_by_question(hits, sizes)
    mirrored = wilson_by_question([n - x for x, n in questions], sizes)
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)
    assert 0 <= found.low <= found.high <= 1
    assert (found.estimate is None) is (sum(sizes) == 0)
    if found.estimate is not None:
        assert found.low <= found.estimate <= found.high
        assert (found.low == 0) >= (found.estimate == 0)
        # Never narrower than all tries as if each were a question of its own.
        plain = wilson(sum(hits), sum(sizes))
        assert found.low <= plain.low + 1e-12
        assert found.high >= plain.high - 1e-12


def test_fifty_questions_ten_times_alike_say_what_fifty_say() -> None:
    once = wilson(24, 50)
    ten = wilson_by_question([10] * 24 + [0] * 26, [10] * 50)
    assert (once.low, once.high) == pytest.approx((ten.low, ten.high), abs=0.01)
    assert ten.method == "wilson by question"


def test_questions_that_lack_some_tries_weigh_by_their_tries() -> None:
    whole = wilson_by_question([3, 0, 3, 1], [3, 3, 3, 3])
    lacking = wilson_by_question([3, 0, 2, 1], [3, 3, 2, 3])
    assert lacking.estimate == pytest.approx(6 / 11)
    assert abs((lacking.high - lacking.low) - (whole.high - whole.low)) < 0.05


def test_one_question_asked_often_is_one_question() -> None:
    assert wilson_by_question([10], [10])[1:3] == pytest.approx(wilson(1, 1)[1:3])


def test_without_attempts_every_figure_is_undefined() -> None:
    figures = rates(labelled(ATTACK_SUCCESS, [0] * 6), ATTACK_SUCCESS)
    nothing = Interval(None, 0.0, 1.0, "wilson")
    assert (figures.judged, figures.all) == (nothing, nothing)
    assert (figures.bounds, figures.coverage, figures.provisional) == ((0.0, 1.0), 0.0, True)


def test_without_verdicts_only_the_judged_rate_is_undefined() -> None:
    figures = rates(labelled(ATTACK_SUCCESS, [0, 0, 1, 0, 0, 1]), ATTACK_SUCCESS)
    assert figures.judged.estimate is None
    assert figures.all.estimate == 0.0
    assert figures.bounds == (0.0, 1.0)
    assert (figures.worst.estimate, figures.unscored, figures.unread) == (1.0, 2, 1)


@pytest.mark.parametrize("label", ATTACK_SUCCESS.labels)
def test_each_of_the_six_labels_must_be_given(label: str) -> None:
    counts = labelled(ATTACK_SUCCESS, [1] * 6)
    del counts[label]
    with pytest.raises(ValueError, match=label):
        rates(counts, ATTACK_SUCCESS)


def test_labels_of_another_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="complied"):
        rates(labelled(OVER_REFUSAL, [1] * 6), ATTACK_SUCCESS)
    with pytest.raises(ValueError, match="partial"):
        rates({**labelled(ATTACK_SUCCESS, [1] * 6), "partial": 0}, ATTACK_SUCCESS)


@pytest.mark.parametrize("wrong", [-1, 1.0, "1", None])
def test_bad_counts_are_refused_by_name(wrong: object) -> None:
    counts: dict[str, object] = {**labelled(ATTACK_SUCCESS, [1] * 6), "unparsable": wrong}
    with pytest.raises(ValueError, match="unparsable"):
        rates(counts, ATTACK_SUCCESS)  # type: ignore[arg-type]


# --- The package --------------------------------------------------------------------------------------------------


def test_values_are_frozen() -> None:
    interval, paired = wilson(1, 2), Paired(0.1, 0.0, 0.2, 0.04)
    figures = rates(labelled(ATTACK_SUCCESS, [1] * 6), ATTACK_SUCCESS)
    assert Interval._fields == ("estimate", "low", "high", "method")
    assert Paired._fields == ("difference", "low", "high", "p_value")
    with pytest.raises(AttributeError):
        interval.low = 0.0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        paired.p_value = 0.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        figures.total = 0  # type: ignore[misc]
    assert figures == rates(labelled(ATTACK_SUCCESS, [1] * 6), ATTACK_SUCCESS)
    assert isinstance(figures, Rates)


def test_what_is_exported_is_what_is_announced() -> None:
    visible = {name for name in vars(stats) if not name.startswith("_")}
    submodules = {name for name in visible if f"redinstruct.stats.{name}" in sys.modules}
    # `rates` is a submodule and the function of that name; the function is what the package shows.
    assert callable(stats.rates)
    assert visible - submodules | {"rates"} == set(stats.__all__)


def test_importing_stats_loads_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys; from redinstruct.stats import rates, wilson; wilson(1, 2);"
        "heavy = {'numpy', 'scipy', 'torch'} & set(sys.modules); assert not heavy, heavy;"
        "from redinstruct.stats import jeffreys; jeffreys(1, 2); assert 'scipy' in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mean_of_rates_needs_them_and_lies_between_their_limits() -> None:
    for nothing in ([], [(0, 0)], [(1, 2), (0, 0)]):
        with pytest.raises(ValueError, match="at least one trial"):
            mean_of_rates(nothing)
    found = mean_of_rates([(6, 6), (0, 6)])
    assert found.estimate == 0.5
    assert found.low + found.high == pytest.approx(1)
    assert 0.2 < found.low < 0.4
