"""Two utility checks held against each other: items paired by content, a margin fixed before, Holm over benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from redinstruct.errors import UsageError
from redinstruct.figures.comparison import CompareSettings, Result, compare
from redinstruct.figures.scores import GroupPlan, Metric
from redinstruct.stats import paired_means
from tests.support.cli import InProcess
from tests.support.pairs import mixed, run_of
from tests.support.useful import check, right


def one(before: Path, after: Path) -> Result:
    (result,) = compare(before, after).results
    return result


def test_a_higher_score_is_better(tmp_path: Path) -> None:
    low, high = check(tmp_path / "low", {"t": right(100, 400)}), check(tmp_path / "high", {"t": right(200, 400)})
    up, down = one(low, high), one(high, low)
    assert (up.verdict, down.verdict) == ("better", "worse")
    assert up.direction == "higher is better"
    assert up.difference is not None
    assert down.difference is not None
    assert up.difference.estimate == 0.25 == -down.difference.estimate
    assert (up.difference.gained, up.difference.lost) == (100, 0)
    assert (up.difference.low, up.difference.high) == pytest.approx((-down.difference.high, -down.difference.low))
    assert up.non_inferiority is not None
    assert down.non_inferiority is not None
    assert (up.non_inferiority.shown, down.non_inferiority.shown) == (True, False)


@pytest.mark.parametrize(("n", "shown"), [(100, False), (400, True)])
def test_utility_is_held_when_the_loss_is_surely_under_the_margin(tmp_path: Path, n: int, shown: bool) -> None:
    result = one(check(tmp_path / "a", {"t": right(n // 2, n)}), check(tmp_path / "b", {"t": right(n // 2, n)}))
    assert result.verdict == "no difference shown"
    assert result.non_inferiority is not None
    assert result.non_inferiority.shown is shown


def test_a_loss_may_be_sure_and_still_within_the_margin(tmp_path: Path) -> None:
    after = right(1990, 4000)
    result = one(
        check(tmp_path / "a", {"t": right(2000, 4000)}, margin=0.05), check(tmp_path / "b", {"t": after}, margin=0.05)
    )
    assert result.verdict == "worse"
    assert result.non_inferiority is not None
    assert result.non_inferiority.shown


def test_several_benchmarks_share_the_level(tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(4)]
    before = check(tmp_path / "a", {name: right(206 if name == "t0" else 200, 400) for name in names})
    after = check(tmp_path / "b", dict.fromkeys(names, right(200, 400)))
    found = compare(before, after)
    first = found.results[0]
    assert first.difference is not None
    assert first.difference.p_value == 0.015625
    assert first.difference.p_holm == 4 * 0.015625
    assert {r.verdict for r in found.results} == {"no difference shown"}
    # So do the four tests of the margin: the surest of them counts four times.
    margins = [r.non_inferiority for r in found.results if r.non_inferiority is not None]
    assert len(margins) == 4
    assert min(m.p_holm for m in margins) == pytest.approx(4 * min(m.p_value for m in margins))
    assert all(m.shown == (m.p_holm <= 0.025) for m in margins)


def test_items_are_paired_by_content_and_the_rest_is_named(tmp_path: Path) -> None:
    before = check(tmp_path / "a", {"t": right(50, 100)})
    after = check(tmp_path / "b", {"t": right(20, 60)}, first=40)
    result = one(before, after)
    assert result.pairs is not None
    assert (result.pairs.paired, result.pairs.only_before, result.pairs.only_after) == (60, 40, 0)
    # Item 40 is the 41st of the one run and the first of the other.
    known = paired_means(right(10, 60), right(20, 60))
    assert result.difference is not None
    assert result.difference.estimate == pytest.approx(known.difference)
    assert result.provisional


def test_scores_between_0_and_1_are_means(tmp_path: Path) -> None:
    before = [0.1 + 0.8 * (i % 7) / 7 for i in range(200)]
    after = [x + (0.05 if i % 2 else -0.02) for i, x in enumerate(before)]
    result = one(check(tmp_path / "a", {"t": before}), check(tmp_path / "b", {"t": after}))
    known = paired_means(before, after)
    assert result.difference is not None
    assert (result.difference.method, result.verdict) == ("paired t", "better")
    assert (result.difference.low, result.difference.high) == pytest.approx((known.low, known.high))


def test_a_group_s_parts_weigh_alike_where_its_benchmark_says_so(tmp_path: Path) -> None:
    group = (GroupPlan("hhh", "parts", ("x", "y"), 2),)
    before = check(tmp_path / "a", {"x": right(5, 10), "y": right(20, 100)}, groups=group)
    after = check(tmp_path / "b", {"x": right(10, 10), "y": right(20, 100)}, groups=group)
    result = one(before, after)
    assert result.before is not None
    assert result.before.estimate == pytest.approx(0.35)
    assert result.difference is not None
    assert result.difference.estimate == pytest.approx(0.25)


def test_items_without_a_value_are_counted(tmp_path: Path) -> None:
    result = one(check(tmp_path / "a", {"t": [None, *right(50, 99)]}), check(tmp_path / "b", {"t": right(50, 100)}))
    assert result.pairs is not None
    assert (result.pairs.unscored_before, result.pairs.unscored_after, result.pairs.scored) == (1, 0, 99)


def test_scores_that_are_no_shares_have_no_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = Metric("perplexity", False)
    before = check(tmp_path / "a", {"t": [10.0 + i % 5 for i in range(50)]}, metric=metric)
    after = check(tmp_path / "b", {"t": [9.0 + i % 5 + (i % 3) / 10 for i in range(50)]}, metric=metric)
    result = one(before, after)
    assert (result.verdict, result.direction, result.non_inferiority) == ("better", "lower is better", None)
    # Its changes are no percentage points.
    assert result.difference is not None
    assert result.why.startswith(f"{result.difference.estimate:+.4g} [")
    said = InProcess(capsys)("compare", before, after)
    assert f"{result.difference.estimate:+.4g} [" in said.out


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ({"shots": 3}, "other shots (5 before, 3 after)"),
        ({"version": "2"}, "other version (1 before, 2 after)"),
        ({"chat_template": "native"}, "other chat template (none before, native after)"),
        ({"prompt_sha256": "00"}, "other prompt"),
        ({"source": "a file"}, "other source"),
        ({"generation": "greedy"}, "other generation"),
        ({"metric": Metric("acc_norm", True)}, "other measure (acc before, acc_norm after)"),
        ({"first": 1000}, "other items"),
    ],
)
def test_another_instrument_is_not_comparable(tmp_path: Path, card: dict[str, object], why: str) -> None:
    result = one(check(tmp_path / "a", {"t": right(5, 9)}), check(tmp_path / "b", {"t": right(5, 9)}, **card))  # type: ignore[arg-type]
    assert result.verdict == "not comparable"
    assert why in result.why


def test_a_task_of_one_run_only_is_named(tmp_path: Path) -> None:
    before = check(tmp_path / "a", {"t": right(5, 9)})
    after = check(tmp_path / "b", {"t": right(5, 9), "u": right(5, 9)}, harness="lm-eval 0.4.14", planned=("v",))
    found = compare(before, after)
    assert [(r.name, r.verdict) for r in found.results] == [("t", "no difference shown"), ("u", "not comparable")]
    assert any("not done yet: v" in note for note in found.notes)
    assert any("another version of the harness" in note for note in found.notes)


def test_the_margin_is_the_one_that_the_runs_fixed(tmp_path: Path) -> None:
    one_run, other = (check(tmp_path / x, {"t": right(5, 9)}, margin=0.05) for x in "ab")
    found = compare(one_run, other)
    assert (found.kind, found.margin, found.margin_from) == ("utility", 0.05, "runs")
    assert compare(one_run, other, CompareSettings(margin=0.05)).margin == 0.05
    with pytest.raises(UsageError, match="chosen afterwards"):
        compare(one_run, other, CompareSettings(margin=0.1))
    with pytest.raises(UsageError, match="fixed different margins"):
        compare(one_run, check(tmp_path / "c", {"t": right(5, 9)}))


def test_kinds_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = InProcess(capsys)
    useful, asked = check(tmp_path / "a", {"t": right(5, 9)}), run_of(tmp_path / "b", mixed(3, 7))
    for pair in ((useful, asked), (asked, useful)):
        assert "compare two runs of one kind" in cli("compare", *pair).error_line
    assert "no run in this folder" in cli("compare", useful, tmp_path / "nowhere").error_line
    assert "no finished task in common" in cli("compare", useful, check(tmp_path / "c", {"u": right(5, 9)})).error_line
    assert "not an evaluation" in cli("gate", useful, "--max-rate", 0.1).error_line


def test_the_command_says_it_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [check(tmp_path / x, {"mmlu": right(200, 400)}) for x in "ab"]
    said = InProcess(capsys)("compare", *runs)
    assert (said.code, said.err) == (0, "")
    row = next(line for line in said.out.splitlines() if line.startswith("no difference shown"))
    assert "mmlu" in row
    assert " yes" in row
    assert "2 points (fixed before the runs began)" in said.out
