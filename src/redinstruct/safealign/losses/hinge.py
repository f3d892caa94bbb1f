"""``hinge``: max(0, tau - l) of each red sequence (Eraser: Lu et al. 2024, arXiv 2404.05880)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals


def hinge(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """max(0, ``threshold`` - l)."""
    return red.mean_of(functional.relu(strategy.threshold - red.mean), totals)


STRATEGY = Strategy("hinge", hinge, threshold=1.8, red_weight=0.3)
"""Our own: the red weight; the paper's KL terms to the base are the nll of blue and general rows here."""
