"""Which rows each optimizer step sees, and their tensors.

Promised by :class:`StreamSampler`: a step's rows depend on the seed and the step's number alone, so that resuming needs
no state; every step holds every stream at the same ratio; how a step is cut into micro-batches (:func:`cut`) and dealt
to processes (:func:`deal`) changes no row of it. Each stream goes through its own rows in a new order each epoch.

Promised by :func:`collate`: no token sees another sequence. Padding stands on the right; packed sequences restart
``position_ids`` and pass no mask, from which transformers builds a block-diagonal one (an all-ones mask would let
neighbours be seen without a word). :func:`check_packing` proves it on the model that is to be trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import torch

from redinstruct.errors import UsageError
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import STREAMS, Stream

Batch = dict[str, torch.Tensor | None]
"""``input_ids``, ``position_ids``, ``stream_ids``, ``sequence_ids`` [B, T] int64; ``token_weights`` [B, T] float32;
``attention_mask`` [B, T] int64, or None where sequences are packed."""

MODEL_KEYS = ("input_ids", "position_ids", "attention_mask")
"""What of a batch the model's forward takes. Call it with ``use_cache=False``: with a cache, packing contaminates."""

_CONTAMINATED = 1e-3


# ---- which rows ----


def allot(batch_size: int, ratio: Mapping[Stream, float]) -> dict[Stream, int]:
    """Rows of each stream in a step of ``batch_size``: in this ratio, by largest remainder, at least one of each.

    Raises:
        UsageError: a ratio is not above 0, or the batch is smaller than the number of streams.
    """
    streams = [stream for stream in STREAMS if stream in ratio]
    if not streams or any(not 0 < ratio[stream] < float("inf") for stream in streams):
        raise UsageError("the ratio of the streams must hold finite numbers above 0")
    if batch_size < len(streams):
        raise UsageError(f"a batch of {batch_size} cannot hold {len(streams)} streams; take at least {len(streams)}")
    free, whole = batch_size - len(streams), sum(ratio[stream] for stream in streams)
    # One row each first; the rest so that the total comes as near to the ratio as whole rows can.
    wanted = {stream: max(0.0, ratio[stream] / whole * batch_size - 1) for stream in streams}
    scale = free / sum(wanted.values()) if sum(wanted.values()) else 0.0
    exact = {stream: wanted[stream] * scale for stream in streams}
    counts = {stream: 1 + int(exact[stream] + 1e-9) for stream in streams}
    left = batch_size - sum(counts.values())
    for stream in sorted(streams, key=lambda s: (int(exact[s] + 1e-9) - exact[s], STREAMS.index(s)))[:left]:
        counts[stream] += 1
    return counts


class StreamSampler:
    """The rows of each step, as indices into the rows it was made from.

    ``batch`` says how many rows of each stream a step has (:func:`allot`).
    """

    def __init__(self, rows: Sequence[Encoded], batch: Mapping[Stream, int], seed: int) -> None:
        """
        Raises:
            UsageError: a stream that the batch asks for has no rows.
        """
        self._indices = {
            stream: tuple(i for i, row in enumerate(rows) if row.stream == stream)
            for stream in STREAMS
            if batch.get(stream)
        }
        for stream, indices in self._indices.items():
            if not indices:
                raise UsageError(f"there are no {stream} rows to train on, and every batch is to hold some")
        self._batch = {stream: batch[stream] for stream in self._indices}
        self._seed = seed
        # An own cache for each sampler: one epoch's order per stream is all that a step needs.
        self._order = lru_cache(maxsize=2 * len(STREAMS))(self._shuffled)

    @property
    def batch_size(self) -> int:
        """Rows in a step, over all micro-batches and processes."""
        return sum(self._batch.values())

    def step(self, step: int) -> tuple[int, ...]:
        """The rows of step 0, 1, ...; streams interleaved, so that each part of it holds them in about the ratio."""
        placed = (
            ((j + 0.5) / count, STREAMS.index(stream), self._row(stream, step * count + j))
            for stream, count in self._batch.items()
            for j in range(count)
        )
        return tuple(row for _, _, row in sorted(placed))

    def rng(self, step: int, row: int) -> random.Random:
        """The random numbers that a row's augmentation has in a step; equal on every rank and after a resume."""
        return random.Random(f"{self._seed}:augment:{step}:{row}")

    def _row(self, stream: Stream, place: int) -> int:
        epoch, at = divmod(place, len(self._indices[stream]))
        return self._order(stream, epoch)[at]

    def _shuffled(self, stream: Stream, epoch: int) -> tuple[int, ...]:
        order = list(self._indices[stream])
        random.Random(f"{self._seed}:{stream}:{epoch}").shuffle(order)
        return tuple(order)


# ---- how a step is cut ----


