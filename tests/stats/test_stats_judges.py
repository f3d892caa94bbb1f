"""stats: a judge's rate corrected, by labels of the run, by an outside calibration, by a stronger judge."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.stats import (
    Calibration,
    Interval,
    WeakJudge,
    corrected,
    corrected_by,
    draw_part,
    jeffreys,
    rogan_gladen,
    two_judges,
)
from redinstruct.stats.correction import poststratified

quick = settings(max_examples=100, deadline=None)
confidences = st.floats(0.5, 0.999)


@st.composite
def labelled_runs(draw: st.DrawFn) -> tuple[list[bool], dict[int, bool]]:
    judge = draw(st.lists(st.booleans(), min_size=1, max_size=60))
    human = draw(st.dictionaries(st.integers(0, len(judge) - 1), st.booleans(), min_size=1))
    return judge, human


# --- Labels from the run ------------------------------------------------------------------------------------------


def by_hand(judge: list[bool], human: dict[int, bool]) -> float:
    """The post-stratified estimate, part by part."""
    rate = 0.0
    for part in (True, False):
        share = judge.count(part) / len(judge)
        labels = [label for index, label in human.items() if judge[index] is part]
        rate += share * (sum(labels) / len(labels) if labels else 0.5)
    return rate


@quick
@given(labelled_runs(), st.integers(0, 3), confidences)
def test_what_labels_were_drawn_by_makes_parts(
    run: tuple[list[bool], dict[int, bool]], values: int, confidence: float
) -> None:
    judge, human = run
    drawn_by = [i % (values + 1) for i in range(len(judge))]
    found = corrected(judge, human, confidence, drawn_by=drawn_by)
    parts: dict[tuple[bool, int], list[int]] = {}
    for i, label in enumerate(judge):
        parts.setdefault((label, drawn_by[i]), []).append(i)
    rate = 0.0
    for places in parts.values():
        labels = [human[i] for i in places if i in human]
        rate += len(places) / len(judge) * (sum(labels) / len(labels) if labels else 0.5)
    assert found.estimate == pytest.approx(rate)
    assert 0 <= found.low <= rate + 1e-12
    assert rate - 1e-12 <= found.high <= 1
    mirrored = corrected(judge, {i: not label for i, label in human.items()}, confidence, drawn_by=drawn_by)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
    renamed = corrected(judge[::-1], {len(judge) - 1 - i: x for i, x in human.items()}, confidence,
                        drawn_by=[f"v{x}" for x in drawn_by[::-1]])  # fmt: skip
    assert renamed[:3] == pytest.approx(found[:3])
    # A draw that looked at nothing else: nearly the two parts' own interval. Within a tenth up to 99 % (a grid of
    # tables of 1 to 20 answers: .097 at most); above that few labels leave them further apart (.124 at 99.9 %).
    if values == 0 and confidence <= 0.99:
        two = corrected(judge, human, confidence)
        assert (found.low, found.high) == pytest.approx((two.low, two.high), abs=0.1)
    groups = ["a" if i % 2 else "b" for i in range(len(judge))]
    by = corrected_by(judge, human, groups, confidence, drawn_by=drawn_by)
    for group, interval in by.items():
        places = [i for i in range(len(judge)) if groups[i] == group]
        alone = {n: human[i] for n, i in enumerate(places) if i in human}
        assert interval == corrected([judge[i] for i in places], alone, confidence,
                                     drawn_by=[drawn_by[i] for i in places])  # fmt: skip


def test_what_labels_were_drawn_by_is_told_of_every_attempt() -> None:
    with pytest.raises(ValueError, match="drawn_by and judge must be as many"):
        corrected([True, False], {0: True}, drawn_by=["a"])
    assert corrected([], {}, drawn_by=[]).estimate is None


def test_a_worked_example() -> None:
    # 30 of 100 flagged; of the flagged 8 of 10 labels are positive, of the others 1 of 20: .3 * .8 + .7 * .05.
    judge = [True] * 30 + [False] * 70
    human = {i: i < 8 for i in range(10)} | {30 + i: i < 1 for i in range(20)}
    interval = corrected(judge, human)
    assert interval.estimate == pytest.approx(0.275)
    assert interval.method == "post-stratified jeffreys"
    # The lower end, term by term: medians (x + 1/6) / (m + 1/3), Jeffreys ends, the share's own interval.
    p, q, w = (8 + 1 / 6) / (10 + 1 / 3), (1 + 1 / 6) / (20 + 1 / 3), 0.3
    terms = w * (p - jeffreys(8, 10).low), 0.7 * (q - jeffreys(1, 20).low), (w - jeffreys(30, 100).low) * (p - q)
    assert interval.low == pytest.approx(w * p + 0.7 * q - math.hypot(*terms), abs=1e-12)


@quick
@given(labelled_runs(), confidences)
def test_the_estimate_is_poststratified_and_inside(run: tuple[list[bool], dict[int, bool]], confidence: float) -> None:
    judge, human = run
    estimate, low, high, _ = corrected(judge, human, confidence)
    assert estimate == pytest.approx(by_hand(judge, human), abs=1e-12)
    assert estimate is not None
    assert 0.0 <= low <= estimate <= high <= 1.0
    if not any(human.values()):
        assert low == 0.0
    if all(human.values()):
        assert high == 1.0


@quick
@given(labelled_runs(), confidences)
def test_the_labels_names_do_not_matter(run: tuple[list[bool], dict[int, bool]], confidence: float) -> None:
    """Counting the other label mirrors the interval; a judge that says the opposite is as good as before."""
    judge, human = run
    interval = corrected(judge, human, confidence)
    mirrored = corrected([not j for j in judge], {i: not h for i, h in human.items()}, confidence)
    assert interval[:3] == pytest.approx((1 - mirrored[0], 1 - mirrored.high, 1 - mirrored.low), abs=1e-12)  # type: ignore[operator]
    contrary = corrected([not j for j in judge], human, confidence)
    assert interval[:3] == pytest.approx(contrary[:3], abs=1e-12)


@quick
@given(labelled_runs(), st.floats(0.5, 0.99))
def test_more_confidence_widens(run: tuple[list[bool], dict[int, bool]], confidence: float) -> None:
    inner, outer = corrected(*run, confidence), corrected(*run, confidence + 0.009)
    assert outer.low <= inner.low + 1e-12
    assert inner.high <= outer.high + 1e-12


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("x", "n"), [(0, 1), (1, 1), (0, 20), (1, 20), (7, 20), (19, 20), (20, 20), (1, 300)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_a_judge_that_says_one_thing_leaves_the_labels_interval(
    constant: bool, x: int, n: int, confidence: float
) -> None:
    ours = corrected([constant] * (3 * n), {i: i < x for i in range(n)}, confidence)
    assert ours[:3] == pytest.approx(jeffreys(x, n, confidence)[:3], abs=1e-12)


def test_a_positive_label_more_moves_all_up() -> None:
    judge = [True] * 40 + [False] * 60
    human = dict.fromkeys([*range(10), *range(40, 60)], False)
    before = corrected(judge, human)
    for index in list(human):
        human[index] = True
        after = corrected(judge, human)
        assert after.estimate > before.estimate  # type: ignore[operator]
        assert after.low >= before.low
        assert after.high >= before.high
        before = after


def test_a_good_judge_narrows_and_a_useless_one_does_not_mislead() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(2000) < 0.3
    chosen = [int(i) for i in rng.choice(2000, 100, replace=False)]
    human = {i: bool(truth[i]) for i in chosen}
    alone = jeffreys(sum(human.values()), 100)
    good = corrected((truth ^ (rng.random(2000) < 0.03)).tolist(), human)
    coin = corrected((rng.random(2000) < 0.5).tolist(), human)
    assert good.high - good.low < 0.6 * (alone.high - alone.low)
    assert coin.high - coin.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_without_labels_nothing_is_known() -> None:
    nothing = Interval(None, 0.0, 1.0, "post-stratified jeffreys")
    assert corrected([True, False], {}) == nothing
    assert corrected([], {}) == nothing


def test_a_part_without_labels_may_be_anything() -> None:
    interval = corrected([True] * 50 + [False] * 50, dict.fromkeys(range(40), True))
    assert interval.high == 1.0
    assert interval.low < 0.5
    assert interval.estimate == 0.75


@pytest.mark.parametrize(
    ("judge", "human", "confidence", "words"),
    [
        (["harmful"], {0: True}, 0.95, r"judge\[0\] must be true or false, not of type str"),
        ([True, None], {0: True}, 0.95, r"judge\[1\]"),
        ([True, 1.0], {0: True}, 0.95, r"judge\[1\]"),
        ([True, 2], {0: True}, 0.95, r"judge\[1\]"),
        ([True], {0: math.nan}, 0.95, r"human\[0\]"),
        ([True], {0: "no"}, 0.95, r"human\[0\]"),
        ([True], {1: True}, 0.95, "below the number of attempts, 1, not 1"),
        ([], {0: True}, 0.95, "below the number of attempts"),
        ([True], {-1: True}, 0.95, "must not be negative"),
        ([True], {"0": True}, 0.95, "must be an integer"),
        ([True], [True], 0.95, "must be a mapping"),
        ([True], {0: True}, 1.0, "confidence"),
        ([], {}, 0.0, "confidence"),
    ],
)
def test_bad_labels_are_refused(judge: list[bool], human: dict[int, bool], confidence: float, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        corrected(judge, human, confidence)
    assert "\n" not in str(caught.value)


def test_numpy_labels_count() -> None:
    judge, human = [True, False, True, False], {0: True, 1: False}
    same = {np.int64(0): np.True_, np.int64(1): np.False_}
    assert corrected(np.array(judge), same) == corrected(judge, human)  # type: ignore[arg-type]
    assert corrected([1, 0, 1, 0], {0: 1, 1: 0}) == corrected(judge, human)  # type: ignore[list-item, dict-item]


@quick
@given(labelled_runs(), st.integers(1, 5))
def test_by_group_is_each_group_by_itself(run: tuple[list[bool], dict[int, bool]], groups: int) -> None:
    judge, human = run
    names = [f"topic {i % groups}" for i in range(len(judge))]
    found = corrected_by(judge, human, names)
    assert list(found) == list(dict.fromkeys(names))
    for name in found:
        members = [i for i, other in enumerate(names) if other == name]
        own = {place: human[i] for place, i in enumerate(members) if i in human}
        expected = corrected([judge[i] for i in members], own)
        assert found[name] == expected or found[name][:3] == pytest.approx(expected[:3], abs=1e-12)


def test_groups_must_match() -> None:
    assert corrected_by([], {}, []) == {}
    with pytest.raises(ValueError, match="as many"):
        corrected_by([True], {}, [])


def test_a_large_run_takes_no_time() -> None:
    judge = [i % 3 == 0 for i in range(100_000)]
    human = {i: i % 3 == 0 for i in range(0, 100_000, 97)}
    topics = [i % 98 for i in range(100_000)]
    started = time.process_time()
    corrected(judge, human)
    middle = time.process_time()
    assert len(corrected_by(judge, human, topics)) == 98
    assert middle - started < 1.0
    assert time.process_time() - middle < 2.0


def exact_coverage(size: int, labels: int, rate: float, sensitivity: float, specificity: float) -> float:
    """The probability that the interval holds the rate, summed over every run and every sample of it."""
    from scipy.stats import binom

    judged = rate * sensitivity + (1 - rate) * (1 - specificity)
    right = (rate * sensitivity / judged, rate * (1 - sensitivity) / (1 - judged))
    rows, chances = [], []
    # Whoever is flagged: a labelled attempt is flagged with the same chance; given that, its truth is independent.
    for drawn in range(labels + 1):
        for rest_flagged in range(size - labels + 1):
            outside = binom.pmf(drawn, labels, judged) * binom.pmf(rest_flagged, size - labels, judged)
            if outside < 1e-9:
                continue
            for hits in range(drawn + 1):
                for missed in range(labels - drawn + 1):
                    chances.append(
                        outside * binom_cell(hits, drawn, right[0]) * binom_cell(missed, labels - drawn, right[1])
                    )
                    rows.append((drawn + rest_flagged, size, hits, drawn, missed, labels - drawn))
    _, low, high = poststratified(*np.array(rows).T, alpha=0.05)
    return float(np.array(chances)[(low <= rate) & (rate <= high)].sum())


def binom_cell(x: int, n: int, p: float) -> float:
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)


@pytest.mark.parametrize("rate", [0.02, 0.25, 0.65])
def test_a_small_run_is_covered_exactly(rate: float) -> None:
    assert exact_coverage(30, 12, rate, 0.95, 0.88) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.005, 0.02, 0.25, 0.65, 1.0])
@pytest.mark.parametrize("judge", [(0.99, 0.99), (0.95, 0.88), (0.87, 0.73), (0.92, 0.39)])
def test_the_promised_coverage(rate: float, judge: tuple[float, float]) -> None:
    """The cells of docs/experiments/coverage.md, on another seed."""
    from benchmarks.coverage import cell

    for labels in (60, 100):
        population, own, ratio = cell(np.random.default_rng([99, labels]), labels, rate, judge, 10_000)
        assert min(population, own) >= 0.93
        if rate in (0.25, 0.65) and judge in {(0.95, 0.88), (0.92, 0.39)}:
            assert ratio <= {(0.95, 0.88): 0.75, (0.92, 0.39): 1.0}[judge]


# --- Two judges ---------------------------------------------------------------------------------------------------


def test_two_judges_are_the_same_estimate_under_another_name() -> None:
    cheap, strong = [True, False] * 50, {i: i % 4 == 0 for i in range(40)}
    ours, theirs = two_judges(cheap, strong), corrected(cheap, strong)
    assert ours[:3] == theirs[:3]
    assert ours.method == "two judges, post-stratified jeffreys"


@quick
@given(st.lists(st.booleans(), max_size=80), st.integers(0, 90), st.integers())
def test_a_drawn_part_is_a_sample_of_both_labels(judge: list[bool], size: int, seed: int) -> None:
    drawn = draw_part(judge, size, seed)
    assert drawn == sorted(set(drawn)) == draw_part(judge, size, seed)
    assert len(drawn) == min(size, len(judge))
    assert all(0 <= i < len(judge) for i in drawn)
    if size >= 2:
        assert {judge[i] for i in drawn} == set(judge)


def test_the_drawn_numbers_go_by_square_roots_and_each_attempt_has_its_chance() -> None:
    judge = [True] * 100 + [False] * 900
    times = np.zeros(1000)
    for seed in range(400):
        times[draw_part(judge, 40, seed)] += 1
    assert times[:100].sum() == 400 * 10
    # 10 of 100 and 30 of 900: each attempt about 40 and 13.3 times of 400.
    assert abs(times[:100].mean() - 40) < 1e-9
    assert times.max() < 70
    assert times.min() >= 1
    with pytest.raises(ValueError, match="size"):
        draw_part(judge, -1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("phi", [0.4, 0.8])
def test_a_cheap_judge_saves_strong_calls(phi: float) -> None:
    from benchmarks.coverage import calls_for, parted

    alone = jeffreys(50, 200)
    calls, covered = calls_for(parted, alone.high - alone.low, (99,), 2000, 0.25, phi)
    assert calls <= 1.15 * (1 - phi**2) * 200
    assert covered >= 0.93


# --- An outside calibration ---------------------------------------------------------------------------------------


def test_rogan_gladen_against_its_published_code() -> None:
    """What `prevSeSp` of the R package asht, and Lee et al.'s `confidence_interval`, compute step by step."""
    z2 = 1.959963984540054**2
    p, n = (23 + z2 / 2) / (150 + z2), 150 + z2
    se, sp = 97 / 102, 90 / 102
    theta = (p + sp - 1) / (se + sp - 1)
    shift = 2 * z2 * (theta * se * (1 - se) / 102 - (1 - theta) * sp * (1 - sp) / 102)
    spread = p * (1 - p) / n + theta**2 * se * (1 - se) / 102 + (1 - theta) ** 2 * sp * (1 - sp) / 102
    half = math.sqrt(z2 * spread) / (se + sp - 1)
    interval = rogan_gladen(23, 150, Calibration(96, 100, 89, 100))
    # The estimate is published: 5.1 of 100 cows (epiR's example `epi.prev`, se 96 %, sp 89 %).
    assert interval.estimate == pytest.approx(0.051, abs=5e-4)
    assert interval.low == max(0.0, theta + shift - half) == 0.0
    assert interval.high == pytest.approx(theta + shift + half, rel=1e-12)
    assert interval.method == "rogan-gladen"


