"""The verbs by which a run is asked on several machines."""

from __future__ import annotations

import os
from collections.abc import Sequence

from redinstruct.api.measuring import RunFolder
from redinstruct.api.notebooks import listener
from redinstruct.files.opening import place_of
from redinstruct.progress import OnProgress
from redinstruct.run import Merged, Shards
from redinstruct.run import merge as merged
from redinstruct.run import shard as dealt_out


def shard(run: RunFolder, of: int, out: RunFolder, *, on_progress: OnProgress | None = None) -> Shards:
    """Deal out what a run has not asked yet to machines without a common network: ``redinstruct shard``.

    Args:
        run: an evaluation's folder; it stays as it is, and keeps what it has recorded.
        of: how many shards.
        out: a new folder; the shards are ``out/1`` to ``out/K``, each resumed by :func:`redinstruct.evaluate` as the
            run would be.
        on_progress: told how many attempts have been dealt out.

    Returns:
        The shards' folders, and the attempts in each.

    Raises:
        UsageError: a collection or utility check, or a run that owes nothing; nothing was written.
        StoreError: the run is in use, or the disk is full; nothing is left behind.
    """
    return dealt_out(place_of(run), of, place_of(out), listener("dealing out", on_progress))


def merge(shards: RunFolder | Sequence[RunFolder], run: RunFolder, *, on_progress: OnProgress | None = None) -> Merged:
    """Put shards together as one run, finished or not: ``redinstruct merge``. The shards stay as they are.

    Args:
        shards: their folders, and that of the run that they were dealt out of, where it has recorded something.
        run: the new run's folder, or a run that gains what it lacks.
        on_progress: told how many answers are merged.

    Returns:
        How many attempts the run has, how many are recorded, and which folders it was made of.

    Raises:
        UsageError: a shard of another run or configuration, or a place that is taken; nothing was written.
        StoreError: a store does not read, or the disk is full; nothing was written.
    """
    folders = [shards] if isinstance(shards, str | os.PathLike) else shards
    return merged([place_of(place) for place in folders], place_of(run), listener("merging", on_progress))
