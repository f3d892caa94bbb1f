"""A run that stands already, encrypted, or encrypted anew under another key: ``redinstruct seal``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from redinstruct.errors import ConfigError
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.run.connection import looked_at
from redinstruct.run.database import Store
from redinstruct.run.encryption import NEEDED, by_the_new_key, is_sealed, is_sealed_by_the_new_key, sealing
from redinstruct.run.rows import INSERT_CALL, INSERT_COMPLETION, INSERT_QUESTION, INSERT_VERDICT
from redinstruct.run.stress import evaluations_of
from redinstruct.run.whole import finish_remaking, remade_run

# Every table in the order of its references; what is sealed is read by name, through the views.
_TABLES = (
    ("SELECT key, value FROM meta WHERE key <> 'seal'", "INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)"),
    ("SELECT * FROM sessions ORDER BY id", "INSERT INTO sessions VALUES (?,?,?)"),
    ("SELECT * FROM configs ORDER BY id", "INSERT INTO configs VALUES (?,?,?,?)"),
    ("SELECT * FROM banks ORDER BY id", "INSERT INTO banks VALUES (?,?,?)"),
    ("SELECT * FROM templates ORDER BY id", "INSERT INTO templates VALUES (?,?,?,?,?)"),
    (
        "SELECT id, bank, row, text, topic, subtopic, language, label, earlier FROM questions ORDER BY id",
        INSERT_QUESTION,
    ),
    ("SELECT * FROM attempts ORDER BY id", "INSERT INTO attempts VALUES (?,?,?,?,?)"),
    (
        "SELECT attempt, asked, outcome, reason, note, raw, judged, finish_reason, tokens_in, tokens_out, truncated,"
        " flags, tries, seconds, thought FROM completions ORDER BY id",
        INSERT_COMPLETION,
    ),
    ("SELECT * FROM judges ORDER BY id", "INSERT INTO judges VALUES (?,?,?,?,?)"),
    (
        "SELECT attempt, asked, judge, judged_no, label, detail, reason, raw, tokens_in, tokens_out, tries, score,"
        " probability, note FROM verdicts",
        INSERT_VERDICT,
    ),
    ("SELECT * FROM selftests ORDER BY id", "INSERT INTO selftests VALUES (?,?,?,?,?,?)"),
    ("SELECT * FROM samples ORDER BY id", "INSERT INTO samples VALUES (?,?,?,?,?)"),
    ("SELECT * FROM collections ORDER BY id", "INSERT INTO collections VALUES (?,?,?,?)"),
    (
        "SELECT key, asked, step, role, request, request_bytes, outcome, reason, note, reply, finish_reason, tokens_in,"
        " tokens_out, tries, seconds FROM calls ORDER BY id",
        INSERT_CALL,
    ),
    ("SELECT * FROM utility_runs ORDER BY id", "INSERT INTO utility_runs VALUES (?,?,?,?)"),
    ("SELECT * FROM utility_tasks ORDER BY id", "INSERT INTO utility_tasks VALUES (?,?,?,?)"),
    ("SELECT * FROM utility_items", "INSERT INTO utility_items VALUES (?,?,?,?,?)"),
    ("SELECT * FROM draws ORDER BY id", "INSERT INTO draws VALUES (?,?,?,?)"),
    ("SELECT * FROM annotations ORDER BY id", "INSERT INTO annotations VALUES (?,?,?,?,?,?,?,?,?)"),
)


def reseal(folder: Path, *, rotate: bool = False, on_progress: OnProgress | None = None) -> None:
    """Write a run's store anew, its texts encrypted, and put it in the old one's place; the old bytes are overwritten.

    ``rotate``: the run is sealed, and gets a new key of its own, wrapped by the user's new one. A kill leaves the old
    store, or the new one, and the same call overwrites what else it left. Of a stress run the attacks' stores go
    first, so that where its own is done, all is.

    Raises:
        ConfigError: there is no run, it is sealed already (or is not, with ``rotate``), or a key is missing or wrong.
        StoreError: it is in use, damaged, or cannot be written.
    """
    _, *attacks = evaluations_of(folder)
    owed = [place for place in attacks if not _is_done(place, rotate=rotate)]
    for place in owed:
        _reseal(place, rotate=rotate, on_progress=on_progress)
    if not owed or not _is_done(folder, rotate=rotate):
        _reseal(folder, rotate=rotate, on_progress=on_progress)


def _is_done(place: Path, *, rotate: bool) -> bool:
    """Whether a store is sealed already, by the new key where it is to be another; what a kill left beside it goes."""
    finish_remaking(place.absolute())
    with looked_at(place) as db:
        return is_sealed_by_the_new_key(db, place) if rotate else is_sealed(db)


def _reseal(folder: Path, *, rotate: bool, on_progress: OnProgress | None) -> None:
    """One store.

    Raises:
        ConfigError: there is no run, it is sealed already (or is not, with ``rotate``), or a key is missing or wrong.
        StoreError: it is in use, damaged, or cannot be written.
    """
    tell = on_progress or unheard
    finished = finish_remaking(folder.absolute())
    with contextlib.ExitStack() as reads:
        old = reads.enter_context(Store.open_for_reading(folder))
        if rotate and not old.sealed:
            raise ConfigError(f"{folder} is not sealed: without --rotate this seals it")
        if old.sealed and not rotate:
            if finished:
                return
            raise ConfigError(f"{folder} is sealed already; --rotate gives it another key")
        if old.locked:
            raise ConfigError(f"{folder} is sealed: {NEEDED}")

        def write(store: Store) -> None:
            with store.writing("sealing the run", durable=True) as db:
                for number, (select, insert) in enumerate(_TABLES, 1):
                    db.executemany(insert, old.db.execute(select))
                    tell(Progress(number, len(_TABLES), "tables"))
            reads.close()

        with by_the_new_key() if rotate else sealing():
            remade_run(folder.absolute(), write)
