"""Every recorded attempt without its texts: what a page lets a reader search through."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from redinstruct.run.database import Store
from redinstruct.run.rows import SELECT_INDEX, over_newest
from redinstruct.safetext import restore, short_hash


class Indexed(msgspec.Struct, frozen=True):
    """One recorded attempt: texts as hash (8 hex) and length in characters, -1 where there is none.

    ``why`` is the verdict's detail, or the reason why there is none.
    """

    key: str
    bank: str
    prompt: str
    topic: str | None
    row: int
    epoch: int
    label: str | None
    why: str | None
    question_hash: str
    question_chars: int
    answer_hash: str
    answer_chars: int
    flags: str


def attempt_index(store: Store, judge: int) -> Iterator[Indexed]:
    """Every recorded attempt as one judge sees it, in planned order.

    Raises:
        StoreError: the store does not read.
    """
    questions: dict[int, tuple[str, int]] = {}
    once: dict[str, str] = {}  # SQLite makes a new one of every name in every row

    def same(name: str | None) -> str | None:
        return None if name is None else once.setdefault(name, name)

    with store.reading("reading attempts") as db:
        for (
            key,
            bank,
            prompt,
            topic,
            row,
            epoch,
            label,
            detail,
            reason,
            question,
            text,
            raw,
            cut,
            flags,
        ) in over_newest(db, SELECT_INDEX, (judge,)):
            if question not in questions:
                questions[question] = _outside(restore(text))
            answer, chars = ("", -1) if raw is None else _outside(restore(raw))
            told = " ".join(filter(None, (str(flags or ""), "truncated" if cut else "")))
            why = restore(reason) if detail is None else str(detail)
            bank, prompt = (once.setdefault(name, name) for name in (restore(bank), restore(prompt)))
            yield Indexed(
                str(key), bank, prompt, same(restore(topic)), int(row), int(epoch), same(label), same(why),
                *questions[question], answer, chars, told,
            )  # fmt: skip


def _outside(text: str) -> tuple[str, int]:
    return short_hash(text)[:8], len(text)
