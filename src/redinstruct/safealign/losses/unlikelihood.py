"""``unlikelihood``: the mean of -log(1 - p) over an answer's tokens (Welleck et al. 2020, arXiv 1908.04319)."""

from __future__ import annotations

import torch
from torch import Tensor

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals

_FLOOR = 1e-6


def unlikelihood(_: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """The mean of -log(1 - p) of each red sequence."""
    # 1 - p without cancellation; the floor keeps the gradient finite where p is 1 to machine precision.
    unlikely = -torch.log(-torch.expm1(-red.nll) + _FLOOR)
    return red.mean_of(red.per_sequence(red.weight * unlikely) / (red.scale * red.size), totals)


STRATEGY = Strategy("unlikelihood", unlikelihood, red_weight=0.3)
"""Our own: the red weight."""
