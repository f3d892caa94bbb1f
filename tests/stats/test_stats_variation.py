"""stats: where outcomes vary, and groups drawn to each other."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redinstruct.figures.variation import variation
from redinstruct.run import Planned
from redinstruct.stats import RepeatedVerdict, jeffreys, shrunken, variance_shares
from redinstruct.types import ATTACK_SUCCESS

quick = settings(max_examples=60, deadline=None)


def readings(
    seed: int, spreads: tuple[float, float, float], error: float, sizes: tuple[int, ...]
) -> list[RepeatedVerdict]:
    """Questions x prompts x samples x readings; normal effects on the rate, a judge that errs by chance."""
    chance = np.random.default_rng(seed)
    questions, prompts, samples, times = sizes
    rate = 0.5 + chance.normal(0, spreads[0], questions)[:, None] + chance.normal(0, spreads[1], prompts)[None]
    rate = rate + chance.normal(0, spreads[2], (questions, prompts))
    found = []
    for q in range(questions):
        for p in range(prompts):
            for s in range(samples):
                said = chance.random() < rate[q, p]
                found += [RepeatedVerdict(q, p, s, bool(said) is bool(chance.random() >= error)) for _ in range(times)]
    return found


def test_the_shares_are_those_that_made_the_outcomes() -> None:
    """Mean of 12 runs of 60 questions x 20 prompts x 2 samples x 2 readings, seeds 0 to 11."""
    found = np.array(
        [variance_shares(readings(seed, (0.15, 0.2, 0.1), 0.1, (60, 20, 2, 2))) for seed in range(12)], dtype=float
    ).mean(axis=0)
    wanted = [0.15**2 * 0.64 / 0.25, 0.2**2 * 0.64 / 0.25, 0.1**2 * 0.64 / 0.25, None, 4 * 0.1 * 0.9, 0.25]
    for share, truth in zip(found, wanted, strict=True):
        if truth is not None:
            assert share == pytest.approx(truth, abs=0.025)
    assert found[:5].sum() == pytest.approx(1)


def test_what_was_not_repeated_is_not_told() -> None:
    once = variance_shares(readings(1, (0.2, 0.2, 0.0), 0.0, (40, 1, 1, 1)))
    assert once is not None
    assert (once.question, once.prompt, once.together, once.reading, once.sample) == (None, None, None, None, 1.0)
    crossed = variance_shares(readings(1, (0.2, 0.2, 0.0), 0.0, (40, 3, 1, 1)))
    assert crossed is not None
    assert None not in (crossed.question, crossed.prompt)
    assert (crossed.together, crossed.reading) == (None, None)


NOTHING_LEFT = [(0, 0, 0, False), (0, 1, 0, True), (0, 1, 0, True), (1, 1, 0, False)]


@quick
@example(NOTHING_LEFT)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=40))
def test_shares_are_shares_whatever_is_missing(rows: list[tuple[int, int, int, bool]]) -> None:
    found = variance_shares([RepeatedVerdict(*row) for row in rows])
    if found is None:
        assert len({hit for *_, hit in rows}) < 2 or len(rows) < 12, "only of a few verdicts no variance may be left"
        return
    told = [share for share in found[:5] if share is not None]
    assert all(0 <= share <= 1 for share in told)
    assert sum(told) == pytest.approx(1)


@quick
@given(
    st.lists(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=20)
)
def test_a_shrunken_rate_lies_between_its_own_and_the_mean(groups: list[tuple[int, int]]) -> None:
    groups = [(min(x, n), n) for x, n in groups]
    hits, sizes = [x for x, _ in groups], [n for _, n in groups]
    mean = (sum(hits) + 0.5) / (sum(sizes) + 1)
    for (x, n), found in zip(groups, shrunken(hits, sizes), strict=True):
        assert found.estimate is not None
        assert min(x / n, mean) - 1e-9 <= found.estimate <= max(x / n, mean) + 1e-9
        assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_equal_groups_tell_no_more_than_all_of_them() -> None:
    whole = jeffreys(20, 100)
    for found in shrunken([4] * 5, [20] * 5):
        assert found.high - found.low > 0.8 * (whole.high - whole.low)
    assert [found.estimate for found in shrunken([0, 20], [20, 20])] == pytest.approx([0.02, 0.98], abs=0.02)


@pytest.mark.parametrize("groups", [([1], [2]), ([1, 0], [2, 0])])
def test_one_group_or_an_empty_one_can_not_be_shrunken(groups: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        shrunken(*groups)


def test_the_wordings_of_one_frame_are_one_figure_with_its_spread() -> None:
    chance = random.Random(5)
    names = {"a": "cou", "b": "cou-thoughts", "c": "cou-letters", "d": "standard", "e": "cousin"}
    rates = {"a": 0.9, "b": 0.5, "c": 0.1, "d": 0.0, "e": 0.0}
    outcomes = [
        Planned(f"{p}{q}".encode(), "bank", q, None, p, 1, "harmful" if chance.random() < rate else "unharmful", q)
        for p, rate in rates.items()
        for q in range(200)
    ]
    found = variation(ATTACK_SUCCESS, outcomes, names).wording
    assert found is not None
    assert found.prompts == ("cou", "cou-thoughts", "cou-letters")
    assert found.estimate == pytest.approx(0.5, abs=0.05)
    assert found.range == pytest.approx((0.1, 0.9), abs=0.06)
    seen = [sum(o.label == "harmful" for o in outcomes if o.prompt == p) / 200 for p in "abc"]
    assert found.spread == pytest.approx(statistics.stdev(seen), abs=0.02)
    alike = [o._replace(label="harmful" if chance.random() < 0.5 else "unharmful") for o in outcomes]
    same = variation(ATTACK_SUCCESS, alike, names).wording
    assert same is not None
    assert same.spread < 0.05


def test_under_one_prompt_repeats_tell_the_question_s_share() -> None:
    found = variance_shares(readings(3, (0.25, 0.0, 0.0), 0.0, (400, 1, 3, 1)))
    assert found is not None
    assert found.question == pytest.approx(0.25, abs=0.06)  # the variance of a question's rate over one quarter
    assert (found.prompt, found.together, found.reading) == (None, None, None)
