"""The run folder: owner-only whatever the umask, locked by one writer, sealed while nobody writes, really purged.

The seal is the sha256 of the store's file, kept in the lock file from one writer's clean end to the next one's begin.
SQLite's own checks do not notice a changed bit inside a row; the seal does.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from pathlib import Path

from redinstruct.errors import ConfigError, DamagedStore, StoreError

STORE_NAME = "run.sqlite"
LOCK_NAME = "run.lock"
_OWN_NAMES = {STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm", f"{STORE_NAME}-journal", LOCK_NAME, ".gitignore"}


def make_private_folder(folder: Path) -> None:
    """Create the folder, and its missing parents, readable by the owner alone under any umask."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)  # another process may have been quicker
        path.chmod(0o700)
    folder.chmod(0o700)


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
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(handle, 0o600)
        os.write(handle, content)
    finally:
        os.close(handle)


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
    return place.name in _OWN_NAMES and is_run(place.parent)


def check_run_folder(folder: Path) -> None:
    """Pass when the folder is a run, or can become one.

    Raises:
        ConfigError: it is a file, or holds other things.
    """
    if "\0" in str(folder):
        raise ConfigError(f"--run {str(folder)!r}: is no folder's name")
    try:
        if is_run(folder) or not (folder.exists() or folder.is_symlink()):
            return
        if not folder.is_dir():
            raise ConfigError(f"--run {folder}: is not a folder")
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in _OWN_NAMES or p.is_symlink())
    except OSError as error:
        raise ConfigError(f"--run {folder}: cannot be read ({error.strerror})") from error
    if foreign:
        raise ConfigError(
            f"--run {folder}: the folder holds other files ({foreign[0]!r}, ...) and no run; name a new folder"
        )


def lock_folder(folder: Path) -> int:
    """Take the run's lock; returns the open file that holds it. It is let go when the file, or the process, closes.

    Raises:
        StoreError: another process holds it, or the file cannot be opened.
    """
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        raise StoreError(f"{folder}: the run cannot be locked ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(
            f"{folder} is in use by another redinstruct process; wait for it, or use another --run"
        ) from None
    return lock


def check_seal(folder: Path) -> bool:
    """Whether the store is sealed, and its bytes are those that were sealed; False: it is in use, or a writer died.

    Raises:
        DamagedStore: the bytes are not those that were sealed.
        StoreError: they cannot be read.
    """
    sealed = _read_seal(folder)
    if sealed is None or has_log(folder):
        return False
    try:
        if _digest(folder) == sealed:
            return True
    except OSError as error:
        raise StoreError(f"{folder / STORE_NAME} cannot be read ({error.strerror})") from error
    if _read_seal(folder) != sealed:
        return False  # a writer began in the meantime
    raise DamagedStore(
        f"{folder / STORE_NAME} is damaged, or was changed by another program: it is not what the last run left"
    )


def break_seal(lock: int) -> None:
    """A writer begins: from now on the store's bytes change."""
    os.ftruncate(lock, 0)
    os.fsync(lock)


def seal(folder: Path, lock: int) -> None:
    """A writer has ended. Without a seal (log not folded in, disk full) the next opening checks the whole store."""
    try:
        if not has_log(folder):
            os.pwrite(lock, f"{_digest(folder)}\n".encode(), 0)
            os.fsync(lock)
    except OSError:
        os.ftruncate(lock, 0)


def has_log(folder: Path) -> bool:
    """Whether committed rows wait in the write-ahead log."""
    try:
        return (folder / f"{STORE_NAME}-wal").stat().st_size > 0
    except OSError:
        return False


def _read_seal(folder: Path) -> str | None:
    try:
        found = (folder / LOCK_NAME).read_bytes()
    except OSError:
        return None
    return found[:64].decode() if re.fullmatch(rb"[0-9a-f]{64}\n", found) else None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    with (folder / STORE_NAME).open("rb", buffering=0) as file:
        # Not hashlib.file_digest: giving back its larger buffer makes glibc's malloc treat asyncio's reads otherwise.
        while block := file.read(1 << 16):
            digest.update(block)
    return digest.hexdigest()


def purge(folder: Path) -> int:
    """Overwrite and remove a run folder and everything in it; returns the number of files removed.

    Raises:
        ConfigError: there is no run of ours in the folder, or it is a symbolic link.
        StoreError: another process is using it, or a file cannot be removed.
    """
    if folder.is_symlink() or not is_run(folder):
        raise ConfigError(f"{folder}: there is no run in this folder; nothing was removed")
    # Whatever state the store is in, every run folder has had its lock from the first moment on.
    if not (folder / LOCK_NAME).is_file():
        raise ConfigError(f"{folder}: {STORE_NAME} there was not made by redinstruct (no {LOCK_NAME}); not removed")
    lock = lock_folder(folder)
    removed = 0
    try:
        # The store goes last: until then the folder is a run, and purge can be run again.
        for path in sorted(folder.rglob("*"), key=lambda p: (p != folder / STORE_NAME, len(p.parts)), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
                continue
            if path != folder / LOCK_NAME:
                _remove(path)
                removed += 1
        (folder / LOCK_NAME).unlink()
        removed += 1
        folder.rmdir()
    except OSError as error:
        raise StoreError(f"{folder}: could not be removed whole ({error.strerror}); run purge again") from error
    finally:
        os.close(lock)
    return removed


def _remove(path: Path) -> None:
    info = path.lstat()
    # Another name of the same bytes (a hard link) is the user's: it is unlinked, not overwritten.
    if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
        path.chmod(0o600)
        with path.open("r+b", buffering=0) as file:
            while (left := info.st_size - file.tell()) > 0:
                file.write(bytes(min(1 << 20, left)))
            os.fsync(file.fileno())
    path.unlink()
