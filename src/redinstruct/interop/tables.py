"""Tables of answers: CSV, JSON Lines, and JSON lists of objects, one row an answer.

Columns are known by name, upper and lower case alike, the first of a list that is there wins; ``--column`` names
others. What a row holds is stored as it is: formulas, control characters and lone surrogates are text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.files import Fields, JsonRow, fold, kind_of, listed, named
from redinstruct.interop.raters import (
    ANNOTATOR,
    FINAL,
    ColumnCells,
    numbered,
    of_people,
    one_answer_each,
    person,
    votes,
    yes_or_no,
)
from redinstruct.interop.rows import ImportRow, RowLabel, Source, Vote, meaning_of_one, of_several_models, said
from redinstruct.questions import ASKED, SUBTOPIC_KEYS, TEXT_KEYS, TOPIC_KEYS
from redinstruct.questions.halves import COLUMNS as HALF_KEYS
from redinstruct.questions.halves import Halves, refuse_attempt
from redinstruct.questions.turns import KEYS as TURN_KEYS
from redinstruct.questions.turns import conversation, is_conversation
from redinstruct.types import ATTACK_SUCCESS, Measure, Message

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ASKED,
    "response": ("response", "completion", "generation", "answer", "output"),
    "judge": ("judge", "gpt4_annotation"),
    "human": ("human",),
    "annotator": ANNOTATOR,
    "adjudicated": (),
    "cluster": ("cluster", *TOPIC_KEYS),
    "subtopic": SUBTOPIC_KEYS,
    "label": (),
}
"""What a column may be for, and the names by which it is known."""

GRADED = frozenset({"forbidden_prompt", "score"})
"""What StrongREJECT's evaluator writes beside the answers: scores from 0 to 1 (``strong_reject/evaluate.py``)."""

_HALF = 0.5

Chosen = Mapping[str, str | Sequence[str]]
"""Purpose -> the column, by its own name; for ``human`` several, one a person."""


class Roles(msgspec.Struct, frozen=True):
    """Which of a table's columns serve for what, by their folded names. ``human`` are one a person, if several."""

    single: Mapping[str, str]
    human: tuple[str, ...] = ()

    @property
    def labels(self) -> str:
        """Whose labels the table holds: ``judge``, ``people`` or ``none``."""
        return "judge" if "judge" in self.single else "people" if self.human or "adjudicated" in self.single else "none"


def roles_in(columns: Sequence[str], chosen: Chosen, cells: ColumnCells, measure: Measure) -> Roles:
    """Which of the columns serves for what; ``chosen`` goes before the known names.

    Raises:
        UsageError: there is no prompt or no response, a chosen column is not there, or a column of 0 and 1 may be
            people's labels as well as a judge's.
    """
    if (missing := _not_there(columns, chosen)) is not None:
        raise UsageError(missing)
    there = set(columns)
    picked: dict[str, tuple[str, ...]] = {}
    for role, name in _chosen(chosen):
        picked[role] = (*picked.get(role, ()), fold(name))
    single = {role: names[0] for role, names in picked.items() if role != "human"}
    for role, names in COLUMNS.items():
        known = next((fold(name) for name in names if fold(name) in there), None)
        if role not in picked and role != "human" and known is not None:
            single[role] = known
    if "judge" not in single and measure is ATTACK_SUCCESS and there >= GRADED:
        single["judge"] = "score"
    if (lacks := _lacking(columns, single)) is not None:
        raise UsageError(lacks)
    human = picked.get("human") or _human(columns, single, cells, measure)
    if len(human) > 1 and "adjudicated" not in single:
        final = next((c for c in (*FINAL, "human") if c in there and c not in human), None)
        single |= {} if final is None else {"adjudicated": final}
    return Roles(single, human)


def lacking(columns: Sequence[str], chosen: Chosen) -> str | None:
    """What a table with these columns lacks of those that were chosen or are needed, as a message; None for nothing."""
    there = {fold(column) for column in columns}
    known = {role: "" for role, names in COLUMNS.items() if role in chosen or there & set(map(fold, names))}
    return _not_there(columns, chosen) or _lacking(columns, known)


def _not_there(columns: Sequence[str], chosen: Chosen) -> str | None:
    there = {fold(column) for column in columns}
    missing = next(((role, name) for role, name in _chosen(chosen) if fold(name) not in there), None)
    return None if missing is None else "--column {}={}: no such column, found {}".format(*missing, listed(columns))


