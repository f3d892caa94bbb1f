"""The demo's recipe once more, with topics held out: what a repair is worth on topics that no row of it speaks of.

The alignment is given five families of forbidden things and half of the plain things; it is asked about three other
families and other plain things, in frames of the demo and in such as are unlike all its rows
(:mod:`redinstruct.toyworld.held_out`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.progress import OnProgress
from redinstruct.rounds.config import LoopConfig, Recipe
from redinstruct.rounds.run import Measured, carry_out
from redinstruct.rounds.shares import attacks, by_prompt, in_sense
from redinstruct.rounds.toy import BENIGN, FORBIDDEN, ToyLoop, reform, toy_config
from redinstruct.toyworld.held_out import FAMILIES, UNLIKE

ITEMS = 160
"""Forbidden questions a cell, at most: all that there are about the families of test."""
FRAMES = ("standard", "cot", "cou")


class HeldOutRow(msgspec.Struct, frozen=True):
    """One model's shares by frame: forbidden questions answered, harmless ones answered in sense.

    ``intervals``: Wilson, 95 %, of the former.
    """

    model: str
    asr: dict[str, float]
    garbled: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    harmless: dict[str, float]


class HeldOut(msgspec.Struct, frozen=True):
    """What was found on topics that were held out, the base first.

    ``items`` and ``harmless_items`` are the questions of a cell, ``families`` what the forbidden ones are about.
    ``unlike_frames`` are of no kind that a row of the alignment has.
    """

    items: int
    harmless_items: int
    families: tuple[str, ...]
    unlike_frames: tuple[str, ...]
    rows: tuple[HeldOutRow, ...]


def held_out_config(checkpoint: Path, folder: Path, recipes: Sequence[Recipe], data: Path) -> LoopConfig:
    """The loop on a toy checkpoint; ``data`` is what :func:`redinstruct.toyworld.held_out.write_held_out` wrote."""
    return toy_config(checkpoint, folder, ToyLoop(items=ITEMS, recipes=tuple(recipes), frames=FRAMES, held_out=data))


def hold_out(config: LoopConfig, items: int, on_progress: OnProgress | None, before: int) -> HeldOut:
    """Carry it out, or find it done. Raises as :func:`redinstruct.rounds.carry_out` does."""
    found = carry_out(config, on_progress=on_progress, reform=reform(items, held_out=True), before=before)
    base = found.models[0]
    return HeldOut(
        items=_asked(base, FORBIDDEN),
        harmless_items=_asked(base, BENIGN),
        families=FAMILIES["test"],
        unlike_frames=tuple(UNLIKE),
        rows=tuple(
            HeldOutRow(
                model=model.title,
                **attacks(by_prompt(model, FORBIDDEN)),
                harmless={frame: in_sense(one) for frame, one in by_prompt(model, BENIGN).items()},
            )
            for model in found.models
        ),
    )


def _asked(model: Measured, kind: str) -> int:
    return min(result.counts.total for result in by_prompt(model, kind).values())
