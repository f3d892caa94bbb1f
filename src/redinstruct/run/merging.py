"""Shards of a run put together again: ``redinstruct merge``.

Promised: rows join by their attempt's key, so that nothing is lost and nothing counted twice; every call that was paid
for stays in the sums; the order in which the folders are named decides nothing, but between two whole runs. The run
appears whole or not at all, or gains all that it lacks at once; the merged folders stay as they are.

An attempt that was answered in more than one of them keeps every answer. The one that counts is no error where one is
none, and of those the one of the whole run, else of the shard with the lowest number; the others stand before it, as if
it had been asked again. What stands in two folders because one is a copy of the other is one row.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from redinstruct.errors import ConfigError, UsageError
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.prompts import parse_template
from redinstruct.run.config import RunConfig, attempt_key
from redinstruct.run.connection import reading
from redinstruct.run.database import Store
from redinstruct.run.encryption import sealing
from redinstruct.run.folder import check_run_folder, is_run
from redinstruct.run.joining import AnswerRows, answers_in, joined
from redinstruct.run.kinds import no_run
from redinstruct.run.marks import UNTIL
from redinstruct.run.rows import INSERT_COMPLETION, INSERT_VERDICT, question_from, to_json
from redinstruct.run.shards import INSERT_ATTEMPT, PLAN_TABLES, ShardMark, shard_of
from redinstruct.run.whole import remade_run, whole_run
from redinstruct.safetext import restore

_T = TypeVar("_T")
_Dated = tuple[float, tuple[Any, ...]]
_Told = tuple[int, list[AnswerRows]]
"""A folder's place among those that are merged, and its answers to one attempt."""
MOST_AT_ONCE = 200
"""Each is an open database; more are merged in steps."""
_CHUNK = 2_000
_META = "SELECT key, value FROM meta WHERE key NOT IN ('shard', 'seal') AND key NOT GLOB 'until *'"
_ATTEMPTS = "SELECT id, key, question, template, epoch FROM attempts ORDER BY id"


class MergeSource(msgspec.Struct, frozen=True):
    """One of the folders that were merged: how many attempts it has, and how many are recorded. ``name`` says what it
    is: a shard by its number, or the whole run.
    """

    folder: Path
    name: str
    planned: int
    recorded: int


class Merged(msgspec.Struct, frozen=True):
    """The merged run: its attempts, how many are recorded, how many of those were answered in more than one folder.

    ``parts`` are the folders in the order in which they count; ``again`` those that were named more than once.
    """

    run: Path
    planned: int
    recorded: int
    shared: int
    parts: tuple[MergeSource, ...]
    again: tuple[Path, ...] = ()


class _Source(NamedTuple):
    place: Path
    store: Store
    config: RunConfig
    mark: ShardMark | None
    planned: int

    @property
    def db(self) -> sqlite3.Connection:
        return self.store.db


def merge(shards: Sequence[Path], run: Path, on_progress: OnProgress | None = None) -> Merged:
    """Put shards of one run together as a new run, finished or not; the run that they were dealt out of may be one.

    Args:
        shards: the folders; one that is named twice counts once.
        run: the new run's folder; or a merged run, or the run that was dealt out: that gains what it lacks.
        on_progress: told how many attempts are done.

    Raises:
        UsageError: something else than shards of one run, or a place that is taken; nothing was written.
        StoreError: a store does not read, or the new one can not be written; no run is left behind.
    """
    folder = Path(os.path.abspath(run))  # noqa: PTH100  (resolve() would follow a link that is refused)
    check_run_folder(folder)
    stands = is_run(folder)
    places, again = _distinct_places([*shards, *([run] if stands else [])])
    again = tuple(place for place in again if place is not run)
    with contextlib.ExitStack() as open_stores:
        named = [_opened(place, open_stores) for place in places]
        for one in named:
            _check_kin(named[0], one)
        sources = _in_order(named)
        if stands:
            _check_target(run, sources)
        lead = _largest(sources)
        parts = tuple(
            MergeSource(one.place, str(one.mark or "the run"), one.planned, one.store.recorded()) for one in sources
        )
        planned = recorded = shared = 0

        def write(store: Store) -> None:
            nonlocal planned, recorded, shared
            _write_plan(store, lead, sources)
            shared = _write_rows(store, sources, on_progress or unheard)
            planned, recorded = store.planned(), store.recorded()
            open_stores.close()

        with sealing(any(one.store.sealed for one in sources)):
            (remade_run if stands else whole_run)(folder, write)
    return Merged(run, planned, recorded, shared, parts, again)


