"""Tables of answers: CSV, JSON Lines, and JSON lists of objects, one row an answer.

Columns are known by name, upper and lower case alike, the first of a list that is there wins; ``--column`` names
others. What a row holds is stored as it is: formulas, control characters and lone surrogates are text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.halves import COLUMNS as HALF_KEYS
from redinstruct.halves import Halves
from redinstruct.interop.rows import ImportRow, said
from redinstruct.questions import SUBTOPIC_KEYS, TEXT_KEYS, TOPIC_KEYS, Row
from redinstruct.rowfiles import fold, kind_of, listed
from redinstruct.types import Measure

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": TEXT_KEYS,
    "response": ("response", "completion"),
    "judge": ("judge", "gpt4_annotation"),
    "human": ("human", "final_label"),
    "annotator": ("annotator",),
    "cluster": ("cluster", *TOPIC_KEYS),
    "subtopic": SUBTOPIC_KEYS,
    "label": (),
}
"""What a column may be for, and the names by which it is known."""


def roles_in(columns: Iterable[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Which of the columns serves for what: purpose -> folded name. ``chosen`` goes before the known names.

    Raises:
        UsageError: there is no prompt or no response, a chosen column is not there, or one stands twice.
    """
    there = [fold(column) for column in columns]
    found: dict[str, str] = {}
    for role, names in COLUMNS.items():
        if role in chosen:
            if fold(chosen[role]) not in there:
                raise UsageError(f"--column {role}={chosen[role]}: no such column, found {listed(columns)}")
            found[role] = fold(chosen[role])
        else:
            known = next((fold(name) for name in names if fold(name) in there), None)
            if known is not None:
                found[role] = known
    for role in ("prompt", "response"):
        if role not in found:
            expected = ", ".join(COLUMNS[role])
            raise UsageError(f"no column holds the {role}: expected one of {expected}, found {listed(columns)}")
    for name, times in Counter(there).items():
        if times > 1 and name in found.values():
            raise UsageError(f"the column {name} stands {times} times")
    return found


def rows_of(rows: Sequence[Row], measure: Measure, chosen: Mapping[str, str]) -> tuple[list[ImportRow], set[str]]:
    """The answers of a table, every cell checked, and what its columns serve for.

    In JSON a key may be missing from a row; a purpose is there where one row has it.

    Raises:
        UsageError: a row is no object, or a cell does not hold what it should; the row and the column are named.
    """
    columns: dict[str, None] = {}
    for row in rows:
        if not isinstance(row.value, dict):
            raise UsageError(f"{row.where} is {kind_of(row.value)}, expected an object with a prompt and a response")
        spellings = Counter(map(fold, row.value))
        double = next((name for name, times in spellings.items() if times > 1), None)
        if double is not None and any(double in map(fold, names) for names in COLUMNS.values()):
            raise UsageError(f"{row.where} holds {double} twice, expected it once")
        columns.update(dict.fromkeys(map(fold, row.value)))
    roles = roles_in(columns, chosen)
    taken = {column for role, column in roles.items() if role not in ("cluster", "label")}
    halves = (
        Halves([roles["label"]], chosen=True) if "label" in roles else Halves(k for k in HALF_KEYS if k not in taken)
    )
    found = []
    for row in rows:
        if isinstance(row.value, dict):
            fields = {fold(name): held for name, held in row.value.items()}
            halves.add(row.where, fields)
            found.append(_row(row.where, fields, roles, measure))
    labelled = zip(found, halves.told(), strict=True)
    return [r if half is None else msgspec.structs.replace(r, bank_label=half) for r, half in labelled], set(roles)


def _row(where: str, fields: Mapping[str, object], roles: Mapping[str, str], measure: Measure) -> ImportRow:
    def cell(role: str) -> object:
        return fields.get(roles[role]) if role in roles else None

    def text(role: str) -> str | None:
        held = cell(role)
        if held is not None and not isinstance(held, str):
            raise UsageError(f"{where}: {roles[role]} is {kind_of(held)}, expected text")
        return held

    def group(role: str) -> str | None:
        # A category that is no text (a set of flags, say) is none to group by.
        held = cell(role)
        return held.strip() or None if isinstance(held, str) else None

    question = text("prompt")
    if question is None or not question.strip():
        raise UsageError(f"{where}: {roles['prompt']} is {'missing' if question is None else 'blank'}")
    return ImportRow(
        where=where,
        question=question.strip(),
        response=text("response"),
        judge=said(cell("judge"), measure, f"{where}: {roles.get('judge')}", person=False),
        human=said(cell("human"), measure, f"{where}: {roles.get('human')}", person=True),
        annotator=group("annotator"),
        topic=group("cluster"),
        subtopic=group("subtopic"),
    )
