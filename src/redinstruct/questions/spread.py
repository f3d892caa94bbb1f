"""An order of things in groups such that every beginning of it holds each group in proportion.

So that ``--limit N`` asks every topic its share, and a larger N keeps what a smaller one asked.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from typing import Literal

import msgspec


class Selected(msgspec.Struct, frozen=True):
    """What a measure was narrowed to in one bank: ``of`` questions before any limit, and what else was left out.

    ``other_half`` counts the questions of the bank's other half (safe ones where harm is measured), ``untold`` those of
    which a bank with halves does not say, ``repeats`` what ``--dedupe`` leaves out.
    """

    of: int
    other_half: int = 0
    untold: int = 0
    repeats: int = 0


LimitRule = Literal["first", "spread"]
FIRST: LimitRule = "first"
SPREAD: LimitRule = "spread"
"""What ``--limit N`` takes of a bank: its first N questions (runs of the first edition), or N spread over topics."""


def spread(paths: Sequence[Sequence[Hashable]], limit: int | None = None) -> list[int]:
    """The places 0 to n - 1 in an order whose first N hold of each group within 1 of N times its share, for every N.

    ``paths`` says of each thing its group, its group within that, and so on, all equally deep; of one group's things
    the inner groups are spread likewise, and the last ones keep their order. ``limit`` asks for the first ones only.
    The order depends on nothing but the paths.

    Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980) 323-330: of k groups the
    greatest excess is 1 - 1/(2k - 2).
    """
    return _spread(range(len(paths)), paths, 0, limit)


def _spread(
    places: Sequence[int], paths: Sequence[Sequence[Hashable]], depth: int, limit: int | None = None
) -> list[int]:
    groups: dict[Hashable, list[int]] = {}
    for place in places:
        groups.setdefault(paths[place][depth], []).append(place)
    deeper = bool(paths) and depth + 1 < len(paths[0])
    inner = [_spread(group, paths, depth + 1) if deeper else group for group in groups.values()]
    return _interleaved(inner, len(places) if limit is None else min(limit, len(places)))


def _interleaved(groups: Sequence[Sequence[int]], limit: int) -> list[int]:
    """Tijdeman's rule as unit jobs: the j-th of a group may come from a time on and must by another; the most urgent.

    With share s = size/total and D = 2k - 2, the j-th (from 1) is free at the first N with s N - (j - 1) >= 1/D, and
    is due by the last N with s N - (j - 1) <= 1 - 1/D. All in whole numbers.
    """
    if len(groups) == 1:
        return list(groups[0][:limit])
    if not groups:
        return []
    total, d = sum(map(len, groups)), 2 * len(groups) - 2

    def times(group: int, j: int) -> tuple[int, int]:
        size = len(groups[group])
        return -(-total * (d * (j - 1) + 1) // (d * size)), total * (d * j - 1) // (d * size)

    waiting = [(times(group, 1)[0], group, 1) for group in range(len(groups)) if groups[group]]
    heapq.heapify(waiting)
    free: list[tuple[int, int, int]] = []
    order: list[int] = []
    for now in range(1, limit + 1):
        while waiting and waiting[0][0] <= now:
            _, group, j = heapq.heappop(waiting)
            heapq.heappush(free, (times(group, j)[1], group, j))
        _, group, j = heapq.heappop(free)
        order.append(groups[group][j - 1])
        if j < len(groups[group]):
            heapq.heappush(waiting, (times(group, j + 1)[0], group, j + 1))
    return order
