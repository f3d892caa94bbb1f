"""A run that is made at once, of what was recorded elsewhere: it appears as a whole or not at all.

It is written, sealed and closed beside its place, and one rename puts it there; a kill leaves what was there before.
What else it leaves is known to the next one, and to ``purge``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from redinstruct.errors import ConfigError, RedInstructError, StoreError
from redinstruct.files.atomic import sync_folder
from redinstruct.run.connection import connect_for_writing, leave_no_log, opening
from redinstruct.run.database import Store
from redinstruct.run.folder import STORE_NAME, lock_folder, remove_empty
from redinstruct.run.purging import importing_place, purge, purge_places
from redinstruct.run.seals import break_seal, seal


def whole_run(folder: Path, write: Callable[[Store], object]) -> None:
    """Write a run beside its place, then rename it into it.

    Raises:
        ConfigError: the place cannot be made, or something else stands there; nothing is left behind.
    """
    with _written(folder, write) as part:
        try:
            part.replace(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise ConfigError(f"--run {folder}: cannot be made ({error.strerror}); name a new folder") from error


def remade_run(folder: Path, write: Callable[[Store], object]) -> None:
    """Write a run's store anew, then put it in the place of the one that stands there; on any error, that one stays.

    Nobody can record in the run meanwhile. What else lies in the folder stays. ``write`` closes whatever it reads the
    old store by.

    Args:
        folder: a run's folder, absolute.
        write: fills the new store.

    Raises:
        StoreError: the run is in use, or the new store cannot be written.
    """
    lock = lock_folder(folder)
    try:
        with _written(folder, write) as part:
            _take_place(part, folder, lock)
        purge(part)
    except OSError as error:
        raise StoreError(f"--run {folder}: cannot be written ({error.strerror})") from error
    finally:
        os.close(lock)


def finish_remaking(folder: Path) -> bool:
    """Overwrite and remove what a killed :func:`remade_run` left beside a run; whether there was anything.

    Raises:
        StoreError: the run is in use.
    """
    part = importing_place(folder)
    if not ((folder / STORE_NAME).is_file() and purge_places(part)):
        return False
    lock = lock_folder(folder)
    try:
        with _named_as(part, folder):
            purge(part)
    finally:
        os.close(lock)
    return True


def _take_place(part: Path, folder: Path, lock: int) -> None:
    """Put the new store where the old one is. The old bytes keep a name of ours, by which ``purge`` overwrites them.

    A reader would go on with its log's index beside a file that is gone: there must be none, and none may begin.
    """
    (part / f"{STORE_NAME}-journal").hardlink_to(folder / STORE_NAME)
    break_seal(lock)
    try:
        with opening(folder), contextlib.closing(connect_for_writing(folder)) as old:
            old.execute("PRAGMA locking_mode=EXCLUSIVE")
            old.execute("BEGIN EXCLUSIVE")
            old.execute("COMMIT")
            (checked,) = old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[:1]
            if checked:
                raise StoreError(f"{folder}: its log is locked")
            (part / STORE_NAME).replace(folder / STORE_NAME)
            sync_folder(folder)
        leave_no_log(folder)  # the old store's, empty now
    except StoreError as error:
        if "locked" in str(error):
            raise StoreError(
                f"{folder} is in use by another redinstruct process; wait, and give the command again"
            ) from error
        raise
    finally:
        seal(folder, lock)


@contextlib.contextmanager
def _written(folder: Path, write: Callable[[Store], object]) -> Iterator[Path]:
    """The folder beside its place that holds the new run, written and closed; removed on any error."""
    part = importing_place(folder)
    with _named_as(part, folder):
        if part.is_symlink():
            raise ConfigError(f"--run {folder}: a link stands at {part.name}, where an import is made; remove it")
        if purge_places(part):
            purge(part)  # what a killed import left; refused while another process writes it
        store = Store.open_for_writing(part)
        try:
            with store:
                write(store)
            yield part
        except BaseException:
            with contextlib.suppress(RedInstructError, OSError):
                purge(part)
            remove_empty(store.made)
            raise


@contextlib.contextmanager
def _named_as(part: Path, folder: Path) -> Iterator[None]:
    """Messages name the folder that the user named."""
    try:
        yield
    except RedInstructError as error:
        raise type(error)(str(error).replace(str(part), str(folder))) from error