class Cut(msgspec.Struct, frozen=True):
    """The most that a micro-batch holds: rows, and positions with padding. One row always goes, however long."""

    rows: int
    positions: int

    def halved(self, longest: int) -> Cut:
        """Half of it, for rows of at most ``longest`` tokens."""
        held = max(1, min(self.rows, self.positions // max(1, longest)))
        return Cut(max(1, held // 2), max(1, min(self.positions, held * longest) // 2))


def deal(lengths: Sequence[int], world: int) -> list[list[int]]:
    """The places of a step's rows that each process has: the longest first, dealt out there and back.

    So that no process waits for another whose rows are longer.

    Raises:
        UsageError: they cannot be dealt evenly.
    """
    if not lengths or len(lengths) % world:
        raise UsageError(f"a batch of {len(lengths)} cannot be dealt evenly to {world} processes")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rounds = [order[at : at + world] for at in range(0, len(order), world)]
    return [
        [part[rank if number % 2 == 0 else world - 1 - rank] for number, part in enumerate(rounds)]
        for rank in range(world)
    ]


def cut(lines: Sequence[Sequence[int]], lengths: Sequence[int], most: Cut, parts: int = 1) -> list[list[int]]:
    """Rows cut into at least ``parts`` micro-batches of lines of like length, that of the most positions first.

    ``lines`` holds places in ``lengths``: one a line, or several where rows are packed. The loss of a step does not
    depend on it (:mod:`redinstruct.safealign.losses`), time and memory do: lines of like length need little padding,
    and what does not fit into memory is found out at once.
    """
    widths = {id(line): sum(lengths[i] for i in line) for line in lines}
    made: list[list[Sequence[int]]] = []
    rows = 0
    for line in sorted(lines, key=lambda line: -widths[id(line)]):
        positions = (len(made[-1]) + 1) * widths[id(made[-1][0])] if made else 0
        if made and rows + len(line) <= most.rows and positions <= most.positions:
            made[-1].append(line)
            rows += len(line)
        else:
            made.append([line])
            rows = len(line)
    micro = [[i for line in group for i in line] for group in made]
    while len(micro) < parts:
        widest = max(micro, key=len)
        micro.remove(widest)
        micro += [widest[: len(widest) // 2], widest[len(widest) // 2 :]]
    return sorted(micro, key=lambda part: -len(part) * max(lengths[i] for i in part))


# ---- tensors ----


def collate(rows: Sequence[Encoded], pad_id: int, *, packing: bool = False, capacity: int | None = None) -> Batch:
    """The rows as tensors; ``sequence_ids`` is the row's number in ``rows``, -1 at padding.

    With ``packing`` several rows share a line of at most ``capacity`` tokens (None: the longest row's). Its padding
    has position 0 throughout, and so sees itself only.
    """
    if not rows:
        raise ValueError("there are no rows to put together")
    lengths = [len(row) for row in rows]
    lines = pack(lengths, capacity or max(lengths)) if packing else [[i] for i in range(len(rows))]
    width = max(sum(lengths[i] for i in line) for line in lines)
    shape = (len(lines), width)
    ids = torch.full(shape, pad_id)
    positions = torch.zeros(shape, dtype=torch.long) if packing else torch.arange(width).expand(shape).contiguous()
    weights = torch.zeros(shape)
    streams, sequences = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    for at, line in enumerate(lines):
        start = 0
        for i in line:
            row, part = rows[i], slice(start, start + lengths[i])
            if row.weights[0]:
                raise ValueError("the first token of a sequence has no prediction, so it can have no weight")
            ids[at, part] = torch.tensor(row.input_ids)
            positions[at, part] = torch.arange(lengths[i])
            weights[at, part] = torch.tensor(row.weights)
            streams[at, part] = STREAMS.index(row.stream)
            sequences[at, part] = i
            start += lengths[i]
    return {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": None if packing else (sequences >= 0).long(),
        "token_weights": weights,
        "stream_ids": streams,
        "sequence_ids": sequences,
    }


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Lines of indices, none longer than ``capacity`` in all: best fit, longest first (best-fit decreasing).

    Raises:
        ValueError: one length alone is over the capacity.
    """
    lines: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > capacity:
            raise ValueError(f"a sequence of {lengths[i]} tokens does not fit in {capacity}")
        fitting = [at for at, free in enumerate(room) if free >= lengths[i]]
        if fitting:
            at = min(fitting, key=lambda at: room[at])
            lines[at].append(i)
            room[at] -= lengths[i]
        else:
            lines.append([i])
            room.append(capacity - lengths[i])
    return lines


@torch.no_grad()
def check_packing(model: Any, vocabulary: int) -> None:
    """Prove on this very model that a packed sequence does not see its neighbour.

    The same sequence is read alone and packed behind two different neighbours; the logits must be the same.

    Raises:
        UsageError: they are not (recurrent layers, an attention without such masks): train unpacked.
    """
    numbers = random.Random(2308)
    first, second, own = ([numbers.randrange(vocabulary) for _ in range(24)] for _ in range(3))
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        seen = []
        for before in ([], first, second):
            ids = torch.tensor([[*before, *own]], device=device)
            parts = [range(len(part)) for part in (before, own)]
            positions = torch.tensor([[p for part in parts for p in part]], device=device)
            logits = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits
            seen.append(logits[0, len(before) :].float())
    finally:
        model.train(training)
    scale = float(seen[0].abs().max().clamp(min=1.0))
    # Rounding alone: bf16 holds 8 bits. A neighbour that is seen moves logits by about their own size.
    allowed = scale * (_CONTAMINATED if next(model.parameters()).dtype in (torch.float32, torch.float64) else 0.05)
    if max(float((seen[i] - seen[j]).abs().max()) for i, j in ((0, 1), (0, 2), (1, 2))) > allowed:
        raise UsageError("this model lets packed sequences see each other; train without packing")
