"""Which questions of a bank are safe and which are not: one rule for banks and for files of answers.

A column tells it where it holds at least one known word; then every cell of it must be one (or empty: nobody said, and
the row is left out, counted). A column without a known word is a category like any other.

    label, prompt_harm_label, prompt_label    safe, unsafe (XSTest); harmful, benign; harmful, unharmful (WildGuardTest)
    type                                      contrast_* is unsafe and every other kind safe (XSTest's completions)
    harmful, unsafe, safe                     1 or 0: a column is named for what 1 is
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from redinstruct.errors import BankError
from redinstruct.files import Fields, fold, kind_of, named

SAFE, UNSAFE = "safe", "unsafe"
WORDS: Mapping[str, str] = {"safe": SAFE, "benign": SAFE, "unharmful": SAFE, "unsafe": UNSAFE, "harmful": UNSAFE}
"""What a published word says of the question."""

SIGNS: Mapping[str, bool] = {
    "1": True, "true": True, "yes": True, "1.0": True, "0": False, "false": False, "no": False, "0.0": False,
}  # fmt: skip
"""How published files write a yes and a no."""

_NAMED_FOR_ONE: Mapping[str, str] = {"harmful": UNSAFE, "unsafe": UNSAFE, "safe": SAFE}
_NEGATIONS = frozenset({"not", "non", "no", "never"})
_CONTRAST = "contrast_"
COLUMNS = ("label", "prompt_harm_label", "prompt_label", "type", *_NAMED_FOR_ONE)
"""The columns that may tell it."""


def sign(value: object) -> bool | None:
    """The yes or no that a cell holds; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    return SIGNS.get(fold(value)) if isinstance(value, str) else None


def refuse_attempt(where: str, keys: Iterable[str]) -> None:
    """Raise ``BankError`` of a row of ``report --jsonl``: its prompt is a template's name, its label a verdict."""
    if {"question_hash", "answer_hash"} <= set(keys):
        raise BankError(f"{where} is an attempt of a run as `report --jsonl` lists it: name the run, or the run's bank")


class Halves:
    """The cells of one file that may tell its halves, row by row, and in the end what they tell.

    ``columns`` are those to look at. One that the user ``chose`` must tell it.
    """

    def __init__(self, columns: Iterable[str] = COLUMNS, *, chosen: bool = False) -> None:
        self._columns = tuple(fold(column) for column in columns)
        self._known = frozenset(self._columns)
        self._chosen = chosen
        self._rows: dict[int, tuple[str, tuple[object, ...]]] = {}
        self._count = 0

    def add(self, where: str, fields: Fields) -> None:
        """Look at the next row: its name for a message, its cells by folded column name."""
        if not self._known.isdisjoint(fields):
            cells = tuple(fields.get(column) for column in self._columns)
            if any(cell is not None and cell != "" for cell in cells):
                self._rows[self._count] = (where, cells)
        self._count += 1

    def add_block(self, first: int, count: int, fields: Mapping[str, Sequence[object]]) -> None:
        """The same for so many rows, the first of this number, by their columns."""
        if not self._known.isdisjoint(fields):
            nothing = (None,) * count
            for number, cells in enumerate(
                zip(*(fields.get(column, nothing) for column in self._columns), strict=True)
            ):
                if any(cell is not None and cell != "" for cell in cells):
                    self._rows[self._count + number] = (f"row {first + number}", cells)
        self._count += count

    def told(self) -> list[str | None]:
        """``safe``, ``unsafe`` or None (nobody said) for each row.

        Raises:
            BankError: a telling column holds anything else, or two of them say different things of one row; row and
                value are named.
        """
        telling = [
            place
            for place, column in enumerate(self._columns)
            if any(self._knows(column, cells[place]) for _, cells in self._rows.values())
        ]
        if self._chosen and not telling and self._count:
            raise BankError(f"column {self._columns[0]}: no row says {', '.join(WORDS)}, or 1 and 0 as its name tells")
        found: list[str | None] = [None] * self._count
        for number, (where, cells) in self._rows.items():
            found[number] = self._half(where, cells, telling)
        return found

    def _knows(self, column: str, cell: object) -> bool:
        """Whether a cell holds a word by which its column is known to tell the halves."""
        if column == "type" and not self._chosen:
            return isinstance(cell, str) and (fold(cell).startswith(_CONTRAST) or fold(cell) in WORDS)
        return self._by(column, cell) is not None

    def _half(self, where: str, cells: Sequence[object], telling: Sequence[int]) -> str | None:
        found: dict[str, str] = {}
        for place in telling:
            column, cell = self._columns[place], cells[place]
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                continue
            said = self._by(column, cell)
            if said is None:
                shown = named(cell.strip()) if isinstance(cell, str) else kind_of(cell)
                known = "1 or 0" if self._one(column) else " or ".join(WORDS)
                raise BankError(f"{where}: {column} is {shown}, expected {known}, as other rows have it")
            found[column] = said
        if len(set(found.values())) > 1:
            told = " and ".join(f"{column} says {half}" for column, half in found.items())
            raise BankError(f"{where}: {told}, and one of them is wrong")
        return next(iter(found.values()), None)

    def _by(self, column: str, cell: object) -> str | None:
        word = fold(cell) if isinstance(cell, str) else ""
        if word in WORDS:
            return WORDS[word]
        if column == "type" and word:
            return UNSAFE if word.startswith(_CONTRAST) else SAFE
        one, yes = self._one(column), sign(cell)
        if one is None or yes is None:
            return None
        return one if yes else (SAFE if one == UNSAFE else UNSAFE)

    def _one(self, column: str) -> str | None:
        """What 1 says in a column. One that the user chose may have the word within its name (``is_harmful``)."""
        if column in _NAMED_FOR_ONE or not self._chosen:
            return _NAMED_FOR_ONE.get(column)
        words = re.findall("[a-z]+", column)
        said = {_NAMED_FOR_ONE[word] for word in words if word in _NAMED_FOR_ONE}
        return said.pop() if len(said) == 1 and not _NEGATIONS.intersection(words) else None
