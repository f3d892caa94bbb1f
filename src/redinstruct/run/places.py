"""Where a run is to stand: its folder made, and taken away again where nothing was recorded in it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from redinstruct.errors import ConfigError, UsageError
from redinstruct.run.database import Store
from redinstruct.run.folder import make_private_folder, remove_empty


def make_place(run: Path) -> list[Path]:
    """Make the run's folder, its parents too; returns those that were made, the deepest first.

    Raises:
        ConfigError: it cannot be made, or not be written; nothing was left behind.
    """
    made = [folder for folder in (run, *run.absolute().parents) if not os.path.lexists(folder)]
    try:
        make_private_folder(run)
        if not os.access(run, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        remove_empty(made)
        raise ConfigError(f"--run {run}: cannot be written ({error.strerror}); name another folder") from None
    return made


@contextlib.contextmanager
def no_blank_run(store: Store, is_blank: Callable[[], bool], made: Sequence[Path], *, begun: bool) -> Iterator[None]:
    """Denied before a single answer: leave no folder that would refuse the corrected command.

    A run that was ``begun`` before, by ``--max-calls 0`` say, stays.
    """
    try:
        yield
    except UsageError:
        if not begun and is_blank():
            store.discard(made)
        raise
