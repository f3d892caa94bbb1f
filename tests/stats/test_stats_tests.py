"""stats: pairs, clusters, several tests, agreement, and the sequential test."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from redinstruct.stats import (
    Interval,
    Paired,
    Watch,
    clustered,
    cohen_kappa,
    decide,
    gwet_ac1,
    hit_at_k,
    holm,
    krippendorff_alpha,
    mcnemar_midp,
    paired,
    wilson,
)

quick = settings(max_examples=100, deadline=None)
confidences = st.floats(0.5, 0.999)


def runs(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


# --- Pairs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "low", "high", "p_value"),
    [
        # Fagerland, Lydersen & Laake, BMC Med Res Methodol 13 (2013) 91 and Stat Med 33 (2014) 2850: airway
        # hyper-responsiveness before and after transplantation (Bentur et al. 2009).
        ((1, 1, 7, 12), 0.026, 0.517, 0.039),
        # The same authors' second example, complete response before and after therapy (Cavo et al. 2012).
        ((59, 6, 16, 80), 0.005, 0.124, 0.035),
        # `scoreci.mp(20, 60, 1000)` of the R package PropCIs.
        ((0, 20, 60, 920), 0.0231, 0.0584, None),
    ],
)
def test_paired_gives_the_published_figures(
    cells: tuple[int, int, int, int], low: float, high: float, p_value: float | None
) -> None:
    result = paired(*runs(*cells))
    digits = 4 if p_value is None else 3
    assert (round(result.low, digits), round(result.high, digits)) == (low, high)
    assert p_value is None or round(result.p_value, 3) == p_value
    assert result.difference == (cells[2] - cells[1]) / sum(cells)


def likeliest(lost: int, gained: int, n: int, difference: float) -> float:
    """The score statistic by searching the likeliest probability of `lost` itself, without Tango's closed form."""
    from scipy.optimize import minimize_scalar

    def loss(q: float) -> float:
        parts = ((lost, q), (gained, q + difference), (n - lost - gained, 1 - 2 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    start, end = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(loss, bounds=(start, end), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 9, 40), (12, 2, 50), (5, 5, 30), (30, 25, 60), (1, 0, 15)])
def test_the_ends_of_the_paired_interval_solve_the_score_equation(lost: int, gained: int, n: int) -> None:
    result = paired(*runs(0, lost, gained, n - lost - gained))
    assert likeliest(lost, gained, n, result.high) == pytest.approx(-1.959964, abs=2e-4)
    assert likeliest(lost, gained, n, result.low) == pytest.approx(1.959964, abs=2e-4)


cells = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


@quick
@given(cells, confidences)
def test_swapping_the_runs_mirrors_the_change(counts: tuple[int, int, int, int], confidence: float) -> None:
    before, after = runs(*counts)
    change, back = paired(before, after, confidence), paired(after, before, confidence)
    assert change == Paired(-back.difference, -back.high, -back.low, back.p_value)
    assert -1.0 <= change.low <= change.difference <= change.high <= 1.0
    assert 0.0 <= change.p_value <= 1.0
    wider = paired(before, after, min(confidence + 0.0009, 0.9999))
    assert wider.low <= change.low
    assert change.high <= wider.high


def test_nothing_changed_is_not_certainty() -> None:
    result = paired(*runs(20, 0, 0, 30))
    z2 = 1.959963984540054**2
    # Tango's interval without discordant pairs, in closed form.
    assert result == pytest.approx((0.0, -z2 / (50 + z2), z2 / (50 + z2), 1.0))
    everything = paired(*runs(0, 0, 10, 0))
    assert (everything.difference, everything.high) == (1.0, 1.0)


def test_the_order_of_the_questions_does_not_matter() -> None:
    before, after = runs(3, 8, 2, 9)
    order = np.random.default_rng(1).permutation(len(before)).tolist()
    assert paired([before[i] for i in order], [after[i] for i in order]) == paired(before, after)


