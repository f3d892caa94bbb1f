"""The run store: one SQLite file (WAL) in an owner-only folder, append-only rows.

Promised: a committed row is never changed, lost or doubled, whatever moment the process dies at; verdict commits are
synced to the disk (``synchronous=FULL``), other commits survive the process but not a power cut; every figure can be
recomputed from the rows. One process writes a run at a time; a second one is told so. A store that was cut short or
changed is refused, or reads as an exact prefix of what was committed: by what vouches for its file
(:mod:`redinstruct.run.seals`), by SQLite's own checks where its writer died while it changed that. Not promised:
safety from another process of the same user that edits the file.

A raw completion is committed before it is judged. Asking again after an error adds a row (``asked`` + 1), judging
again adds a row (``judged_no`` + 1): the newest one counts.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from redinstruct.errors import ConfigError, StoreError
from redinstruct.prompts import parse_template
from redinstruct.run import plans
from redinstruct.run.config import RunConfig
from redinstruct.run.connection import SECRET_BYTES
from redinstruct.run.lots import Lot
from redinstruct.run.marks import mark_until
from redinstruct.run.opened import OpenStore, begin
from redinstruct.run.owed import Owed, Scope
from redinstruct.run.rows import (
    CLEAR_COMPLETION,
    CLEAR_VERDICT,
    INSERT_COMPLETION,
    INSERT_VERDICT,
    SELECT_ATTEMPT,
    SELECT_COUNTS,
    SELECT_JUDGE_TOKENS,
    SELECT_KEYS,
    SELECT_KEYS_BETWEEN,
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
    over_newest,
    to_json,
    verdict_values,
    view_from,
)
from redinstruct.safetext import restore, storable
from redinstruct.types import MEASURES, Attempt, Bank, JudgeCard, PromptTemplate

_DIGITS = re.compile("[0-9a-f]{1,64}")


class Sought(msgspec.Struct, frozen=True):
    """Which attempts: of a label, under a prompt, on a topic; names in any case, "" for no topic. None: whichever."""

    label: str | None = None
    prompt: str | None = None
    topic: str | None = None


class Store(OpenStore):
    """One run's rows: an evaluation's, and what every kind of run has."""

    # ---- planning ------------------------------------------------------------------------------------------------

    def config(self) -> RunConfig | None:
        """The run's configuration, None in a run that was never planned.

        Raises:
            ConfigError: the run is a collection, or a utility check.
            StoreError: the row does not read as a configuration.
        """
        return self.newest_config("evaluation", partial(from_json, type_=RunConfig))

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
        with self.reading("reading the run's secret"):
            row = self.db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
            if row is not None:
                return blob(row[0], SECRET_BYTES)
        raise StoreError(f"{self.folder}: the run was never begun, it has no secret yet")

    def plan(
        self,
        config: RunConfig,
        banks: Sequence[Bank],
        templates: Sequence[PromptTemplate],
        attempts: Iterable[Attempt | Lot],
        card: JudgeCard,
    ) -> int:
        """Write down, in one transaction, what the run is to ask; rows that stand already stay.

        Returns the judge's row. The configuration is added when it is new or larger; where it is neither, everything
        stands, and ``attempts`` is not read: a shard so keeps to its part.
        """
        with self.writing("planning the run", durable=True) as db:
            begin(db)
            if not plans.stands(db, config):
                plans.add(db, config, banks, templates, attempts, sealed=self.sealed)
            return self._judge_row(db, card)

    def planned_so_far(self) -> plans.Mark:
        """Where the plan ends now, for :meth:`take_back`."""
        with self.reading("reading the plan"):
            return plans.mark(self.db)

    def take_back(self, mark: plans.Mark) -> None:
        """Forget what was planned after the mark, unless some of it was answered."""
        with self.writing("taking a plan back", durable=True) as db:
            plans.take_back(db, mark)

    def add_judge(self, card: JudgeCard) -> int:
        """The judge's row, written when it is new."""
        with self.writing("adding a judge", durable=True) as db:
            return self._judge_row(db, card)

    @staticmethod
    def _judge_row(db: sqlite3.Connection, card: JudgeCard) -> int:
        db.execute(
            "INSERT OR IGNORE INTO judges (card_id, name, measure, card) VALUES (?,?,?,?)",
            (storable(card.id), storable(card.name), card.measure, to_json(card)),
        )
        row: tuple[int] = db.execute("SELECT id FROM judges WHERE card_id = ?", (storable(card.id),)).fetchone()
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
        return list(self.owing(judge, Scope(sample, retry_errors, again)))

    def owing(self, judge: int, wanted: Scope) -> Owed:
        """The same as :meth:`owed`, read one by one when its turn comes."""
        with self.reading("reading the banks") as db:
            banks = {row: (restore(name), sha) for row, name, sha in db.execute("SELECT id, name, sha256 FROM banks")}
        return Owed(self.folder, self.db, banks, self._templates(), judge, wanted)

    def templates(self) -> list[PromptTemplate]:
        """The run's templates, in the order of its prompts."""
        return list(self._templates().values())

    def _templates(self) -> dict[int, PromptTemplate]:
        with self.reading("reading the templates"):
            return {
                row: parse_template(restore(name), restore(text), translation_of=restore(of))
                for row, name, text, of in self.db.execute("SELECT id, name, text, translation_of FROM templates")
            }

    def commit_completions(self, rows: Sequence[CompletionRow]) -> None:
        """Commit answers, in one transaction, before anything judges them."""
        with self.writing("recording answers") as db:
            db.executemany(INSERT_COMPLETION if self.sealed else CLEAR_COMPLETION, map(completion_values, rows))
            mark_until(db)

    def commit_verdicts(self, rows: Sequence[VerdictRow]) -> None:
        """Commit verdicts, in one transaction, synced to the disk."""
        with self.writing("recording verdicts", durable=True) as db:
            db.executemany(INSERT_VERDICT if self.sealed else CLEAR_VERDICT, map(verdict_values, rows))
            mark_until(db)

    # ---- reading for figures -------------------------------------------------------------------------------------

    def judges(self) -> list[tuple[int, JudgeCard]]:
        """The judges of this run, in the order in which they came."""
        with self.reading("reading the judges"):
            rows = self.db.execute("SELECT id, card FROM judges ORDER BY id").fetchall()
            found = [(row, from_json(card, JudgeCard)) for row, card in rows]
            if not all(card.measure in MEASURES for _, card in found):
                raise ValueError("a judge of no known measure")
            return found

    def counts(self, judge: int) -> list[CountRow]:
        """Attempts by bank, prompt, topic and outcome, for one judge; label None: nothing recorded yet."""
        with self.reading("counting"):
            return [
                CountRow(restore(bank), restore(prompt), restore(topic), label, detail, restore(reason), count)
                for bank, prompt, topic, label, detail, reason, count in over_newest(self.db, SELECT_COUNTS, (judge,))
            ]

    def planned(self) -> int:
        """How many attempts the run, or this shard of it, has."""
        with self.reading("counting"):
            row: tuple[int] = self.db.execute("SELECT count(*) FROM attempts").fetchone()
        return row[0]

    def recorded(self) -> int:
        """How many attempts have an answer, or a reason why there is none."""
        with self.reading("counting"):
            row: tuple[int] = self.db.execute("SELECT count(DISTINCT attempt) FROM completions").fetchone()
        return row[0]

    def is_blank(self) -> bool:
        """Whether nothing was recorded yet."""
        with self.reading("looking for answers"):
            return self.db.execute("SELECT 1 FROM completions LIMIT 1").fetchone() is None

    def labels(self, judge: int) -> list[tuple[bytes, str, str, str | None]]:
        """Key, bank, prompt and label of every attempt, for one judge; label None: nothing recorded yet."""
        with self.reading("reading labels"):
            return [
                (blob(key), restore(bank), restore(prompt), label)
                for key, bank, prompt, label in over_newest(self.db, SELECT_LABELS, (judge,))
            ]

    def add_sample(self, judge: int, first: int, size: int) -> None:
        """Note that a judge is asked on a random part only, drawn by another judge's labels."""
        with self.writing("recording a sample", durable=True) as db:
            db.execute(
                "INSERT INTO samples (judge, first, size, at) VALUES (?,?,?,?)", (judge, first, size, time.time())
            )

    def samples(self) -> dict[int, int]:
        """Judge -> the judge by whose labels its part was drawn; without those that have labelled everything since."""
        with self.reading("reading the samples"):
            drawn = dict(self.db.execute("SELECT judge, first FROM samples ORDER BY id"))
            if not drawn:
                return {}
            answers = "SELECT count(DISTINCT attempt) FROM completions WHERE outcome = 'text'"
            texts = self.db.execute(answers).fetchone()
            done = dict(self.db.execute("SELECT judge, count(DISTINCT attempt) FROM verdicts GROUP BY judge"))
        return {judge: first for judge, first in drawn.items() if done.get(judge, 0) < texts[0]}

    def add_selftest(self, judge: int, body: str, tokens_in: int, tokens_out: int) -> None:
        """Keep how the judge did on the battery (JSON), and what that took."""
        with self.writing("recording the self-test", durable=True) as db:
            db.execute(
                "INSERT INTO selftests (judge, at, tokens_in, tokens_out, body) VALUES (?,?,?,?,?)",
                (judge, time.time(), tokens_in, tokens_out, body),
            )

    def selftest(self, judge: int) -> str | None:
        """The judge's newest self-test (JSON), None where it was never tested."""
        with self.reading("reading the self-test"):
            newest = "SELECT body FROM selftests WHERE judge = ? ORDER BY id DESC LIMIT 1"
            row = self.db.execute(newest, (judge,)).fetchone()
        return None if row is None else str(row[0])

    def has_verdicts(self, judge: int) -> bool:
        """Whether the judge has labelled anything."""
        with self.reading("looking for verdicts"):
            return self.db.execute("SELECT 1 FROM verdicts WHERE judge = ? LIMIT 1", (judge,)).fetchone() is not None

    def tokens(self) -> tuple[int, int, int, int]:
        """Tokens so far: target in, target out, judges in, judges out.

        Where an endpoint told no count, every byte is a token: about the bound that a budget was kept by when it was
        asked.
        """
        with self.reading("summing tokens"):
            target = self.db.execute(SELECT_TARGET_TOKENS).fetchone()
            judge = self.db.execute(SELECT_JUDGE_TOKENS).fetchone()
            tests = self.db.execute("SELECT total(tokens_in), total(tokens_out) FROM selftests").fetchone()
        return int(target[0]), int(target[1]), int(judge[0] + tests[0]), int(judge[1] + tests[1])

    def attempts(self, judge: int, *, label: str | None = None) -> Iterator[AttemptView]:
        """The recorded attempts in the banks' order, optionally of one label."""
        return self.views(judge, self.keys(judge, Sought(label)))

    def keys(self, judge: int, sought: Sought) -> Iterator[bytes]:
        """The keys of the recorded attempts in the banks' order, one bank and prompt after the other."""
        with self.reading("reading attempts"):
            banks = [row for (row,) in self.db.execute("SELECT id FROM banks ORDER BY id")]
            prompts = self.db.execute("SELECT id, name FROM templates ORDER BY id").fetchall()
            for bank in banks:
                for prompt, name in prompts:
                    if _among(restore(name), sought.prompt):
                        where = (judge, bank, prompt, sought.label, sought.label)
                        for key, _, topic in self.db.execute(SELECT_KEYS, where):
                            if sought.topic is None or _among(restore(topic) or "", sought.topic):
                                yield key

    def views(self, judge: int, keys: Iterable[bytes]) -> Iterator[AttemptView]:
        """The recorded attempts of these keys, each read when its turn comes."""
        with self.reading("reading attempts"):
            for key in keys:
                yield view_from(*self.db.execute(SELECT_ATTEMPT, (judge, key)).fetchone())

    def named(self, judge: int, beginning: str) -> Iterator[AttemptView]:
        """The recorded attempts whose keys begin with these digits (hex, in lower case)."""
        keys: list[bytes] = []
        if _DIGITS.fullmatch(beginning):
            ends = tuple(bytes.fromhex(beginning.ljust(64, digit)) for digit in "0f")
            with self.reading("reading attempts"):
                keys = [key for (key,) in self.db.execute(SELECT_KEYS_BETWEEN, ends)]
        return self.views(judge, keys)


def _among(name: str, wanted: str | None) -> bool:
    return wanted is None or name.casefold() == wanted.casefold()
