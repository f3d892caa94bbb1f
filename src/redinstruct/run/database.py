"""The run store: one SQLite file (WAL) in an owner-only folder, append-only rows.

Promised: a committed row is never changed, lost or doubled, whatever moment the process dies at; verdict commits are
synced to the disk (``synchronous=FULL``), other commits survive the process but not a power cut; every figure can be
recomputed from the rows. One process writes a run at a time; a second one is told so. A store that was cut short or
changed is refused, or reads as an exact prefix of what was committed: by the seal where the last writer ended cleanly,
by SQLite's own checks where it died. Not promised: safety from another process of the same user that edits the file.

A raw completion is committed before it is judged. Asking again after an error adds a row (``asked`` + 1), judging
again adds a row (``judged_no`` + 1): the newest one counts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from redinstruct.errors import ConfigError, DamagedStore, RedInstructError, StoreError
from redinstruct.prompts import parse_template
from redinstruct.run import plans
from redinstruct.run.config import RunConfig
from redinstruct.run.connection import (
    SECRET_BYTES,
    check,
    connect_for_reading,
    connect_for_writing,
    opening,
    reading,
    translated,
)
from redinstruct.run.encryption import Seal, attach, require_key
from redinstruct.run.folder import (
    LOCK_NAME,
    STORE_NAME,
    blank_log,
    break_seal,
    check_plain,
    check_run_folder,
    check_seal,
    is_run,
    lock_folder,
    make_private_file,
    make_private_folder,
    remove_own,
    seal,
)
from redinstruct.run.kinds import A_RUN, check_kind, kind_of, no_run
from redinstruct.run.marks import mark_until
from redinstruct.run.owed import Owed, Wanted
from redinstruct.run.rows import (
    INSERT_COMPLETION,
    INSERT_VERDICT,
    SELECT_ATTEMPT,
    SELECT_ATTEMPTS,
    SELECT_COUNTS,
    SELECT_JUDGE_TOKENS,
    SELECT_LABELS,
    SELECT_TARGET_TOKENS,
    AttemptView,
    CompletionRow,
    CountRow,
    OwedAttempt,
    VerdictRow,
    blob,
    completion_values,
    from_json,
    restored,
    stored,
    to_json,
    verdict_values,
    view_from,
)
from redinstruct.run.schema import check_origin, migrate, read_as_newest
from redinstruct.run.soundness import why_unsound
from redinstruct.safetext import restore
from redinstruct.types import MEASURES, Attempt, Bank, JudgeCard, PromptTemplate
from redinstruct.version import __version__


def begin(db: sqlite3.Connection) -> None:
    """Note an invocation that goes on with a run; the first one gives the run its secret."""
    secret = secrets.token_bytes(SECRET_BYTES)
    db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('secret', ?)", (secret,))
    db.execute("INSERT INTO sessions (at, version) VALUES (?, ?)", (time.time(), __version__))


class Store:
    """One run's rows. Use :meth:`open_for_writing` or :meth:`open_for_reading`; both are context managers.

    A ``Store`` is used by one thread at a time (the engine hands it to its writer thread while a run is under way).
    ``sealed``: its texts are encrypted; ``locked``: there is no key to read them by.
    """

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, lock: int | None, seal: Seal, *, created: bool = False
    ) -> None:
        self.folder = folder
        self.sealed, self.locked = seal.sealed, seal.locked
        self.created = created
        self._db = connection
        self._lock = lock
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
        created = not is_run(folder)
        try:
            make_private_folder(folder)
            make_private_file(folder / ".gitignore", b"*\n")
            make_private_file(folder / LOCK_NAME)
        except OSError as error:
            raise StoreError(f"--run {folder}: cannot be written ({error.strerror})") from error
        lock = lock_folder(folder)
        connection: sqlite3.Connection | None = None
        try:
            try:
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
                migrate(connection)
                kept = attach(connection, folder, writes=True, blank=kind_of(connection) is None)
        except BaseException:
            if connection is not None:
                connection.close()
            os.close(lock)
            raise
        return cls(folder, connection, lock, kept, created=created)

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
                return cls(folder, connection, None, attach(connection, folder, writes=False))
        except BaseException:
            if connection is not None:
                connection.close()
            raise

    def close(self) -> None:
        """Fold the log into the file, seal it, and let go of the lock. Safe to call twice."""
        self._close(sound=True)

    def discard(self, made: Iterable[Path] = ()) -> None:
        """Close a run that nothing was recorded in, and remove it, under its lock; what else stands there stays.

        ``made`` are the folders that were made for it, the deepest first: they go where they are empty then.

        Raises:
            StoreError: a file cannot be removed.
        """
        assert self._lock is not None, "only a writer holds the lock"
        self._fold_log_in()
        self._db.close()
        try:
            remove_own(self.folder, made)
        except OSError as error:
            raise StoreError(f"{self.folder}: the empty run cannot be removed ({error.strerror})") from error
        finally:
            os.close(self._lock)
            self._lock = None

    def _fold_log_in(self) -> None:
        """Put the log's rows into the file, and blank it; left to the next writer where somebody reads."""
        with contextlib.suppress(sqlite3.Error, OSError, StoreError):
            self._db.execute("PRAGMA busy_timeout=0")
            busy, in_log, done = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
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

    def _close(self, *, sound: bool) -> None:
        if self._lock is not None:
            self._fold_log_in()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
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
        why = why_unsound(self._db)
        return None if why is None else DamagedStore(f"{self.folder}: the run store is damaged: it holds {why}")

    @contextlib.contextmanager
    def _transaction(self, what: str, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        self._check_there()
        with translated(what):
            # The pragma may only change outside a transaction; it costs microseconds.
            self._db.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    # ---- planning ------------------------------------------------------------------------------------------------

    def config(self) -> RunConfig | None:
        """The run's configuration, None in a run that was never planned.

        Raises:
            ConfigError: the run is a collection, or a utility check.
            StoreError: the row does not read as a configuration.
        """
        with reading("reading the configuration"):
            row = self._db.execute("SELECT body FROM configs ORDER BY id DESC LIMIT 1").fetchone()
            if row is not None:
                return from_json(row[0], RunConfig)
        check_kind(self._db, self.folder, "evaluation")
        return None

    def begun(self) -> RunConfig:
        """The run's configuration.

        Raises:
            ConfigError: the run was never begun, is a collection, or a utility check.
            StoreError: the row does not read as a configuration.
        """
        config = self.config()
        if config is None:
            raise ConfigError(f"{self.folder}: the run was never begun; nothing is recorded in it")
        return config

    def secret(self) -> bytes:
        """The run's own random secret (32 bytes): judges bind their nonces to it.

        Raises:
            StoreError: the run was never planned.
        """
        with reading("reading the run's secret"):
            row = self._db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
            if row is not None:
                return blob(row[0], SECRET_BYTES)
        raise StoreError(f"{self.folder}: the run was never begun, it has no secret yet")

    def plan(
        self,
        config: RunConfig,
        banks: Sequence[Bank],
        templates: Sequence[PromptTemplate],
        attempts: Iterable[Attempt],
        card: JudgeCard,
    ) -> int:
        """Write down, in one transaction, what the run is to ask; rows that stand already stay.

        Returns the judge's row. The configuration is added when it is new or larger; where it is neither, everything
        stands, and ``attempts`` is not read: a shard so keeps to its part.
        """
        with self._transaction("planning the run", durable=True) as db:
            db.execute(
                "INSERT OR IGNORE INTO meta (key, value) VALUES ('secret', ?)", (secrets.token_bytes(SECRET_BYTES),)
            )
            db.execute("INSERT INTO sessions (at, version) VALUES (?, ?)", (time.time(), __version__))
            if not plans.stands(db, config):
                plans.add(db, config, banks, templates, attempts)
            return self._judge_row(db, card)

    def planned_so_far(self) -> plans.Mark:
        """Where the plan ends now, for :meth:`take_back`."""
        with translated("reading the plan"):
            return plans.mark(self._db)

    def take_back(self, mark: plans.Mark) -> None:
        """Forget what was planned after the mark, unless some of it was answered."""
        with self._transaction("taking a plan back", durable=True) as db:
            plans.take_back(db, mark)

    def add_judge(self, card: JudgeCard) -> int:
        """The judge's row, written when it is new."""
        with self._transaction("adding a judge", durable=True) as db:
            return self._judge_row(db, card)

    @staticmethod
    def _judge_row(db: sqlite3.Connection, card: JudgeCard) -> int:
        db.execute(
            "INSERT OR IGNORE INTO judges (card_id, name, measure, card) VALUES (?,?,?,?)",
            (stored(card.id), stored(card.name), card.measure, to_json(card)),
        )
        row: tuple[int] = db.execute("SELECT id FROM judges WHERE card_id = ?", (stored(card.id),)).fetchone()
        return row[0]

    # ---- what is owed, and its writing ---------------------------------------------------------------------------

    def owed(
        self, judge: int, *, sample: bool = True, retry_errors: bool = False, again: bool = False
    ) -> list[OwedAttempt]:
        """The attempts without a completion (if ``sample``) or without a verdict by the judge, in planned order.

        ``retry_errors`` adds the attempts that are labelled ``error``: a failed sample is asked again, a failed
        judgement is judged again. ``again`` adds every answer that the judge has judged: the same instrument reads it
        once more.
        """
        return list(self.owing(judge, Wanted(sample, retry_errors, again)))

    def owing(self, judge: int, wanted: Wanted) -> Owed:
        """The same as :meth:`owed`, read one by one when its turn comes."""
        return Owed(self.folder, self._db, self._templates(), judge, wanted)

    def templates(self) -> list[PromptTemplate]:
        """The run's templates, in the order of its prompts."""
        return list(self._templates().values())

    def _templates(self) -> dict[int, PromptTemplate]:
        with reading("reading the templates"):
            return {
                row: parse_template(restore(name), restore(text), translation_of=restored(of))
                for row, name, text, of in self._db.execute("SELECT id, name, text, translation_of FROM templates")
            }

    def commit_completions(self, rows: Sequence[CompletionRow]) -> None:
        """Commit answers, in one transaction, before anything judges them."""
        with self._transaction("recording answers") as db:
            db.executemany(
                INSERT_COMPLETION,
                [completion_values(row) for row in rows],
            )
            mark_until(db)

    def commit_verdicts(self, rows: Sequence[VerdictRow]) -> None:
        """Commit verdicts, in one transaction, synced to the disk."""
        with self._transaction("recording verdicts", durable=True) as db:
            db.executemany(
                INSERT_VERDICT,
                [verdict_values(row) for row in rows],
            )
            mark_until(db)

    # ---- reading for figures -------------------------------------------------------------------------------------

    def judges(self) -> list[tuple[int, JudgeCard]]:
        """The judges of this run, in the order in which they came."""
        with reading("reading the judges"):
            rows = self._db.execute("SELECT id, card FROM judges ORDER BY id").fetchall()
            found = [(row, from_json(card, JudgeCard)) for row, card in rows]
            if not all(card.measure in MEASURES for _, card in found):
                raise ValueError("a judge of no known measure")
            return found

    def counts(self, judge: int) -> list[CountRow]:
        """Attempts by bank, prompt, topic and outcome, for one judge; label None: nothing recorded yet."""
        with reading("counting"):
            return [
                CountRow(restore(bank), restore(prompt), restored(topic), label, detail, restored(reason), count)
                for bank, prompt, topic, label, detail, reason, count in self._db.execute(SELECT_COUNTS, (judge,))
            ]

    def planned(self) -> int:
        """How many attempts the run, or this shard of it, has."""
        with translated("counting"):
            row: tuple[int] = self._db.execute("SELECT count(*) FROM attempts").fetchone()
        return row[0]

    def recorded(self) -> int:
        """How many attempts have an answer, or a reason why there is none."""
        with translated("counting"):
            row: tuple[int] = self._db.execute("SELECT count(DISTINCT attempt) FROM completions").fetchone()
        return row[0]

    def is_blank(self) -> bool:
        """Whether nothing was recorded yet."""
        with translated("looking for answers"):
            return self._db.execute("SELECT 1 FROM completions LIMIT 1").fetchone() is None

    def labels(self, judge: int) -> list[tuple[bytes, str, str, str | None]]:
        """Key, bank, prompt and label of every attempt, for one judge; label None: nothing recorded yet."""
        with reading("reading labels"):
            return [
                (blob(key), restore(bank), restore(prompt), label)
                for key, bank, prompt, label in self._db.execute(SELECT_LABELS, (judge,))
            ]

    def add_sample(self, judge: int, first: int, size: int) -> None:
        """Note that a judge is asked on a random part only, drawn by another judge's labels."""
        with self._transaction("recording a sample", durable=True) as db:
            db.execute(
                "INSERT INTO samples (judge, first, size, at) VALUES (?,?,?,?)", (judge, first, size, time.time())
            )

    def samples(self) -> dict[int, int]:
        """Judge -> the judge by whose labels its part was drawn; without those that have labelled everything since."""
        with translated("reading the samples"):
            drawn = dict(self._db.execute("SELECT judge, first FROM samples ORDER BY id"))
            if not drawn:
                return {}
            answers = "SELECT count(DISTINCT attempt) FROM completions WHERE outcome = 'text'"
            texts = self._db.execute(answers).fetchone()
            done = dict(self._db.execute("SELECT judge, count(DISTINCT attempt) FROM verdicts GROUP BY judge"))
        return {judge: first for judge, first in drawn.items() if done.get(judge, 0) < texts[0]}

    def add_selftest(self, judge: int, body: str, tokens_in: int, tokens_out: int) -> None:
        """Keep how the judge did on the battery (JSON), and what that took."""
        with self._transaction("recording the self-test", durable=True) as db:
            db.execute(
                "INSERT INTO selftests (judge, at, tokens_in, tokens_out, body) VALUES (?,?,?,?,?)",
                (judge, time.time(), tokens_in, tokens_out, body),
            )

    def selftest(self, judge: int) -> str | None:
        """The judge's newest self-test (JSON), None where it was never tested."""
        with translated("reading the self-test"):
            newest = "SELECT body FROM selftests WHERE judge = ? ORDER BY id DESC LIMIT 1"
            row = self._db.execute(newest, (judge,)).fetchone()
        return None if row is None else str(row[0])

    def has_verdicts(self, judge: int) -> bool:
        """Whether the judge has labelled anything."""
        with translated("looking for verdicts"):
            return self._db.execute("SELECT 1 FROM verdicts WHERE judge = ? LIMIT 1", (judge,)).fetchone() is not None

    def tokens(self) -> tuple[int, int, int, int]:
        """Tokens so far: target in, target out, judges in, judges out.

        Where an endpoint told no count, every byte is a token: about the bound that a budget was kept by when it was
        asked.
        """
        with translated("summing tokens"):
            target = self._db.execute(SELECT_TARGET_TOKENS).fetchone()
            judge = self._db.execute(SELECT_JUDGE_TOKENS).fetchone()
            tests = self._db.execute("SELECT total(tokens_in), total(tokens_out) FROM selftests").fetchone()
        return int(target[0]), int(target[1]), int(judge[0] + tests[0]), int(judge[1] + tests[1])

    def attempts(self, judge: int, *, label: str | None = None, key: str | None = None) -> Iterator[AttemptView]:
        """The recorded attempts in the banks' order, optionally of one label or one key prefix (hex)."""
        with reading("reading attempts"):
            # Keys first: a sort must not carry the texts along.
            for found, _ in self._db.execute(SELECT_ATTEMPTS, (judge, label, label, key, key, key)):
                yield view_from(*self._db.execute(SELECT_ATTEMPT, (judge, found)).fetchone())
