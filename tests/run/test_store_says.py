"""What the store says in its lines, what it syncs before it returns, and in which order it shows attempts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

from redinstruct.errors import ConfigError, StoreError
from redinstruct.run import Store, SummaryStore
from redinstruct.run.config import check_same_run, flags_of
from redinstruct.run.plans import Mark
from redinstruct.run.soundness import why_unsound
from redinstruct.types import ATTACK_SUCCESS, Sampling, Verdict
from tests.support.stores import OTHER_CARD, Setup, fill, make_bank, scratch, text

SETUP = Setup(banks=(make_bank(6),))
ASKED: dict[str, tuple[tuple[str, Callable[[Store], object]], ...]] = {
    "reading the configuration": (("config", Store.config),),
    "reading the run's secret": (("secret", Store.secret),),
    "reading the plan": (("planned_so_far", Store.planned_so_far),),
    "reading the templates": (("templates", Store.templates),),
    "reading the judges": (("judges", Store.judges),),
    "reading the samples": (("samples", Store.samples),),
    "reading the self-test": (("selftest", lambda store: store.selftest(1)),),
    "reading labels": (("labels", lambda store: store.labels(1)),),
    "looking for answers": (("is_blank", Store.is_blank),),
    "looking for verdicts": (("has_verdicts", lambda store: store.has_verdicts(1)),),
    "summing tokens": (("tokens", Store.tokens),),
    "counting": (
        ("counts", lambda store: store.counts(1)),
        ("planned", Store.planned),
        ("recorded", Store.recorded),
    ),
    "reading attempts": (
        ("attempts", lambda store: list(store.attempts(1))),
        ("views", lambda store: list(store.views(1, [b"k" * 32]))),
    ),
}
WRITES: dict[str, tuple[bool, Callable[[Store], object]]] = {
    # Answers are paid for again after a power cut; a plan, a judge and a verdict are not lost by one.
    "planning the run": (True, SETUP.plan),
    "taking a plan back": (True, lambda store: store.take_back(store.planned_so_far())),
    "adding a judge": (True, lambda store: store.add_judge(OTHER_CARD)),
    "recording answers": (False, lambda store: store.commit_completions([(12, 0, text())])),
    "recording verdicts": (True, lambda store: store.commit_verdicts([(5, 0, 1, 0, Verdict("harmful"))])),
    "recording a sample": (True, lambda store: store.add_sample(1, 1, 2)),
    "recording the self-test": (True, lambda store: store.add_selftest(1, "{}", 1, 1)),
}


@pytest.fixture
def store() -> Iterator[Store]:
    with scratch() as place, Store.open_for_writing(place / "run") as opened:
        fill(opened, SETUP.plan(opened), ["harmful", "unharmful", "unparsable", "harmful"])
        opened.commit_completions([(5, 0, text())])
        yield opened


@pytest.mark.parametrize(
    ("said", "ask"), [(said, ask) for said, asked in ASKED.items() for _, ask in asked],
    ids=[name for asked in ASKED.values() for name, _ in asked],
)  # fmt: skip
def test_a_read_that_fails_says_what_was_read(store: Store, said: str, ask: Callable[[Store], object]) -> None:
    store.close()
    with pytest.raises(StoreError, match=f"^{said} failed"):
        ask(store)


@pytest.mark.parametrize("said", WRITES)
def test_a_write_that_fails_says_what_was_written(store: Store, said: str) -> None:
    mark = store.planned_so_far()
    store.close()
    write = WRITES[said][1] if said != "taking a plan back" else lambda store: store.take_back(mark)
    with pytest.raises(StoreError, match=f"^{said} failed"):
        write(store)


@pytest.mark.parametrize("said", WRITES)
def test_what_would_be_lost_by_a_power_cut_is_synced(store: Store, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    durable, write = WRITES[said]
    found: list[tuple[str, bool]] = []
    writing = store.writing

    @contextlib.contextmanager
    def noted(what: str, *, durable: bool = False) -> Iterator[object]:
        found.append((what, durable))
        with writing(what, durable=durable) as db:
            yield db

    monkeypatch.setattr(store, "writing", noted)
    write(store)
    assert found == [(said, durable)]


def test_a_plan_that_was_not_asked_is_taken_back_and_one_that_was_is_not(store: Store) -> None:
    mark = store.planned_so_far()
    assert isinstance(mark, Mark)
    larger = msgspec.structs.replace(SETUP, epochs=2)
    larger.plan(store)
    assert store.planned() == 24
    store.take_back(mark)
    assert store.planned() == 12
    larger.plan(store)
    store.commit_completions([(24, 0, text())])
    store.take_back(mark)
    assert store.planned() == 24


def test_the_foremost_are_the_first_label_then_what_has_none_then_the_second(store: Store) -> None:
    summary = SummaryStore(store)
    rows = [attempt.key.hex() for attempt in SETUP.attempts]
    found = [(view.key, view.label) for view in summary.foremost(1, ATTACK_SUCCESS, 10)]
    assert [label for _, label in found] == ["harmful", "harmful", "unparsable", None, "unharmful"]
    assert [rows.index(key) for key, _ in found] == [0, 3, 2, 4, 1]
    assert [view.key for view in summary.foremost(1, ATTACK_SUCCESS, 2)] == [rows[0], rows[3]]


def test_another_model_is_refused_without_a_hint_and_another_judge_with_one() -> None:
    config = SETUP.config
    with pytest.raises(ConfigError) as caught:
        check_same_run(config, msgspec.structs.replace(config, model="openai/other"), "run")
    assert str(caught.value) == (
        "run holds a run with another configuration: --model was openai/m, is openai/other. "
        "Use the same flags to resume it, or another --run."
    )
    with pytest.raises(ConfigError, match=r"\(to judge the same answers again: redinstruct judge\)"):
        check_same_run(config, msgspec.structs.replace(config, judge="another"), "run")


def test_flags_that_a_run_was_given_are_told_and_defaults_are_not() -> None:
    banks = (("--bank", "bank"), ("--prompt", "standard"), ("--prompt", "cou"), ("judge", None))
    assert tuple(flags_of(SETUP.config)) == (("--model", "openai/m"), *banks)
    given = msgspec.structs.replace(SETUP.config, limit=2, epochs=3, sampling=Sampling(seed=7))
    more = (("--seed", "7"), ("--limit", "2"), ("--epochs", "3"))
    assert tuple(flags_of(given)) == (("--model", "openai/m"), *banks, *more)


@pytest.mark.parametrize(
    ("insert", "why"),
    [
        ("INSERT INTO banks (name, sha256) VALUES ('odd', 'x')", "a hash that is none"),
        (
            "INSERT INTO verdicts (attempt, asked, judge, judged_no, label, tries) VALUES (1, 0, 1, 1, 'odd', 1)",
            "a label that its measure does not have",
        ),
        (
            "INSERT INTO verdicts (attempt, asked, judge, judged_no, label, detail, tries)"
            " VALUES (1, 0, 1, 1, 'harmful', 'odd', 1)",
            "a label that its measure does not have",
        ),
        ("INSERT INTO banks (name, sha256) VALUES (x'00', 'x')", "a value of another kind in banks.name"),
    ],
)
def test_what_this_program_never_writes_is_named(store: Store, insert: str, why: str) -> None:
    assert why_unsound(store.db) is None
    store.db.execute(insert)
    assert why_unsound(store.db) == why
