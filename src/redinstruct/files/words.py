"""Files of rows, as others publish them: the words in which a fault is told, without a text of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

# One plain word is a name. Anything else that stands where a name belongs may be a question (a CSV file without its
# header, an object from question to answer), and is not shown.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.;:-]{1,24}")


Fields = Mapping[str, object]
"""A JSON object, or a row by its columns, as a stranger wrote it: every value is looked at before it is believed."""


class Malformed(Exception):
    """What is wrong within one row. Never holds a text of it."""


@lru_cache(maxsize=4096)
def fold(key: str) -> str:
    """A column's or key's name, as names are compared. A file's names are the same in every row."""
    return key.strip().casefold()


# ---- words for messages ----


def kind_of(value: object) -> str:
    """What a JSON value is, in a message's words."""
    if value is None:
        return "null"
    kinds = ((bool, "true or false"), ((int, float), "a number"), (str, "a text"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def named(name: str) -> str:
    """A name for a message: one plain word as it is, of anything else the length."""
    return name if _PLAIN_NAME.fullmatch(name) else f"<{len(name)} characters>"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, the first ones."""
    shown = [named(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(shown[:most]) or "none") + more


def twice(key: str) -> str:
    """What a message says of a key that stands twice in an object."""
    return f"an object holds the key {named(key)} twice, and all but the last would be lost"