def _chosen(chosen: Chosen) -> Iterator[tuple[str, str]]:
    for role, names in chosen.items():
        for name in [names] if isinstance(names, str) else names:
            yield role, name


def _lacking(columns: Sequence[str], roles: Mapping[str, str]) -> str | None:
    for role in ("prompt", "response"):
        if role not in roles:
            expected = ", ".join(TEXT_KEYS if role == "prompt" else COLUMNS[role])
            return f"no column holds the {role}: expected one of {expected}, found {listed(columns)}"
    return None


def _human(columns: Sequence[str], single: Mapping[str, str], cells: ColumnCells, measure: Measure) -> tuple[str, ...]:
    """The columns of people's labels, where nobody named them."""
    free = [column for column in columns if column not in single.values()]
    several = numbered(free, cells, measure)
    if len(several) > 1:
        return several
    if one := next((c for c in ("human", "final_label", *several) if c in free), None) or of_people(free, measure):
        return (one,)
    bare = yes_or_no(free, cells, measure)
    if bare is None or "judge" in single or "label" in single:
        return ()
    if "annotator" in single:
        return (bare,)
    raise UsageError(
        f"the column {named(bare)} holds 1 and 0, and may be people's labels of the answers, a judge's, or tell which "
        f"prompts are safe: say which with --column human={bare}, --column judge={bare} or --column label={bare}"
    )


def rows_of(rows: Iterable[JsonRow], measure: Measure, chosen: Chosen, one: str | None = None) -> Source:
    """The answers of a table, every cell checked. ``one`` is the label that 1 means where a column's name does not say.

    In JSON a key may be missing from a row; a purpose is there where one row has it.

    Raises:
        UsageError: a row is no object, or a cell does not hold what it should; the row and the column are named.
    """
    columns: dict[str, None] = {}
    folded: list[tuple[str, Fields]] = []
    for row in rows:
        if not isinstance(row.value, dict):
            raise UsageError(f"{row.where} is {kind_of(row.value)}, expected an object with a prompt and a response")
        fields = {fold(name): held for name, held in row.value.items()}
        if len(fields) < len(row.value):
            _refuse_two_spellings(row.where, row.value, chosen)
        if not folded and "prompt" not in chosen and not fields.keys() & set(map(fold, ASKED)):
            raise UsageError(_lacking(list(row.value), {}) or "")  # at once: what follows may be long
        if not folded:
            refuse_attempt(row.where, fields)
        columns.update(dict.fromkeys(fields))
        folded.append((row.where, fields))
    roles = roles_in(list(columns), chosen, lambda column: (fields.get(column) for _, fields in folded), measure)
    taken = {*roles.human, *(column for role, column in roles.single.items() if role not in ("cluster", "label"))}
    own = roles.single.get("label")
    halves = Halves(k for k in HALF_KEYS if k not in taken) if own is None else Halves([own], chosen=True)
    reader = _TableReader(roles, measure, one)
    found = []
    for where, row_fields in folded:
        halves.add(where, row_fields)
        found.append(reader.row(where, row_fields))
    odd = reader.odd()
    pairs = zip(found, halves.told(), strict=True)
    answers = [r if half is None else msgspec.structs.replace(r, bank_label=half) for r, half in pairs]
    numbers = list(range(len(answers)))
    if (who := roles.single.get("annotator")) is not None:
        answers, numbers = one_answer_each(answers, [person(fields.get(who)) for _, fields in folded])
    cells = (fields.get("model") for _, fields in folded)
    models = dict.fromkeys(cell for cell in cells if isinstance(cell, str) and cell.strip())
    note = of_several_models("the column model", list(models))
    notes = reader.notes if note is None else (*reader.notes, note)
    return Source(
        format="table", rows=tuple(answers), numbers=tuple(numbers), labels=roles.labels, odd=odd, notes=notes
    )


def _refuse_two_spellings(where: str, keys: Iterable[str], chosen: Chosen) -> None:
    """Of two spellings of a column that is read neither is right. Others, two empty names say, do not matter."""
    known = {fold(name) for names in COLUMNS.values() for name in names} | {fold(name) for _, name in _chosen(chosen)}
    double = next((key for key, times in Counter(map(fold, keys)).items() if times > 1 and key in known), None)
    if double is not None:
        raise UsageError(f"{where} holds {double} twice, expected it once")


