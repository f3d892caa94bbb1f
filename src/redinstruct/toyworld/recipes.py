"""How the toy model is built and trained: the numbers, apart from the loop that follows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from redinstruct.toyworld.corpus import MIX, WARM_UP_MIX
from redinstruct.world import ITEMS_PER_KIND


class ToyRecipe(msgspec.Struct, frozen=True):
    """One way to train it. ``tokens`` and ``batch_tokens`` count padding too; the mixes are shares of examples.

    ``items`` of each kind are trained on and asked about; fewer are learnt sooner. ``copying_start``: see
    :func:`redinstruct.toyworld.training.start_copying`.
    """

    tokens: int = 1_400_000
    items: int = ITEMS_PER_KIND
    mix: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(MIX))
    warm_up_mix: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(WARM_UP_MIX))
    warm_up_share: float = 0.35
    batch_tokens: int = 1024
    learning_rate: float = 4e-3
    final_rate_share: float = 0.02
    rate_warm_up_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    initializer_range: float = 0.12
    copying_start: bool = True
    rope_theta: float = 100.0
    positions: int = 1024


FULL = ToyRecipe()
QUICK = ToyRecipe(tokens=600_000, batch_tokens=640, items=50)
"""For continuous integration: shows the direction (Standard below CoU), not the figures, on part of the world."""