@quick
@given(st.integers(0, 60), st.integers(0, 60))
def test_midp_is_half_way_between_two_exact_tests(lost: int, gained: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    midp = mcnemar_midp(lost, gained)
    exact = mcnemar([[0, lost], [gained, 0]], exact=True).pvalue
    if lost == gained:
        assert midp == 1.0
        return
    n, k = lost + gained, min(lost, gained)
    assert midp == pytest.approx(exact - math.comb(n, k) / 2**n, rel=1e-9)
    assert midp == mcnemar_midp(gained, lost)


@pytest.mark.parametrize("n", [15, 25])
@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0.1), (0.3, 0.1), (0.05, 0.4)])
def test_the_paired_interval_covers(n: int, lost: float, gained: float) -> None:
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            result = paired(*runs(0, b, c, n - b - c))
            if result.low - 1e-12 <= gained - lost <= result.high + 1e-12:
                ways = math.comb(n, b) * math.comb(n - b, c)
                covered += ways * lost**b * gained**c * (1 - lost - gained) ** (n - b - c)
    assert covered >= 0.93


@pytest.mark.parametrize(
    ("before", "after", "confidence"),
    [([True], [], 0.95), ([], [], 0.95), (["a"], [True], 0.95), ([True], [None], 0.95), ([True], [True], 1.0)],
)
def test_bad_pairs_are_refused(before: list[bool], after: list[bool], confidence: float) -> None:
    with pytest.raises(ValueError, match="must"):
        paired(before, after, confidence)
    with pytest.raises(ValueError, match="must"):
        mcnemar_midp(-1, 2)


# --- Clusters -----------------------------------------------------------------------------------------------------


def test_the_clustered_variance_is_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(4)
    totals = np.full(20, 17)
    successes = rng.binomial(totals, rng.beta(2, 5, 20))
    trials = np.concatenate([[1.0] * x + [0.0] * (n - x) for x, n in zip(successes, totals, strict=True)])
    groups = np.repeat(np.arange(20), totals)
    fit = sm.OLS(trials, np.ones_like(trials)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    robust, rate, n = float(fit.cov_params()[0, 0]), float(trials.mean()), len(trials)
    interval = clustered(successes.tolist(), totals.tolist())
    # Solve the score equation at the effective size, with Student's quantile at 19 degrees of freedom.
    effective, t = rate * (1 - rate) / robust, 2.093024054408263
    assert effective < n
    for end in (interval.low, interval.high):
        assert abs(rate - end) == pytest.approx(t * math.sqrt(end * (1 - end) / effective), rel=1e-9)
    assert interval.method == "clustered wilson"


clusters = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30)


@quick
@given(clusters, confidences)
def test_clusters_never_narrow_and_mirror(drawn: list[tuple[int, int]], confidence: float) -> None:
    successes, totals = [x for x, _ in drawn], [x + y for x, y in drawn]
    interval = clustered(successes, totals, confidence)
    plain = wilson(sum(successes), sum(totals), confidence)
    assert interval.estimate == plain.estimate
    assert 0.0 <= interval.low <= plain.low + 1e-9
    assert plain.high - 1e-9 <= interval.high <= 1.0
    mirrored = clustered([n - x for x, n in zip(successes, totals, strict=True)], totals, confidence)
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)


def test_degenerate_clusters() -> None:
    assert clustered([], []) == clustered([0, 0], [0, 0]) == Interval(None, 0.0, 1.0, "clustered wilson")
    assert clustered([3, 0], [10, 0]) == Interval(0.3, 0.0, 1.0, "clustered wilson")
    nothing = clustered([0] * 10, [5] * 10)
    assert nothing.low == 0.0
    assert wilson(0, 50).high < nothing.high < 0.2
    whole = clustered([0] * 5 + [20] * 5, [20] * 10)
    independent = wilson(5, 10)
    assert whole.high - whole.low >= independent.high - independent.low