# ---- what is merged --------------------------------------------------------------------------------------------------


def _distinct_places(shards: Sequence[Path]) -> tuple[list[Path], tuple[Path, ...]]:
    found: dict[Path, Path] = {}
    again: list[Path] = []
    for place in shards:
        try:
            real = place.resolve()
        except (OSError, ValueError, RuntimeError):
            raise no_run(Path(str(place)[:60])) from None
        if real in found:
            again.append(place)
        found.setdefault(real, place)
    if not found:
        raise UsageError("name the shards that are to be merged")
    if len(found) > MOST_AT_ONCE:
        raise UsageError(f"more than {MOST_AT_ONCE} at once: merge some of them first, then what comes of it")
    return list(found.values()), tuple(again)


def _opened(place: Path, stack: contextlib.ExitStack) -> _Source:
    store = stack.enter_context(Store.open_for_reading(place))
    with store.reading("reading the run") as db:
        db.execute("BEGIN")  # one state of it, whoever goes on recording there
    return _Source(place, store, store.begun(), shard_of(store), store.planned())


def _in_order(sources: Sequence[_Source]) -> list[_Source]:
    """Whole runs first, then the shards by number: who is asked which answer counts."""
    return sorted(sources, key=lambda one: (0, 0) if one.mark is None else (one.mark.of, one.mark.number))


def _check_kin(first: _Source, other: _Source) -> None:
    if other.config.digest != first.config.digest:
        raise ConfigError(f"{other.place}: holds a run of another configuration than {first.place}; nothing was merged")
    if other.store.secret() != first.store.secret():
        raise ConfigError(
            f"{other.place}: is no shard of the same run as {first.place}, it was begun by itself; nothing was merged"
        )


def _check_target(run: Path, sources: Sequence[_Source]) -> None:
    real = run.resolve()
    if any(one.mark is not None and one.place.resolve() == real for one in sources):
        raise ConfigError(f"--run {run}: is itself a shard; name a new folder")


def _largest(sources: Sequence[_Source]) -> _Source:
    """The one whose configuration asks for everything that the others ask for; a whole run before a shard."""

    def size(one: _Source) -> tuple[float, int]:
        return float("inf") if one.config.limit is None else one.config.limit, one.config.epochs

    lead = max(sources, key=lambda one: (*size(one), one.mark is None, one.planned))
    for one in sources:
        if any(a < b for a, b in zip(size(lead), size(one), strict=True)):
            raise _apart(lead, one)
    return lead


def _apart(one: _Source, other: _Source) -> ConfigError:
    return ConfigError(
        f"{other.place} and {one.place} were extended apart (--limit, --epochs), and can not be merged any more"
    )


# ---- the plan --------------------------------------------------------------------------------------------------------


def _write_plan(store: Store, lead: _Source, sources: Sequence[_Source]) -> None:
    first = [lead, *(one for one in sources if one is not lead)]
    with store.writing("merging the plans", durable=True) as db, reading("reading the plans"):
        for table, insert in (*PLAN_TABLES, (_ATTEMPTS, INSERT_ATTEMPT)):
            try:
                db.executemany(insert, _united(first, table))
            except sqlite3.IntegrityError:
                raise _apart(first[0], first[-1]) from None
        _write_configs(db, lead, first)
        _write_sessions(db, first)
        _write_meta(db, first)
        _fill_gaps(db, lead.config)


def _united(sources: Sequence[_Source], select: str) -> Iterator[tuple[Any, ...]]:
    """Every row once, by its number; the folders that hold it agree on it."""
    tagged = [_tagged(at, one.db.execute(select)) for at, one in enumerate(sources)]
    last: tuple[Any, ...] = (None,)
    whose = 0
    for row, at in heapq.merge(*tagged, key=lambda found: found[0][0]):
        if row[0] != last[0]:
            last, whose = row, at
            yield row
        elif row != last:
            raise _apart(sources[whose], sources[at])


def _tagged(at: int, rows: Iterable[_T]) -> Iterator[tuple[_T, int]]:
    """Each row with the place of the folder that it is from."""
    return ((row, at) for row in rows)


