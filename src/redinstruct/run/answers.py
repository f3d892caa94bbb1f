"""The answers' texts as a report looks at them: not for what they say, but for whether they say anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from redinstruct.run.database import Store
from redinstruct.run.encryption import Outside, outside
from redinstruct.run.rows import (
    SELECT_ATTEMPT,
    SELECT_HISTORY,
    SELECT_SEALED,
    SELECT_TEXTS,
    AttemptView,
    blob,
    view_from,
)
from redinstruct.safetext import restore


def attempt_views(store: Store, judge: int, keys: Iterable[bytes]) -> dict[bytes, AttemptView]:
    """The attempts of these keys that are recorded.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading attempts") as db:
        found = ((key, db.execute(SELECT_ATTEMPT, (judge, key)).fetchone()) for key in keys)
        return {key: view_from(*row) for key, row in found if row is not None}


def answer_texts(store: Store) -> Iterator[tuple[int, str, bool, tuple[str, ...]]]:
    """Attempt (its row), judged text, whether a limit cut it short, and flags of every newest answer with text, in the
    planned order.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading answers") as db:
        for attempt, text, truncated, flags in db.execute(SELECT_TEXTS):
            yield attempt, restore(text) or "", bool(truncated), tuple(str(flags).split()) if flags else ()


def sealed_answers(store: Store) -> Iterator[tuple[int, Outside, bool, tuple[str, ...]]]:
    """The same of a sealed store without its key: in the text's place what is known of it.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading answers") as db:
        for attempt, value, truncated, flags in db.execute(SELECT_SEALED):
            yield attempt, outside(value), bool(truncated), tuple(str(flags).split()) if flags else ()


def verdict_history(store: Store, judge: int) -> list[tuple[bytes, list[str]]]:
    """Key and every label that the judge gave the newest answer, oldest first, of the answers that it read twice.

    Raises:
        StoreError: the store does not read.
    """
    found: dict[bytes, list[str]] = {}
    with store.reading("reading verdicts") as db:
        again = "SELECT 1 FROM verdicts WHERE judge = ? AND judged_no > 0 LIMIT 1"
        if db.execute(again, (judge,)).fetchone() is None:
            return []
        for key, label in db.execute(SELECT_HISTORY, (judge,)):
            found.setdefault(blob(key), []).append(label)
    return [(key, labels) for key, labels in found.items() if len(labels) > 1]
