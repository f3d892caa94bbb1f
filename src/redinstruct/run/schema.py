"""The store's tables, version by version.

``user_version`` is the schema version. A migration is a list of statements from one version to the next; all that are
missing run in one transaction, so that a kill leaves the old version or the new one. A released version is never
edited; its fixture stays in the tests.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
from pathlib import Path

from redinstruct.errors import DamagedStore
from redinstruct.files.atomic import open_plain
from redinstruct.run.folder import LOG_NAME, has_log

APPLICATION_ID = 0x52454456  # "REDV"

_VERSION_1 = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY, at REAL NOT NULL, version TEXT NOT NULL)",
    "CREATE TABLE configs (id INTEGER PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE banks (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL UNIQUE)",
    "CREATE TABLE templates (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL UNIQUE,"
    " text TEXT NOT NULL, translation_of TEXT)",
    "CREATE TABLE questions (id INTEGER PRIMARY KEY, bank INTEGER NOT NULL REFERENCES banks(id), row INTEGER NOT NULL,"
    " text TEXT NOT NULL, topic TEXT, subtopic TEXT, language TEXT, label TEXT, UNIQUE (bank, row))",
    "CREATE TABLE attempts (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,"
    " question INTEGER NOT NULL REFERENCES questions(id), template INTEGER NOT NULL REFERENCES templates(id),"
    " epoch INTEGER NOT NULL, UNIQUE (question, template, epoch))",
    "CREATE TABLE completions (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL REFERENCES attempts(id),"
    " asked INTEGER NOT NULL, outcome TEXT NOT NULL CHECK (outcome IN ('text', 'no_response', 'error')),"
    " reason TEXT, note TEXT, raw TEXT, judged TEXT, finish_reason TEXT, tokens_in INTEGER, tokens_out INTEGER,"
    " truncated INTEGER NOT NULL, flags TEXT, tries INTEGER NOT NULL, seconds REAL NOT NULL, UNIQUE (attempt, asked))",
    "CREATE TABLE judges (id INTEGER PRIMARY KEY, card_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,"
    " measure TEXT NOT NULL, card TEXT NOT NULL)",
    "CREATE TABLE verdicts (attempt INTEGER NOT NULL, asked INTEGER NOT NULL,"
    " judge INTEGER NOT NULL REFERENCES judges(id), judged_no INTEGER NOT NULL, label TEXT NOT NULL, detail TEXT,"
    " reason TEXT, raw TEXT, tokens_in INTEGER, tokens_out INTEGER, tries INTEGER NOT NULL, score REAL,"
    " probability REAL, PRIMARY KEY (attempt, asked, judge, judged_no),"
    " FOREIGN KEY (attempt, asked) REFERENCES completions (attempt, asked)) WITHOUT ROWID",
    "CREATE TABLE selftests (id INTEGER PRIMARY KEY, judge INTEGER NOT NULL REFERENCES judges(id), at REAL NOT NULL,"
    " tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY, judge INTEGER NOT NULL REFERENCES judges(id),"
    " first INTEGER NOT NULL REFERENCES judges(id), size INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE collections (id INTEGER PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE calls (id INTEGER PRIMARY KEY, key BLOB NOT NULL, asked INTEGER NOT NULL, step TEXT NOT NULL,"
    " role TEXT NOT NULL, request BLOB NOT NULL, request_bytes INTEGER NOT NULL,"
    " outcome TEXT NOT NULL CHECK (outcome IN ('text', 'no_response', 'error')), reason TEXT, note TEXT, reply TEXT,"
    " finish_reason TEXT, tokens_in INTEGER, tokens_out INTEGER, tries INTEGER NOT NULL, seconds REAL NOT NULL,"
    " UNIQUE (key, asked))",
    "CREATE TABLE utility_runs (id INTEGER PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE utility_tasks (id INTEGER PRIMARY KEY, name TEXT NOT NULL, card TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE utility_items (task INTEGER NOT NULL REFERENCES utility_tasks(id), metric INTEGER NOT NULL,"
    " row INTEGER NOT NULL, item BLOB NOT NULL, value REAL, PRIMARY KEY (task, metric, row)) WITHOUT ROWID",
    "CREATE TABLE draws (id INTEGER PRIMARY KEY, judge INTEGER NOT NULL REFERENCES judges(id), body TEXT NOT NULL,"
    " at REAL NOT NULL)",
    "CREATE TABLE annotations (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, asked INTEGER NOT NULL,"
    " annotator TEXT NOT NULL, act TEXT NOT NULL CHECK (act IN ('label', 'unsure', 'skip', 'undo', 'adjudicate')),"
    " label TEXT, detail TEXT, origin TEXT NOT NULL, at REAL NOT NULL, CHECK ((label IS NOT NULL) = (act IN"
    " ('label', 'adjudicate'))), FOREIGN KEY (attempt, asked) REFERENCES completions (attempt, asked))",
    "CREATE INDEX annotations_of ON annotations (attempt, asked)",
    "CREATE TRIGGER annotations_stay BEFORE UPDATE ON annotations BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER annotations_keep BEFORE DELETE ON annotations BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER calls_stay BEFORE UPDATE ON calls BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER calls_keep BEFORE DELETE ON calls BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER utility_tasks_stay BEFORE UPDATE ON utility_tasks BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER utility_tasks_keep BEFORE DELETE ON utility_tasks BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER utility_items_stay BEFORE UPDATE ON utility_items BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER utility_items_keep BEFORE DELETE ON utility_items BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER completions_stay BEFORE UPDATE ON completions BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER completions_keep BEFORE DELETE ON completions BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER verdicts_stay BEFORE UPDATE ON verdicts BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER verdicts_keep BEFORE DELETE ON verdicts BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)

_VERSION_2 = (
    # What a reasoning model thought, apart from what it said.
    "ALTER TABLE completions ADD COLUMN thought TEXT",
    # The turns before the one that is asked, where a bank holds conversations: a JSON list of [role, content].
    "ALTER TABLE questions ADD COLUMN earlier TEXT",
    # What the judge's endpoint said to a verdict that failed.
    "ALTER TABLE verdicts ADD COLUMN note TEXT",
)

INDEX_ATTEMPTS = (
    "CREATE UNIQUE INDEX attempts_by_key ON attempts (key)",
    "CREATE UNIQUE INDEX attempts_by_place ON attempts (question, template, epoch)",
)
"""A plan is written first and indexed then, in half the time."""
UNINDEX_ATTEMPTS = ("DROP INDEX attempts_by_key", "DROP INDEX attempts_by_place")

_VERSION_3 = (
    "CREATE TABLE attempts_next (id INTEGER PRIMARY KEY, key BLOB NOT NULL,"
    " question INTEGER NOT NULL REFERENCES questions(id), template INTEGER NOT NULL REFERENCES templates(id),"
    " epoch INTEGER NOT NULL)",
    "INSERT INTO attempts_next SELECT id, key, question, template, epoch FROM attempts ORDER BY id",
    "DROP TABLE attempts",
    "ALTER TABLE attempts_next RENAME TO attempts",
    *INDEX_ATTEMPTS,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3)
"""``MIGRATIONS[n]`` leads from version n to version n + 1."""

SCHEMA_VERSION = len(MIGRATIONS)

_READ_AS_NEWEST: dict[int, tuple[str, ...]] = {
    1: (
        "CREATE TEMP VIEW completions AS SELECT *, NULL AS thought FROM main.completions",
        "CREATE TEMP VIEW questions AS SELECT *, NULL AS earlier FROM main.questions",
        "CREATE TEMP VIEW verdicts AS SELECT *, NULL AS note FROM main.verdicts",
    ),
}
"""Older version -> what lets a reader that may not write see its tables with the columns of the newest version."""


def check_origin(connection: sqlite3.Connection, known: int = SCHEMA_VERSION) -> int:
    """The store's schema version; 0 in a file that nothing was written to yet. Changes nothing.

    Raises:
        DamagedStore: it was made by a newer version, or is another program's file.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID or version < 1 or not tables:
        raise DamagedStore("the run store is another program's file, or damaged; use another --run")
    if version > known:
        raise DamagedStore(f"the run store has version {version}, this redinstruct knows {known}: upgrade redinstruct")
    return version