@pytest.mark.parametrize(("successes", "totals"), [([1], [1, 2]), ([2], [1]), ([-1], [1]), ([0.5], [1])])
def test_bad_clusters_are_refused(successes: list[int], totals: list[int]) -> None:
    with pytest.raises(ValueError, match="must"):
        clustered(successes, totals)


# --- Several tests, several tries ---------------------------------------------------------------------------------


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    # The reference collects garbage at each call, which takes longer than all the rest.
    with mock.patch("gc.collect"):
        expected = multipletests(p_values, method="holm")[1].tolist()
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)
    assert all(q >= p for p, q in zip(p_values, holm(p_values), strict=True))


def test_holm_by_hand_and_at_the_edges() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([1, 0]) == [1.0, 0.0]
    for wrong in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="p-value"):
            holm([0.5, wrong])


@quick
@given(st.integers(1, 30), st.data())
def test_hit_at_k_is_the_share_of_all_choices_that_hit(n: int, data: st.DataObject) -> None:
    x, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    product = math.prod((n - x - i) / (n - i) for i in range(k)) if k <= n - x else 0.0
    assert hit_at_k(x, n, k) == pytest.approx(1 - product, abs=1e-12)
    assert hit_at_k(x, n, 1) == x / n
    assert hit_at_k(x, n, n) == float(x > 0)


def test_hit_at_k_is_unbiased() -> None:
    rate, n, k = 0.2, 12, 5
    mean = sum(math.comb(n, x) * rate**x * (1 - rate) ** (n - x) * hit_at_k(x, n, k) for x in range(n + 1))
    assert mean == pytest.approx(1 - (1 - rate) ** k, abs=1e-12)


@pytest.mark.parametrize(("x", "n", "k"), [(0, 5, 0), (0, 5, 6), (6, 5, 1), (1, 5, 1.5), (0, 0, 1)])
def test_bad_tries_are_refused(x: int, n: int, k: int) -> None:
    with pytest.raises(ValueError, match="must"):
        hit_at_k(x, n, k)


# --- Agreement ----------------------------------------------------------------------------------------------------


def table(counts: Sequence[Sequence[int]]) -> tuple[list[Hashable], list[Hashable]]:
    pairs = [(i, j) for i, row in enumerate(counts) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def test_the_paradox_of_kappa() -> None:
    # Gwet, Br J Math Stat Psychol 61 (2008), table 2: 125 items, 118 agreed on the common label, none on the rare one.
    first, second = table([[118, 5], [2, 0]])
    assert cohen_kappa(first, second) == pytest.approx(-0.0234, abs=5e-5)
    assert gwet_ac1(first, second) == pytest.approx(0.9408, abs=5e-5)


@quick
@given(st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=3, max_size=3))
def test_kappa_is_statsmodels(counts: list[list[int]]) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    first, second = table(counts)
    ours = cohen_kappa(first, second)
    assume(ours is not None)
    assert ours == pytest.approx(cohens_kappa(np.array(counts), return_results=False), abs=1e-9)
    assert ours == cohen_kappa(second, first)


# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), examples B and C.
GAP = None
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
    [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
]
TWO = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]


def test_alpha_gives_the_published_figures() -> None:
    assert krippendorff_alpha(FOUR) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(TWO) == pytest.approx(0.095, abs=5e-4)
    # Neither the raters' order nor the names of the labels matter.
    renamed = [[None if x is None else f"label {x}" for x in row] for row in reversed(FOUR)]
    assert krippendorff_alpha(renamed) == pytest.approx(krippendorff_alpha(FOUR))


