"""An evaluation dealt out to machines without a common network: ``redinstruct shard``.

A shard is an ordinary run. It has the whole run's configuration, secret, banks, templates and questions, and a part of
its attempts, under the numbers that they have there: so the command that begun the run resumes each shard too, and
:mod:`redinstruct.run.merging` puts them together by key. What the run has recorded stays with it. The parts are equal
to one attempt, and each is a random part of every bank, prompt and topic, since attempts are dealt out by their hashes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import ConfigError, DamagedStore, RedInstructError, StoreError, UsageError
from redinstruct.files.atomic import leftovers, open_plain, temporary, whole_folder
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.run.config import RunConfig
from redinstruct.run.connection import reading
from redinstruct.run.database import Store
from redinstruct.run.encryption import sealing
from redinstruct.run.folder import (
    LOCK_NAME,
    STORE_NAME,
    check_outside,
    is_run,
    lock_folder,
    make_private_file,
    make_private_folder,
)
from redinstruct.run.purging import purge, purge_runs_in
from redinstruct.run.rows import INSERT_QUESTION, blob

MOST_SHARDS = 10_000
_CHUNK = 10_000
PLAN_TABLES = (
    ("SELECT id, name, sha256 FROM banks ORDER BY id", "INSERT INTO banks (id, name, sha256) VALUES (?,?,?)"),
    (
        "SELECT id, name, sha256, text, translation_of FROM templates ORDER BY id",
        "INSERT INTO templates (id, name, sha256, text, translation_of) VALUES (?,?,?,?,?)",
    ),
    (
        "SELECT id, bank, row, text, topic, subtopic, language, label, earlier FROM questions ORDER BY id",
        INSERT_QUESTION,
    ),
)
"""What is asked, but for the attempts: each table as it is read and written."""
_SHARED = (
    ("SELECT key, value FROM meta WHERE key <> 'seal'", "INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)"),
    ("SELECT id, at, version FROM sessions", "INSERT INTO sessions (id, at, version) VALUES (?,?,?)"),
    ("SELECT id, digest, body, at FROM configs", "INSERT INTO configs (id, digest, body, at) VALUES (?,?,?,?)"),
    *PLAN_TABLES,
    (
        "SELECT id, card_id, name, measure, card FROM judges ORDER BY id",
        "INSERT INTO judges (id, card_id, name, measure, card) VALUES (?,?,?,?,?)",
    ),
    (
        "SELECT id, judge, at, tokens_in, tokens_out, body FROM selftests ORDER BY id",
        "INSERT INTO selftests (id, judge, at, tokens_in, tokens_out, body) VALUES (?,?,?,?,?,?)",
    ),
)
_UNASKED = (
    "SELECT a.id FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM completions WHERE attempt = a.id) ORDER BY a.key"
)
_ATTEMPT = "SELECT id, key, question, template, epoch FROM attempts WHERE id = ?"
INSERT_ATTEMPT = "INSERT INTO attempts (id, key, question, template, epoch) VALUES (?,?,?,?,?)"


class ShardMark(msgspec.Struct, frozen=True):
    """Which part of a run a shard is: its ``number``, from 1, ``of`` so many."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.number:,} of {self.of:,}"


class Shards(msgspec.Struct, frozen=True):
    """What ``shard`` made: the shards' folders, the attempts in each, and how many stay with the run.

    ``new`` is false where these very shards stood there already.
    """

    folders: tuple[Path, ...]
    attempts: tuple[int, ...]
    recorded: int
    new: bool = True


