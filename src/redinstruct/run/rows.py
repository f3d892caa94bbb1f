"""What goes into the store and comes out of it, and the SQL that reads it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from redinstruct.safetext import redact, restore, storable
from redinstruct.types import Attempt, Completion, Message, Question, Role, Verdict

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

CompletionRow = tuple[int, int, Completion]
"""(attempt, asked, completion)"""
VerdictRow = tuple[int, int, int, int, Verdict]
"""(attempt, asked, judge row, judged_no, verdict)"""


class OwedAttempt(msgspec.Struct, frozen=True):
    """An attempt that still lacks its completion or its verdict.

    ``completion`` is the committed answer when only the verdict is owed. ``asked`` and ``judged_no`` number the rows
    to write.
    """

    row: int
    attempt: Attempt
    asked: int
    judged_no: int
    completion: Completion | None
    bank: str = ""


class CountRow(msgspec.Struct, frozen=True):
    """How many attempts of one bank, prompt and topic came out one way; ``label`` None: not yet recorded."""

    bank: str
    prompt: str
    topic: str | None
    label: str | None
    detail: str | None
    reason: str | None
    count: int


class AttemptView(msgspec.Struct, frozen=True):
    """One recorded attempt as a reader sees it."""

    key: str
    bank: str
    prompt: str
    question: Question
    epoch: int
    completion: Completion
    label: str | None
    detail: str | None
    reason: str | None
    judge_reply: str | None
    score: float | None = None
    probability: float | None = None
    judge_note: str | None = None


def said(text: str | None) -> str | None:
    """What a model said, as it is stored: its own words, whatever they are, but no key that it repeats."""
    return None if text is None else storable(redact(text, stored=True))


def blob(column: object, size: int | None = None) -> bytes:
    """A column of bytes: whatever a schema says, SQLite keeps values of any kind (``bytes(10**12)`` is a terabyte).

    Raises:
        ValueError: it is something else, or not of this size.
    """
    if not isinstance(column, bytes) or (size is not None and len(column) != size):
        raise ValueError("a column of another kind, or size")
    return column


def blobs(columns: Sequence[object], size: int) -> None:
    """Pass columns that are all bytes of this size. Raises as :func:`blob`."""
    if set(map(type, columns)) - {bytes} or set(map(len, cast("Sequence[bytes]", columns))) - {size}:
        raise ValueError("a column of another kind, or size")


def in_lots(rows: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """The rows a thousand at a time: columns of them are turned over by C, and not row by row."""
    while lot := rows.fetchmany(1000):
        yield lot


def to_json(value: msgspec.Struct) -> str:
    """A struct as JSON in ASCII: equal structs give equal text, whatever their strings hold."""
    return json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":"))


def from_json(text: str, type_: type[_Struct]) -> _Struct:
    """The inverse of :func:`to_json`. Raises ``ValueError`` for anything that it did not write."""
    return msgspec.convert(json.loads(text), type_)


@lru_cache(maxsize=1024)
def _stored_names(*names: str | None) -> tuple[str | None, ...]:
    return tuple(map(storable, names))


def over_newest(db: sqlite3.Connection, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
    """Carry out a statement on every attempt's newest answer and verdict.

    Where nothing was asked or judged again the only one is the newest: to look for it would be a third of the work, of
    what is owed half.
    """
    if db.execute(_AGAIN).fetchone() is None:
        sql = sql.replace(_LATEST_COMPLETION, _ONLY_COMPLETION).replace(_LATEST_VERDICT, _ONLY_VERDICT)
    return db.execute(sql, parameters)


def question_from(sha256: str, row: int, text: str, *columns: str | None) -> Question:
    """The question of a SELECT's ``b.sha256, q.row, q.text, q.topic, q.subtopic, q.language, q.label, q.earlier``.

    Raises:
        ValueError: the columns hold what no question has.
    """
    if not isinstance(row, int):
        raise ValueError("a row that is no number")
    *named, earlier = columns
    topic, subtopic, language, label = _restored_names(*named)
    turns = earlier_from(earlier) if earlier else ()
    return Question(f"{sha256}:{row}", restore(text), row, topic, subtopic, language, label, turns)


@lru_cache(maxsize=1024)
def _restored_names(*names: str | None) -> tuple[str | None, ...]:
    return tuple(map(restore, names))


def earlier_from(column: str) -> tuple[Message, ...]:
    """The turns before the asked one, as a column holds them."""
    turns = msgspec.convert(json.loads(column), tuple[tuple[Role, str], ...])
    return tuple(Message(role, content) for role, content in turns)


def completion_values(row: CompletionRow) -> tuple[object, ...]:
    """The columns of one answer, in the order of the INSERT."""
    attempt, asked, c = row
    # The judged text is most often the raw one: it is stored once.
    judged = None if c.outcome == "text" and c.judged == c.raw else said(c.judged)
    reason, note, finish = _stored_names(c.reason, c.note, c.finish_reason)
    return (attempt, asked, c.outcome, reason, note, said(c.raw), judged, finish, c.tokens_in, c.tokens_out,
            c.truncated, " ".join(c.flags) or None, c.tries, c.seconds, c.thought and said(c.thought))  # fmt: skip


def verdict_values(row: VerdictRow) -> tuple[object, ...]:
    """The columns of one verdict, in the order of the INSERT."""
    attempt, asked, judge, judged_no, v = row
    reason, note = _stored_names(v.reason, v.note)
    return (attempt, asked, judge, judged_no, v.label, v.detail, reason, v.raw and said(v.raw),
            v.tokens_in, v.tokens_out, v.tries, v.score, v.probability, note)  # fmt: skip


def completion_from(values: Sequence[object]) -> Completion:
    """The answer that the columns of a SELECT hold."""
    (outcome, reason, note, raw, judged, finish, tokens_in, tokens_out, truncated, flags, tries, seconds,
     thought) = values  # fmt: skip
    raw = restore(raw) if isinstance(raw, str) else None
    judged = restore(judged) if isinstance(judged, str) else (raw if outcome == "text" else None)
    reason, note, finish, thought = (restore(v) if isinstance(v, str) else v for v in (reason, note, finish, thought))
    return msgspec.convert(
        {
            "outcome": outcome, "raw": raw, "judged": judged, "reason": reason, "note": note, "finish_reason": finish,
            "tokens_in": tokens_in, "tokens_out": tokens_out, "truncated": bool(truncated),
            "flags": tuple(str(flags).split()) if flags else (), "tries": tries, "seconds": seconds,
            "thought": thought,
        },
        Completion,
    )  # fmt: skip


def view_from(hexkey: str, bank: str, prompt: str, *row: Any) -> AttemptView:
    """The recorded attempt that the columns of a SELECT hold. Raises ``ValueError`` where they hold another kind."""
    question, (epoch, found, detail, reason, reply, score, chance, note, *completion) = row[:8], row[8:]
    texts, numbers = (found, detail), (score, chance)
    if not (
        isinstance(epoch, int)
        and all(isinstance(one, str | None) for one in texts)
        and all(isinstance(one, float | int | None) for one in numbers)
    ):
        raise ValueError("columns of another kind")
    return AttemptView(
        hexkey, restore(bank), restore(prompt), question_from(*question), epoch,
        completion_from(completion), found, detail, restore(reason), restore(reply), score, chance,
        restore(note),
    )  # fmt: skip


# Texts are written through seal(): encrypted in a sealed run (:mod:`redinstruct.run.encryption`), else as they are.
INSERT_QUESTION = (
    "INSERT INTO main.questions (id, bank, row, text, topic, subtopic, language, label, earlier) VALUES (?1, ?2, ?3,"
    " seal('questions.text', ?4, ?2, ?3), ?5, ?6, ?7, ?8, seal('questions.earlier', ?9, ?2, ?3))"
)
INSERT_COMPLETION = (
    "INSERT INTO main.completions (attempt, asked, outcome, reason, note, raw, judged, finish_reason, tokens_in,"
    " tokens_out, truncated, flags, tries, seconds, thought) VALUES (?1, ?2, ?3, ?4, ?5,"
    " seal('completions.raw', ?6, ?1, ?2), seal('completions.judged', ?7, ?1, ?2), ?8, ?9, ?10, ?11, ?12, ?13, ?14,"
    " seal('completions.thought', ?15, ?1, ?2))"
)
INSERT_VERDICT = (
    "INSERT INTO main.verdicts (attempt, asked, judge, judged_no, label, detail, reason, raw, tokens_in, tokens_out,"
    " tries, score, probability, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,"
    " seal('verdicts.raw', ?8, ?1, ?2, ?3, ?4), ?9, ?10, ?11, ?12, ?13, ?14)"
)
INSERT_CALL = (
    "INSERT INTO main.calls (key, asked, step, role, request, request_bytes, outcome, reason, note, reply,"
    " finish_reason, tokens_in, tokens_out, tries, seconds) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
    " seal('calls.reply', ?10, ?1, ?2), ?11, ?12, ?13, ?14, ?15)"
)


# Into a run that is not sealed texts go as they are, without a call for each.
_SEALS = re.compile(r"seal\('[a-z.]+', (\?\d+)[^)]*\)")
CLEAR_QUESTION, CLEAR_COMPLETION, CLEAR_VERDICT = (
    _SEALS.sub(r"\1", statement) for statement in (INSERT_QUESTION, INSERT_COMPLETION, INSERT_VERDICT)
)

# The newest completion of an attempt, and the newest verdict on it. `?` is the judge's row.
_LATEST_COMPLETION = """
    LEFT JOIN completions c ON c.attempt = a.id
        AND c.asked = (SELECT max(asked) FROM completions WHERE attempt = a.id)
