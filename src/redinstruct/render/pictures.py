"""Curves of a page: coordinates of SVG paths, computed here so that no value becomes a path by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redinstruct.figures.numbers import percent
from redinstruct.render.overview import RunView
from redinstruct.stats import Interval


class Curve(NamedTuple):
    """The share of questions that give way in k tries: ``band`` and ``course`` are paths in a box of 100 by 100."""

    name: str
    told: str
    band: str
    course: str
    first: float | None
    last: float | None
    k: int


def tries(runs: Sequence[RunView]) -> list[Curve]:
    """A curve for every result of the leading judges whose questions were asked several times."""
    found = []
    for number, run in enumerate(runs, 1):
        for result in run.by_judge[0] if run.by_judge else []:
            if result.at_k and len(result.at_k) > 1:
                name = f"{result.bank}, {result.prompt}" + (f" (run {number})" if len(runs) > 1 else "")
                found.append(_curve(name, [result.at_k[key] for key in sorted(result.at_k, key=int)]))
    return found


def _curve(name: str, shares: Sequence[Interval]) -> Curve:
    step = 100 / (len(shares) - 1)

    def path(points: Sequence[tuple[int, float]]) -> str:
        return "M" + " L".join(f"{place * step:.2f} {100 - 100 * share:.2f}" for place, share in points)

    top = [(place, share.high) for place, share in enumerate(shares)]
    bottom = [(place, share.low) for place, share in enumerate(shares)]
    middle = [(place, share.estimate) for place, share in enumerate(shares) if share.estimate is not None]
    told = "; ".join(f"{k} tries {percent(share.estimate)} %" for k, share in enumerate(shares, 1))
    return Curve(
        name, told, path([*top, *reversed(bottom)]) + "Z", path(middle) if middle else "",
        shares[0].estimate, shares[-1].estimate, len(shares),
    )  # fmt: skip