def check_schema(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Pass when the store holds the tables, indexes and triggers of its version, and nothing else. Changes nothing.

    A folder from elsewhere may hold a trigger or a view that says other things than its rows (a judge's verdicts turned
    round, say): SQLite takes whatever stands in ``sqlite_master``, so that it has to be looked at first.

    Raises:
        DamagedStore: something is missing, changed or added.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if _schema(connection) != _schema_of(migrations[:version]):
        raise DamagedStore(
            "the run store is not as redinstruct makes it (a table, index, trigger or view was added, changed or "
            "removed): it is not read"
        )


def _schema(connection: sqlite3.Connection) -> frozenset[tuple[object, ...]]:
    # A name that SQLite can not decode is a stranger's too: it is compared as bytes.
    found = connection.execute(
        "SELECT type, CAST(name AS BLOB), CAST(tbl_name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master"
    )
    return frozenset(found)


@functools.cache
def _schema_of(migrations: tuple[tuple[str, ...], ...]) -> frozenset[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        for statements in migrations:
            for statement in statements:
                fresh.execute(statement)
        return _schema(fresh)


def read_as_newest(connection: sqlite3.Connection) -> None:
    """Let a connection that only reads see an older store as the newest version; the file stays as it is.

    Raises:
        DamagedStore: the store was made by a newer version, or is another program's file.
    """
    for statement in _READ_AS_NEWEST.get(check_origin(connection), ()):
        connection.execute(statement)


def check_whole(connection: sqlite3.Connection, file: Path) -> None:
    """Let SQLite read every page: for a store that no seal vouches for; once, where nobody has written to it since.

    Raises:
        DamagedStore: the file is damaged.
    """
    state = _state(file)
    if state is not None and _WHOLE.get(str(file)) == state:
        return
    if not has_log(file.parent):
        # Without a log the header tells the file's length; SQLite itself believes the length of a file that was cut.
        with os.fdopen(open_plain(file), "rb") as data:
            header = data.read(32)
            size = os.fstat(data.fileno()).st_size
        page = int.from_bytes(header[16:18])
        if size != (65536 if page == 1 else page) * int.from_bytes(header[28:32]):
            raise DamagedStore("the run store is damaged (its end is missing)")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok" or connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise DamagedStore("the run store is damaged (its rows and indexes do not fit together)")
    if state is not None and state == _state(file):
        _WHOLE[str(file)] = state


_WHOLE: dict[str, tuple[int, ...]] = {}
"""Stores that this process found whole, and in which state."""
_OLD_ENOUGH = 2_000_000_000
"""Nanoseconds. A file written just now may be written again without its time telling."""


def _state(file: Path) -> tuple[int, ...] | None:
    """Which file it is, and when it and its log were last written; None where that tells nothing yet."""
    found: list[int] = []
    for one in (file, file.parent / LOG_NAME):
        with contextlib.suppress(OSError):
            is_ = one.lstat()
            if time.time_ns() - max(is_.st_mtime_ns, is_.st_ctime_ns) < _OLD_ENOUGH:
                return None
            found += [is_.st_dev, is_.st_ino, is_.st_size, is_.st_mtime_ns, is_.st_ctime_ns]
    return tuple(found)


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """Bring the store to the newest version; returns the version it had.

    Raises:
        DamagedStore: it was made by a newer version, or is another program's file.
    """
    version = check_origin(connection, len(migrations))
    if version == len(migrations):
        return version
    # Otherwise a table that is put in the place of another takes the rows along that refer to it.
    (kept,) = connection.execute("PRAGMA foreign_keys").fetchone()
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        # Pragmas take no bound parameters; both values are this module's own integers.
        connection.execute("PRAGMA application_id = %d" % APPLICATION_ID)  # noqa: UP031
        connection.execute("PRAGMA user_version = %d" % len(migrations))  # noqa: UP031
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys=ON" if kept else "PRAGMA foreign_keys=OFF")
    return version