"""
_LATEST_VERDICT = """
    LEFT JOIN verdicts v ON v.attempt = c.attempt AND v.asked = c.asked AND v.judge = ?
        AND v.judged_no = (SELECT max(judged_no) FROM verdicts
                           WHERE attempt = c.attempt AND asked = c.asked AND judge = v.judge)
"""
_ONLY_COMPLETION = " LEFT JOIN completions c ON c.attempt = a.id"
_ONLY_VERDICT = " LEFT JOIN verdicts v ON v.attempt = c.attempt AND v.asked = c.asked AND v.judge = ?"
_AGAIN = """
    SELECT 1 FROM main.completions WHERE asked > 0 UNION ALL SELECT 1 FROM main.verdicts WHERE judged_no > 0 LIMIT 1
"""
_COMPLETION_COLUMNS = (
    "c.outcome, c.reason, c.note, c.raw, c.judged, c.finish_reason, c.tokens_in, c.tokens_out,"
    " c.truncated, c.flags, c.tries, c.seconds, c.thought"
)
_OUTCOME_LABEL = "CASE c.outcome WHEN 'text' THEN v.label ELSE c.outcome END"
_OUTCOME_REASON = "CASE c.outcome WHEN 'text' THEN v.reason ELSE c.reason END"

SELECT_TARGET_TOKENS = """
    SELECT total(coalesce(c.tokens_in, length(CAST(t.text AS BLOB)) + length(CAST(q.text AS BLOB)))),
           total(coalesce(c.tokens_out, length(CAST(c.raw AS BLOB))))
    FROM completions c JOIN attempts a ON a.id = c.attempt
    JOIN templates t ON t.id = a.template JOIN questions q ON q.id = a.question
    WHERE c.outcome <> 'error'
