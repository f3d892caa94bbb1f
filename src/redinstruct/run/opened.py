"""A run's store, open: the file, its lock and seal, one transaction at a time, and how an invocation begins.

What the rows are is said by :mod:`redinstruct.run.database` and its neighbours, which read by :meth:`OpenStore.reading`
and write by :meth:`OpenStore.writing`; SQL stands in this room alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from redinstruct.errors import DamagedStore, RedInstructError, StoreError, UsageError
from redinstruct.run.connection import (
    ODD,
    SECRET_BYTES,
    check,
    connect_for_reading,
    connect_for_writing,
    leave_no_log,
    opening,
    store_error,
)
from redinstruct.run.encryption import Seal, attach, require_key
from redinstruct.run.folder import (
    LOG_NAME,
    STORE_NAME,
    blank_log,
    check_plain,
    check_run_folder,
    has_log,
    is_run,
    make_private_file,
    remove_own,
    take_folder,
)
from redinstruct.run.kinds import A_RUN, Kind, check_kind, kind_of, no_run
from redinstruct.run.schema import check_origin, migrate, read_as_newest
from redinstruct.run.seals import Standing, break_seal, check_seal, seal
from redinstruct.run.soundness import why_unsound
from redinstruct.version import __version__

T = TypeVar("T")

_NEWEST: dict[Kind, str] = {
    "evaluation": "SELECT body FROM configs ORDER BY id DESC LIMIT 1",
    "collection": "SELECT body FROM collections ORDER BY id DESC LIMIT 1",
    "utility check": "SELECT body FROM utility_runs ORDER BY id DESC LIMIT 1",
}
_ADD: dict[Kind, str] = {
    "evaluation": "INSERT INTO configs (digest, body, at) VALUES (?, ?, ?)",
    "collection": "INSERT INTO collections (digest, body, at) VALUES (?, ?, ?)",
    "utility check": "INSERT INTO utility_runs (digest, body, at) VALUES (?, ?, ?)",
}


def begin(db: sqlite3.Connection) -> None:
    """Note an invocation that goes on with a run; the first one gives the run its secret."""
    secret = secrets.token_bytes(SECRET_BYTES)
    db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('secret', ?)", (secret,))
    db.execute("INSERT INTO sessions (at, version) VALUES (?, ?)", (time.time(), __version__))


def keep_config(db: sqlite3.Connection, kind: Kind, digest: str, body: str) -> None:
    """Add a configuration (JSON in ASCII) when it is new or larger."""
    newest, add = _NEWEST[kind], _ADD[kind]
    last = db.execute(newest).fetchone()
    if last is None or last[0] != body:
        db.execute(add, (digest, body, time.time()))


class OpenStore:
    """One run's store. Use :meth:`open_for_writing` or :meth:`open_for_reading`; both are context managers.

    It is used by one thread at a time (the engine hands it to its writer thread while a run is under way).
    ``sealed``: its texts are encrypted; ``locked``: there is no key to read them by. ``db`` is for this room alone.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        lock: int | None,
        seal: Seal,
        *,
        standing: Standing | None = None,
        made: Sequence[Path] = (),
        leaves_log: bool = True,
    ) -> None:
        self.folder = folder
        self.sealed, self.locked = seal.sealed, seal.locked
        self.db = connection
        self._lock, self.made = lock, made
        self._leaves_log = leaves_log
        self._standing = standing
        self._file = (folder / STORE_NAME).lstat()

    # ---- opening -------------------------------------------------------------------------------------------------

    @classmethod
    def open_for_writing(cls, folder: Path) -> Self:
        """Open, or create, the run's store, and lock it against a second writer.

        Raises:
            ConfigError: the folder cannot become a run.
            StoreError: locked by another process, made by a newer version, damaged, or not writable.
        """
        check_run_folder(folder)
        check_plain(folder)
        made, lock = take_folder(folder)
        fresh = bool(made) and not is_run(folder)
        connection: sqlite3.Connection | None = None
        try:
            try:
                make_private_file(folder / ".gitignore", b"*\n")
                make_private_file(folder / STORE_NAME)
            except OSError as error:
                raise StoreError(f"--run {folder}: cannot be written ({error.strerror})") from error
            sealed = check_seal(folder)
            with opening(folder):
                connection = connect_for_writing(folder)
                # Looked at before the first byte changes: another program's file is left as it is.
                if check_origin(connection):
                    check(connection, folder, sealed=sealed)
                    require_key(connection, folder, blank=kind_of(connection) is None)
                break_seal(lock)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA wal_autocheckpoint=0")  # see Standing
                migrate(connection)
                kept = attach(connection, folder, writes=True, blank=kind_of(connection) is None)
                standing = Standing(folder, lock)
        except BaseException:
            if connection is not None:
                if has_log(folder):
                    break_seal(lock)  # SQLite folds it in
                connection.close()
            if fresh:
                with contextlib.suppress(OSError):
                    remove_own(folder, made)
            os.close(lock)
            raise
        return cls(folder, connection, lock, kept, standing=standing, made=made)

    @classmethod
    def open_for_reading(cls, folder: Path, wanted: str = A_RUN) -> Self:
        """Open an existing run without being able to change it, one of an older version too.

        A run that a kill left without tables reads as empty. ``wanted`` is what is looked for, to be said where
        something else is there.

        Raises:
            ConfigError: there is no run in the folder.
            StoreError: it is damaged, holds what this program never makes, or was made by a newer version.
        """
        if not is_run(folder):
            raise no_run(folder, wanted)
        check_plain(folder)
        sealed = check_seal(folder)
        connection: sqlite3.Connection | None = None
        had_log = os.path.lexists(folder / LOG_NAME)
        try:
            with opening(folder):
                connection = connect_for_reading(folder)
                if check_origin(connection):
                    check(connection, folder, sealed=sealed)
                    read_as_newest(connection)
                else:
                    connection.close()
                    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    migrate(connection)
                kept = attach(connection, folder, writes=False)
                return cls(folder, connection, None, kept, leaves_log=had_log)
        except BaseException:
            if connection is not None:
                connection.close()
                if not had_log:
                    leave_no_log(folder)
            raise

    def close(self) -> None:
        """Fold the log into the file, seal it, and let go of the lock. Safe to call twice."""
        self._close(sound=True)

    @contextlib.contextmanager
    def no_blank_run(self, is_blank: Callable[[], bool], *, begun: bool) -> Iterator[None]:
        """Denied before a single answer: leave no folder that would refuse the corrected command.

        A run that was ``begun`` before, by ``--max-calls 0`` say, stays.
        """
        try:
            yield
        except UsageError:
            if not begun and is_blank():
                self.discard()
            raise

    def discard(self) -> None:
        """Close a run that nothing was recorded in, and remove it, under its lock; what else stands there stays.

        Folders that were made for it go where they are empty then.

        Raises:
            StoreError: a file cannot be removed.
        """
        assert self._lock is not None, "only a writer holds the lock"
        self._fold_log_in()
        self._close_file()
        try:
            remove_own(self.folder, self.made)
        except OSError as error:
            raise StoreError(f"{self.folder}: the empty run cannot be removed ({error.strerror})") from error
        finally:
            os.close(self._lock)
            self._lock = None

    def _fold_log_in(self) -> None:
        """Put the log's rows into the file, and blank it; left to the next writer where somebody reads."""
        if self._standing is not None:
            self._standing.end()
        with contextlib.suppress(sqlite3.Error, OSError, StoreError):
            self.db.execute("PRAGMA busy_timeout=0")
            busy, in_log, done = self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            if not busy and in_log == done:
                self._check_there()
                blank_log(self.folder)

    def _check_there(self) -> None:
        """SQLite goes on writing to a file that was removed."""
        try:
            there = os.path.samestat(self._file, (self.folder / STORE_NAME).lstat())
        except OSError:
            there = False
        if not there:
            raise StoreError(f"{self.folder}: the run's folder was removed or moved; nothing more can be recorded")

    def _close_file(self) -> None:
        try:
            self.db.close()
            if not self._leaves_log:
                leave_no_log(self.folder)
        finally:
            if self._standing is not None:
                self._standing.close()
                self._standing = None

    def _close(self, *, sound: bool) -> None:
        if self._lock is not None:
            self._fold_log_in()
        with contextlib.suppress(sqlite3.Error):
            self._close_file()
        if self._lock is not None:
            if sound:
                seal(self.folder, self._lock)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        damage = self._damage_behind(error)
        # A store that failed is not vouched for: the next opening checks it whole.
        self._close(sound=damage is None and not isinstance(error, StoreError))
        if damage is not None:
            raise damage from error

    def _damage_behind(self, error: BaseException | None) -> DamagedStore | None:
        """What failed far from here on rows that this program never writes is damage, not a fault of its own."""
        if not isinstance(error, Exception) or isinstance(error, RedInstructError | OSError):
            return None
        why = why_unsound(self.db)
        return None if why is None else DamagedStore(f"{self.folder}: the run store is damaged: it holds {why}")

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[sqlite3.Connection]:
        """The connection to read by. Raises ``StoreError`` where it fails, ``DamagedStore`` for odd rows."""
        try:
            yield self.db
        except (sqlite3.Error, *ODD) as error:
            raise store_error(what, error) from error

    @contextlib.contextmanager
    def writing(self, what: str, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """The connection in one transaction; ``durable``: synced to the disk. Raises ``StoreError``."""
        self._check_there()
        try:
            # The pragma may only change outside a transaction; it costs microseconds.
            self.db.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise
            if self._standing is not None:
                self._standing.committed(self.db)
        except sqlite3.Error as error:
            raise store_error(what, error) from error

    # ---- beginning -----------------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind | None:
        """What the run is; None: it was never begun."""
        return kind_of(self.db)

    def newest_config(self, kind: Kind, read: Callable[[str], T]) -> T | None:
        """The newest configuration, read from its JSON, of a run of that kind; None in a run that was never begun.

        Raises:
            ConfigError: the run is of another kind.
            StoreError: the row does not read as a configuration.
        """
        newest = _NEWEST[kind]
        with self.reading("reading the configuration") as db:
            row = db.execute(newest).fetchone()
            if row is not None:
                return read(str(row[0]))
        check_kind(self.db, self.folder, kind)
        return None

    @contextlib.contextmanager
    def beginning(self, kind: Kind, digest: str, body: str) -> Iterator[sqlite3.Connection]:
        """One transaction that notes an invocation, and its configuration when it is new or larger."""
        with self.writing("planning the run", durable=True) as db:
            begin(db)
            keep_config(db, kind, digest, body)
            yield db
