"""Which answers people are shown: a random part of each bank and prompt, stratified by the judge's verdict.

Promised: within each of the judge's two labels of one bank and prompt, every answer is as likely to be drawn as every
other, and the order in which they are shown is random too, so that whoever stops early has still labelled a random
part. A draw is in the store before its first answer is shown; the same command goes on with it, a larger size adds to
it. Not promised: anything for the answers that the judge gave neither label; and where a run grew after a draw, its
first answers have the better chance (the draw says what it was drawn from).
"""

from __future__ import annotations

import hmac
import random
from array import array
from collections.abc import Mapping, Sequence

import msgspec

from redinstruct.errors import DamagedStore
from redinstruct.figures.deciding import BankPrompt
from redinstruct.figures.people import cells_of
from redinstruct.run import AnnotationStore, Outcomes, Store
from redinstruct.run.rows import from_json, to_json
from redinstruct.stats import part_sizes
from redinstruct.types import Measure

SCHEMA = "redinstruct.draw/1"


class Stratum(msgspec.Struct, frozen=True):
    """The answers of one bank and prompt that the judge gave one label: how many there were, how many were drawn."""

    bank: str
    prompt: str
    label: str
    total: int
    drawn: int


class DrawBody(msgspec.Struct, frozen=True):
    """What a draw keeps: the attempts' keys (hex) in the order of showing, what they were drawn from, and the seed.

    ``seed`` is None where the run's secret chose it.
    """

    schema: str
    seed: int | None
    size: int
    keys: tuple[str, ...]
    strata: tuple[Stratum, ...]


class Drawn(msgspec.Struct, frozen=True):
    """All that was ever drawn for one judge: keys (32 bytes) in the order of showing, without doubles.

    ``added`` tells how many this call drew; ``grown`` how many more answers the run holds than at the last draw.
    """

    keys: tuple[bytes, ...]
    added: int
    grown: int


def judged_cells(
    store: Store, judge: int, measure: Measure, cells: Mapping[BankPrompt, Outcomes] | None = None
) -> dict[BankPrompt, Outcomes]:
    """Bank and prompt -> the attempts that the judge gave one of the two labels, in the store's order of the cells.

    ``cells`` are :func:`redinstruct.figures.people.cells_of`, where they are known.
    """
    known = cells_of(store, judge) if cells is None else cells
    found = {cell: outcomes.where(lambda way: way.label in measure.labels[:2]) for cell, outcomes in known.items()}
    return dict(sorted((one for one in found.items() if len(one[1])), key=lambda one: one[1].attempt[0]))


def shares(sizes: Sequence[int], wanted: int) -> list[int]:
    """``wanted`` things dealt out evenly to places that hold ``sizes`` each; earlier places get what is left over.

    Each bank and prompt has a rate of its own to correct, and its precision hangs on its labels, not on its size.
    """
    dealt = [0] * len(sizes)
    left = min(wanted, sum(sizes))
    while left:
        open_places = [i for i, size in enumerate(sizes) if dealt[i] < size]
        each = max(1, left // len(open_places))
        for place in open_places:
            give = min(each, sizes[place] - dealt[place], left)
            dealt[place] += give
            left -= give
    return dealt


def draw(
    store: Store,
    judge: int,
    measure: Measure,
    size: int,
    seed: int | None = None,
    cells: Mapping[BankPrompt, Outcomes] | None = None,
) -> Drawn:
    """The answers to label for one judge: those drawn before, and as many more as ``size`` in all asks for.

    Args:
        store: the run, open for writing.
        judge: the judge's row; its labels are the strata.
        measure: the judge's measure.
        size: how many answers in all, dealt out evenly over banks and prompts, within each as
            :func:`redinstruct.stats.draw_part` does; all of them if there are not more.
        seed: the same seed draws the same answers of the same run; None: the run's secret chooses, and nobody can.
        cells: the judge's outcomes, where they are known.

    Raises:
        StoreError: a draw in the store does not read.
    """
    bodies = earlier_draws(store, judge)
    before = tuple(dict.fromkeys(bytes.fromhex(key) for body in bodies for key in body.keys))
    judged = judged_cells(store, judge, measure, cells)
    grown = 0
    if bodies:
        grown = max(0, sum(map(len, judged.values())) - sum(stratum.total for stratum in bodies[-1].strata))
    number = len(bodies)
    generator = random.Random(_number(store, number) if seed is None else seed)
    new, strata = select(judged, size, set(before), measure, generator)
    if new:
        body = DrawBody(SCHEMA, seed, size, tuple(key.hex() for key in new), tuple(strata))
        AnnotationStore(store).add_draw(judge, to_json(body))
    return Drawn((*before, *new), len(new), grown)


def select(
    cells: Mapping[BankPrompt, Outcomes], size: int, known: set[bytes], measure: Measure, generator: random.Random
) -> tuple[list[bytes], list[Stratum]]:
    """The answers to add to those that are ``known``, in the order of showing, so that they are ``size`` in all."""
    strata: list[Stratum] = []
    new: list[bytes] = []
    for (cell, judged), share in zip(cells.items(), shares([len(j) for j in cells.values()], size), strict=True):
        for label, total, drawn in _fill(judged, share, known, measure, generator):
            new += drawn
            strata.append(Stratum(*cell, label, total, len(drawn)))
    generator.shuffle(new)
    return new, strata


def _fill(
    judged: Outcomes, share: int, known: set[bytes], measure: Measure, generator: random.Random
) -> list[tuple[str, int, list[bytes]]]:
    """Label, size and newly drawn keys of either part of a cell, so that the parts hold what ``share`` gives them."""
    generator.getrandbits(32)  # a seed was drawn here once: the draws after it stay what they were
    flags = bytes(judged.hits(measure.first))
    aims = part_sizes(flags.count(1), flags.count(0), share)
    found = []
    for side, label, aim in ((1, measure.first, aims[0]), (0, measure.second, aims[1])):
        places = array("I", (at for at, flagged in enumerate(flags) if flagged == side))
        left = array("I", (at for at in places if judged.key(at) not in known)) if known else places
        missing = min(max(0, aim - (len(places) - len(left))), len(left))
        drawn = generator.sample(range(len(left)), missing)
        found.append((label, len(places), [judged.key(left[number]) for number in drawn]))
    return found


def _number(store: Store, draws: int) -> int:
    mark = hmac.digest(store.secret(), f"annotate\0{draws}".encode(), "sha256")
    return int.from_bytes(mark[:8])


def earlier_draws(store: Store, judge: int) -> list[DrawBody]:
    """The draws of one judge, in order.

    Raises:
        StoreError: one does not read.
    """
    found = []
    for entry in AnnotationStore(store).draws():
        if entry.judge == judge:
            try:
                body = from_json(entry.body, DrawBody)
                if body.schema != SCHEMA or any(len(bytes.fromhex(key)) != 32 for key in body.keys):
                    raise ValueError("a draw of another kind")
            except (ValueError, RecursionError):
                raise DamagedStore("the run store is damaged: a draw of answers to label does not read") from None
            found.append(body)
    return found