"""
# 2048: the judge's own words, roughly. A verdict's reply is its last one; `tries` counts them all.
SELECT_JUDGE_TOKENS = """
    SELECT total(coalesce(v.tokens_in, v.tries * (2048 + length(CAST(q.text AS BLOB))
                                                  + length(CAST(coalesce(c.judged, c.raw) AS BLOB))))),
           total(coalesce(v.tokens_out, v.tries * length(CAST(v.raw AS BLOB))))
    FROM verdicts v JOIN completions c ON c.attempt = v.attempt AND c.asked = v.asked
    JOIN attempts a ON a.id = v.attempt JOIN questions q ON q.id = a.question
    WHERE v.label <> 'error' OR v.tokens_in IS NOT NULL
"""
SELECT_OWED = (
    "SELECT a.id, a.key, a.epoch, a.template, q.bank, q.row, q.text, q.topic, q.subtopic, q.language,"
    " q.label, q.earlier, c.asked, v.judged_no, v.label, " + _COMPLETION_COLUMNS + " FROM attempts a"
    " JOIN questions q ON q.id = a.question"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " WHERE a.id = ?"
)  # fmt: skip
# `?`: the judge's row, whether answers are owed too, errors again, verdicts again, errors again.
_IS_OWED = (
    " (? AND (c.attempt IS NULL OR (c.outcome = 'error' AND ?))"
    " OR c.outcome = 'text' AND (v.label IS NULL OR ? OR (v.label = 'error' AND ?)))"
)
_OWED_ROWS = "SELECT a.id, " + _OUTCOME_LABEL + " FROM attempts a" + _LATEST_COMPLETION + _LATEST_VERDICT
SELECT_OWED_ROWS = _OWED_ROWS + " WHERE" + _IS_OWED + " ORDER BY a.id"
# One prompt at a time, and like lengths together.
SELECT_OWED_BY_LENGTH = (
    "SELECT a.id, NULL FROM attempts a JOIN questions q ON q.id = a.question JOIN templates t ON t.id = a.template"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " WHERE" + _IS_OWED + " ORDER BY t.name, length(q.text), a.id"
)  # fmt: skip
SELECT_LABEL_COUNTS = (
    "SELECT " + _OUTCOME_LABEL + " AS found, count(*) FROM attempts a" + _LATEST_COMPLETION + _LATEST_VERDICT
    + " WHERE found IS NOT NULL GROUP BY 1"
)  # fmt: skip
# Where each judged answer's newest verdict stands. `?`: the judge's row.
SELECT_VERDICTS = (
    "SELECT a.id, a.key, c.asked, v.judged_no, v.label, v.detail FROM attempts a" + _LATEST_COMPLETION + _LATEST_VERDICT
    + " WHERE c.outcome = 'text' ORDER BY a.id"
)  # fmt: skip
SELECT_LABELS = (
    "SELECT a.key, b.name, t.name, " + _OUTCOME_LABEL + " FROM attempts a JOIN templates t ON t.id = a.template"
    " JOIN questions q ON q.id = a.question JOIN banks b ON b.id = q.bank"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " ORDER BY a.id"
)  # fmt: skip
SELECT_PLANNED = (
    "SELECT a.id, a.key, q.bank, q.id, q.row, q.topic, q.subtopic, a.template, a.epoch, " + _OUTCOME_LABEL
    + ", v.detail, " + _OUTCOME_REASON + " FROM attempts a JOIN main.questions q ON q.id = a.question"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " ORDER BY a.id"
)  # fmt: skip
SELECT_TEXTS = (
    "SELECT a.id, coalesce(c.judged, c.raw), c.truncated, c.flags FROM attempts a"
    + _LATEST_COMPLETION + " WHERE c.outcome = 'text' ORDER BY a.id"
)  # fmt: skip
# What a sealed store tells of its texts without a key.
SELECT_SEALED = (
    "SELECT a.id, coalesce(c.judged, c.raw), c.truncated, c.flags FROM attempts a LEFT JOIN main.completions c"
    " ON c.attempt = a.id AND c.asked = (SELECT max(asked) FROM main.completions WHERE attempt = a.id)"
    " WHERE c.outcome = 'text' ORDER BY a.id"
)
SELECT_HISTORY = (
    "SELECT a.key, v.label FROM attempts a" + _LATEST_COMPLETION
    + " JOIN verdicts v ON v.attempt = c.attempt AND v.asked = c.asked AND v.judge = ? ORDER BY a.id, v.judged_no"
)  # fmt: skip
SELECT_COUNTS = (
    "SELECT b.name, t.name, q.topic, " + _OUTCOME_LABEL + ", v.detail, " + _OUTCOME_REASON + ", count(*)"
    " FROM attempts a JOIN templates t ON t.id = a.template"
    " JOIN questions q ON q.id = a.question JOIN banks b ON b.id = q.bank"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY b.id, t.id, min(q.row), 4, 5, 6"
)  # fmt: skip
SELECT_FAILURES = (
    "SELECT b.name, t.name, " + _OUTCOME_LABEL + " AS found, " + _OUTCOME_REASON + " AS why,"
    " CASE c.outcome WHEN 'text' THEN v.note ELSE c.note END, count(*)"
    " FROM attempts a JOIN templates t ON t.id = a.template"
    " JOIN questions q ON q.id = a.question JOIN banks b ON b.id = q.bank"
    + _LATEST_COMPLETION + _LATEST_VERDICT
    + " WHERE found IN ('error', 'no_response', 'judge_refused', 'unparsable')"
    " GROUP BY 1, 2, 3, 4, 5 ORDER BY b.id, t.id, min(a.id)"
)  # fmt: skip
_SELECT_VIEWS = (
    "SELECT lower(hex(a.key)) AS hexkey, b.name, t.name, b.sha256, q.row, q.text, q.topic, q.subtopic, q.language,"
    " q.label, q.earlier, a.epoch, " + _OUTCOME_LABEL + " AS found, v.detail, "
    + _OUTCOME_REASON + ", v.raw, v.score, v.probability, v.note, " + _COMPLETION_COLUMNS
    + " FROM attempts a JOIN templates t ON t.id = a.template"
    " JOIN questions q ON q.id = a.question JOIN banks b ON b.id = q.bank"
    + _LATEST_COMPLETION + _LATEST_VERDICT
)  # fmt: skip
SELECT_ATTEMPT = _SELECT_VIEWS + " WHERE a.key = ? AND c.attempt IS NOT NULL"
# Of one bank and prompt, along the tables' own indexes: a sort would go through the whole run for its first rows.
SELECT_KEYS = (
    "SELECT a.key, " + _OUTCOME_LABEL + " AS found, q.topic FROM main.questions q"
    " CROSS JOIN attempts a ON a.question = q.id"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " WHERE q.bank = ? AND a.template = ? AND c.attempt IS NOT NULL"
    " AND (? IS NULL OR found = ?) ORDER BY q.row, a.epoch"
)  # fmt: skip
SELECT_KEYS_BETWEEN = (
    "SELECT a.key FROM attempts a" + _LATEST_COMPLETION + " WHERE a.key BETWEEN ? AND ? AND c.attempt IS NOT NULL"
)
SELECT_INDEX = (
    "SELECT lower(hex(substr(a.key, 1, 6))), b.name, t.name, q.topic, q.row, a.epoch, " + _OUTCOME_LABEL
    + ", v.detail, " + _OUTCOME_REASON + ", q.id, q.text, c.raw, c.truncated, c.flags FROM attempts a"
    " JOIN templates t ON t.id = a.template JOIN questions q ON q.id = a.question JOIN banks b ON b.id = q.bank"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " WHERE c.attempt IS NOT NULL ORDER BY a.id"
)  # fmt: skip
# The first label before what has no verdict, the second label last. `?`: the judge's row, both labels, how many.
SELECT_FOREMOST = (
    "SELECT a.key, " + _OUTCOME_LABEL + " AS found FROM attempts a JOIN questions q ON q.id = a.question"
    + _LATEST_COMPLETION + _LATEST_VERDICT + " WHERE c.attempt IS NOT NULL"
    " ORDER BY CASE found WHEN ? THEN 0 WHEN ? THEN 2 ELSE 1 END, q.bank, a.template, q.row, a.epoch LIMIT ?"
)  # fmt: skip
