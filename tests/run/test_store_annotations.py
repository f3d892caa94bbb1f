"""People's labels in the run store: append-only, the newest act of each annotator stands, an undo takes it back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import StoreError
from redinstruct.run import AnnotationStore, Store, by_annotator
from redinstruct.types import Annotation
from tests.support.cli import ROOT
from tests.support.stores import SCRIPT, Setup, fill, make_bank, scratch

acts = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.builds(
                Annotation,
                st.sampled_from(["ann", "bo\ud800"]),
                st.sampled_from(["label", "adjudicate"]),
                st.sampled_from(["harmful", "unharmful"]),
                st.sampled_from([None, "partial"]),
            ),
            st.builds(Annotation, st.sampled_from(["ann", "bo\ud800"]), st.sampled_from(["unsure", "skip", "undo"])),
        ),
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(said=acts)
def test_what_stands_is_each_annotators_newest_act_that_was_not_taken_back(said: list[tuple[int, Annotation]]) -> None:
    setup = Setup(banks=(make_bank(3),))
    keys = [attempt.key for attempt in setup.attempts[:3]]
    model: dict[tuple[bytes, str], list[Annotation]] = {}
    for where, act in said:
        stack = model.setdefault((keys[where], act.annotator), [])
        if act.act != "undo":
            stack.append(act)
        elif stack:
            stack.pop()
    with scratch() as folder:
        with Store.open_for_writing(folder / "run") as store:
            fill(store, setup.plan(store), ["harmful"] * 3)
            for where, act in said:
                AnnotationStore(store).record([(keys[where], act)])
        with Store.open_for_reading(folder / "run") as store:
            annotations = AnnotationStore(store)
            standing = annotations.standing()
            assert {(a.key, a.annotation.annotator): a.annotation for a in standing} == {
                who: stack[-1] for who, stack in model.items() if stack
            }
            settled = annotations.settled()
    for key in keys:
        labels = [a.annotation for a in standing if a.key == key and a.annotation.label is not None]
        final = [a for a in labels if a.act == "adjudicate"]
        if final:
            assert settled[key].act == "adjudicate"
        else:
            assert (key in settled) == (len({a.label for a in labels}) == 1)
    assert all(a.act != "adjudicate" for of in by_annotator(standing).values() for a in of.values())


def test_a_label_is_never_changed_or_removed(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        setup = Setup()
        fill(store, setup.plan(store), ["harmful"])
        AnnotationStore(store).record([(setup.attempts[0].key, Annotation("ann", "label", "harmful"))])
    db = sqlite3.connect(next((tmp_path / "run").glob("*.sqlite*")))
    for statement in ("UPDATE annotations SET label = 'unharmful'", "DELETE FROM annotations"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.close()


def test_an_attempt_without_an_answer_cannot_be_labelled_and_nothing_is_written(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        setup = Setup()
        fill(store, setup.plan(store), ["harmful"])
        annotations, act = AnnotationStore(store), Annotation("ann", "label", "harmful")
        with pytest.raises(StoreError, match="no answer"):
            annotations.record([(setup.attempts[0].key, act), (setup.attempts[-1].key, act)])
        assert annotations.standing() == []


def test_a_label_that_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    script = """
setup = Setup()
store = Store.open_for_writing(run)
fill(store, setup.plan(store), ["harmful"])
AnnotationStore(store).record([(setup.attempts[0].key, Annotation("ann", "label", "unharmful"))])
os.kill(os.getpid(), signal.SIGKILL)
"""
    head = SCRIPT + "from redinstruct.run import AnnotationStore\nfrom redinstruct.types import Annotation\n"
    done = subprocess.run([sys.executable, "-c", head + script, str(tmp_path / "run")], cwd=ROOT, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    with Store.open_for_reading(tmp_path / "run") as store:
        assert [a.annotation.label for a in AnnotationStore(store).standing()] == ["unharmful"]


def test_a_draw_is_kept_as_it_was(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = Setup().plan(store)
        row = AnnotationStore(store).add_draw(judge, '{"seed":1}')
        assert [(d.row, d.judge, d.body) for d in AnnotationStore(store).draws()] == [(row, judge, '{"seed":1}')]