@quick
@given(st.integers(1, 4), st.integers(0, 15), st.data())
def test_agreement_is_bounded_and_never_nan(raters: int, items: int, data: st.DataObject) -> None:
    label = st.sampled_from([None, "harmful", "unharmful", "refused"])
    rows = [data.draw(st.lists(label, min_size=items, max_size=items)) for _ in range(raters)]
    alpha = krippendorff_alpha(rows)
    assert alpha is None or (math.isfinite(alpha) and alpha <= 1.0)
    first, second = rows[0], rows[-1]
    for figure in (cohen_kappa(first, second), gwet_ac1(first, second, 4)):
        assert figure is None or -1.0 <= figure <= 1.0
    if items:
        assert gwet_ac1(first, first, 4) == 1.0
        assert cohen_kappa(first, first) in (None, 1.0)


def test_undefined_agreement_is_none() -> None:
    assert cohen_kappa([], []) is gwet_ac1([], []) is krippendorff_alpha([]) is None
    assert cohen_kappa(["a"] * 3, ["a"] * 3) is krippendorff_alpha([["a"], ["a"]]) is None
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert gwet_ac1(["a"] * 3, ["a"] * 3) == 1.0
    with pytest.raises(ValueError, match="same items"):
        cohen_kappa(["a"], [])
    with pytest.raises(ValueError, match="categories"):
        gwet_ac1(["a", "b"], ["c", "a"])
    with pytest.raises(ValueError, match="as many"):
        krippendorff_alpha([["a"], ["a", "b"]])


# --- The sequential test ------------------------------------------------------------------------------------------

Side = Callable[[int, int], str | None]


def stopping(limit: float, rate: float, size: int, side: Side) -> tuple[dict[str, float], int | None]:
    """The exact chance of each decision within `size` items, looked at after each, and the median stop."""
    alive, chances, median = {0: 1.0}, {"above": 0.0, "below": 0.0}, None
    for n in range(1, size + 1):
        grown: dict[int, float] = {}
        for x, chance in alive.items():
            grown[x] = grown.get(x, 0.0) + chance * (1 - rate)
            grown[x + 1] = grown.get(x + 1, 0.0) + chance * rate
        alive = {}
        for x, chance in grown.items():
            decision = side(x, n)
            if decision is None:
                # What is less likely than this changes no digit that is looked at.
                if chance > 1e-12:
                    alive[x] = chance
            else:
                chances[decision] += chance
        if median is None and sum(chances.values()) >= 0.5:
            median = n
    return chances, median


def ours(limit: float, confidence: float = 0.95) -> Side:
    return lambda x, n: decide(x, n, limit, confidence).side


def peeking(limit: float) -> Side:
    def side(x: int, n: int) -> str | None:
        interval = wilson(x, n)
        return "above" if interval.low > limit else "below" if interval.high < limit else None

    return side


def test_looking_after_each_item_errs_as_seldom_as_promised() -> None:
    chances, _ = stopping(0.1, 0.1, 250, ours(0.1))
    assert sum(chances.values()) <= 0.05
    # The check sees what peeking at an ordinary interval does.
    chances, _ = stopping(0.1, 0.1, 60, peeking(0.1))
    assert sum(chances.values()) > 0.10


@settings(max_examples=15)
@given(said=st.lists(st.booleans(), max_size=40), limit=st.sampled_from([0.05, 0.3, 0.8]))
def test_watching_successes_and_failures_is_deciding(said: list[bool], limit: float) -> None:
    watch, strongest = Watch(limit), decide(0, 0, limit)
    for n, value in enumerate(said, 1):
        watch.add(float(value))
        strongest = min(strongest, decide(sum(said[:n]), n, limit), key=lambda found: found.p_value)
    found, last = watch.decision(), decide(sum(said), len(said), limit)
    assert found.p_value == pytest.approx(strongest.p_value)
    known = strongest if strongest.side is not None else last
    assert found.side == known.side
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)


@settings(max_examples=20)
@given(values=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), max_size=80), limit=st.sampled_from([0.05, 0.3, 0.8]))
def test_a_watched_mean_is_decided_where_its_limit_lies_outside_the_interval(values: list[float], limit: float) -> None:
    watch, other = Watch(limit), Watch(1 - limit)
    for value in values:
        watch.add(value)
        other.add(1 - value)
    found, mirrored = watch.decision(), other.decision()
    assert (found.side is None) == (found.low <= limit <= found.high)
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-6)


