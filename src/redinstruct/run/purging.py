"""Runs removed for good: every byte of a run is overwritten, on the disk, before its name goes.

The folder takes a name of its own first (``.NAME.purging``), so that a kill at any moment leaves either the run or
something that the next ``purge NAME`` knows and finishes. What a killed import left (``.NAME.importing``) goes too, and
so do temporary files beside the run whose writer was killed, and the runs in what a killed ``shard`` left there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from redinstruct.errors import ConfigError, StoreError
from redinstruct.files.atomic import leftovers
from redinstruct.run.folder import (
    LOCK_NAME,
    OWN_NAMES,
    STORE_NAME,
    is_run,
    lock_folder,
    overwrite_and_remove,
)
from redinstruct.run.kinds import no_run

_IMPORTING = ".importing"


def importing_place(folder: Path) -> Path:
    """Where an import writes a run before it takes its place."""
    return folder.with_name(f".{folder.name}{_IMPORTING}")


def _purging_place(folder: Path) -> Path:
    # What was written beside a run is removed under the run's name, too: its purge finishes what a kill left of that.
    name = folder.name.removesuffix(_IMPORTING)
    name = folder.name if name == folder.name else name.removeprefix(".")
    return folder.with_name(f".{name}.purging")


def purge_places(folder: Path) -> list[Path]:
    """The folders that a purge of this run would remove: what an earlier one left, a killed import, the run itself.

    Raises:
        ConfigError: something at one of these names is not ours.
    """
    if folder.is_symlink():
        raise ConfigError(f"{folder}: there is no run in this folder, it is a link; nothing was removed")
    folder = folder.resolve()
    places = [place for place in (_purging_place(folder), importing_place(folder)) if _is_folder(place)]
    if _is_folder(folder) and _is_ours(folder):
        places.append(folder)
    return [place for place in places if place.name.endswith(".purging") or _is_ours(place)]


def _is_folder(place: Path) -> bool:
    try:
        return stat.S_ISDIR(place.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _is_ours(folder: Path) -> bool:
    """A run, or what a kill left of one that was begun or removed: nothing but our own names, the lock among them."""
    try:
        names = {entry.name for entry in folder.iterdir() if stat.S_ISREG(entry.lstat().st_mode)}
        return LOCK_NAME in names and (is_run(folder) or {entry.name for entry in folder.iterdir()} <= OWN_NAMES)
    except OSError:
        return False


def purge(folder: Path) -> int:
    """Overwrite and remove a run folder and everything in it; returns the number of files removed.

    Raises:
        ConfigError: there is no run of ours in the folder, or it is a symbolic link.
        StoreError: another process is using it, or a file cannot be removed.
    """
    places, real = purge_places(folder), folder.resolve()  # once: it may be named from within
    if not places:
        # Whatever state the store is in, every run folder has had its lock from the first moment on.
        if is_run(folder):
            raise ConfigError(f"{folder}: {STORE_NAME} there was not made by redinstruct (no {LOCK_NAME}); not removed")
        raise ConfigError(f"{no_run(folder)}; nothing was removed")
    with contextlib.ExitStack() as locks:
        for place in places:
            if (place / LOCK_NAME).exists() or not place.name.endswith(".purging"):
                locks.callback(os.close, lock_folder(place))
        try:
            removed = sum(_remove_whole(place, _purging_place(real)) for place in places)
            for left in leftovers(real.parent):
                if left.is_dir():
                    removed += purge_runs_in(left)
                else:
                    overwrite_and_remove(left)
                    removed += 1
        except OSError as error:
            raise StoreError(f"{folder}: could not be removed whole ({error.strerror}); run purge again") from error
    return removed


def purge_runs_in(left: Path) -> int:
    """The runs in a folder that a kill left, overwritten and removed; the number of files. Other things there stay."""
    removed = sum(_empty_and_remove(run) for run in list(left.iterdir()) if _is_folder(run) and _is_ours(run))
    with contextlib.suppress(OSError):
        left.rmdir()
    return removed


def _remove_whole(place: Path, doomed: Path) -> int:
    if place == doomed:
        return _empty_and_remove(place)
    place.rename(doomed)
    try:
        return _empty_and_remove(doomed)
    except BaseException:
        with contextlib.suppress(OSError):
            doomed.rename(place)
        raise


def _empty_and_remove(folder: Path) -> int:
    removed = 0
    # The store goes last, but for the lock: until then the folder is a run, whatever name it has.
    last = {folder / STORE_NAME: 1, folder / LOCK_NAME: 2}
    for path in sorted(folder.rglob("*"), key=lambda path: (last.get(path, 0), -len(path.parts))):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            overwrite_and_remove(path)
            removed += 1
    folder.rmdir()
    return removed
