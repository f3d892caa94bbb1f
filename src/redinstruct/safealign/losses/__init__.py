"""The losses of SAFE-ALIGN: pure functions of the log-probabilities of labelled tokens and of their signed weights.

A token with a weight above 0 is learnt, as part of its stream (in a red row: as part of blue, since it is a benign
turn); one below 0 is penalised, as part of red, wherever it stands. Notation: nll = -log p of a token; for a red
sequence s with weights a = abs(w), l = sum(a nll) / sum(a) is its mean and S = -sum(a nll) its summed log-probability,
and A = mean(a), 1 in ordinary data, scales its term.

Promised: every term is a sum divided by counts of the *whole optimizer step* (:class:`Totals`), so that the sum over
micro-batches and processes is the step's loss, however it was cut. (DDP averages gradients: multiply by the number of
processes.) Nothing depends on the order of tokens or sequences. A token of weight 0 has no influence.

One file a paper: its strategies, equation and function.
"""

from __future__ import annotations

from collections.abc import Mapping

from redinstruct.safealign.losses import hinge, npo, npo_len, red_instruct, simnpo, unbounded, unlikelihood
from redinstruct.safealign.losses.kernel import CHUNK, labelled_logps
from redinstruct.safealign.losses.strategy import Loss, Strategy, strategy_loss
from redinstruct.safealign.losses.totals import BLUE, GENERAL, RED, LabelledTokens, Totals, labelled, totals

__all__ = [
    "BLUE", "CHUNK", "GENERAL", "RED", "STRATEGIES", "LabelledTokens", "Loss", "Strategy", "Totals", "labelled",
    "labelled_logps", "strategy_loss", "totals",
]  # fmt: skip

STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        *red_instruct.STRATEGIES,
        *(one.STRATEGY for one in (unbounded, hinge, npo, npo_len, simnpo, unlikelihood)),
    )
}
"""By name."""
