"""One person at one run: blind, resumable, every act durable, undo as a row of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.annotate.session import Refused, Session, checked_name
from redinstruct.errors import ConfigError, UsageError
from redinstruct.figures.agreement import disagreements, people_figures
from redinstruct.run import AnnotationStore, Store, by_annotator
from redinstruct.stats import corrected
from redinstruct.types import Annotation
from tests.support.labelling import OVER_REFUSAL_CARD, make_run
from tests.support.stores import OTHER_CARD, Setup, scratch

H, U = "harmful", "unharmful"
LABELS = [[H] * 4 + [U] * 8]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    make_run(tmp_path / "run", LABELS)
    with Store.open_for_writing(tmp_path / "run") as opened:
        yield opened


def label(session: Session, choice: str | None = H) -> str:
    item: str = session.state()["item"]["id"]
    session.act(item, "unsure" if choice is None else "label", choice)
    return item


def everything(document: Any) -> str:
    import json

    return json.dumps(document)


def test_the_state_holds_no_text_and_no_verdict_before_it_is_asked_for(store: Store) -> None:
    session = Session(store, "ann", sample=6)
    state = session.state()
    assert "inert" not in everything(state)
    assert "What is" not in everything(state)
    # Nothing of an item tells the two labels apart: the verdict is nowhere.
    assert set(state["item"]) == {"id", "number", "prompt", "bank", "chars", "truncated", "votes"}
    with pytest.raises(Refused, match="once you have labelled"):
        session.verdict(state["item"]["id"])
    assert str(session.reveal(state["item"]["id"])["answer"]).startswith("an inert answer")


def test_a_label_is_in_the_store_and_the_next_one_is_shown(store: Store) -> None:
    session = Session(store, "ann", sample=6)
    order = [key.hex() for key in session.drawn.keys]
    assert [label(session) for _ in range(6)] == order
    assert session.state()["item"] is None
    assert session.owed() == 0
    assert [a.key.hex() for a in AnnotationStore(store).standing()] == order


def test_another_session_of_the_same_person_goes_on_where_the_first_ended(store: Store) -> None:
    first = Session(store, "ann", sample=6)
    done = [label(first), label(first, None)]
    again = Session(store, "ann", sample=6)
    assert (again.state()["done"], again.state()["unsure"]) == (2, 1)
    assert again.state()["item"]["id"] not in done
    with pytest.raises(Refused, match="nothing to undo since the page was started"):
        again.undo()


def test_an_answer_is_labelled_once_until_it_is_taken_back(store: Store) -> None:
    session = Session(store, "ann", sample=4)
    item = label(session, H)
    with pytest.raises(Refused, match="labelled already"):
        session.act(item, "label", U)
    assert session.state(prefer=session.undo())["item"]["id"] == item
    session.act(item, "label", U)
    (standing,) = AnnotationStore(store).standing()
    assert standing.annotation == Annotation("ann", "label", U)


def test_who_has_seen_the_verdict_can_not_take_the_label_back(store: Store) -> None:
    session = Session(store, "ann", sample=4)
    item = label(session)
    assert session.verdict(item)["label"] in (H, U)
    assert session.state()["undo"] is False
    with pytest.raises(Refused, match="its label stays"):
        session.undo()


def test_a_skipped_answer_comes_again_when_the_others_are_done(store: Store) -> None:
    session = Session(store, "ann", sample=3)
    skipped = [session.state()["item"]["id"]]
    session.act(skipped[0], "skip", None)
    label(session)
    skipped.append(session.state()["item"]["id"])
    session.act(skipped[1], "skip", None)
    assert session.state()["item"] is None
    assert (session.state()["skipped"], session.owed()) == (2, 2)
    assert session.state(skipped=True)["item"]["id"] == skipped[0]
    session.act(skipped[0], "skip", None)
    assert session.state(skipped=True)["item"]["id"] == skipped[1]
    session.act(skipped[1], "label", U)
    session.act(skipped[0], "unsure", None)
    assert session.owed() == 0


def test_two_people_label_the_same_answers_blind_to_each_other(store: Store) -> None:
    ann = Session(store, "first person", sample=6)
    for choice in (H, U, H):
        label(ann, choice)
    bo = Session(store, "bo", sample=6)
    assert bo.drawn.keys == ann.drawn.keys
    state = bo.state()
    assert (state["done"], state["item"]["votes"]) == (0, [])
    assert "first person" not in everything(state)
    # The figures while labelling are by one's own labels alone.
    assert all(cell["labels"] == 0 for cell in state["cells"])


def test_the_live_figure_is_the_corrected_rate_of_each_cell_by_one_s_own_labels(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [[H] * 20 + [U] * 20])
    with Store.open_for_writing(tmp_path / "run") as store:
        check_the_live_figure(store)


def check_the_live_figure(store: Store) -> None:
    session = Session(store, "ann", sample=30)
    said = {label(session, choice): choice == H for choice in (H, U, H, U)}
    assert session.state()["cells"][0]["corrected"]["estimate"] is None, "so few labels say nothing yet"
    # 15 of either label are drawn: after 22 at least seven of each have theirs.
    said |= {label(session, choice): choice == H for choice in (H, U, H, U, U, H) * 3}
    session.act(session.state()["item"]["id"], "skip", None)
    label(session, None)
    keys = [key.hex() for key, *_ in store.labels(1)]
    judge = [flagged == H for *_, flagged in store.labels(1)]
    expected = corrected(judge, {keys.index(key): value for key, value in said.items()})
    (cell,) = session.state()["cells"]
    assert (cell["labels"], cell["total"]) == (22, 40)
    assert cell["corrected"]["estimate"] == expected.estimate
    assert cell["corrected"]["ci"] == [expected.low, expected.high]


def test_adjudication_shows_disagreements_only_and_no_names(store: Store) -> None:
    for name, choices in (("ann", (H, H, U, U)), ("bo", (H, U, U, H))):
        session = Session(store, name, sample=4)
        items = [label(session, choice) for choice in choices]
    with pytest.raises(UsageError, match="adjudicating"):
        Session(store, "ann (adjudicating)", sample=4)
    judge = Session(store, "ann", adjudicate=True)
    assert sorted(key.hex() for key in judge.drawn.keys) == sorted([items[1], items[3]])
    assert judge.state()["item"]["votes"] == [[H, 1], [U, 1]]
    label(judge, U)
    label(judge, H)
    assert (judge.state()["item"], judge.owed()) == (None, 0)
    assert {k.hex(): a.label for k, a in AnnotationStore(store).settled().items()} == dict(
        zip(items, (H, U, U, H), strict=True)
    )
    # Ann settled them, and her own labels still stand beside Bo's: they agree on two of four.
    people = people_figures(AnnotationStore(store).standing())
    assert (people.annotators, people.common, people.agreed.estimate, people.open) == (2, 4, 0.5, 0)
    with pytest.raises(UsageError, match="no answer on which two people disagree"):
        Session(store, "cy", adjudicate=True)


def test_over_refusal_has_three_answers_and_partial_counts_as_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [["refused", "complied", "refused"]], card=OVER_REFUSAL_CARD)
    with Store.open_for_writing(tmp_path / "run") as store:
        session = Session(store, "ann", sample=3)
        assert session.state()["choices"] == ["refused", "complied", "partial"]
        for choice in ("refused", "complied", "partial"):
            label(session, choice)
        assert [(a.annotation.label, a.annotation.detail) for a in AnnotationStore(store).standing()] == [
            ("refused", "refused"), ("complied", "complied"), ("refused", "partial"),
        ]  # fmt: skip


def test_what_cannot_be_seen_is_written_out(tmp_path: Path) -> None:
    hostile = "a\u202eb\u200bc\x1b[31m\ud800\x00\U000e0041 <script>alert(1)</script>"
    make_run(tmp_path / "run", [[H, U]], answer=lambda row: hostile)
    with Store.open_for_writing(tmp_path / "run") as store:
        session = Session(store, "ann", sample=2)
        shown = session.reveal(session.state()["item"]["id"])["answer"]
    assert shown == "a\\u202eb\\u200bc\\x1b[31m\\ud800\\x00\\U000e0041 <script>alert(1)</script>"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\u202eb", "x" * 65, "\ud800", "ann (adjudicating)"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="--annotator"):
        checked_name(name)


def test_a_run_that_cannot_be_labelled(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "empty") as store, pytest.raises(ConfigError, match="never begun"):
        Session(store, "ann")
    make_run(tmp_path / "run", [["error", "no_response", "unparsable", ""]])
    with Store.open_for_writing(tmp_path / "run") as store:
        with pytest.raises(UsageError, match="nothing to draw from"):
            Session(store, "ann")
        with pytest.raises(UsageError, match="no verdicts of this judge"):
            Session(store, "ann", judge="nope")


def test_a_judge_of_a_part_is_not_labelled_by(tmp_path: Path) -> None:
    setup = Setup()
    make_run(tmp_path / "run", LABELS)
    with Store.open_for_writing(tmp_path / "run") as store:
        row = store.add_judge(OTHER_CARD)
        store.add_sample(row, 1, 2)
        with pytest.raises(UsageError, match="only a part"):
            Session(store, "ann", judge=OTHER_CARD.id)
        assert Session(store, "ann", judge=setup.card.id, sample=2).judge == 1


acts = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bo"]), st.sampled_from([H, U, "unsure", "skip", "undo", "again"]), st.integers(0, 3)
    ),
    max_size=14,
)


@settings(max_examples=20)
@given(acts)
def test_any_order_of_acts_leaves_what_a_plain_model_says(said: list[tuple[str, str, int]]) -> None:
    """Labels, skips, undos and restarts of two people on four answers, against stacks in a dict."""
    with scratch() as folder:
        make_run(folder / "run", [[H, H, U, U]])
        with Store.open_for_writing(folder / "run") as store:
            sessions = {name: Session(store, name, sample=4) for name in ("ann", "bo")}
            keys = [key.hex() for key in sessions["ann"].drawn.keys]
            stacks: dict[tuple[str, str], list[str]] = {}
            mine: dict[str, list[str]] = {"ann": [], "bo": []}
            for name, what, where in said:
                session, key = sessions[name], keys[where]
                stack = stacks.setdefault((name, key), [])
                if what == "again":
                    sessions[name], mine[name] = Session(store, name, sample=4), []
                elif what == "undo":
                    if mine[name]:
                        assert session.undo().hex() == mine[name][-1]
                        stacks[name, mine[name].pop()].pop()
                    else:
                        with pytest.raises(Refused):
                            session.undo()
                else:
                    act: Any = what if what in ("unsure", "skip") else "label"
                    if stack and stack[-1] != "skip":
                        with pytest.raises(Refused):
                            session.act(key, act, what if act == "label" else None)
                    else:
                        session.act(key, act, what if act == "label" else None)
                        stack.append(what)
                        mine[name].append(key)
            standing = AnnotationStore(store).standing()
            found = {
                (name, key.hex()): a.label or a.act
                for name, of in by_annotator(standing).items()
                for key, a in of.items()
            }
            assert found == {who: stack[-1] for who, stack in stacks.items() if stack}
            for name, session in sessions.items():
                state = session.state()
                done = {key: found.get((name, key)) for key in keys}
                assert state["done"] == sum(v not in (None, "skip") for v in done.values())
                expected = next((key for key in keys if done[key] is None), None)
                assert (state["item"] or {}).get("id") == expected
            differ = {key for key in keys if {found.get((n, key)) for n in ("ann", "bo")} == {H, U}}
            assert {key.hex() for key in disagreements(standing)} == differ
