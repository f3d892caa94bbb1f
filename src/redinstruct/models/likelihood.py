"""How likely a local causal model holds given continuations: what a task with fixed answers is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from redinstruct.models.prefix_cache import CausalModel, Ids


@torch.inference_mode()
def log_likelihoods(model: CausalModel, pairs: Sequence[tuple[Ids, Ids]], pad_id: int) -> list[float]:
    """The natural log-probability of each continuation after its context, in one batch, in order.

    The rows are padded on the right, where a causal model does not look from what stands before; in fp32. A last token
    is predicted, and not read.

    Raises:
        ValueError: a context is empty: its continuation's first token would have no probability.
    """
    if not all(context for context, _ in pairs):
        raise ValueError("a context holds no token")
    rows = [(context + wanted)[: max(1, len(context + wanted) - 1)] for context, wanted in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + (pad_id,) * (longest - len(row)) for row in rows], device=model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    mask = (torch.arange(longest, device=model.device)[None] < lengths[:, None]).long()
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    logits = model.model(**arguments).logits
    found = []
    for at, (context, wanted) in enumerate(pairs):
        place = slice(len(context) - 1, len(context) + len(wanted) - 1)
        chances = logits[at, place].float().log_softmax(dim=-1)
        tokens = torch.tensor(wanted, device=model.device)[:, None]
        found.append(float(chances.gather(1, tokens).sum()))
    return found
