"""``simnpo``: a simpler NPO, without a reference model (Fan et al. 2024, arXiv 2410.07163)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals


def simnpo(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """-(2/beta) log sigmoid(beta l - gamma)."""
    beta = strategy.beta
    return red.mean_of(2 / beta * functional.softplus(strategy.gamma - beta * red.mean), totals)


STRATEGY = Strategy("simnpo", simnpo, beta=2.5, red_weight=0.125, reads=("beta", "gamma"))
