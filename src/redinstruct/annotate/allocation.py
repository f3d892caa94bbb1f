"""How many labels buy which width of the corrected interval, before anybody labels.

Promised: the width is the mean one of :func:`redinstruct.stats.corrected` itself over everything that the labels may
turn out to be, given how often people would agree with either label of the judge. Not promised: that share. It is
taken from labels that stand already, else assumed, and the plan says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from redinstruct.figures.people import cell_of, cells_of, people_of, rate_among
from redinstruct.run import Store
from redinstruct.stats import part_sizes
from redinstruct.stats.correction import poststratified
from redinstruct.types import JudgeCard

PPV, FALSE_OMISSION = 0.80, 0.10
"""What is assumed of a judge of whom nothing is known: middling."""

SIZES = (30, 60, 100, 200, 400, 1000, 2000)
_LEAST_SPREAD = 0.1
_NEGLIGIBLE = 1e-7


class Assumed(msgspec.Struct, frozen=True):
    """One bank and prompt: how many answers, how many of them flagged, and how often people would say "first label".

    ``ppv`` is that share among the flagged, ``false_omission`` among the others; ``basis`` tells whence.
    """

    bank: str
    prompt: str
    total: int
    flagged: int
    ppv: float
    false_omission: float
    basis: Literal["labels", "assumed"]


def neyman(cell: Assumed, size: int) -> tuple[int, int]:
    """How many of ``size`` labels go to the flagged answers, and how many to the others, for the narrowest interval.

    In proportion to a part's size times its spread, at least one to each part that has an answer, at most all of it. A
    spread under 0.1 (a share under 1 %, or over 99 %) counts as 0.1: nobody knows a share that well beforehand.

    Source: Neyman, Journal of the Royal Statistical Society 97 (1934) 558-625; Cochran, Sampling Techniques (3rd ed.
    1977), section 5.5.
    """
    parts = (cell.flagged, cell.total - cell.flagged)
    size = min(size, cell.total)
    spreads = [max(_LEAST_SPREAD, math.sqrt(p * (1 - p))) for p in (cell.ppv, cell.false_omission)]
    weights = [part * spread for part, spread in zip(parts, spreads, strict=True)]
    first = round(size * weights[0] / sum(weights))
    first = min(max(first, min(1, parts[0])), max(size - min(1, parts[1]), 0))
    first = min(max(first, size - parts[1]), parts[0], size)
    return first, size - first


def drawn(cell: Assumed, size: int) -> tuple[int, int]:
    """The same two numbers as ``redinstruct annotate`` draws them: it knows the judge's labels, and no share."""
    return part_sizes(cell.flagged, cell.total - cell.flagged, size)


def expected_width(cell: Assumed, first: int, second: int) -> float:
    """The mean width of the corrected 95 % interval with so many labels of the flagged answers, and of the others.

    Over both binomial counts, leaving out what is less likely than one in ten million.
    """
    import numpy as np
    from scipy.stats import binom

    def likely(n: int, p: float) -> tuple[Any, Any]:
        hits = np.arange(n + 1)
        chance = binom.pmf(hits, n, p)
        return hits[chance > _NEGLIGIBLE], chance[chance > _NEGLIGIBLE]

    (one, p_one), (two, p_two) = likely(first, cell.ppv), likely(second, cell.false_omission)
    hits_one, hits_two = (grid.ravel() for grid in np.meshgrid(one, two, indexing="ij"))
    weights = np.outer(p_one, p_two).ravel()
    same = np.ones_like(hits_one)
    _, low, high = poststratified(
        same * cell.flagged, same * cell.total, hits_one, same * first, hits_two, same * second, alpha=0.05
    )
    return float((weights * (high - low)).sum() / weights.sum())


def labels_for(cell: Assumed, width: float) -> int | None:
    """The fewest labels (allocated as :func:`neyman` does) of at most the ``width``; None: all would not do.

    The run itself is a sample of what the model might have said: labels for every answer leave that interval.
    """
    least, most = 1, cell.total
    if expected_width(cell, *neyman(cell, most)) > width:
        return None
    while least < most:
        middle = (least + most) // 2
        if expected_width(cell, *neyman(cell, middle)) <= width:
            most = middle
        else:
            least = middle + 1
    return least


def cells_to_plan(
    store: Store, judge: int, card: JudgeCard, ppv: float | None, false_omission: float | None
) -> list[Assumed]:
    """Every bank and prompt of a run; shares from its labels (half a label of each kind added), where it has both.

    ``ppv`` and ``false_omission`` stand for every cell where they are given.
    """
    people = people_of(store)
    found = []
    for (bank, prompt), outcomes in cells_of(store, judge).items():
        cell = cell_of(people, card, outcomes)
        if not cell.judge:
            continue
        said = [[cell.human[i] for i in cell.human if cell.judge[i] is side] for side in (True, False)]
        known = all(said) and ppv is None and false_omission is None
        rates = [rate_among(cell, side).estimate or 0.0 for side in (True, False)]
        shares = [(len(part) * rate + 0.5) / (len(part) + 1) for part, rate in zip(said, rates, strict=True)]
        found.append(
            Assumed(
                bank, prompt, len(cell.judge), sum(cell.judge),
                shares[0] if known else PPV if ppv is None else ppv,
                shares[1] if known else FALSE_OMISSION if false_omission is None else false_omission,
                "labels" if known else "assumed",
            )
        )  # fmt: skip
    return found


class Bought(msgspec.Struct, frozen=True):
    """What labels buy: of the flagged answers and of the others, and the mean width of the corrected interval."""

    flagged: int
    others: int
    width: float


class Size(msgspec.Struct, frozen=True):
    """So many labels, by Neyman's allocation and as ``redinstruct annotate`` draws them."""

    labels: int
    neyman: Bought
    drawn: Bought


class CellPlan(Assumed, frozen=True):
    """A cell with what labels buy there. ``labels_for_width``: None where none is asked for, or all would not do."""

    sizes: tuple[Size, ...]
    width: float | None
    labels_for_width: int | None


class LabelPlan(msgspec.Struct, frozen=True):
    """``plan --labels --json``."""

    schema: str
    confidence: float
    results: tuple[CellPlan, ...]


def label_plan(cells: Sequence[Assumed], width: float | None) -> LabelPlan:
    """What so many labels buy, for each cell by itself."""
    results = []
    for cell in cells:
        sizes = sorted({size for size in SIZES if size < cell.total} | {cell.total} & set(range(SIZES[-1] + 1)))
        ways = [(size, (neyman(cell, size), drawn(cell, size))) for size in sizes]
        made = tuple(
            Size(size, *(Bought(*labels, expected_width(cell, *labels)) for labels in of)) for size, of in ways
        )
        wanted = None if width is None else labels_for(cell, width)
        own = msgspec.structs.asdict(cell)
        results.append(CellPlan(**own, sizes=made, width=width, labels_for_width=wanted))
    return LabelPlan("redinstruct.plan-labels/1", 0.95, tuple(results))
