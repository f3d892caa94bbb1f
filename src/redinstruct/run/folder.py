"""The run folder: owner-only whatever the umask, locked by one writer, sealed while nobody writes.

A folder may come from elsewhere: nothing in it but a plain file is ever opened (no link, pipe, device or socket).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from redinstruct.errors import ConfigError, DamagedStore, StoreError
from redinstruct.files.atomic import open_plain
from redinstruct.run.encryption import check_sealing

STORE_NAME = "run.sqlite"
LOCK_NAME = "run.lock"
LOG_NAME = f"{STORE_NAME}-wal"
ATTACKS = "attacks"
"""Where a stress run keeps the evaluations of its attacks, within its own folder."""
OWN_NAMES = {STORE_NAME, LOG_NAME, f"{STORE_NAME}-shm", f"{STORE_NAME}-journal", LOCK_NAME, ".gitignore"}


def make_private_folder(folder: Path) -> list[Path]:
    """Create the folder, and its missing parents, readable by the owner alone under any umask.

    Returns those that were made, the deepest first.

    Raises:
        OSError: it cannot be made, or not be written; nothing was left behind.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        for path in reversed(made):
            path.mkdir(mode=0o700, exist_ok=True)  # another process may have been quicker
            path.chmod(0o700)
        folder.chmod(0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError:
        remove_empty(made)
        raise
    return made


def make_private_file(path: Path, content: bytes = b"") -> None:
    """Create the file with mode 0600 from its first moment on.

    One that stands there keeps its content, is made 0600, and is filled if a kill left it empty.

    Raises:
        OSError: it cannot be made, or something else than a regular file stands there (a symbolic link, say).
    """
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EEXIST, f"{path.name} is no regular file") from None
        if stat.S_IMODE(info.st_mode) != 0o600:
            path.chmod(0o600)
        if info.st_size or not content:
            # Not opened: closing it would let go of the locks that SQLite holds on it in this process.
            return
        handle = open_plain(path, os.O_WRONLY)
    try:
        os.fchmod(handle, 0o600)
        if content:
            os.write(handle, content)
    finally:
        os.close(handle)


def check_plain(folder: Path) -> None:
    """Pass when what stands at a run's own names is plain files: SQLite opens some of them by itself.

    Raises:
        DamagedStore: a link, a pipe, a device, a socket or a folder stands at one.
    """
    for name in sorted(OWN_NAMES):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise DamagedStore(f"{folder / name} is not a plain file; nothing in this folder was opened")


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run store (a symbolic link is none)."""
    try:
        return stat.S_ISREG((folder / STORE_NAME).lstat().st_mode)
    except (OSError, ValueError):
        return False


def is_own_file(path: Path) -> bool:
    """Whether the path is one of a run's own files: its store, log, lock or ``.gitignore``."""
    try:
        place = path.resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
        return False
    return place.name in OWN_NAMES and is_run(place.parent)


def check_outside(place: Path, flag: str = "--run") -> None:
    """Pass a place that is in no run's own folder: what lay there would go when that run is purged.

    Raises:
        ConfigError: it is; the attacks of a stress run, in a folder of their own there, belong to it.
    """
    try:
        real = place.resolve()
        around = [run for run in real.parents if is_run(run) and real.relative_to(run).parts[0] != ATTACKS]
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL: said by whoever opens it
        return
    if around:
        raise ConfigError(
            f"{flag} {place}: lies in the folder of a run ({around[0].name}), and would go with it; "
            "name a folder outside"
        )


def check_run_folder(folder: Path) -> None:
    """Pass when the folder is a run, or can become one.

    Raises:
        ConfigError: it is a file, or holds other things; or it is to be sealed, and can not be.
    """
    if "\0" in str(folder):
        raise ConfigError(f"--run {str(folder)!r}: is no folder's name")
    try:
        if is_run(folder):
            return
        check_sealing()
        check_outside(folder)
        if not (folder.exists() or folder.is_symlink()):
            return
        if not folder.is_dir():
            raise ConfigError(f"--run {folder}: is not a folder")
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in OWN_NAMES or p.is_symlink())
    except OSError as error:
        raise ConfigError(f"--run {folder}: cannot be read ({error.strerror})") from error
    if foreign:
        raise ConfigError(
            f"--run {folder}: the folder holds other files ({foreign[0]!r}, ...) and no run; name a new folder"
        )


