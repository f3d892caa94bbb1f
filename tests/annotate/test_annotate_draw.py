"""Which answers people are shown: at random within each label of the judge, kept before the first is shown."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.annotate.draw import draw, earlier_draws, judged_cells, select, shares
from redinstruct.errors import StoreError
from redinstruct.run import AnnotationStore, Outcomes, Planned, Store
from redinstruct.types import ATTACK_SUCCESS
from tests.support.labelling import make_run
from tests.support.stores import Setup, fill, make_bank, scratch

H, U = "harmful", "unharmful"


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 120))
def test_labels_are_dealt_out_evenly_over_the_cells(sizes: list[int], wanted: int) -> None:
    dealt = shares(sizes, wanted)
    assert sum(dealt) == min(wanted, sum(sizes))
    assert all(0 <= given <= size for given, size in zip(dealt, sizes, strict=True))
    # Nobody gets two more than somebody who could take more.
    assert all(dealt[i] <= dealt[j] + 1 for i in range(len(sizes)) for j in range(len(sizes)) if dealt[j] < sizes[j])


def test_a_draw_holds_both_labels_of_every_cell_and_says_what_it_was_drawn_from(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [[H] * 3 + [U] * 37 + ["error", ""], [U] * 40 + ["unparsable", "judge_refused"]])
    with Store.open_for_writing(tmp_path / "run") as store:
        found = draw(store, 1, ATTACK_SUCCESS, 20)
        assert (len(found.keys), len(set(found.keys)), found.added, found.grown) == (20, 20, 20, 0)
        cells = judged_cells(store, 1, ATTACK_SUCCESS)
        labels = [{one.key: one.label for one in of} for of in cells.values()]
        assert [sum(key in of for key in found.keys) for of in labels] == [10, 10]
        assert sum(of.get(key) == H for of in labels for key in found.keys) >= 1
        (body,) = earlier_draws(store, 1)
        assert [bytes.fromhex(key) for key in body.keys] == list(found.keys)
        assert [(s.prompt, s.label, s.total) for s in body.strata] == [
            ("standard", H, 3), ("standard", U, 37), ("cou", H, 0), ("cou", U, 40),
        ]  # fmt: skip
        assert sum(s.drawn for s in body.strata) == 20


def test_the_same_command_goes_on_with_the_draw_and_a_larger_one_adds_to_it(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [[H] * 10 + [U] * 30])
    with Store.open_for_writing(tmp_path / "run") as store:
        first = draw(store, 1, ATTACK_SUCCESS, 12)
        assert draw(store, 1, ATTACK_SUCCESS, 12) == type(first)(first.keys, 0, 0)
        assert draw(store, 1, ATTACK_SUCCESS, 5).keys == first.keys
        more = draw(store, 1, ATTACK_SUCCESS, 30)
        assert more.keys[:12] == first.keys
        assert (len(set(more.keys)), more.added) == (30, 18)
        assert len(draw(store, 1, ATTACK_SUCCESS, 999).keys) == 40
        assert len(AnnotationStore(store).draws()) == 3


def test_nobody_chooses_the_draw_but_who_gives_the_seed(tmp_path: Path) -> None:
    keys = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8), ("d", None), ("e", None)):
        make_run(tmp_path / name, [[H] * 20 + [U] * 20])
        with Store.open_for_writing(tmp_path / name) as store:
            keys.append(draw(store, 1, ATTACK_SUCCESS, 10, seed).keys)
    assert keys[0] == keys[1] != keys[2]
    # The run's own secret differs from run to run.
    assert keys[3] != keys[4]


def test_every_answer_of_a_stratum_is_as_likely_to_be_drawn_and_to_come_first() -> None:
    """2,000 draws of 10 out of 8 + 24: counts of each answer within a stratum lie within 5 standard errors."""
    drawn: Counter[bytes] = Counter()
    first: Counter[bytes] = Counter()
    sizes = set()
    keys = [number.to_bytes(32) for number in range(32)]
    cells = {
        ("bank", "prompt"): Outcomes.of(
            Planned(key, "bank", number, None, "prompt", 1, H if number < 8 else U, number)
            for number, key in enumerate(keys)
        )
    }
    for seed in range(2000):
        found, _ = select(cells, 10, set(), ATTACK_SUCCESS, random.Random(seed))
        drawn.update(found)
        first.update(found[:3])
        sizes.add(sum(key in keys[:8] for key in found))
    assert sizes == {4}  # ten by the square roots of 8 and 24
    for part, share in ((keys[:8], 4 / 8), (keys[8:], 6 / 24)):
        spread = (2000 * share * (1 - share)) ** 0.5
        assert all(abs(drawn[key] - 2000 * share) < 5 * spread for key in part)
        early = 3 / 10 * share
        assert all(abs(first[key] - 2000 * early) < 5 * (2000 * early * (1 - early)) ** 0.5 for key in part)


def test_answers_that_came_after_a_draw_are_counted(tmp_path: Path) -> None:
    from redinstruct.types import Verdict

    make_run(tmp_path / "run", [[H] * 4 + [U] * 4 + ["", ""]])
    with Store.open_for_writing(tmp_path / "run") as store:
        draw(store, 1, ATTACK_SUCCESS, 4)
        store.commit_verdicts([(9, 0, 1, 0, Verdict(H)), (10, 0, 1, 0, Verdict(U))])
        assert draw(store, 1, ATTACK_SUCCESS, 4).grown == 2


@settings(max_examples=6)
@given(st.text(max_size=40))
def test_a_damaged_draw_is_one_line(text: str) -> None:
    with scratch() as folder:
        make_run(folder / "run", [[H, U]])
        with Store.open_for_writing(folder / "run") as store:
            AnnotationStore(store).add_draw(1, text)
            with pytest.raises(StoreError, match="a draw of answers to label does not read"):
                draw(store, 1, ATTACK_SUCCESS, 2)


@pytest.mark.parametrize(
    ("size", "digest"), [(9, "d9913d668682c1e4"), (21, "d6308ee795c079eb"), (40, "17f5907d3e2e3813")]
)
def test_a_seed_draws_what_it_drew_in_earlier_versions(tmp_path: Path, size: int, digest: str) -> None:
    """Sizes in turn, as whoever adds to a draw has it."""
    labels = [H, U, U, "unparsable", H, U] * 20
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, Setup(banks=(make_bank(60),)).plan(store), labels)
        for earlier in (9, 21, 40):
            found = draw(store, 1, ATTACK_SUCCESS, earlier, 7)
            if earlier == size:
                break
    assert hashlib.sha256(b"".join(found.keys)).hexdigest()[:16] == digest
