"""What surrounds a run: the caller's state as it was, and the folder of an unfinished run."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from redinstruct.checkpoints.loading import without_progress_bars
from redinstruct.errors import RedInstructError, UsageError
from redinstruct.files.atomic import held, write_file
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
    """The folder of a run's saved states, beside ``out``, for one run at a time.

    It is removed when the run is done, else it stays.

    Raises:
        UsageError: it holds another run; or it cannot be made.
        RedInstructError: another process is at work on it.
    """
    folder = out.absolute().parent / f".{out.name}.unfinished"
    main = world()[0] == 0
    if not main:
        _check_own(folder / RUN_NAME, digest)
    with _begun(folder, digest) if main else contextlib.nullcontext():
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


@contextlib.contextmanager
def _begun(folder: Path, digest: str) -> Iterator[None]:
    """The folder made, or found as this run's own, and held."""
    mark = folder / RUN_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: nothing can be written there ({error.strerror})") from None
    with contextlib.ExitStack() as kept:
        try:
            kept.enter_context(held(folder))
        except OSError as error:
            raise RedInstructError(
                f"{terminal(str(folder))} is in use by another redinstruct process; wait for it, or use another --out"
                if error.errno == errno.EBUSY
                else f"{terminal(str(folder))}: cannot be used ({error.strerror})"
            ) from None
        _check_own(mark, digest)
        with writing(f"the folder {folder.name}", "nothing was changed"):
            if not mark.is_file():
                write_file(mark, f"{digest}\n")
        yield


def _check_own(mark: Path, digest: str) -> None:
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() != digest:
        raise UsageError(
            f"{terminal(str(mark.parent))} holds an unfinished alignment with other flags or data: use those to finish"
            " it, or remove the folder"
        )
