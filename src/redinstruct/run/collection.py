"""A collection's part of the run store: its configuration, and every call to teacher, answerer and judge as a row.

The same promises as the rest of the store: rows are only added, a committed row is never changed, lost or doubled.
A row's ``key`` says what was asked (a content hash), ``asked`` how many times it had been asked before. What a reply
means is not stored: it is read again from the reply, so that a better parser finds more in the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from redinstruct.run.database import Store
from redinstruct.run.rows import INSERT_CALL, blob, said
from redinstruct.safetext import restore, storable
from redinstruct.types import PromptTemplate


class StoredCall(msgspec.Struct, frozen=True, array_like=True):
    """How one call ended: ``text`` with its reply, ``no_response`` or ``error`` with a typed reason."""

    outcome: str
    reply: str | None = None
    reason: str | None = None
    note: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tries: int = 1
    seconds: float = 0.0


class CallRow(msgspec.Struct, frozen=True):
    """One call as a row. ``role`` says who was asked (teacher, answerer, judge), ``request`` is its sha256."""

    key: bytes
    asked: int
    step: str
    role: str
    request: bytes
    request_bytes: int
    call: StoredCall


class CollectionStore:
    """The rows of a collection in an open :class:`Store`; used by one thread at a time, as that is."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def config(self) -> str | None:
        """The newest configuration (JSON), None in a run that was never begun.

        Raises:
            ConfigError: the run is of another kind.
        """
        return self.store.newest_config("collection", str)

    def begin(self, digest: str, body: str, template: PromptTemplate) -> None:
        """Note an invocation, its configuration (JSON in ASCII) when it is new or larger, and the red prompt."""
        with self.store.beginning("collection", digest, body) as db:
            db.execute(
                "INSERT OR IGNORE INTO templates (name, sha256, text, translation_of) VALUES (?, ?, ?, ?)",
                (storable(template.name), template.sha256, storable(template.text), storable(template.translation_of)),
            )

    def commit(self, rows: Sequence[CallRow]) -> None:
        """Commit calls, in one transaction, before anything is made of them."""
        with self.store.writing("recording calls") as db:
            db.executemany(
                INSERT_CALL,
                [
                    (row.key, row.asked, row.step, row.role, row.request, row.request_bytes, row.call.outcome,
                     storable(row.call.reason), storable(row.call.note), said(row.call.reply),
                     storable(row.call.finish_reason), row.call.tokens_in, row.call.tokens_out, row.call.tries,
                     row.call.seconds)
                    for row in rows
                ],
            )  # fmt: skip

    def calls(self) -> Iterator[tuple[bytes, int, StoredCall]]:
        """Every committed call: its key, its number, how it ended."""
        with self.store.reading("reading calls") as db:
            for key, asked, outcome, reply, reason, note, finish, *rest in db.execute(
                "SELECT key, asked, outcome, reply, reason, note, finish_reason, tokens_in, tokens_out, tries, seconds"
                " FROM calls ORDER BY id"
            ):
                texts = [restore(text) for text in (reply, reason, note, finish)]
                yield blob(key), asked, msgspec.convert((outcome, *texts, *rest), StoredCall)

    def answered(self) -> int:
        """How many different calls were made."""
        with self.store.reading("counting") as db:
            row: tuple[int] = db.execute("SELECT count(DISTINCT key) FROM calls").fetchone()
        return row[0]

    def is_blank(self) -> bool:
        """Whether no call was recorded yet."""
        with self.store.reading("looking for calls") as db:
            return db.execute("SELECT 1 FROM calls LIMIT 1").fetchone() is None

    def tokens(self) -> dict[str, tuple[int, int]]:
        """Role -> tokens in and out so far; where an endpoint told no count, every byte is a token (the bound)."""
        statement = (
            "SELECT role, total(coalesce(tokens_in, request_bytes)),"
            " total(coalesce(tokens_out, length(CAST(reply AS BLOB)))) FROM calls"
            " WHERE outcome <> 'error' GROUP BY role"
        )
        tests = "SELECT total(tokens_in), total(tokens_out) FROM selftests"
        with self.store.reading("summing tokens") as db:
            found = {role: (int(read), int(written)) for role, read, written in db.execute(statement)}
            tested = db.execute(tests).fetchone()
        judged = found.get("judge", (0, 0))
        found["judge"] = (judged[0] + int(tested[0]), judged[1] + int(tested[1]))
        return found
