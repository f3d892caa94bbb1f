"""Whether what is written is what was trained: one forward of both over the same rows.

The model in memory and the files, loaded afresh as any program loads them, are asked for the loss of the same rows.
They part where the precision of the files is too coarse for what was learnt: a step of training is often smaller than
a step of bfloat16.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from redinstruct.checkpoints import loading
from redinstruct.errors import RedInstructError, UsageError
from redinstruct.safealign.card import StreamLosses
from redinstruct.safealign.exports import base_dtype, write_checkpoint
from redinstruct.safealign.forward import add_labelled_forward, logps_of_rows
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import STREAMS

MOST_ROWS, MOST_TOKENS, _FEWEST_ROWS = 64, 2048, 8
"""Of each stream: a real small model on a CPU reads some 200 tokens a second, and four times as many are read here."""
PARTS = 0.01
"""The share of the loss from which on what is written parts from what was trained."""
_TOKENS = 4096
Losses = dict[str, float]
"""Stream -> nats per learnt token (per penalised token where the stream is red)."""


class Fidelity(StreamLosses, frozen=True):
    """What the card says of the files: their losses beside those of the model in memory, and their precision."""

    dtype: str


def parted(trained: Losses, written: Losses) -> bool:
    """Whether a stream's loss differs by more than :data:`PARTS` of what was trained."""
    return any(not abs(written[stream] - loss) <= PARTS * abs(loss) for stream, loss in trained.items())


def sampled(rows: Sequence[Encoded]) -> tuple[Encoded, ...]:
    """Rows of each stream, evenly spaced over it: at most :data:`MOST_ROWS`, of some :data:`MOST_TOKENS` in all."""
    found: list[Encoded] = []
    for stream in STREAMS:
        own = [row for row in rows if row.stream == stream]
        within = MOST_TOKENS * len(own) // max(1, sum(map(len, own)))
        count = min(MOST_ROWS, len(own), max(_FEWEST_ROWS, within))
        found += [own[i * len(own) // count] for i in range(count)]
    return tuple(found)


def losses(model: Any, rows: Sequence[Encoded], pad_id: int) -> Losses:
    """The loss of each stream of ``rows``. ``model`` has the labelled forward; where it is sharded, a collective."""
    sums = {row.stream: [0.0, 0] for row in rows}
    for row, (total, count) in zip(rows, row_losses(model, rows, pad_id), strict=True):
        sums[row.stream][0] += total
        sums[row.stream][1] += count
    return {stream: total / count for stream, (total, count) in sums.items()}


def row_losses(model: Any, rows: Sequence[Encoded], pad_id: int) -> list[tuple[float, int]]:
    """Each row's negative log-likelihood in nats, and how many tokens it is summed over."""
    found = {
        row: (-float(logps.double().sum()), len(logps))
        for row, logps in logps_of_rows(model, rows, pad_id, _parts_of(rows))
    }
    return [found[row] for row in range(len(rows))]


def _parts_of(rows: Sequence[Encoded]) -> list[list[int]]:
    """The numbers of rows of like length together, in parts of a few thousand tokens."""
    parts: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if parts and (len(parts[-1]) + 1) * len(rows[i]) <= _TOKENS:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts


def losses_of_files(folder: Path, rows: Sequence[Encoded], pad_id: int, device: torch.device | None = None) -> Losses:
    """The losses of a written checkpoint. Loaded as anybody loads it, then computed in float32: the weights count.

    Raises:
        RedInstructError: it cannot be loaded.
    """

    def measured(place: torch.device) -> Losses:
        try:
            loaded = loading.load_causal(folder, "what was written")
        except UsageError as error:
            raise RedInstructError(f"{error}; --out is as it was. Please report this architecture") from None
        model = loaded.float().to(place)  # type: ignore[arg-type, unused-ignore]
        add_labelled_forward(model)
        return losses(model, rows, pad_id)

    if device is not None and device.type != "cpu":
        try:
            return measured(device)
        except torch.OutOfMemoryError:
            pass  # the trained model and its optimizer are still there; outside this clause, they hold no more
    return measured(torch.device("cpu"))


class Exporter:
    """Writes the checkpoints of one run, each held against the model in memory.

    ``rows`` are all rows of the run. ``notes`` says what people should know of the last checkpoint.
    """

    def __init__(
        self, base: Path, rows: Sequence[Encoded], pad_id: int, *, dtype: str | None = None, template: str | None = None
    ) -> None:
        self._base, self._pad_id, self._template = base, pad_id, template
        self._wished: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.rows = sampled(rows)
        self.stops = {row.input_ids[a.end - 1] for row in rows for a in row.answers if not a.cut}
        self.notes: tuple[str, ...] = ()

    def losses(self, model: Any) -> Losses:
        """What the model in memory makes of the sampled rows; where it is sharded, a collective."""
        return losses(model, self.rows, self._pad_id)

    def losses_of(self, folder: Path) -> Losses:
        """What the model in the folder's files makes of them."""
        return losses_of_files(folder, self.rows, self._pad_id)

    def write(self, model: Any, weights: Mapping[str, torch.Tensor], trained: Losses, folder: Path) -> Fidelity:
        """Write ``weights`` into the folder (:func:`exports.write_checkpoint`), in the precision that keeps them.

        Raises:
            OSError, SafetensorError: the disk is full, say.
        """

        def write(kind: torch.dtype) -> None:
            write_checkpoint(model, weights, self._base, folder, dtype=kind, template=self._template, stops=self.stops)

        return self.settle(write, folder, trained, next(model.parameters()).device)

    def settle(
        self, write: Callable[[torch.dtype], None], folder: Path, trained: Losses, device: torch.device | None = None
    ) -> Fidelity:
        """Let ``write`` fill the folder, in the wished precision; else in the base's, else in float32."""
        usual = base_dtype(self._base)
        kinds = [self._wished] if self._wished is not None else list(dict.fromkeys((usual, torch.float32)))
        notes = []
        for kind in kinds:
            _empty(folder)
            write(kind)
            found = losses_of_files(folder, self.rows, self._pad_id, device)
            name = str(kind).removeprefix("torch.")
            fidelity = Fidelity(trained, found, parted(trained, found), name)
            if not fidelity.parts:
                break
            worst = ", ".join(f"{stream} {trained[stream]:.4g} to {found[stream]:.4g}" for stream in trained)
            more = "; it is written in float32" if kind != kinds[-1] else ""
            notes.append(f"written in {name} the model is not the one that was trained (loss: {worst}){more}")
        self.notes = tuple(notes)
        return fidelity


def _empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
