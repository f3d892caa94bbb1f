"""``--limit N`` takes each topic's share: the order, as a property, and how runs keep their rule."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.questions import read_bank, select
from redinstruct.questions.spread import FIRST, spread
from redinstruct.redeval import EvalSettings, evaluate, prepare
from redinstruct.run import Store
from redinstruct.run.config import RunConfig
from redinstruct.types import ATTACK_SUCCESS
from tests.support.cli import InProcess

paths = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=60)


@given(paths=paths)
@settings(max_examples=120, deadline=None)
def test_every_beginning_holds_each_group_within_one_of_its_share(paths: list[tuple[int, int]]) -> None:
    order = spread(paths)
    sizes, taken = Counter(topic for topic, _ in paths), Counter[int]()
    assert sorted(order) == list(range(len(paths)))
    for n, place in enumerate(order, 1):
        taken[paths[place][0]] += 1
        assert all(abs(taken[topic] - Fraction(n * size, len(paths))) < 1 for topic, size in sizes.items())


@given(paths=paths, limit=st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_a_smaller_limit_is_the_beginning_of_a_larger_one(paths: list[tuple[int, int]], limit: int) -> None:
    assert spread(paths, limit) == spread(paths)[:limit]


@given(paths=paths)
@settings(max_examples=60, deadline=None)
def test_within_a_topic_the_subtopics_are_spread_too_and_keep_their_order(paths: list[tuple[int, int]]) -> None:
    order = spread(paths)
    for topic in {topic for topic, _ in paths}:
        own = [place for place in order if paths[place][0] == topic]
        sizes, taken = Counter(paths[place][1] for place in own), Counter[int]()
        for n, place in enumerate(own, 1):
            taken[paths[place][1]] += 1
            assert all(abs(taken[sub] - Fraction(n * size, len(own))) < 1 for sub, size in sizes.items())
        for sub in sizes:
            assert sorted(inner := [place for place in own if paths[place][1] == sub]) == inner


def bank(folder: Path, sizes: dict[str, int]) -> Path:
    path = folder / "paint.json"
    path.write_text(json.dumps({t: [f"What is {t} paint {at}?" for at in range(n)] for t, n in sizes.items()}))
    return path


def test_sixty_of_four_hundred_are_six_of_each_of_ten_topics(tmp_path: Path) -> None:
    found = select(
        read_bank(bank(tmp_path, {f"t{at}": 40 for at in range(10)})), measure=ATTACK_SUCCESS, limit=60, dedupe=False
    )
    assert Counter(question.topic for question in found.questions) == {f"t{at}": 6 for at in range(10)}
    assert found.selected.of == 400
    assert [q.row for q in found.questions] == sorted(q.row for q in found.questions)


def asked(run: Path) -> list[int]:
    with Store.open_for_reading(run) as store:
        return sorted(view.question.row for view in store.attempts(store.judges()[0][0]))


def test_a_larger_limit_extends_a_run_and_what_it_was_taken_from_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run, cli = bank(tmp_path, {"a": 12, "b": 4}), tmp_path / "run", InProcess(capsys)
    what = ["--model", "scripted/refuse", "--bank", path, "--judge", "refusal", "--prompt", "standard", "--run", run]
    assert cli("eval", *what, "--limit", 4).code == 0
    first = asked(run)
    assert Counter(row < 12 for row in first) == {True: 3, False: 1}
    assert cli("eval", *what, "--limit", 8).code == 0
    assert set(first) < set(asked(run))
    assert Counter(row < 12 for row in asked(run)) == {True: 6, False: 2}
    with Store.open_for_reading(run) as store:
        config = store.config()
    assert config is not None
    selected = config.selected_of("paint")
    assert selected is not None
    assert (selected.of, selected.other_half) == (16, 0)
    assert config.selected_of("other") is None


def test_a_run_of_the_first_edition_keeps_its_rule(tmp_path: Path) -> None:
    """Its configuration names no rule: the first N questions, when it is resumed and when it is extended."""
    path, run = bank(tmp_path, {"a": 12, "b": 4}), tmp_path / "run"

    def plan(limit: int) -> object:
        return prepare(
            EvalSettings(model="scripted/refuse", banks=(path,), judge="refusal", prompts=("standard",), limit=limit)
        )

    old = plan(4)
    config = msgspec.structs.replace(old.config, limit_rule=FIRST, selected=())  # type: ignore[attr-defined]
    body = msgspec.to_builtins(config)
    del body["limit_rule"], body["selected"]
    assert msgspec.convert(body, RunConfig) == config
    assert old.config.digest == config.digest  # type: ignore[attr-defined]
    evaluate(old.for_run(config), run)  # type: ignore[attr-defined]
    assert asked(run) == [0, 1, 2, 3]
    assert evaluate(plan(4), run).calls == 0  # type: ignore[arg-type]
    evaluate(plan(6), run)  # type: ignore[arg-type]
    assert asked(run) == [0, 1, 2, 3, 4, 5]
