"""What labels say, and how many are needed: against plain arithmetic and simulation."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.annotate.allocation import Assumed, drawn, expected_width, label_plan, labels_for, neyman
from redinstruct.annotate.figures import cell_figures, undecided
from redinstruct.figures.agreement import disagreements, jackknifed, people_figures
from redinstruct.figures.people import People, cells_of
from redinstruct.run import Annotated, Store
from redinstruct.stats import corrected, gwet_ac1
from redinstruct.types import Annotation
from tests.support.labelling import make_run
from tests.support.stores import CARD

H, U = "harmful", "unharmful"


def said(**people: str) -> list[Annotated]:
    """What stands when everybody says a letter of each item in turn: h, n, t (can't tell), s (skip), - (nothing)."""
    found = []
    for name, letters in people.items():
        for item, letter in enumerate(letters):
            act = {"t": "unsure", "s": "skip"}.get(letter, "label")
            label = {"h": H, "n": U}.get(letter)
            if letter != "-":
                found.append(Annotated(item.to_bytes(32), Annotation(name, act, label)))  # type: ignore[arg-type]
    return found


def test_agreement_with_the_judge_is_weighted_back_to_the_run(tmp_path: Path) -> None:
    """10 flagged of 100; all 10 and 10 others labelled: people deny half of the flagged and none of the others."""
    setup = make_run(tmp_path / "run", [[H] * 10 + [U] * 90])
    keys = [attempt.key for attempt in setup.attempts]
    settled = {key: H if i < 5 else U for i, key in enumerate(keys[:20])}
    with Store.open_for_reading(tmp_path / "run") as store:
        (cell,) = cell_figures(cells_of(store, 1), CARD, People(settled))
    assert (cell.total, cell.labels, cell.judged.estimate) == (100, 20, 0.1)
    assert cell.corrected.estimate == pytest.approx(0.05)
    assert cell.agreement is not None
    assert cell.agreement.estimate == pytest.approx(0.95)  # 75 % of the labels, 95 % of the run
    assert (cell.among_first.estimate, cell.among_second.estimate) == (0.5, 0.0)


def test_people_are_compared_on_what_several_labelled() -> None:
    standing = said(ann="hhnnt-", bo="hnnns-", cy="-----h")
    people = people_figures(standing)
    assert (people.annotators, people.common, people.agreed.estimate, people.open) == (3, 4, 0.75, 1)
    assert people.kappa.estimate is None  # three people: alpha alone
    assert people.alpha.estimate is not None
    assert undecided(standing) == 1
    two = people_figures(said(ann="hhnn", bo="hnnn"))
    assert two.ac1.estimate == gwet_ac1("hhnn", "hnnn")


def test_a_case_is_open_until_somebody_settles_it() -> None:
    standing = said(ann="hhn", bo="hnn", cy="hhn")
    assert disagreements(standing) == {(1).to_bytes(32): {H: 2, U: 1}}
    settled = [*standing, Annotated((1).to_bytes(32), Annotation("dee", "adjudicate", U))]
    assert disagreements(settled) == {}
    assert people_figures(settled).annotators == 3


def test_without_several_people_there_is_no_agreement() -> None:
    for standing in (said(), said(ann="hn"), said(ann="h-", bo="-n")):
        people = people_figures(standing)
        assert (people.common, people.agreed.estimate, people.alpha.estimate) == (0, None, None)


def test_full_agreement_has_no_spread_to_tell() -> None:
    people = people_figures(said(ann="hnhn", bo="hnhn"))
    assert (people.ac1.estimate, people.ac1.low, people.ac1.high) == (1.0, None, None)
    assert people.agreed.low < 0.6  # Wilson still knows that four items are few


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("hn"), st.sampled_from("hn")), max_size=30))
def test_the_jackknife_holds_its_estimate_and_stays_in_range(rows: list[tuple[str, str]]) -> None:
    found = jackknifed(lambda r: gwet_ac1([a for a, _ in r], [b for _, b in r]), rows)
    if found.low is not None and found.high is not None and found.estimate is not None:
        assert -1 <= found.low <= found.estimate <= found.high <= 1


cells = st.builds(
    lambda total, share, ppv, fo: Assumed("b", "p", total, round(share * total), ppv, fo, "assumed"),
    st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip


@settings(max_examples=150)
@given(cells, st.integers(1, 500))
def test_every_allocation_fits_its_parts(cell: Assumed, size: int) -> None:
    for one, other in (neyman(cell, size), drawn(cell, size)):
        assert one + other == min(size, cell.total)
        assert 0 <= one <= cell.flagged
        assert 0 <= other <= cell.total - cell.flagged
        if size >= 2:
            assert one >= min(1, cell.flagged)
            assert other >= min(1, cell.total - cell.flagged)


def test_neyman_gives_to_a_part_by_its_size_and_its_spread() -> None:
    """Sizes 300 and 700, spreads .5 and .3: 150 to 210, so 100 labels are 42 and 58."""
    assert neyman(Assumed("", "", 1000, 300, 0.5, 0.1, "assumed"), 100) == (42, 58)


def test_the_expected_width_is_the_mean_width_of_simulated_corrections() -> None:
    cell = Assumed("", "", 200, 60, 0.8, 0.1, "assumed")
    generator, widths = random.Random(3), []
    judge = [True] * 60 + [False] * 140
    for _ in range(400):
        human = {i: generator.random() < 0.8 for i in range(20)} | {60 + i: generator.random() < 0.1 for i in range(30)}
        found = corrected(judge, human)
        widths.append(found.high - found.low)
    mean = sum(widths) / 400
    spread = (sum((w - mean) ** 2 for w in widths) / 400) ** 0.5 / 20
    assert expected_width(cell, 20, 30) == pytest.approx(mean, abs=4 * spread)


def test_neyman_is_no_wider_than_an_even_split_and_more_labels_are_narrower() -> None:
    cell = Assumed("", "", 2000, 200, 0.7, 0.05, "assumed")
    best, even = expected_width(cell, *neyman(cell, 100)), expected_width(cell, 50, 50)
    assert best < even
    widths = [row.neyman.width for row in label_plan([cell], 0.1).results[0].sizes]
    assert widths == sorted(widths, reverse=True)
    count = labels_for(cell, 0.1)
    assert count is not None
    assert expected_width(cell, *neyman(cell, count)) <= 0.1 < expected_width(cell, *neyman(cell, count - 5))
    assert labels_for(cell, 0.001) is None
