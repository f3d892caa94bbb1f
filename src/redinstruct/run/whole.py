"""A run that is made at once, of what was recorded elsewhere: it appears as a whole or not at all.

It is written, sealed and closed beside its place, and one rename of the folder puts it there; a kill leaves no run, and
what it leaves is known to the next one, and to ``purge``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from redinstruct.errors import ConfigError, RedInstructError
from redinstruct.run.database import Store
from redinstruct.run.folder import check_run_folder, remove_empty
from redinstruct.run.places import make_place
from redinstruct.run.purging import importing_place, purge, purge_places


def whole_run(folder: Path, write: Callable[[Store], object]) -> None:
    """Write a run beside its place, then rename it into it.

    Raises:
        ConfigError: the place cannot be made, or something else stands there; nothing is left behind.
    """
    part = importing_place(folder)
    with _named_as(part, folder):
        if part.is_symlink():
            raise ConfigError(f"--run {folder}: a link stands at {part.name}, where an import is made; remove it")
        if purge_places(part):
            purge(part)  # what a killed import left; refused while another process writes it
        check_run_folder(part)
        made = make_place(part)
        try:
            with Store.open_for_writing(part) as store:
                write(store)
            _rename(part, folder)
        except BaseException:
            with contextlib.suppress(RedInstructError, OSError):
                purge(part)
            remove_empty(made)
            raise


@contextlib.contextmanager
def _named_as(part: Path, folder: Path) -> Iterator[None]:
    """Messages name the folder that the user named."""
    try:
        yield
    except RedInstructError as error:
        raise type(error)(str(error).replace(str(part), str(folder))) from error


def _rename(part: Path, folder: Path) -> None:
    try:
        part.replace(folder)
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigError(f"--run {folder}: cannot be made ({error.strerror}); name a new folder") from error
