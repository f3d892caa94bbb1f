"""Lines of JSON that are alike, many at a time: a column for each key, without a call of Python for a value.

Promised: what is read is what ``json.loads`` makes of each line by itself, and no object of it holds a key twice. Where
that is not certain nothing is read, and the lines are to be read one by one: another kind of value, other keys, a fault
of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from redinstruct.files.opening import NOT_JSON
from redinstruct.files.words import Fields

LEAST = 64
"""Fewer lines are read one by one."""
_MOST_MISSES = 8
"""Of a file whose blocks are not alike, so many are tried."""

ByKey = Mapping[str, Sequence[object]]
"""Key -> the values of each row, in order."""


class RowBlock(NamedTuple):
    """Objects one after another that have the same keys, from row ``first`` on."""

    first: int
    columns: ByKey

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self) -> Iterator[tuple[str, Fields]]:
        """Each one's place in words, and what it holds."""
        for number, values in enumerate(zip(*self.columns.values(), strict=True), self.first):
            yield f"row {number}", dict(zip(self.columns, values, strict=True))


class BlockReader:
    """Reads the blocks of one file; ``most`` keys that an object may have."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shape: _Shape | None = None
        self._misses = 0

    def read(self, lines: str) -> ByKey | None:
        """The columns of lines with newlines between them, each an object of texts, numbers, true, false and null.

        None where they are not so, all with the keys of the first.
        """
        if self._misses >= _MOST_MISSES or lines[:1] != "{" or lines[-1:] != "}":
            return None
        count = lines.count("\n") + 1
        if count < LEAST or lines.count("}\n{") != count - 1:
            return None
        columns = None if self._shape is None else self._shape.read(lines, count)
        if columns is None:
            self._shape = _shape_of(lines.partition("\n")[0], self._most)
            columns = None if self._shape is None else self._shape.read(lines, count)
        self._misses = 0 if columns is not None else self._misses + 1
        return columns


class _Shape:
    """The keys of an object of plain values."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        names = [f"f{at}" for at in range(len(keys))]
        row = msgspec.defstruct(
            "Row",
            [(name, str | int | float | bool | None) for name in names],
            rename=dict(zip(names, keys, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
        self._getters = [attrgetter(name) for name in names]

    def read(self, lines: str, count: int) -> ByKey | None:
        """The columns of so many lines that begin with ``{`` and end with ``}``; None where they are otherwise.

        A newline can not stand within a JSON text, and no object here holds another: so a line holds at least one
        object, and one alone where there are as many as lines. Keys and texts account for every quotation mark: a key
        that stands twice has marks of its own.
        """
        try:
            rows = self._decoder.decode("[" + lines.replace("\n", ",\n") + "]")
        except NOT_JSON:
            return None
        columns = [list(map(get, rows)) for get in self._getters]
        texts = sum(list(map(type, column)).count(str) for column in columns)
        if len(rows) != count or _marks(lines) != 2 * (count * len(columns) + texts):
            return None
        return dict(zip(self._keys, columns, strict=True))


def _shape_of(line: str, most: int) -> _Shape | None:
    """The shape of an object of plain values; None of any other."""
    try:
        first = msgspec.json.decode(line)
        if not isinstance(first, dict) or not 0 < len(first) <= most:
            return None
        return _Shape(list(first))
    except (*NOT_JSON, ValueError):  # a key that a field can not be named by
        return None


def _marks(text: str) -> int:
    """The quotation marks that open or close a text of JSON."""
    marks = text.count('"')
    return marks - text.replace("\\\\", "").count('\\"') if "\\" in text else marks
