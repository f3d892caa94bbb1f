"""Files and folders that appear whole or not at all.

The one promise: a kill, a Ctrl-C or a full disk at any moment leaves what was there before, or what was to come; a
place that held something is never empty in between. What is written is on the disk (fsync) before it takes its place.

Each is made under one temporary name beside its place (:func:`temporary`), always the same, and locked while its writer
lives. So a kill leaves one name at most, which the next writer of that place takes over, and which :func:`leftovers`
tells from the work of somebody who is alive. Nothing but a plain file or folder of that name is ever opened, written
to or removed: what else stands there (a link, a pipe) is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_PART = ".redinstruct-part"
_ASIDE = ".redinstruct-old"
_LONGEST_NAME = 255
_AT_FDCWD = -100
_EXCHANGE = 2
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is not followed, and a pipe not waited for."""


def temporary(target: Path, ending: str = _PART) -> Path:
    """The name under which what is to stand at ``target`` is made, beside it.

    Raises:
        OSError: ``target`` can be no file's name (a NUL, a lone surrogate).
    """
    try:
        name = os.fsencode(target.name)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name or not name:
        raise OSError(errno.EINVAL, "is not a possible file name")
    if len(name) + len(ending) + 1 > _LONGEST_NAME:
        return target.with_name(f".{hashlib.sha256(name).hexdigest()[:32]}{ending}")
    return target.with_name(f".{target.name}{ending}")


def leftovers(folder: Path) -> list[Path]:
    """The temporary files and folders in a folder that nobody is at work on: what kills left behind."""
    names = sorted(p for p in folder.iterdir() if p.name.startswith(".") and p.name.endswith((_PART, _ASIDE)))
    found = []
    for path in names:
        with contextlib.suppress(OSError):
            os.close(_locked(path, os.O_RDONLY))
            found.append(path)
    return found


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A plain file, opened; a link is not followed, and a pipe not waited for.

    Raises:
        OSError: something else stands there, or nothing.
    """
    handle = os.open(path, flags | _PLAIN)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} is not a plain file")
    return handle


@contextlib.contextmanager
def whole_file(target: Path, *, public: bool = False) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``target`` at the end, or vanishes on any error.

    It is its owner's alone (0600), or, where it is ``public``, what the umask says. A link at ``target`` is replaced,
    and what it points to stays. A device or pipe at ``target`` (``/dev/stdout``) is written to.

    Raises:
        OSError: the place cannot be written, or another process is writing it.
    """
    if target.exists() and not target.is_file():
        with target.open("wb") as device:  # a folder says so itself
            yield device
        return
    part = temporary(target)
    handle = _made(part, 0o666 if public else 0o600)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            yield file
            file.flush()
            os.fsync(handle)
        part.replace(target)
        sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def write_file(target: Path, content: bytes | str | Iterable[str], *, public: bool = False) -> None:
    """Put a file in place as a whole (:func:`whole_file`); text as UTF-8."""
    parts = [content] if isinstance(content, (bytes, str)) else content
    with whole_file(target, public=public) as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else part.encode())


@contextlib.contextmanager
def whole_folder(target: Path, *, mode: int = 0o755) -> Iterator[Path]:
    """A folder to fill that takes the place of ``target`` at the end, or vanishes on any error.

    Raises:
        OSError: the place cannot be written, holds something else than a folder, or another process is writing it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, aside = temporary(target), temporary(target, _ASIDE)
    handle = _made(part, 0o700, folder=True)
    try:
        if _present(aside):  # a kill between two renames, where a file system knows no exchange
            if _present(target):
                _remove(aside)
            else:
                aside.replace(target)
        if _present(target) and not stat.S_ISDIR(target.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "another thing than a folder stands there", str(target))
        yield part
        _sync(part)
        part.chmod(mode)
        _put_in_place(part, target, aside)
        sync_folder(target.parent)
    finally:
        # After an exchange this is what stood there before.
        with contextlib.suppress(OSError):
            _remove(part)
        os.close(handle)


def _put_in_place(part: Path, target: Path, aside: Path) -> None:
    if not _present(target):
        part.replace(target)
        return
    try:
        _exchange(part, target)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    else:
        return
    target.replace(aside)
    try:
        part.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    _remove(aside)


def _exchange(one: Path, other: Path) -> None:
    """Each takes the other's place, in one step (Linux's ``renameat2``)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _made(part: Path, mode: int, *, folder: bool = False) -> int:
    """A new, empty file or folder of that name, locked; what a kill left there is removed. Gives its handle."""
    flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_WRONLY
    while True:
        try:
            if folder:
                part.mkdir(mode)
            else:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _PLAIN, mode))
        except FileExistsError:
            handle = _locked(part, os.O_RDONLY)
            try:
                if _is_at(handle, part):
                    _remove(part)
            finally:
                os.close(handle)
            continue
        try:
            handle = _locked(part, flags)
        except OSError as error:
            if error.errno != errno.EBUSY:  # a file system without locks: nobody can be at work on it
                _remove(part)
            raise
        if _is_at(handle, part):
            return handle
        os.close(handle)  # another process took it for a leftover before it was locked


def _locked(path: Path, flags: int) -> int:
    """The plain file or folder at a name, opened and locked. Raises ``OSError``."""
    handle = os.open(path, flags | _PLAIN)
    try:
        kind = os.fstat(handle).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EEXIST, f"{path.name} is not a plain file", str(path))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from None
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder for this process alone, for as long as it lives or is within.

    Raises:
        OSError: EBUSY: another process has it; it is no folder, or is gone.
    """
    handle = _locked(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Whoever removed the folder meanwhile held the lock of one that is gone: it locks nothing.
        if not _is_at(handle, folder):
            raise OSError(errno.EBUSY, "another process is writing it", str(folder))
        yield
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _present(path: Path) -> bool:
    return os.path.lexists(path)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir() and not path.is_symlink():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises ``OSError``."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
