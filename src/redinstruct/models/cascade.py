"""Attention to a prompt's shared beginning once for the whole batch (Hydragen: Juravsky et al. 2024, arXiv 2402.05099).

The prefix's keys and values exist once, and the queries of all rows of a batch are put to them as one long row; each
row attends to its own keys apart, and the two are merged by their log-sum-exps. It is the sum that attention to both
would give, added in another order. Nothing is expanded: reading the prefix once instead of once a row is what it saves.

It stands in for a model's own attention through transformers' registry, for as long as a batch is generated. Keys know
the prefix that goes before them (:data:`BEFORE`); a model that does something else with its keys is found out by
:meth:`redinstruct.models.prefix_cache.CausalModel.shares`, and keeps its own attention.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "redinstruct_cascade"
BEFORE = "_redinstruct_before"
"""The attribute of a batch's keys that holds (keys, values) [1, heads, length, width] of the prefix before them."""
_OTHERWISE = ("softcap", "s_aux", "sliding_window", "position_bias")


def cascade(
    module: Any,  # noqa: ARG001 - transformers' signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention [batch, length, heads, width] of ``query`` [batch, heads, length, width] to the prefix and own keys.

    Raises:
        NotImplementedError: this model's attention is more than that.
    """
    before: tuple[torch.Tensor, torch.Tensor] | None = getattr(key, BEFORE, None)
    if before is None or any(others.get(name) is not None for name in _OTHERWISE):
        raise NotImplementedError("an attention of another kind")
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    folded = query.reshape(batch, groups, -1, width)  # a group's query heads lie one after the other
    every = folded.transpose(0, 1).reshape(1, groups, -1, width)
    shared, shared_weight = _attention(every, before[0], before[1], None, scaling)
    shared = shared.reshape(groups, batch, -1, width).transpose(0, 1)
    shared_weight = shared_weight.reshape(groups, batch, -1).transpose(0, 1)
    mask = _own(attention_mask, query, key, heads // groups)
    own, own_weight = _attention(folded, key, value, mask, scaling)
    share = torch.sigmoid(shared_weight - own_weight).unsqueeze(-1).to(own.dtype)
    out = torch.lerp(own, shared, share)
    return out.reshape(batch, heads, length, width).transpose(1, 2), None


def _own(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, per_group: int) -> torch.Tensor | None:
    """What of the mask concerns a row's own keys, as numbers to be added, for all query heads of a group."""
    length, held = query.shape[2], key.shape[2]
    if mask is None:
        if length == 1:
            return None
        mask = torch.ones((length, held), dtype=torch.bool, device=query.device).tril(held - length)[None, None]
    mask = mask[..., -held:]
    if mask.dtype == torch.bool:
        # Not minus infinity: padding attends to nothing of its own, and its weight has to stay a number.
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(query.dtype).min
        )
    return mask.repeat(1, 1, per_group, 1) if length > 1 else mask


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the log-sum-exp of each query's scores [batch, heads, length]."""
    if mask is not None and mask.shape[-2] == 1:
        mask = mask.expand(*mask.shape[:-2], query.shape[-2], -1)
    found: tuple[torch.Tensor, torch.Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=mask, scale=scaling
    )
    return found


AttentionInterface.register(NAME, cascade)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def cascading(config: Any) -> Iterator[None]:
    """Let the model of this (text) configuration attend so."""
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
