"""The answers' texts as a report looks at them: not for what they say, but for whether they say anything."""

from __future__ import annotations

from collections.abc import Iterator

from redinstruct.store.database import Store, _reading
from redinstruct.store.rows import SELECT_TEXTS, blob, restored


def answer_texts(store: Store) -> Iterator[tuple[bytes, str, bool]]:
    """Key, judged text, and whether a limit cut it short, of every newest answer that is a text, in planned order.

    Raises:
        StoreError: the store does not read.
    """
    with _reading("reading answers"):
        for key, text, truncated in store._db.execute(SELECT_TEXTS):
            yield blob(key), restored(text) or "", bool(truncated)
