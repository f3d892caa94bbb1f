"""What surrounds a run: the caller's state as it was, and the folder of an unfinished run."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from redinstruct.checkpoints.loading import without_progress_bars
from redinstruct.errors import UsageError
from redinstruct.files.atomic import write_file
from redinstruct.safealign import states
from redinstruct.safealign.launch import wait_for_all, world
from redinstruct.safealign.saving import writing
from redinstruct.safetext import terminal

RUN_NAME = "digest"


@contextlib.contextmanager
def as_it_was(threads: int | None) -> Iterator[None]:
    """The caller's random states, thread count and progress bars stay what they are."""
    kept = random.getstate(), np.random.get_state(), torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(), without_progress_bars():
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_num_threads(kept[2])


@contextlib.contextmanager
def unfinished(out: Path, digest: str) -> Iterator[Path]:
    """The folder of a run's saved states, beside ``out``. It is removed when the run is done, else it stays.

    Raises:
        UsageError: it holds another run; or it cannot be made.
    """
    folder = out.absolute().parent / f".{out.name}.unfinished"
    main = world()[0] == 0
    mark = folder / RUN_NAME
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() != digest:
        raise UsageError(
            f"{terminal(str(folder))} holds an unfinished alignment with other flags or data: use those to finish it,"
            " or remove the folder"
        )
    if main:
        _begin(folder, mark, digest)
    try:
        yield folder
    except BaseException:
        # Without a saved state there is nothing to go on from.
        if main and states.latest(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    wait_for_all()
    if main:
        shutil.rmtree(folder, ignore_errors=True)


def give_up(folder: Path) -> None:
    """Remove the states of a run that its guard stopped: nobody should go on from there."""
    shutil.rmtree(folder, ignore_errors=True)


def _begin(folder: Path, mark: Path, digest: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: nothing can be written there ({error.strerror})") from None
    with writing(f"the folder {folder.name}", "nothing was changed"):
        if not mark.is_file():
            write_file(mark, f"{digest}\n")
