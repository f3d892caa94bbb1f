"""Weights rounded to a few bits, in memory: what a user does who runs a checkpoint on a smaller machine.

Round to nearest, in groups of 64 along the input, between the group's least and greatest weight: the common denominator
of what quantizers of weights do, without their cures (no calibration, no outliers kept apart). Embeddings, the head and
norms stay whole, as in bitsandbytes. The rounded weights stand in the model's own precision; nothing is written.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

GROUP = 64


def rounded(weights: torch.Tensor, bits: int, group: int = GROUP) -> torch.Tensor:
    """The nearest of ``2 ** bits`` evenly spaced values of each group; shape and precision stay.

    A row whose length is no multiple of the group ends in a shorter one.
    """
    rows = weights.detach().reshape(-1, weights.shape[-1]).to(torch.float32)
    parts = []
    for part in rows.split(group, dim=-1):
        low, high = part.amin(dim=-1, keepdim=True), part.amax(dim=-1, keepdim=True)
        step = (high - low).clamp(min=torch.finfo(torch.float32).tiny) / (2**bits - 1)
        parts.append(torch.round((part - low) / step) * step + low)
    return torch.cat(parts, dim=-1).reshape(weights.shape).to(weights.dtype)


def round_weights(model: PreTrainedModel, bits: int) -> dict[str, float]:
    """Round every linear layer but the head, and every stack of experts; returns how many weights, and the mean error.

    The error is the root of the mean square of the change over that of the weights.
    """
    whole = {id(module.weight) for module in _kept(model)}
    changed = power = 0.0
    count = 0
    with torch.no_grad():
        for parameter in _linear(model):
            if id(parameter) in whole:
                continue
            made = rounded(parameter, bits)
            changed += float((made.float() - parameter.float()).pow(2).sum())
            power += float(parameter.float().pow(2).sum())
            count += parameter.numel()
            parameter.copy_(made)
    return {"weights": count, "relative_error": round((changed / power) ** 0.5, 5) if power else 0.0}


def _kept(model: PreTrainedModel) -> list[Any]:
    return [one for one in (model.get_input_embeddings(), model.get_output_embeddings()) if one is not None]


def _linear(model: PreTrainedModel) -> list[torch.Tensor]:
    """The weights of linear layers, and parameters of three dimensions outside of convolutions: stacks of experts."""
    found: dict[int, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found[id(module.weight)] = module.weight
        elif not isinstance(module, torch.nn.modules.conv._ConvNd):
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 3:
                    found[id(parameter)] = parameter
    return list(found.values())