def test_a_value_that_is_no_share_is_refused() -> None:
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="value"):
            Watch(0.1).add(wrong)
    with pytest.raises(ValueError, match="limit"):
        Watch(0.0)


def test_a_clear_case_is_decided_by_item_120() -> None:
    chances, median = stopping(0.1, 0.2, 120, ours(0.1))
    assert chances["above"] >= 0.5
    assert chances["below"] < 0.001
    assert median is not None
    assert median <= 120


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.02, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_false_stops_over_a_long_run(limit: float, confidence: float) -> None:
    chances, _ = stopping(limit, limit, 1500, ours(limit, confidence))
    assert sum(chances.values()) <= 1 - confidence


@quick
@given(st.integers(0, 3000), st.data(), st.floats(0.001, 0.999), confidences)
def test_a_decision_agrees_with_its_interval(n: int, data: st.DataObject, limit: float, confidence: float) -> None:
    x = data.draw(st.integers(0, n))
    side, low, high, p_value = decide(x, n, limit, confidence)
    assert 0.0 <= low < high <= 1.0
    assert n == 0 or low <= x / n <= high
    assert 0.0 <= p_value <= 1.0
    assert side == ("above" if low > limit else "below" if high < limit else None)
    assert (side is None) == (p_value > (1 - confidence) * (1 + 1e-9)) or p_value == pytest.approx(1 - confidence)
    mirrored = decide(n - x, n, 1 - limit, confidence)
    assert (low, high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-6)


def test_the_evidence_is_a_fair_game() -> None:
    """Under the limit itself the expected wealth after any number of items is exactly 1."""
    for limit in (0.03, 0.1, 0.5):
        for n in (1, 7, 40):
            mean = 0.0
            for x in range(n + 1):
                chance = math.comb(n, x) * limit**x * (1 - limit) ** (n - x)
                a, b = 8 * limit, 8 * (1 - limit)
                mixture = math.lgamma(a + x) + math.lgamma(b + n - x) - math.lgamma(8 + n)
                mixture -= math.lgamma(a) + math.lgamma(b) - math.lgamma(8)
                wealth = math.exp(mixture) / (limit**x * (1 - limit) ** (n - x))
                mean += chance * wealth
                assert decide(x, n, limit).p_value == pytest.approx(min(1.0, 1 / wealth), rel=1e-9)
            assert mean == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("x", "n", "limit", "confidence"),
    [
        (2, 1, 0.1, 0.95),
        (-1, 1, 0.1, 0.95),
        (0, 1, 0.0, 0.95),
        (0, 1, 1.0, 0.95),
        (0, 1, math.nan, 0.95),
        (0, 1, 0.1, 1),
    ],
)
def test_bad_decisions_are_refused(x: int, n: int, limit: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="must"):
        decide(x, n, limit, confidence)


def test_extreme_evidence_stays_finite() -> None:
    side, low, high, p_value = decide(10**6, 10**6, 0.001)
    assert side == "above"
    assert math.isfinite(low)
    assert high == 1.0
    assert 0.0 <= p_value < 1e-300


def test_weights_stand_for_as_many_items() -> None:
    first, second, weights = "hhnnh", "hnnnh", [1, 2, 3, 1, 4]
    ones, twos = ["".join(x * w for x, w in zip(letters, weights, strict=True)) for letters in (first, second)]
    assert cohen_kappa(first, second, weights) == pytest.approx(cohen_kappa(ones, twos))
    assert gwet_ac1(first, second, weights=weights) == pytest.approx(gwet_ac1(ones, twos))
    assert cohen_kappa("hh", "hh", [1.5, 2.5]) is None
    with pytest.raises(ValueError, match="weights must be as many"):
        cohen_kappa("hn", "hn", [1.0])
