"""What a utility check found, read from its rows: means, intervals, groups, and what may not change."""

from __future__ import annotations

import math
import sqlite3
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import ConfigError, StoreError
from redinstruct.figures.scores import (
    GroupPlan,
    MeasuredScore,
    Metric,
    TaskCard,
    UtilityConfig,
    assemble,
    is_short,
    is_utility,
    item_ids,
    read_utility,
)
from redinstruct.run import STORE_NAME, CollectionStore, Store, UtilityStore, UtilityTaskRow
from redinstruct.run.rows import to_json
from redinstruct.stats import jeffreys
from tests.support.cli import InProcess
from tests.utility_check.test_utility_hhh import PUBLISHED, SIZES

ACC = Metric("acc", higher_is_better=True)


def config(*tasks: str, groups: tuple[GroupPlan, ...] = (), limit: int | None = None) -> UtilityConfig:
    data = tuple((task, "none") for task in tasks)
    return UtilityConfig("hf/m@0", tasks, groups, 0.02, "lm-eval 0", "none", data, limit=limit)


def row(
    task: str, *columns: Sequence[float | None], metrics: tuple[Metric, ...] = (ACC,), limit: int | None = None
) -> UtilityTaskRow:
    total = len(columns[0]) if limit is None else 10 * limit
    card = TaskCard(task, "1", "lm-eval 0", "multiple_choice", 0, "none", "none", total, limit, metrics)
    ids = item_ids(task, [str(n) for n in range(len(columns[0]))])
    return UtilityTaskRow(task, to_json(card), ids, tuple(map(tuple, columns)))


def measured(values: list[float], parts: list[str] | None = None, **more: object) -> MeasuredScore:
    items = tuple(str(n) for n in range(len(values)))
    found = MeasuredScore("t", "acc", True, items, tuple(values), tuple(parts or ["t"] * len(values)))
    return msgspec.structs.replace(found, **more)


@pytest.mark.parametrize("model", PUBLISHED)
def test_a_group_of_parts_averages_as_the_paper_does(model: str) -> None:
    won, printed = PUBLISHED[model]
    names = tuple(f"hhh_{part}" for part in SIZES)
    group = GroupPlan("hhh", "parts", names, 4)
    rows = [
        row(name, [1.0] * wins + [0.0] * (size - wins))
        for name, wins, size in zip(names, won, SIZES.values(), strict=True)
    ]
    (found,) = assemble(config(*names, groups=(group,)), rows).headline
    assert found.mean == pytest.approx(printed, abs=0.00101)
    assert found.n == sum(SIZES.values())
    assert len(set(found.parts)) == found.of == 4


def test_a_group_of_items_weighs_every_question_alike() -> None:
    group = GroupPlan("mmlu", "items", ("a", "b"), 57)
    result = assemble(config("a", "c", "b", groups=(group,)), [row("a", [1.0]), row("b", [0.0] * 3), row("c", [1.0])])
    mmlu, alone = result.headline
    assert (mmlu.task, mmlu.mean, mmlu.of) == ("mmlu", 0.25, 57)
    assert (alone.task, alone.mean) == ("c", 1.0)
    assert [one.task for one in result.tasks] == ["a", "c", "b"]


values_and_parts = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from("abc")), min_size=1, max_size=40
)  # fmt: skip


@settings(max_examples=40)
@given(values_and_parts, st.sampled_from(["items", "parts"]))
def test_the_mean_is_the_weighted_one(rows: list[tuple[float, str]], average: str) -> None:
    found = measured([value for value, _ in rows], [part for _, part in rows], average=average)
    assert math.fsum(found.weights) == pytest.approx(1)
    assert found.mean == pytest.approx(sum(w * v for w, v in zip(found.weights, found.values, strict=True)))
    low, high = found.interval.low, found.interval.high
    assert found.mean is not None
    assert 0 <= low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= high <= 1


@settings(max_examples=40)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_the_standard_error_is_that_of_a_mean(values: list[float]) -> None:
    found = measured(values).stderr
    assert found == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-12)


def test_macro_standard_error_by_hand() -> None:
    # Part a: 0, 1 (variance 1/2 over 2 items); part b: 1, 1, 0, 0 (variance 1/3 over 4): root(1/4 + 1/12) / 2.
    found = measured([0, 1, 1, 1, 0, 0], list("aabbbb"), average="parts")
    assert found.stderr == pytest.approx(math.sqrt(1 / 4 + 1 / 12) / 2)


def test_intervals_say_how_they_were_made() -> None:
    assert measured([1.0, 0.0, 1.0]).interval.method == "wilson"
    assert measured([0.5, 0.25]).interval.method == "normal"
    assert measured([]).interval == (None, 0.0, 1.0, "none")
    assert measured([0.5]).stderr is None
    assert measured([0.5]).interval[1:3] == (0.0, 1.0)


def test_a_mean_of_parts_that_are_all_lost_or_won_is_no_certainty() -> None:
    for value in (0.0, 1.0):
        found = measured([value] * 12, list("aaaaaabbbbbb"), average="parts").interval
        alone = jeffreys(round(6 * value), 6)
        assert (found.estimate, found.method) == (value, "mover")
        assert found.high - found.low == pytest.approx((alone.high - alone.low) / math.sqrt(2))
    one = measured([1.0, 0.0, 1.0], list("aaa"), average="parts").interval
    assert one[1:3] == pytest.approx(jeffreys(2, 3)[1:3])


