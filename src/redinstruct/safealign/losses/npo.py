"""``npo``: negative preference optimization (Zhang et al. 2024, arXiv 2404.05868)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals


def npo(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """-(2/beta) log sigmoid(-beta (S - S_ref)); -log sigmoid(-x) is softplus(x)."""
    beta = strategy.beta
    return red.mean_of(2 / beta * functional.softplus(beta * red.above_reference() / red.scale), totals)


STRATEGY = Strategy("npo", npo, beta=0.1, needs_reference=True, reads=("beta",))
