"""The answers' texts as a report looks at them: not for what they say, but for whether they say anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from redinstruct.run.database import Store
from redinstruct.run.encryption import outside
from redinstruct.run.looks import is_looping, opening
from redinstruct.run.rows import (
    SELECT_ATTEMPT,
    SELECT_HISTORY,
    SELECT_SEALED,
    SELECT_TEXTS,
    AttemptView,
    blob,
    in_lots,
    over_newest,
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


class AnswerLot(NamedTuple):
    """Some answers with text, as columns, in the planned order.

    ``attempts`` are rows in the store, ``looks`` of each text whether it runs in circles, and a fingerprint of its
    beginning, 0 of a short one; ``cut``: a limit cut it short; ``flags`` as in a completion, joined.
    """

    attempts: tuple[int, ...]
    looks: list[tuple[bool, int]]
    cut: tuple[int, ...]
    flags: tuple[str | None, ...]


def answers_in_lots(store: Store) -> Iterator[AnswerLot]:
    """Every newest answer with text, a thousand at a time; of a sealed store what is known without its key.

    Raises:
        StoreError: the store does not read.
    """
    with store.reading("reading answers") as db:
        for lot in in_lots(over_newest(db, SELECT_SEALED if store.locked else SELECT_TEXTS)):
            attempts, texts, cut, flags = zip(*lot, strict=True)
            if store.locked:
                looks = [(held.looping, hash(held.mark)) for held in map(outside, texts)]
            else:
                looks = [_look(restore(text) or "") for text in texts]
            yield AnswerLot(attempts, looks, cut, flags)


def _look(text: str) -> tuple[bool, int]:
    return _often(text) if len(text) <= _SHORT else _looked(text)


_SHORT = 200
"""Texts up to this length, refusals above all, are often word for word the same."""


def _looked(text: str) -> tuple[bool, int]:
    start = opening(text)
    return is_looping(text), 0 if start is None else hash(start)


_often = lru_cache(maxsize=1024)(_looked)


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