def shard_of(store: Store) -> ShardMark | None:
    """Which shard a run is; None where it is a whole one.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading which shard this is") as db:
        row = db.execute("SELECT value FROM meta WHERE key = 'shard'").fetchone()
        if row is None:
            return None
        found = re.fullmatch(rb"([1-9]\d{0,8})/([1-9]\d{0,8})", blob(row[0]))
        if found is None:
            raise ValueError("no shard's mark")
        return ShardMark(int(found[1]), int(found[2]))


def check_shard_stays(store: Store, config: RunConfig) -> None:
    """Pass when a configuration asks a shard for no more than its part, or the run is no shard.

    Raises:
        ConfigError: it would extend the shard.
    """
    mark, stored = shard_of(store), store.config()
    if mark is None or stored is None or (stored.limit, stored.epochs) == (config.limit, config.epochs):
        return
    raise ConfigError(
        f"{store.folder} is {mark}: a larger --limit or --epochs can not extend it; "
        "merge the shards (`redinstruct merge`), and extend the whole run"
    )


def shard(run: Path, of: int, out: Path, on_progress: OnProgress | None = None) -> Shards:
    """Deal out what a run has not asked yet to ``of`` shards, ``out/1`` to ``out/K``, that appear all at once.

    The run itself stays as it is, and keeps what it has recorded.

    Args:
        run: an evaluation's folder; one begun with ``--max-calls 0``, say. It may be a shard.
        of: how many shards.
        out: a folder that is made; it may stand there, empty.
        on_progress: told how many attempts have been dealt out.

    Raises:
        UsageError: no shards can be made so: a collection, a utility check, a run that owes nothing; nothing written.
        StoreError: the run is in use, or the disk is full; nothing is left behind.
    """
    if not 1 <= of <= MOST_SHARDS:
        raise UsageError(f"--of must be from 1 to {MOST_SHARDS:,}")
    check_outside(out, "--out")
    taken = _is_taken(out)
    with _kept_still(run), Store.open_for_reading(run) as store:
        store.begun()
        if taken:
            return _standing(store, out, of)
        with store.reading("reading what was not asked") as db:
            unasked = array("q", (row for (row,) in db.execute(_UNASKED)))
        if not unasked:
            raise UsageError(f"{run}: every attempt is recorded; there is nothing to deal out")
        if of > len(unasked):
            raise UsageError(f"{run}: only {len(unasked):,} attempts are not asked yet; --of must not be larger")
        parts = [array("q", sorted(unasked[number::of])) for number in range(of)]
        _deal(store, out, parts, on_progress or unheard)
        return Shards(_folders(out, of), tuple(map(len, parts)), store.planned() - len(unasked))


def _folders(out: Path, of: int) -> tuple[Path, ...]:
    return tuple(out / str(number) for number in range(1, of + 1))


def _is_taken(out: Path) -> bool:
    try:
        if not os.path.lexists(out):
            return False
        if not out.is_dir() or out.is_symlink():
            raise ConfigError(f"--out {out}: is not a folder; name a new one")
        return any(out.iterdir())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out {str(out)[:60]!r}: cannot be read ({error})") from None


def _standing(store: Store, out: Path, of: int) -> Shards:
    """The shards in a folder, where they are just those that would be made.

    Raises:
        ConfigError: something else stands there.
    """
    wanted, attempts = store.begun(), []
    for number, folder in enumerate(_folders(out, of), 1):
        same = is_run(folder)
        if same:
            with Store.open_for_reading(folder) as other:
                config = other.config()
                same = (
                    config is not None
                    and (config.digest, config.limit, config.epochs) == (wanted.digest, wanted.limit, wanted.epochs)
                    and other.secret() == store.secret()
                    and shard_of(other) == ShardMark(number, of)
                )
                attempts.append(other.planned())
        if not same:
            raise ConfigError(f"--out {out}: something else stands there already; name a new folder")
    return Shards(_folders(out, of), tuple(attempts), store.planned() - sum(attempts), new=False)


def _deal(store: Store, out: Path, parts: Sequence[array[int]], tell: OnProgress) -> None:
    done, total = 0, sum(map(len, parts))
    with _written(out):
        left = temporary(out)
        if left.is_dir() and left in leftovers(out.parent):
            purge_runs_in(left)  # what a killed call left is overwritten, and not merely removed
    with _written(out), whole_folder(out, mode=0o700) as place, _no_bytes_left(place):
        base = place / ".base"
        with sealing(store.sealed), Store.open_for_writing(base) as fresh:
            _copy_shared(store, fresh)
        for number, part in enumerate(parts, 1):
            _write(store, base, place / str(number), ShardMark(number, len(parts)), part)
            done += len(part)
            tell(Progress(done, total, "attempts"))
        purge(base)


@contextlib.contextmanager
def _kept_still(run: Path) -> Iterator[None]:
    """Nobody records in the run meanwhile: what he asked would be asked again in a shard."""
    if not os.access(run / LOCK_NAME, os.W_OK):  # then nobody else can
        yield
        return
    lock = lock_folder(run)
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _written(out: Path) -> Iterator[None]:
    """What the system says of the place, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk is full: no shard was made in {out}; free space and run again") from error
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from error
    except StoreError as error:
        if isinstance(error, DamagedStore):
            raise
        said = str(error).replace(str(temporary(out)), str(out))
        raise StoreError(f"--out {out}: no shard was made ({said})") from error


@contextlib.contextmanager
def _no_bytes_left(place: Path) -> Iterator[None]:
    """What was written before an error is overwritten, as `purge` does it."""
    try:
        yield
    except BaseException:
        for folder in place.iterdir():
            with contextlib.suppress(RedInstructError, OSError):
                purge(folder)
        raise


def _copy_shared(store: Store, fresh: Store) -> None:
    with fresh.writing("copying the plan", durable=True) as db, reading("reading the plan"):
        for select, insert in _SHARED:
            db.executemany(insert, store.db.execute(select))


def _write(store: Store, base: Path, folder: Path, mark: ShardMark, part: array[int]) -> None:
    make_private_folder(folder)
    for name in (STORE_NAME, LOCK_NAME):  # the lock's file holds the seal
        make_private_file(folder / name)
        with (
            os.fdopen(open_plain(base / name), "rb") as source,
            os.fdopen(open_plain(folder / name, os.O_WRONLY), "wb") as target,
        ):
            while block := source.read(1 << 20):
                target.write(block)
    with Store.open_for_writing(folder) as fresh:
        _add(store, fresh, mark, part)


def _add(store: Store, fresh: Store, mark: ShardMark, part: array[int]) -> None:
    text = f"{mark.number}/{mark.of}".encode()
    with fresh.writing("dealing out attempts", durable=True) as db, reading("reading attempts"):
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('shard', ?)", (text,))
        for start in range(0, len(part), _CHUNK):
            rows = (store.db.execute(_ATTEMPT, (row,)).fetchone() for row in part[start : start + _CHUNK])
            db.executemany(INSERT_ATTEMPT, rows)
