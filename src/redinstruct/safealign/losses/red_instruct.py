"""Red-Instruct (Bhardwaj & Poria 2023, arXiv 2308.09662): general, blue, and the readings of its second loss.

Strategy A is the mean nll of blue and general tokens together; B subtracts the mean over red samples of w(l) l, where
w(l) = ``below`` if l <= ``threshold``, else ``above``, held constant in the gradient. The authors never released B:
``blue-red`` is its general form, ``paper-s`` and ``paper-r`` are its two readings (specification, section 3.2), and
``blue-red`` is the bounded one of them, ``paper-s``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals

PAPER = "Bhardwaj & Poria 2023, arXiv 2308.09662"
ASCENT = ("below", "above")
_B = "L_A - mean over red samples of w(l) l, w(l) = below if l <= tau else above, no gradient through w"


def ascent(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """-w(l) l of each red sequence; by token, -w(nll) nll of each token."""
    if strategy.granularity == "token":
        return (_climb(strategy, red.nll) * red.weight).sum() / max(1, totals.red)
    return red.mean_of(_climb(strategy, red.mean), totals)


def _climb(strategy: Strategy, nll: Tensor) -> Tensor:
    below = torch.full_like(nll, strategy.below).detach()
    return -torch.where(nll.detach() <= strategy.threshold, below, strategy.above) * nll


STRATEGIES = (
    Strategy("general", PAPER, "the control Vicuna-FT: mean nll of general tokens", blue_weight=0.0, pooled=True),
    Strategy("blue", PAPER, "strategy A: mean nll of blue and general tokens together", pooled=True),
    Strategy("blue-red", PAPER, f"{_B}; as paper-s", ascent, pooled=True, below=0.1, above=0.0, reads=ASCENT),
    Strategy("paper-s", PAPER, f"{_B}; below 0.1, above 0, tau 1, at every step", ascent, pooled=True,
             below=0.1, above=0.0, reads=ASCENT),
    Strategy("paper-r", PAPER, f"{_B}; below 1, above 0.1, tau 1, in the first 200 steps", ascent, pooled=True,
             below=1.0, above=0.1, steps=200, reads=ASCENT),
)  # fmt: skip
