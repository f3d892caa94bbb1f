"""The kernel: log-probabilities of labelled tokens, with the logits of a few positions at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from redinstruct.checkpoints.products import product

CHUNK = 256
"""Positions whose logits exist at a time."""


def labelled_logps(
    hidden: Tensor,
    lm_head_weight: Tensor,
    input_ids: Tensor,
    token_weights: Tensor,
    *,
    chunk: int | None = CHUNK,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Log-probabilities [N], float32 or wider, of the tokens with a weight, in the order of the batch.

    ``hidden`` [B, T, H] is the last hidden state (after the final norm), ``lm_head_weight`` [V, H] the output head;
    ``scale`` and ``softcap`` are what some models do to logits: softcap * tanh(logits * scale / softcap). Position t is
    predicted from t - 1. Logits exist for ``chunk`` positions at a time and are computed again in the backward pass,
    so [N, V] is never kept; None computes them at once, which is faster and needs that memory.
    """
    wanted = token_weights[:, 1:] != 0
    states, targets = hidden[:, :-1][wanted], input_ids[:, 1:][wanted]
    if chunk is None:
        return _logps(states, lm_head_weight, bias, targets, scale, softcap)
    if chunk < 1:
        raise ValueError(f"a chunk holds at least one position, not {chunk}")
    made: Tensor = _ChunkedLogps.apply(  # type: ignore[no-untyped-call, unused-ignore]
        states, lm_head_weight, bias, targets, chunk, scale, softcap
    )
    return made


def _logps(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float, softcap: float | None
) -> Tensor:
    logits = _logits(states, weight, bias, scale, softcap)
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    logits = product(states.to(weight.dtype), weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = logits if scale == 1.0 else logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _ChunkedLogps(torch.autograd.Function):
    """:func:`_logps` with the logits of a chunk at a time, in both passes."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int,
                scale: float, softcap: float | None) -> Tensor:  # fmt: skip
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        out = torch.empty(len(targets), dtype=wide, device=states.device)
        # Under autocast a matrix product would run in another precision than its gradient.
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                out[part] = _logps(states[part], weight, bias, targets[part], scale, softcap)
        ctx.save_for_backward(states, weight, bias, targets)
        ctx.settings = (chunk, scale, softcap)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        states, weight, bias, targets = ctx.saved_tensors
        chunk, scale, softcap = ctx.settings
        wide = grad.dtype
        of_states = torch.zeros_like(states) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros(bias.shape, dtype=wide, device=bias.device) if ctx.needs_input_grad[2] else None
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                logits = _logits(states[part], weight, bias, scale, softcap)
                # d logp / d logits = onehot - softmax
                back = torch.softmax(logits, -1).neg_()
                back[torch.arange(len(back), device=back.device), targets[part]] += 1
                back *= grad[part].unsqueeze(-1)
                if softcap is not None:
                    back *= 1 - (logits / softcap) ** 2
                back = (back * scale if scale != 1.0 else back).to(weight.dtype)
                if of_states is not None:
                    of_states[part] = product(back, weight.t()).to(states.dtype)
                if of_weight is not None:
                    of_weight += product(back.t(), states[part].to(weight.dtype).t())
                if of_bias is not None:
                    of_bias += back.sum(0)
        return (
            of_states,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
            *(None,) * 4,
        )
