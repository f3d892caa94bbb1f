"""What a loss is computed of: labelled tokens, and the counts of the whole optimizer step that sums are divided by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import STREAMS

BLUE, GENERAL, RED = (STREAMS.index(stream) for stream in ("blue", "general", "red"))


@dataclass(frozen=True)
class LabelledTokens:
    """The tokens with a weight, all [N]: log-probability, signed weight, sequence number, stream number.

    ``first``: it is the first of its sequence with its sign. ``reference``: the log-probabilities under the frozen base
    model, where a strategy needs them.
    """

    logps: Tensor
    weights: Tensor
    sequence: Tensor
    stream: Tensor
    first: Tensor
    reference: Tensor | None = None


def labelled(batch: Mapping[str, Tensor | None], logps: Tensor, reference: Tensor | None = None) -> LabelledTokens:
    """Put the log-probabilities of a collated batch (:func:`labelled_logps`) beside what they belong to."""
    weights, sequences, streams = (batch[key] for key in ("token_weights", "sequence_ids", "stream_ids"))
    if weights is None or sequences is None or streams is None:
        raise ValueError("a batch holds token_weights, sequence_ids and stream_ids")
    wanted = weights != 0
    wanted[:, 0] = False
    w, sequence = weights[wanted], sequences[wanted]
    if len(w) != len(logps) or (reference is not None and len(reference) != len(logps)):
        raise ValueError(f"there are {len(w)} labelled tokens and {len(logps)} log-probabilities")
    return LabelledTokens(
        logps, w.to(logps.dtype), sequence, streams[wanted], _first(w, sequence), _detached(reference, logps.dtype)
    )


def _detached(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(dtype)


def _first(weights: Tensor, sequence: Tensor) -> Tensor:
    """Whether a token is the first of its sequence and sign, sequences standing in the order of the batch."""
    key = sequence * 2 + (weights < 0)
    first = torch.zeros_like(key, dtype=torch.bool)
    # Signs of one sequence may alternate, so that a change of key alone is not enough.
    for sign in (0, 1):
        own = (key % 2 == sign).nonzero().squeeze(-1)
        keys = key[own]
        changed = torch.ones_like(keys, dtype=torch.bool)
        changed[1:] = keys[1:] != keys[:-1]
        first[own] = changed
    return first


class Totals(msgspec.Struct, frozen=True):
    """Labelled tokens of each stream, and red sequences, in one optimizer step: all micro-batches, all processes."""

    blue: int = 0
    general: int = 0
    red: int = 0
    red_sequences: int = 0


def totals(rows: Iterable[Encoded]) -> Totals:
    """Count a step's rows. Every process knows all of them, so that nothing need be sent."""
    counts = Counter[str]()
    for row in rows:
        red = sum(weight < 0 for weight in row.weights)
        counts["general" if row.stream == "general" else "blue"] += sum(weight > 0 for weight in row.weights)
        counts["red"] += red
        counts["red_sequences"] += red > 0
    return Totals(**counts)