def test_what_is_not_defined_is_left_out_and_counted() -> None:
    (found,) = assemble(config("a"), [row("a", [1.0, None, 0.0])]).headline
    assert (found.n, found.undefined, found.mean) == (2, 1, 0.5)
    assert len(found.items) == 2


def test_every_metric_of_a_task_is_there_and_the_first_one_counts() -> None:
    lower = Metric("refused", higher_is_better=False)
    hidden = Metric("bias", higher_is_better=False, reported=0.1, per_item=False)
    filtered = Metric("acc", higher_is_better=True, filter="strict")
    result = assemble(
        config("a"), [row("a", [1.0, 1.0], [0.0, 1.0], [1.0, 0.0], metrics=(ACC, hidden, lower, filtered))]
    )
    assert [(one.metric, one.mean, one.primary) for one in result.tasks] == [
        ("acc", 1.0, True),
        ("refused", 0.5, False),
        ("acc,strict", 0.5, False),
    ]
    assert [one.metric for one in result.headline] == ["acc"]
    assert not result.tasks[1].higher_is_better


@settings(max_examples=40)
@given(st.lists(st.text(max_size=3), max_size=20))
def test_items_have_stable_distinct_ids(contents: list[str]) -> None:
    ids = item_ids("task", contents)
    assert len(set(ids)) == len(contents)
    assert ids == item_ids("task", contents)
    assert not set(ids) & set(item_ids("other", contents))
    # Items before or after change nothing, unless they are the same.
    assert item_ids("task", [*contents, "one more that is longer"])[: len(ids)] == ids


def test_the_margin_is_part_of_the_digest_and_the_limit_is_not() -> None:
    one = config("a")
    assert msgspec.structs.replace(one, margin=0.03).digest != one.digest
    assert msgspec.structs.replace(one, limit=5).digest == one.digest


# ---- the run ----


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with Store.open_for_writing(folder) as store:
        rows = UtilityStore(store)
        rows.begin(config("a", "b").digest, to_json(config("a", "b", limit=2)))
        rows.commit(row("a", [1.0, 0.0], limit=2))
    return folder


def test_a_run_reads_back_as_it_was_written(run: Path) -> None:
    result = read_utility(run)
    assert is_utility(run)
    assert result.margin == 0.02
    assert result.missing == ("b",)
    assert not result.complete
    (found,) = result.headline
    assert (found.task, found.values) == ("a", (1.0, 0.0))
    assert found.items == tuple(item.hex() for item in item_ids("a", ["0", "1"]))


@pytest.mark.parametrize("verb", ["show", "judge", "gate", "labels", "annotate", "export"])
def test_the_verbs_that_read_answers_say_what_it_is(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, verb: str
) -> None:
    more: dict[str, list[object]] = {
        "judge": ["--judge", "refusal"],
        "gate": ["--max-rate", 1],
        "export": ["--to", "kto", "--out", tmp_path / "x"],
    }
    assert "holds a utility check" in InProcess(capsys)(verb, run, *more.get(verb, [])).error_line


def test_a_task_asked_again_with_a_larger_limit_counts_anew(run: Path) -> None:
    assert not is_short(read_utility(run).cards[0], 2)
    assert is_short(read_utility(run).cards[0], None)
    with Store.open_for_writing(run) as store:
        UtilityStore(store).begin("d", to_json(config("a", "b")))
        UtilityStore(store).commit(row("a", [1.0, 0.0, 1.0, 1.0]))
        UtilityStore(store).commit(row("b", [0.0]))
    result = read_utility(run)
    assert result.complete
    assert [(one.task, one.n, one.mean) for one in result.headline] == [("a", 4, 0.75), ("b", 1, 0.0)]


@pytest.mark.parametrize(("table", "column"), [("utility_tasks", "card"), ("utility_items", "value")])
def test_rows_are_only_added(run: Path, table: str, column: str) -> None:
    with Store.open_for_writing(run) as store:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                store.db.execute(statement)


def test_a_task_is_recorded_whole_or_not_at_all(run: Path) -> None:
    with Store.open_for_writing(run) as store:
        before = UtilityStore(store).cards()
        for bad in (
            msgspec.structs.replace(row("b", [1.0, 0.0]), values=((1.0,),)),
            row("b", [1.0, math.nan]),
            msgspec.structs.replace(row("b", [1.0]), items=(b"short",)),
        ):
            with pytest.raises(ValueError):
                UtilityStore(store).commit(bad)
        assert UtilityStore(store).cards() == before


def test_other_kinds_of_run_are_told_apart(run: Path, tmp_path: Path) -> None:
    readers: tuple[Callable[[Store], object], ...] = (lambda s: s.config(), lambda s: CollectionStore(s).config())
    with Store.open_for_reading(run) as store:
        for reader in readers:
            with pytest.raises(ConfigError, match="utility check"):
                reader(store)
    with pytest.raises(ConfigError, match="no run"):
        read_utility(tmp_path / "none")
    with Store.open_for_writing(tmp_path / "empty"):
        pass
    with pytest.raises(ConfigError, match="never begun"):
        read_utility(tmp_path / "empty")
    assert not is_utility(tmp_path / "empty")


def test_damage_is_one_line(run: Path) -> None:
    with sqlite3.connect(run / STORE_NAME) as db:
        db.execute("DROP TRIGGER utility_items_stay")
        db.execute("UPDATE utility_items SET value = 'text'")
    db.close()
    with pytest.raises(StoreError):
        read_utility(run)
    assert (run / STORE_NAME).stat().st_mode & 0o777 == 0o600