def test_a_perfect_and_long_calibration_leaves_about_the_judges_own_interval() -> None:
    from redinstruct.stats import wilson

    ours = rogan_gladen(300, 1000, Calibration(10**7, 10**7, 10**7, 10**7))
    assert ours[:3] == pytest.approx(wilson(300, 1000)[:3], abs=1e-3)


calibrations = st.builds(
    lambda pos, neg, tp, tn: Calibration(min(tp, pos), pos, min(tn, neg), neg),
    st.integers(1, 200), st.integers(1, 200), st.integers(0, 200), st.integers(0, 200),
)  # fmt: skip


@quick
@given(st.integers(1, 500), st.data(), calibrations, st.floats(0.5, 0.99))
def test_rogan_gladen_is_bounded_and_mirrors(
    n: int, data: st.DataObject, known: Calibration, confidence: float
) -> None:
    x = data.draw(st.integers(0, n))
    tp, pos, tn, neg = known
    if 10 * (tp * neg + tn * pos - pos * neg) < 3 * pos * neg:
        with pytest.raises(WeakJudge, match=r"at least 0\.3"):
            rogan_gladen(x, n, known, confidence)
        return
    estimate, low, high, _ = rogan_gladen(x, n, known, confidence)
    assert estimate is not None
    assert 0.0 <= low <= estimate <= high <= 1.0
    mirrored = rogan_gladen(n - x, n, Calibration(tn, neg, tp, pos), confidence)
    assert (estimate, low, high) == pytest.approx((1 - mirrored[0], 1 - mirrored.high, 1 - mirrored.low), abs=1e-9)  # type: ignore[operator]


