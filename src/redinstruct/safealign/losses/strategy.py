"""A strategy, and its loss over a micro-batch: blue and general terms, and the red term of the strategy's own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from redinstruct.safealign.losses.totals import GENERAL, LabelledTokens, Totals
from redinstruct.safealign.rows import STREAMS, Stream
from redinstruct.settings import Bounds


@dataclass(frozen=True)
class RedSequences:
    """Penalised tokens [M] and the sequences [R] that they belong to; a = abs(w), ``index`` is a token's sequence."""

    nll: Tensor
    weight: Tensor
    """a [M]."""
    index: Tensor
    """0 .. R-1 [M]."""
    summed: Tensor
    """sum(a nll) [R]."""
    mean: Tensor
    """l = sum(a nll) / sum(a) [R]."""
    scale: Tensor
    """A = mean(a) [R]."""
    size: Tensor
    """Tokens [R]."""
    reference: Tensor | None
    """sum(a nll_ref) [R]."""

    def per_sequence(self, values: Tensor) -> Tensor:
        """Sum values [M] over each sequence [R]."""
        return torch.zeros_like(self.size).index_add(0, self.index, values)

    def mean_of(self, values: Tensor, totals: Totals) -> Tensor:
        """The mean of values [R] over the step's red sequences, as this micro-batch's share."""
        return (self.scale * values).sum() / max(1, totals.red_sequences)

    def above_reference(self) -> Tensor:
        """S - S_ref [R]: by how much an answer is likelier than under the base model."""
        assert self.reference is not None
        return self.reference - self.summed


RedTerm = Callable[["Strategy", RedSequences, Totals], Tensor]
"""R of a micro-batch, as its share of the step's."""


@dataclass(frozen=True)
class Strategy:
    """What is minimised: ``blue_weight`` B + ``general_weight`` G + ``red_weight`` R.

    ``pooled``: B and G are means over blue and general tokens together, as in the paper's strategy A; else each is the
    mean over its own. R is ``red``, a mean over red sequences; None is no red term. Which of the further numbers it
    reads, its own file says (``reads``), and where it comes from.

    ``kl_weight`` adds so many times the mean over general tokens of (nll - nll_base)^2 / 2, which is close to the KL
    divergence from the base while the two are close (Schulman 2020, "Approximating KL divergence", k2).

    ``steps``: R counts in the first so many steps only (None: always). ``needs_reference``: R compares with the frozen
    base model.
    """

    name: str
    red: RedTerm | None = None
    blue_weight: Annotated[float, Bounds(least=0)] = 1.0
    general_weight: Annotated[float, Bounds(least=0)] = 1.0
    red_weight: Annotated[float, Bounds(least=0)] = 1.0
    pooled: bool = False
    below: Annotated[float, Bounds(least=0)] = 1.0
    above: Annotated[float, Bounds(least=0)] = 1.0
    threshold: float = 1.0
    beta: Annotated[float, Bounds(above=0)] = 1.0
    gamma: float = 0.0
    kl_weight: Annotated[float, Bounds(least=0)] = 0.0
    steps: Annotated[int | None, Bounds(least=1)] = None
    needs_reference: bool = False
    reads: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers that change anything: of the red term, and those that its own file ``reads``."""
        of_red = () if self.red is None else ("red_weight", "steps", "threshold")
        return ("blue_weight", "general_weight", "kl_weight", *of_red, *self.reads)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that it trains on."""
        used: dict[Stream, bool] = {
            "blue": self.blue_weight != 0,
            "general": self.general_weight != 0,
            "red": self.red is not None and self.red_weight != 0,
        }
        return tuple(stream for stream in STREAMS if used[stream])

    @property
    def compared(self) -> tuple[Stream, ...]:
        """The streams whose tokens the base model must have been asked about."""
        used: dict[Stream, bool] = {"blue": False, "general": self.kl_weight != 0, "red": self.needs_reference}
        return tuple(stream for stream in STREAMS if used[stream])


@dataclass(frozen=True)
class Loss:
    """``total`` is what to differentiate; ``parts`` are this micro-batch's shares of the step's figures, detached.

    Parts: ``blue``, ``general``, ``red`` (mean nll of each), ``red_first`` (of the red sequences' first penalised
    tokens), ``red_above`` (the share of red sequences with l above the threshold), ``red_term`` (R, as it counts).
    Summed over micro-batches and processes they are the step's.
    """

    total: Tensor
    parts: dict[str, Tensor]


def strategy_loss(
    strategy: Strategy, labelled: LabelledTokens, totals: Totals, *, step: int = 0, red_scale: float = 1.0
) -> Loss:
    """The loss of one micro-batch as its share of the optimizer step ``step`` (from 0).

    ``red_scale`` multiplies the red term: 0 turns it off (the guards do), without a gradient.

    Raises:
        ValueError: the strategy compares with the base model, and there are no reference log-probabilities.
    """
    if strategy.compared and labelled.reference is None:
        raise ValueError(f"{strategy.name} compares with the base model: give reference log-probabilities")
    nll, penalised = -labelled.logps, labelled.weights < 0
    of_general = ~penalised & (labelled.stream == GENERAL)
    of_blue = ~penalised & (labelled.stream != GENERAL)
    weighted = nll * labelled.weights
    pool = (totals.blue if strategy.blue_weight else 0) + (totals.general if strategy.general_weight else 0)
    total = nll.sum() * 0.0
    for chosen, factor, count in (
        (of_blue, strategy.blue_weight, totals.blue),
        (of_general, strategy.general_weight, totals.general),
    ):
        if factor:
            total = total + factor * weighted[chosen].sum() / max(1, pool if strategy.pooled else count)
    if strategy.kl_weight and labelled.reference is not None:
        apart = (nll + labelled.reference)[of_general]
        total = total + strategy.kl_weight * 0.5 * apart.square().sum() / max(1, totals.general)
    red = _red_sequences(labelled, penalised)
    term = nll.new_zeros(()) if strategy.red is None else strategy.red(strategy, red, totals)
    active = strategy.steps is None or step < strategy.steps
    factor = strategy.red_weight * red_scale if active and strategy.red is not None else 0.0
    if factor:
        total = total + factor * term
    with torch.no_grad():
        first = penalised & labelled.first
        parts = {
            "blue": nll[of_blue].sum() / max(1, totals.blue),
            "general": nll[of_general].sum() / max(1, totals.general),
            "red": nll[penalised].sum() / max(1, totals.red),
            "red_first": nll[first].sum() / max(1, totals.red_sequences),
            "red_above": (red.mean > strategy.threshold).sum() / max(1, totals.red_sequences),
            "red_term": factor * term.detach(),
        }
    return Loss(total, {name: part.detach() for name, part in parts.items()})


def _red_sequences(labelled: LabelledTokens, penalised: Tensor) -> RedSequences:
    nll, weight = -labelled.logps[penalised], -labelled.weights[penalised]
    numbers, index = labelled.sequence[penalised].unique(return_inverse=True)
    zeros = torch.zeros(len(numbers), dtype=nll.dtype, device=nll.device)
    summed = zeros.index_add(0, index, weight * nll)
    mass, size = zeros.index_add(0, index, weight), zeros.index_add(0, index, torch.ones_like(weight))
    reference = labelled.reference
    return RedSequences(
        nll, weight, index, summed, summed / mass, mass / size, size,
        None if reference is None else zeros.index_add(0, index, -weight * reference[penalised]),
    )  # fmt: skip
