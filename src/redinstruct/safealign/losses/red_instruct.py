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

ASCENT = ("below", "above")


def ascent(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """-w(l) l of each red sequence."""
    below = torch.full_like(red.mean, strategy.below).detach()
    return red.mean_of(-torch.where(red.mean.detach() <= strategy.threshold, below, strategy.above) * red.mean, totals)


STRATEGIES = (
    Strategy("general", blue_weight=0.0, pooled=True),
    Strategy("blue", pooled=True),
    Strategy("blue-red", ascent, pooled=True, below=0.1, above=0.0, reads=ASCENT),
    Strategy("paper-s", ascent, pooled=True, below=0.1, above=0.0, reads=ASCENT),
    Strategy("paper-r", ascent, pooled=True, below=1.0, above=0.1, steps=200, reads=ASCENT),
)
"""The control Vicuna-FT; strategy A; B as ``paper-s``, at every step, and as ``paper-r``, in the first 200 steps."""
