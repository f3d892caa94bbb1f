"""``npo-len``: the base model's and the policy's mean nll of an answer, apart (Zhang et al. 2024, arXiv 2407.02855)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from redinstruct.safealign.losses.strategy import RedSequences, Strategy
from redinstruct.safealign.losses.totals import Totals


def npo_len(strategy: Strategy, red: RedSequences, totals: Totals) -> Tensor:
    """-log sigmoid(-beta (S - S_ref) / n), n the answer's tokens."""
    apart = red.above_reference()
    return red.mean_of(functional.softplus(strategy.beta * apart / (red.scale * red.size)), totals)


STRATEGY = Strategy("npo-len", npo_len, red_weight=0.3, blue_weight=0.5, needs_reference=True, reads=("beta",))
