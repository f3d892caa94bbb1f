"""What vouches for a store's bytes: digests in the lock file. SQLite's own checks do not notice a changed bit in a row.

While nobody writes, the seal is the sha256 of the store's file. While somebody writes, what is new stands in the log,
whose frames SQLite checks by sums of their own, and the file changes at moments that the writer chooses: when the log
is folded into it. In between the sha256 of the file stands there as well, with the salts of the log that goes with it,
so that a run whose writer was killed needs no look at every page and index. One that was killed in the middle of
folding is checked whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
from pathlib import Path

from redinstruct.errors import DamagedStore, StoreError
from redinstruct.files.atomic import open_plain
from redinstruct.run.folder import LOCK_NAME, LOG_NAME, STORE_NAME, has_log

_ENDED = re.compile(rb"([0-9a-f]{64})\n")
_STANDING = re.compile(rb"standing ([0-9a-f]{64}) ([0-9a-f]{16}|-)\n")
_LONGEST = 128
_NO_LOG = "-"
# SQLite's write-ahead log (https://www.sqlite.org/fileformat2.html, section 4.1): a header of 32 bytes, then frames of
# 24 bytes and a page each. The salts change whenever the log begins anew, and a frame of an older log has older ones.
_HEADER, _FRAME, _PAGE, _SALTS, _SALTS_AT, _FRAME_SALTS_AT = 32, 24, 4096, 8, 16, 8
_FEWEST = 4096
"""Pages (16 MB) that a log holds before it is folded into the file; of a larger file, half as many as that has."""


def check_seal(folder: Path) -> bool:
    """Whether the store's bytes are those that its last writer left; False: nothing tells, as where it died folding.

    Raises:
        DamagedStore: the bytes are not those that were sealed.
        StoreError: they cannot be read.
    """
    with contextlib.suppress(OSError):
        if _which((folder / STORE_NAME).lstat()) in _WRITTEN_HERE:
            return True  # found whole when it was opened
    line = _line(folder)
    ended, standing = _ENDED.fullmatch(line), _STANDING.fullmatch(line)
    try:
        if ended is not None:
            vouched, sealed = not has_log(folder), ended[1]
        elif standing is not None:
            # Another log than the writer's, or none (a program of another kind folded it in), is looked at whole.
            vouched, sealed = _salts_of(folder) == standing[2].decode(), standing[1]
        else:
            return False
        if not vouched:
            return False
        if _digest_of(folder) == sealed.decode():
            return True
    except OSError as error:
        raise StoreError(f"{folder / STORE_NAME} cannot be read ({error.strerror})") from error
    if _line(folder) != line:
        return False  # a writer began in the meantime
    raise DamagedStore(
        f"{folder / STORE_NAME} is damaged, or was changed by another program: it is not what the last run left"
    )


def break_seal(lock: int) -> None:
    """From now on the store's file changes."""
    os.ftruncate(lock, 0)
    os.fsync(lock)


def seal(folder: Path, lock: int) -> None:
    """A writer has ended. Without a seal (log not folded in, disk full) the next opening checks the whole store."""
    try:
        if not has_log(folder):
            os.pwrite(lock, f"{_digest_of(folder)}\n".encode(), 0)
            os.fsync(lock)
    except OSError:
        os.ftruncate(lock, 0)


class Standing:
    """A writer's word for the file under the log that it writes, from a moment on at which the store is known whole."""

    def __init__(self, folder: Path, lock: int) -> None:
        """Raises ``OSError`` where the store's file can not be read."""
        self._folder, self._lock = folder, lock
        # Open as long as SQLite has it: closing any handle lets go of the locks that SQLite holds in this process.
        self._file = open_plain(folder / STORE_NAME)
        self._log: int | None = None
        self._digest: str | None = None
        self._told = ""
        self._full = 0
        self._which = _which(os.fstat(self._file))
        _WRITTEN_HERE.add(self._which)
        self._begin()

    def committed(self, db: sqlite3.Connection) -> None:
        """Something was committed: keep to the log, and fold it in when it has grown."""
        with contextlib.suppress(OSError):
            if self._log is None:
                self._log = open_plain(self._folder / LOG_NAME)
            salts = os.pread(self._log, _SALTS, _SALTS_AT)
            if salts.hex() != self._told:
                self._tell(salts.hex())
            if os.pread(self._log, _SALTS, self._full) == salts:
                self._fold(db)

    def end(self) -> None:
        """Vouch for nothing any more: the writer folds the log in for good."""
        self._digest = None
        with contextlib.suppress(OSError):
            break_seal(self._lock)

    def close(self) -> None:
        """Let go of the files; after SQLite has."""
        _WRITTEN_HERE.discard(self._which)
        os.close(self._file)
        if self._log is not None:
            os.close(self._log)

    def _begin(self, left: int = 0) -> None:
        """Vouch for the file as it is, with the log as it is; ``left`` are the log's pages that could not be folded."""
        with contextlib.suppress(OSError):
            self._digest = _digest(self._file)
            self._tell(_salts_of(self._folder))
            pages = os.fstat(self._file).st_size // _PAGE
            self._full = _HEADER + (left + max(_FEWEST, pages // 2)) * (_FRAME + _PAGE) + _FRAME_SALTS_AT

    def _fold(self, db: sqlite3.Connection) -> None:
        self._digest, left = None, 0
        break_seal(self._lock)
        with contextlib.suppress(sqlite3.Error):  # a full disk: what was committed stays in the log
            _, in_log, folded = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            left = 0 if in_log == folded else in_log  # somebody reads: the log goes on
        self._begin(left)

    def _tell(self, salts: str) -> None:
        self._told = salts
        if self._digest is not None:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"standing {self._digest} {salts}\n".encode(), 0)


_WRITTEN_HERE: set[tuple[int, int]] = set()
"""The stores that this process writes."""


def _which(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _salts_of(folder: Path) -> str:
    if not has_log(folder):
        return _NO_LOG
    with os.fdopen(open_plain(folder / LOG_NAME), "rb", buffering=0) as log:
        return os.pread(log.fileno(), _SALTS, _SALTS_AT).hex()


def _line(folder: Path) -> bytes:
    try:
        with os.fdopen(open_plain(folder / LOCK_NAME), "rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return b""


def _digest_of(folder: Path) -> str:
    handle = open_plain(folder / STORE_NAME)
    try:
        return _digest(handle)
    finally:
        os.close(handle)


def _digest(file: int) -> str:
    digest, at = hashlib.sha256(), 0
    # Not hashlib.file_digest: giving back its larger buffer makes glibc's malloc treat asyncio's reads otherwise.
    while block := os.pread(file, 1 << 16, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
