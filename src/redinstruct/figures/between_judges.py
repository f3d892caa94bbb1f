"""How far the judges of one run agree, over the answers that two of them labelled."""

from __future__ import annotations

import itertools

import msgspec

from redinstruct.run import Store
from redinstruct.stats import Interval, cohen_kappa, wilson
from redinstruct.types import MEASURES


class JudgePair(msgspec.Struct, frozen=True):
    """Two judges (their ids) on the ``both`` answers that both gave one of the measure's two labels.

    ``same`` is the share with the same label. Where the second one read a part drawn by the first one's labels, it is
    about that part. ``kappa`` is Cohen's, None where it is not defined.
    """

    first: str
    second: str
    both: int
    same: Interval
    kappa: float | None


def judge_pairs(store: Store) -> tuple[JudgePair, ...]:
    """Every two judges of one measure that have answers in common.

    Raises:
        StoreError: the store does not read.
    """
    judges = [(row, card) for row, card in store.judges() if store.has_verdicts(row)]
    if len(judges) < 2:
        return ()
    labels: dict[int, dict[bytes, str]] = {}
    for row, card in judges:
        two = MEASURES[card.measure].labels[:2]
        labels[row] = {key: label for key, _, _, label in store.labels(row) if label in two}
    found = []
    for (first, one), (second, other) in itertools.combinations(judges, 2):
        common = [key for key in labels[first] if key in labels[second]]
        if one.measure != other.measure or not common:
            continue
        ours, theirs = ([labels[row][key] for key in common] for row in (first, second))
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        found.append(JudgePair(one.id, other.id, len(common), wilson(same, len(common)), cohen_kappa(ours, theirs)))
    return tuple(found)
