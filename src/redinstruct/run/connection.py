"""SQLite's connections to a run store: opened hardened and checked, their errors told as one line each."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from redinstruct.errors import DamagedStore, StoreError, TemplateError
from redinstruct.run.encryption import failure
from redinstruct.run.folder import LOG_NAME, STORE_NAME, has_log
from redinstruct.run.schema import check_schema, check_whole

SECRET_BYTES = 32
_CANNOT_OPEN = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR})


# sqlite3 looks for an adapter of each value but a number and a text, and finds that there is none by way of exceptions:
# 0.3 us each, 15 an attempt. These give back what they are given.
sqlite3.register_adapter(type(None), dict[None, None]().get)
sqlite3.register_adapter(bytes, bytes)


ODD = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, TemplateError)
"""What rows raise that hold what this program never writes: only damage makes them."""


def store_error(what: str, error: Exception) -> Exception:
    """SQLite's errors, and those of :data:`ODD` rows, as one line each."""
    if not isinstance(error, sqlite3.Error):
        return DamagedStore(f"{what} failed: the run store is damaged ({type(error).__name__})")
    text = " ".join(str(error).split())
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError(f"{what} was refused ({error})")
    if not isinstance(error, sqlite3.OperationalError):
        return DamagedStore(f"{what} failed: the run store is damaged ({text})")
    if "user-defined function" in text and (why := failure()) is not None:
        return why
    if "full" in text:
        return StoreError(f"the disk is full: {what} stopped; what was committed is safe, free space and run again")
    if "readonly" in text or "unable to open" in text:
        return StoreError(f"the run folder cannot be written or read: {what} stopped ({text})")
    again = "; what was committed is safe, run again" if "disk I/O" in text else ""
    return StoreError(f"{what} failed ({text}){again}")


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Which run it is stands in the line: a report reads several."""
    try:
        try:
            yield
        except sqlite3.Error as error:
            raise store_error("opening the run store", error) from error
    except StoreError as error:
        if str(folder) in str(error):
            raise
        raise type(error)(f"{folder}: {error}") from error


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """What goes wrong where rows are read, as one line."""
    try:
        yield
    except (sqlite3.Error, *ODD) as error:
        raise store_error(what, error) from error


def connect_for_writing(folder: Path) -> sqlite3.Connection:
    """A connection that may write. Raises ``sqlite3.Error``."""
    connection = sqlite3.connect(
        folder / STORE_NAME, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    _harden(connection)
    return connection


def connect_for_reading(folder: Path) -> sqlite3.Connection:
    """A connection that can change nothing, where the folder can not be written, too.

    Raises:
        StoreError: its last rows wait in a log that can not be read there.
        sqlite3.Error: the file can not be opened.
    """
    uri = (folder / STORE_NAME).absolute().as_uri()
    for mode in ("?mode=ro", "?mode=ro&immutable=1"):
        connection = sqlite3.connect(uri + mode, uri=True, isolation_level=None, check_same_thread=False)
        try:
            _harden(connection)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            connection.close()
            if "immutable" in mode or (error.sqlite_errorcode & 0xFF) not in _CANNOT_OPEN:
                raise
            # A folder that may not be written cannot hold the shared-memory file, so nobody else writes either
            # and the file can be read as it stands; but not past rows that only the log holds.
            if has_log(folder):
                raise StoreError(
                    f"{folder} cannot be written, and its last rows wait in {STORE_NAME}-wal: "
                    "copy the whole folder to where it can be written, and read it there"
                ) from error
        else:
            return connection
    raise AssertionError("unreachable")


def leave_no_log(folder: Path) -> None:
    """Remove the empty log, and its index, that SQLite made to read a store by: a connection that may not write leaves
    them there, beside a run that was only looked at.

    SQLite itself does it, where nobody else has the store open. A log that holds anything is left as it is.
    """
    log = folder / LOG_NAME
    if has_log(folder) or not os.path.lexists(log):
        return
    uri = (folder / STORE_NAME).absolute().as_uri()
    with contextlib.suppress(sqlite3.Error):
        last = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None)
        with contextlib.closing(last):
            last.execute("SELECT count(*) FROM sqlite_master").fetchone()


@contextlib.contextmanager
def looked_at(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can change nothing, for a look: the folder is left as it was.

    Raises:
        StoreError: the store can not be opened, or its last rows wait in a log that can not be read there.
    """
    had_log = os.path.lexists(folder / LOG_NAME)
    with opening(folder), contextlib.closing(connect_for_reading(folder)) as connection:
        yield connection
    if not had_log:
        leave_no_log(folder)


def check(connection: sqlite3.Connection, folder: Path, *, sealed: bool) -> None:
    """Pass a store that this program made, and that is whole; one that is sealed is not read through.

    Raises:
        DamagedStore: it is not.
    """
    check_schema(connection)
    for key, value in connection.execute("SELECT key, value FROM main.meta"):
        if not isinstance(value, bytes) or (key == "secret" and len(value) != SECRET_BYTES):
            raise DamagedStore(f"the run store is damaged (its {str(key)[:20]!r} is not what this program writes)")
    if not sealed:
        check_whole(connection, folder / STORE_NAME)


def _harden(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA foreign_keys=ON")
    # Otherwise INSERT OR REPLACE deletes rows behind the back of the append-only triggers.
    connection.execute("PRAGMA recursive_triggers=ON")
    connection.execute("PRAGMA busy_timeout=5000")
    # What a large sort would put into a temporary file stays on the disk when that file goes.
    connection.execute("PRAGMA temp_store=MEMORY")