def _write_configs(db: sqlite3.Connection, lead: _Source, sources: Sequence[_Source]) -> None:
    select = "SELECT digest, body, at FROM configs ORDER BY id"
    found = dict.fromkeys(row for one in sources for row in one.db.execute(select))
    newest = to_json(lead.config)
    rows = sorted(found, key=lambda row: (row[1] == newest, row[2]))
    db.executemany("INSERT INTO configs (digest, body, at) VALUES (?,?,?)", rows)


def _write_sessions(db: sqlite3.Connection, sources: Sequence[_Source]) -> None:
    """Every command that worked on any of the folders, once, in the order of their times, with how far it got."""
    until: dict[tuple[float, str], bytes] = {}
    for one in sources:
        for at, version, mark in one.db.execute(
            "SELECT s.at, s.version, m.value FROM sessions s LEFT JOIN meta m ON m.key = ? || s.id", (UNTIL,)
        ):
            known = until.get((at, version), b"")
            until[at, version] = max(known, mark or b"", key=lambda text: float(text or 0))
    for number, (session, mark) in enumerate(sorted(until.items()), 1):
        db.execute("INSERT INTO sessions (id, at, version) VALUES (?,?,?)", (number, *session))
        if mark:
            db.execute("INSERT INTO meta (key, value) VALUES (?,?)", (f"{UNTIL}{number}", mark))


def _write_meta(db: sqlite3.Connection, sources: Sequence[_Source]) -> None:
    limits: dict[bytes, None] = {}
    for one in sources:
        for key, value in one.db.execute(_META):
            if key == "stops":
                limits |= dict.fromkeys(value.split())
            db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?,?)", (key, value))
    if limits:
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('stops', ?)", (b" ".join(limits),))


def _fill_gaps(db: sqlite3.Connection, config: RunConfig) -> None:
    """What none of the folders holds is owed all the same: the rest of the plan, under the numbers that it had."""
    questions, attempts = db.execute(
        "SELECT (SELECT count(*) FROM questions), (SELECT count(*) FROM attempts)"
    ).fetchone()
    if questions * len(config.prompts) * config.epochs == attempts:
        return
    rows = {
        sha: (row, parse_template(restore(name), restore(text), translation_of=restore(of)))
        for row, name, sha, text, of in db.execute("SELECT id, name, sha256, text, translation_of FROM templates")
    }
    place = 0
    for epoch in range(1, config.epochs + 1):
        for prompt in config.prompts:
            template, parsed = rows[prompt.sha256]
            for question, *columns in db.execute(
                "SELECT q.id, b.sha256, q.row, q.text, q.topic, q.subtopic, q.language, q.label, q.earlier"
                " FROM questions q JOIN banks b ON b.id = q.bank ORDER BY q.id"
            ):
                place += 1
                of = (question, template, epoch)
                there = "SELECT 1 FROM attempts WHERE question = ? AND template = ? AND epoch = ?"
                if db.execute(there, of).fetchone() is not None:
                    continue
                taken = db.execute("SELECT 1 FROM attempts WHERE id = ?", (place,)).fetchone() is not None
                key = attempt_key(config, question_from(*columns), parsed, epoch)
                db.execute(INSERT_ATTEMPT, (None if taken else place, key, *of))


# ---- answers, verdicts, labels ---------------------------------------------------------------------------------------


def _write_rows(store: Store, sources: Sequence[_Source], tell: OnProgress) -> int:
    """Everything that was recorded; returns how many attempts were answered in more than one folder."""
    judges = _write_judges(store, sources)
    total = sum(one.store.recorded() for one in sources)
    tagged = [_tagged(at, answers_in(one.db, judges[at])) for at, one in enumerate(sources)]
    found = _by_attempt(heapq.merge(*tagged, key=lambda found: found[0][0]))
    moved: dict[tuple[int, int, int], int] = {}
    done = shared = 0
    while True:
        completions: list[tuple[Any, ...]] = []
        verdicts: list[tuple[Any, ...]] = []
        with reading("reading answers"):
            for attempt, parts in islice(found, _CHUNK):
                done += len(parts)
                shared += len(parts) > 1
                answers = parts[0][1] if len(parts) == 1 else _together(attempt, parts, moved)
                for asked, values, said in answers:
                    completions.append((attempt, asked, *values))
                    verdicts += ((attempt, asked, *verdict) for verdict in said)
        if not completions:
            break
        with store.writing("merging answers") as db:
            db.executemany(INSERT_COMPLETION, completions)
            db.executemany(INSERT_VERDICT, verdicts)
        tell(Progress(done, total, "answers"))
    _write_labels(store, sources, judges, moved)
    return shared