def test_fewer_calibration_items_widen() -> None:
    widths = [
        (i := rogan_gladen(600, 2000, Calibration(9 * k, 10 * k, 9 * k, 10 * k))).high - i.low for k in (1, 5, 50, 5000)
    ]
    assert widths == sorted(widths, reverse=True)


def test_a_weak_judge_is_refused_and_one_at_the_edge_is_not() -> None:
    with pytest.raises(WeakJudge, match=r"not 0\.29"):
        rogan_gladen(5, 10, Calibration(90, 100, 39, 100))
    assert rogan_gladen(5, 10, Calibration(91, 100, 39, 100)).estimate is not None
    assert issubclass(WeakJudge, ValueError)


def test_a_tiny_calibration_says_nothing() -> None:
    assert rogan_gladen(0, 0, Calibration(9, 10, 9, 10)) == Interval(None, 0.0, 1.0, "rogan-gladen")
    assert rogan_gladen(5, 10, Calibration(1, 1, 3, 10))[1:3] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("flagged", "total", "known", "confidence"),
    [
        (11, 10, Calibration(9, 10, 9, 10), 0.95),
        (-1, 10, Calibration(9, 10, 9, 10), 0.95),
        (1, 10, Calibration(11, 10, 9, 10), 0.95),
        (1, 10, Calibration(0, 0, 9, 10), 0.95),
        (1, 10, Calibration(9, 10, 0, 0), 0.95),
        (1, 10, Calibration(9, 10, 9, 10), math.nan),
    ],
)
def test_bad_calibrations_are_refused(flagged: int, total: int, known: Calibration, confidence: float) -> None:
    with pytest.raises(ValueError, match="must"):
        rogan_gladen(flagged, total, known, confidence)
