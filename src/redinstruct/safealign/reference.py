"""What the frozen base thinks of the red answers: computed once a run, and kept in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from redinstruct.files.atomic import write_file
from redinstruct.progress import OnProgress, Progress
from redinstruct.safealign.forward import logps_of_rows
from redinstruct.safealign.launch import world
from redinstruct.safealign.masks import Encoded

_BATCH = 16
REFERENCE_NAME = "reference.safetensors"
"""In a run's folder: a sharded policy that was trained on can not be asked about its base any more."""


def reference_logps(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_id: int,
    kept: Path,
    computing: Callable[[], AbstractContextManager[Any]],
    on_progress: OnProgress | None = None,
) -> list[torch.Tensor]:
    """For each row the log-probability of each of its tokens [length], 0 where a token has no weight.

    ``model`` is the base, or the base under an adapter that is switched off for this; ``computing`` is the precision
    that the policy is computed in. Several processes share the rows, and each gets all results. What the run's own file
    ``kept`` holds is read instead; one that cannot be read is computed again.
    """
    if not rows:
        return []
    found = [_read(kept, sum(map(len, rows)))]
    if world()[1] > 1:  # the first process's disk counts for all
        torch.distributed.broadcast_object_list(found)
    flat = found[0]
    if flat is None:
        with computing():
            flat = torch.cat(_shared_out(model, rows, pad_id, on_progress))
        # A file that cannot be written (a full disk) is no reason not to train.
        with contextlib.suppress(OSError, SafetensorError):
            if world()[0] == 0:
                write_file(kept, save({"logps": flat}))
    return list(flat.split([len(row) for row in rows]))


def _shared_out(model: Any, rows: Sequence[Encoded], pad_id: int, on_progress: OnProgress | None) -> list[torch.Tensor]:
    """Every row's, each process having computed its share: equally many batches each, as a sharded model needs."""
    rank, processes = world()
    if processes == 1:
        return _computed(model, rows, pad_id, on_progress)
    share = -(-len(rows) // processes)
    own = [rows[(rank * share + i) % len(rows)] for i in range(share)]
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, _computed(model, own, pad_id, on_progress))
    return [one for part in parts for one in part][: len(rows)]


def _computed(model: Any, rows: Sequence[Encoded], pad_id: int, on_progress: OnProgress | None) -> list[torch.Tensor]:
    """In batches of rows of like length."""
    found: dict[int, torch.Tensor] = {}
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [order[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    with model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext():
        for row, logps in logps_of_rows(model, rows, pad_id, parts):
            weights = torch.tensor(rows[row].weights)
            found[row] = torch.zeros(len(weights)).masked_scatter(weights != 0, logps.float().cpu())
            if on_progress is not None:
                on_progress(Progress(len(found), len(rows), "reference"))
    return [found[i] for i in range(len(rows))]


def _read(path: Path, size: int) -> torch.Tensor | None:
    try:
        tensors: Mapping[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError):
        return None
    flat = tensors.get("logps")
    return flat if flat is not None and flat.shape == (size,) else None