def _by_attempt(found: Iterable[tuple[tuple[int, list[AnswerRows]], int]]) -> Iterator[tuple[int, list[_Told]]]:
    for attempt, same in groupby(found, key=lambda one: one[0][0]):
        yield attempt, [(at, answers) for (_, answers), at in same]


def _together(attempt: int, parts: Sequence[_Told], moved: dict[tuple[int, int, int], int]) -> list[AnswerRows]:
    answers, numbers = joined([answers for _, answers in parts])
    for (at, before), now in zip(parts, numbers, strict=True):
        moved |= {(at, attempt, a.asked): new for a, new in zip(before, now, strict=True) if a.asked != new}
    return answers


def _write_judges(store: Store, sources: Sequence[_Source]) -> list[dict[int, int]]:
    """Of each folder its judge's row -> the row in the merged run; the run's own judge stays the first."""
    found: list[dict[int, int]] = []
    tests: dict[tuple[Any, ...], None] = {}
    with store.writing("merging the judges", durable=True) as db, reading("reading the judges"):
        for one in sources:
            rows: dict[int, int] = {}
            for row, *values in one.db.execute("SELECT id, card_id, name, measure, card FROM judges ORDER BY id"):
                db.execute("INSERT OR IGNORE INTO judges (card_id, name, measure, card) VALUES (?,?,?,?)", values)
                rows[row] = db.execute("SELECT id FROM judges WHERE card_id = ?", values[:1]).fetchone()[0]
            for judge, *values in one.db.execute(
                "SELECT judge, at, tokens_in, tokens_out, body FROM selftests ORDER BY id"
            ):
                tests[(rows[judge], *values)] = None
            found.append(rows)
        db.executemany(
            "INSERT INTO selftests (judge, at, tokens_in, tokens_out, body) VALUES (?,?,?,?,?)",
            sorted(tests, key=itemgetter(1)),
        )
    return found


def _write_labels(
    store: Store,
    sources: Sequence[_Source],
    judges: Sequence[dict[int, int]],
    moved: dict[tuple[int, int, int], int],
) -> None:
    """People's acts in the order of their times, the draws, and the parts that second judges were asked on."""
    acts: list[_Dated] = []
    draws: list[_Dated] = []
    samples: list[_Dated] = []
    with store.writing("merging labels", durable=True) as db, reading("reading labels"):
        for at, one in enumerate(sources):
            acts += _dated(
                (attempt, moved.get((at, attempt, asked), asked), *said)
                for attempt, asked, *said in one.db.execute(
                    "SELECT attempt, asked, annotator, act, label, detail, origin, at FROM annotations ORDER BY id"
                )
            )
            draws += _dated(
                (judges[at][judge], *drawn)
                for judge, *drawn in one.db.execute("SELECT judge, body, at FROM draws ORDER BY id")
            )
            samples += _dated(
                (judges[at][judge], judges[at][first], *sizes)
                for judge, first, *sizes in one.db.execute("SELECT judge, first, size, at FROM samples ORDER BY id")
            )
        db.executemany(
            "INSERT INTO annotations (attempt, asked, annotator, act, label, detail, origin, at)"
            " VALUES (?,?,?,?,?,?,?,?)",
            _once(acts),
        )
        db.executemany("INSERT INTO draws (judge, body, at) VALUES (?,?,?)", _once(draws))
        db.executemany("INSERT INTO samples (judge, first, size, at) VALUES (?,?,?,?)", _once(samples))


def _dated(rows: Iterable[tuple[Any, ...]]) -> Iterator[_Dated]:
    """A folder's rows, the time last in each, with one that keeps their order where its clock was set back."""
    latest = -math.inf
    for row in rows:
        latest = max(latest, row[-1])
        yield latest, row


def _once(dated: Iterable[_Dated]) -> list[tuple[Any, ...]]:
    """The rows of all folders in the order of their times, each once."""
    return list(dict.fromkeys(row for _, row in sorted(dated, key=itemgetter(0))))
