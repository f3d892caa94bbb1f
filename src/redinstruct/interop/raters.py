"""Several people's labels of one answer, in the two shapes in which they are published.

A column a person (``annotation_1``, ``annotation_2``; ``human_1`` ...; ``final_label`` beside them settles their
differences), or a row a person, named by a column ``annotator``: rows of equal texts are then one answer, unless one
person labelled the same texts twice (two answers that happen to be equal: the k-th of everybody belong together). A
cell may hold a list of labels as well, or of ``{annotator, label}``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.files import fold
from redinstruct.interop.rows import ImportRow, Vote, meaning_of_one, said
from redinstruct.questions.halves import sign
from redinstruct.types import Measure

FINAL = ("final_label", "final", "adjudicated")
"""Columns that settle what the numbered ones beside them say."""

_NUMBERED = re.compile(
    r"(human|annotation|annotator|rater|labell?er|coder)[ _-]?(?:score|label|vote|rating)?[ _-]?\d+(?:[ _-]?label)?"
)
_PEOPLE = frozenset({"human", "annotator", "annotators", "rater", "people"})

ColumnCells = Callable[[str], Iterable[object]]
"""The cells of a column, by its folded name."""


def numbered(columns: Sequence[str], cells: ColumnCells, measure: Measure) -> tuple[str, ...]:
    """The columns that hold a label each of several people, by their names and by holding labels."""
    found = [column for column in columns if _NUMBERED.fullmatch(column)]
    return tuple(column for column in found if any(_is_label(cell, measure) for cell in cells(column)))


def of_people(columns: Sequence[str], measure: Measure) -> str | None:
    """A column of 0 and 1 whose name says that people filled it and what 1 is (``human_jailbroken``)."""
    words = {column: set(re.findall("[a-z]+", column)) for column in columns}
    return next((c for c in columns if words[c] & _PEOPLE and meaning_of_one(c, measure) is not None), None)


def yes_or_no(columns: Sequence[str], cells: ColumnCells, measure: Measure) -> str | None:
    """A column of 0 and 1 that is named for what 1 is, and for nothing else: whose word it is, it does not say."""
    for column in columns:
        bare = column.removeprefix("is_").removeprefix("is ")
        if bare.isalpha() and meaning_of_one(bare, measure) is not None:
            held = [cell for cell in cells(column) if cell not in (None, "")]
            if held and all(sign(cell) is not None for cell in held):
                return column
    return None


def _is_label(cell: object, measure: Measure) -> bool:
    if sign(cell) is not None:
        return True
    try:
        return said(cell, measure, "", person=True) is not None
    except UsageError:
        return False


def votes(cell: object, measure: Measure, what: str, who: str | None, one: str | None) -> tuple[Vote, ...]:
    """The labels that a cell holds: one, or a list of them.

    Raises:
        UsageError: it holds anything else.
    """
    if not isinstance(cell, list):
        found = said(cell, measure, what, person=True, one=one)
        return () if found is None else (Vote(found, who),)
    made = []
    for number, entry in enumerate(cell, 1):
        name: str | None = f"rater {number}"
        if isinstance(entry, dict):
            fields = {fold(key): value for key, value in entry.items()}
            named = next((fields[key] for key in ANNOTATOR if fields.get(key) is not None), None)
            name, entry = (name if named is None else person(named)), fields.get("label")
        found = said(entry, measure, f"{what}, entry {number}", person=True, one=one)
        if found is not None:
            made.append(Vote(found, name if who is None else f"{who}, {name}"))
    return tuple(made)


ANNOTATOR = ("annotator", "annotator_id", "rater", "rater_id", "worker_id", "labeler", "labeller")
"""The columns that name who labelled a row."""


def person(cell: object) -> str | None:
    """Who labelled: a text or a number."""
    if isinstance(cell, bool) or not isinstance(cell, (str, int)):
        return None
    return str(cell).strip() or None


def one_answer_each(rows: Sequence[ImportRow], raters: Sequence[str | None]) -> tuple[list[ImportRow], list[int]]:
    """Rows of several people about one answer as one row, at the place of the first: the answers, and their places.

    ``raters`` says who wrote each row.

    Raises:
        UsageError: the rows of one answer hold different labels of the judge.
    """
    found: dict[Hashable, int] = {}
    times: Counter[Hashable] = Counter()
    merged: list[ImportRow] = []
    places: list[int] = []
    for number, (row, who) in enumerate(zip(rows, raters, strict=True)):
        answer = (row.question, row.earlier, row.response, row.topic, row.subtopic, row.bank_label, row.filtered)
        occurrence = times[answer, who]
        times[answer, who] += 1
        at = found.setdefault((answer, occurrence), len(merged))
        if at == len(merged):
            merged.append(row)
            places.append(number)
            continue
        first = merged[at]
        if first.judge is not None and row.judge is not None and first.judge != row.judge:
            raise UsageError(f"{first.where} and {row.where} are one answer, and their judge labels differ")
        merged[at] = msgspec.structs.replace(
            first, judge=first.judge or row.judge, people=tuple(dict.fromkeys((*first.people, *row.people)))
        )
    return merged, places