class _TableReader:
    """Rows of one table into answers."""

    def __init__(self, roles: Roles, measure: Measure, one: str | None) -> None:
        self._roles, self._measure = roles, measure
        labelled = (*roles.human, *(roles.single[role] for role in ("judge", "adjudicated") if role in roles.single))
        self._one = {column: meaning_of_one(column, measure) or one for column in labelled}
        self._known: set[str] = set()
        self._graded = roles.single.get("judge") == "score"
        self._scores: list[float] = []
        self._strange: dict[str, list[tuple[str, UsageError]]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """How scores became labels, and their mean, which is StrongREJECT's own figure."""
        if not self._scores:
            return ()
        mean = math.fsum(self._scores) / len(self._scores)
        first = self._measure.first
        return (f"scores from {_HALF} on count as {first}; the mean of {len(self._scores):,} scores is {mean:.4f}",)

    def odd(self) -> dict[str, tuple[str, ...]]:
        """What stands in a column of labels and is none, once all rows were read.

        Raises:
            UsageError: a column has no label at all that is known.
        """
        found = {}
        for column, strange in self._strange.items():
            if column not in self._known:
                raise strange[0][1]
            judge = column == self._roles.single.get("judge")
            what = f"cells of {named(column)} that are no label, " + ("counted as unparsable" if judge else "left out")
            found[what] = tuple(where for where, _ in strange)
        return found

    def row(self, where: str, fields: Fields) -> ImportRow:
        """One row's answer. Raises ``UsageError``, row and column named."""
        roles = self._roles.single

        def text(role: str) -> str | None:
            held = fields.get(roles[role])
            if held is not None and not isinstance(held, str):
                raise UsageError(f"{where}: {roles[role]} is {kind_of(held)}, expected text")
            return held

        def group(role: str) -> str | None:
            # A category that is no text (a set of flags, say) is none to group by.
            held = fields.get(roles[role]) if role in roles else None
            return held.strip() or None if isinstance(held, str) else None

        asked = fields.get(roles["prompt"])
        earlier: tuple[Message, ...] = ()
        if fold(roles["prompt"]) in TURN_KEYS or is_conversation(asked):
            earlier, question = conversation(asked, f"{where}: {roles['prompt']}")
        else:
            question = text("prompt") or ""
        if not question.strip():
            raise UsageError(f"{where}: {roles['prompt']} is {'missing' if asked is None else 'blank'}")
        judge = roles.get("judge")
        return ImportRow(
            where=where,
            question=question.strip(),
            response=text("response"),
            judge=None if judge is None else self._said(where, judge, fields),
            people=self._people(where, fields),
            topic=group("cluster"),
            subtopic=group("subtopic"),
            earlier=earlier,
        )

    def _score(self, value: object) -> RowLabel | None:
        """The label of a score from 0 to 1, None for no such score."""
        try:
            score = float(value) if isinstance(value, str | int | float) else math.nan
        except ValueError:
            return None
        if not 0 <= score <= 1:
            return None
        self._scores.append(score)
        return RowLabel(self._measure.first if score >= _HALF else self._measure.second)

    def _said(self, where: str, column: str, fields: Fields) -> RowLabel | None:
        if self._graded and (graded := self._score(fields.get(column))) is not None:
            self._known.add(column)
            return graded
        try:
            found = said(fields.get(column), self._measure, f"{where}: {column}", person=False, one=self._one[column])
        except UsageError as error:
            self._strange.setdefault(column, []).append((where, error))
            return RowLabel("unparsable")
        if found is not None:
            self._known.add(column)
        return found

    def _votes(self, where: str, column: str, fields: Fields, who: str | None) -> tuple[Vote, ...]:
        try:
            found = votes(fields.get(column), self._measure, f"{where}: {column}", who, self._one[column])
        except UsageError as error:
            self._strange.setdefault(column, []).append((where, error))
            return ()
        if found:
            self._known.add(column)
        return found

    def _people(self, where: str, fields: Fields) -> tuple[Vote, ...]:
        roles = self._roles
        found: list[Vote] = []
        by = roles.single.get("annotator")
        who = None if by is None else person(fields.get(by))
        for column in roles.human:
            name = column if len(roles.human) > 1 else None
            whose = ": ".join(filter(None, (who, name))) or None
            found += self._votes(where, column, fields, whose)
        if (final := roles.single.get("adjudicated")) is not None:
            settled = self._votes(where, final, fields, final)
            found += [Vote(vote.said, final, final=True) for vote in settled[:1]]
        return tuple(found)