class NoLocks(StoreError):
    """A file system without locks, a network's say: no command can write a run there."""


def lock_folder(folder: Path) -> int:
    """Take the run's lock; returns the open file that holds it. It is let go when the file, or the process, closes.

    Raises:
        NoLocks: the folder's file system has none.
        StoreError: another process holds it, or the file cannot be opened.
    """
    try:
        lock = open_plain(folder / LOCK_NAME, os.O_RDWR)
    except OSError as error:
        raise StoreError(f"{folder}: the run cannot be locked ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the folder meanwhile held the lock of a file that is gone: it locks nothing.
        held = os.path.samestat(os.fstat(lock), (folder / LOCK_NAME).lstat())
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError as error:
        os.close(lock)
        raise NoLocks(
            f"{folder}: its file system cannot lock files ({error.strerror}), and two commands could write one run; "
            "put it on another file system, a local disk say"
        ) from error
    if not held:
        os.close(lock)
        raise StoreError(f"{folder} is in use by another redinstruct process; wait for it, or use another --run")
    return lock


def take_folder(folder: Path) -> tuple[list[Path], int]:
    """Make a run's folder where there is none, and take its lock; returns what was made, the deepest first, and the
    open file that holds the lock.

    Raises:
        ConfigError: it cannot be made, or not be written; nothing was left behind.
        StoreError: another process holds it, there are no locks, or the disk is full.
    """
    try:
        made = make_private_folder(folder)
    except OSError as error:
        raise ConfigError(
            f"--run {folder}: cannot be written ({error.strerror}); make it writable, or name another folder"
        ) from None
    try:
        make_private_file(folder / LOCK_NAME)  # first: by it, `purge` knows what a kill or a full disk left
    except OSError as error:
        remove_empty(made)
        raise StoreError(f"--run {folder}: cannot be written ({error.strerror})") from error
    try:
        return made, lock_folder(folder)
    except NoLocks:
        if not is_run(folder):
            remove_own(folder, made)  # no other command can have begun a run there
        raise


def has_log(folder: Path) -> bool:
    """Whether committed rows wait in the write-ahead log."""
    try:
        return (folder / LOG_NAME).lstat().st_size > 0
    except OSError:
        return False


def blank_log(folder: Path) -> None:
    """Overwrite a write-ahead log whose every row is in the store, and on the disk, already.

    SQLite unlinks it as it is, and its bytes would stay on the disk. The header goes first, and is on the disk before
    anything else goes: with it a log is valid as far as its frames are whole, so that after a power cut SQLite would
    take an old part of it for news.

    Raises:
        OSError: it cannot be written.
    """
    try:
        handle = open_plain(folder / LOG_NAME, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(handle).st_size
        for start, end in ((0, min(size, 4096)), (4096, size)):
            # In small pieces: giving back a larger one makes glibc's malloc treat asyncio's reads otherwise.
            for at in range(start, end, 1 << 16):
                os.pwrite(handle, bytes(min(1 << 16, end - at)), at)
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_own(folder: Path, made: Iterable[Path] = ()) -> None:
    """Remove a run that nothing was recorded in: its own files, overwritten, and what is empty then of ``made``.

    The caller holds the lock. ``made`` are the folders that this program made for the run, the deepest first; one that
    stood before stays, with whatever else it holds.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in sorted(OWN_NAMES, key=lambda name: name == LOCK_NAME):
        with contextlib.suppress(FileNotFoundError):
            overwrite_and_remove(folder / name)
    remove_empty(made)


def overwrite_and_remove(path: Path) -> None:
    """Remove a file so that its bytes are gone; of another thing than a plain file only the name.

    Raises:
        OSError: it cannot be removed.
    """
    info = path.lstat()
    # Another name of the same bytes (a hard link) is the user's: it is unlinked, not overwritten.
    if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
        path.chmod(0o600)
        handle = open_plain(path, os.O_WRONLY)
        try:
            for at in range(0, info.st_size, 1 << 20):
                os.pwrite(handle, bytes(min(1 << 20, info.st_size - at)), at)
            os.fsync(handle)
        finally:
            os.close(handle)
    path.unlink()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that hold nothing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
