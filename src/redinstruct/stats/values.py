"""What the statistics return, and how they group what they are given. Frozen values; nothing here computes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Literal, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def grouped(keys: Iterable[K], values: Iterable[V]) -> dict[K, list[V]]:
    """The values of each key, both in the order of first appearance."""
    found: dict[K, list[V]] = {}
    for key, value in zip(keys, values, strict=True):
        found.setdefault(key, []).append(value)
    return found


class Interval(NamedTuple):
    """A rate with its confidence interval.

    ``estimate``, ``low`` and ``high`` are proportions in [0, 1]; ``estimate`` is None where nothing was counted, and
    the interval is then [0, 1]: nothing is known. ``method`` names how the interval was computed.
    """

    estimate: float | None
    low: float
    high: float
    method: str


class Paired(NamedTuple):
    """A change between two runs over the same questions.

    ``difference`` is the rate after minus the rate before, in [-1, 1]; ``low`` and ``high`` bound it; ``p_value`` is
    two-sided, in [0, 1].
    """

    difference: float
    low: float
    high: float
    p_value: float


class Change(NamedTuple):
    """A change between two runs whose pairs may come in clusters, held against a margin.

    ``difference``, ``low``, ``high`` and ``p_value`` as in :class:`Paired`. ``p_margin`` is one-sided, against a change
    for the worse by the margin or more. ``gained`` and ``lost`` count the pairs that rose and that fell. The pairs
    weigh as much as ``1 / design_effect`` as many independent ones; ``clusters`` is None where they are independent.
    Where they are not, ``freedom`` holds the degrees of freedom of the clusters' variance (None: one cluster has none).
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_margin: float
    gained: int
    lost: int
    design_effect: float
    clusters: int | None
    freedom: float | None = None


class Calibration(NamedTuple):
    """How a judge did on items of known truth from outside the run.

    Of ``positives`` truly positive items it called ``true_positives`` positive; of ``negatives`` truly negative ones it
    called ``true_negatives`` negative. Sensitivity and specificity are the two quotients.
    """

    true_positives: int
    positives: int
    true_negatives: int
    negatives: int


class Decision(NamedTuple):
    """Where a rate lies relative to a limit, as far as the items so far tell.

    ``side`` is ``"above"``, ``"below"``, or None: not decided yet. ``low`` and ``high`` bound the rate, at this moment
    and at every earlier and later one together. ``p_value`` is against the rate being exactly the limit, in [0, 1],
    and stays valid however often one looks.
    """

    side: Literal["above", "below"] | None
    low: float
    high: float
    p_value: float


class WeakJudge(ValueError):
    """The judge tells the two labels apart too poorly for its counts to be corrected."""
