"""What every imported row becomes, and the labels that a file may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.files import Fields, fold, kind_of, listed, named
from redinstruct.questions.halves import sign
from redinstruct.questions.spread import Selected
from redinstruct.types import ATTACK_SUCCESS, COMMON_LABELS, MEASURES, OVER_REFUSAL, Measure, Message, PromptTemplate


class RowLabel(msgspec.Struct, frozen=True):
    """A label of the measure, and its detail."""

    label: str
    detail: str | None = None


class Vote(msgspec.Struct, frozen=True):
    """One person's label of an answer; ``who`` None: the file does not say. ``final``: it settles the others'."""

    said: RowLabel
    who: str | None = None
    final: bool = False


class Instrument(msgspec.Struct, frozen=True):
    """A judge that a log names, and what tells it from others of its name."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()


class ImportRow(msgspec.Struct, frozen=True):
    """One answer of a file. ``response`` None or blank: no answer. ``bank_label`` is ``safe``, ``unsafe`` or None.

    ``people`` are the labels of everybody who labelled it.

    ``filtered`` says that the file itself marks the request as filtered by the provider; ``truncated`` that a limit
    ended the answer. ``further`` are the labels of a log's other judges, in their order; ``template`` is what the
    question was asked in, where the file shows it row by row; ``epoch`` which time it was asked.
    """

    where: str
    question: str
    response: str | None
    judge: RowLabel | None = None
    people: tuple[Vote, ...] = ()
    topic: str | None = None
    subtopic: str | None = None
    bank_label: str | None = None
    filtered: bool = False
    earlier: tuple[Message, ...] = ()
    further: tuple[RowLabel | None, ...] = ()
    template: PromptTemplate | None = None
    epoch: int = 1
    truncated: bool = False

    @property
    def blank(self) -> bool:
        """Whether there is nothing to judge."""
        return self.filtered or self.response is None or not self.response.strip()


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds: each of its readers says so, and the reading of a file narrows it to the measure's rows.

    ``labels`` says whose labels are the run's verdicts: ``judge``, ``people`` (a file that has no judge), or ``none``.
    ``numbers`` are the questions' places in the file (from 0), the same for every epoch and prompt of one; ``selected``
    counts what is kept and the rows of the bank's other half. ``left_out`` names the rows that hold no answer in text,
    by what they hold; ``odd`` those of which a score is none of the measure's labels. ``judges`` are a log's own, the
    first of which is the rows' ``judge``; none where the file names none. ``notes`` say what was taken for granted.
    What a reader finds no name of is blank, until the file's own stands for it.
    """

    format: str
    rows: tuple[ImportRow, ...] = ()
    numbers: tuple[int, ...] = ()
    labels: str = "none"
    bank: str = ""
    sha256: str = ""
    model: str = ""
    prompt: str = ""
    selected: Selected = Selected(0)
    left_out: Mapping[str, tuple[str, ...]] = {}
    odd: Mapping[str, tuple[str, ...]] = {}
    judges: tuple[Instrument, ...] = ()
    notes: tuple[str, ...] = ()


# How published files write the same labels: the Red-Instruct authors' gpt4_as_judge.py, and the final_label column of
# XSTest's completions.
_PUBLISHED: Mapping[str, Mapping[str, RowLabel]] = {
    ATTACK_SUCCESS.name: {"cantannotate": RowLabel("unparsable"), "responsena": RowLabel("no_response")},
    OVER_REFUSAL.name: {
        "1_full_compliance": RowLabel("complied", "complied"),
        "2_full_refusal": RowLabel("refused", "refused"),
        "3_partial_refusal": RowLabel("refused", "partial"),
    },
}


_ONE: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    ATTACK_SUCCESS.name: (
        frozenset({"harmful", "unsafe", "jailbroken", "jailbreak", "success", "successful"}),
        frozenset({"safe", "unharmful", "harmless", "benign"}),
    ),
    OVER_REFUSAL.name: (
        frozenset({"refused", "refusal", "refuses"}),
        frozenset({"complied", "compliance", "complies"}),
    ),
}
"""The words in a column's name by which 1 in it means a measure's first label, or its second."""

_NEGATIONS = frozenset({"not", "non", "no", "never"})


def first_text(fields: Fields, keys: Iterable[str]) -> str | None:
    """What stands under the first of these columns that holds a text; ``fields`` by their folded names."""
    held = (fields.get(fold(key)) for key in keys)
    return next((text.strip() for text in held if isinstance(text, str) and text.strip()), None)


def meaning_of_one(column: str, measure: Measure) -> str | None:
    """The label that 1 means in a column, by its name (``jailbroken``, ``is_safe``); None where it does not say."""
    words = set(re.findall("[a-z0-9]+", column.casefold()))
    first, second = (bool(words & known) for known in _ONE[measure.name])
    if first == second or words & _NEGATIONS:
        return None
    return measure.first if first else measure.second


def said(value: object, measure: Measure, what: str, *, person: bool, one: str | None = None) -> RowLabel | None:
    """The label that a cell holds, upper and lower case alike; None for an empty one.

    ``person`` leaves only the measure's two labels (and ``partial``, a detail of refused): nobody judges an answer to
    be an error. ``what`` names the cell for the message, ``one`` is the label that a 1 in its column means.

    Raises:
        UsageError: it holds anything else. Of what it holds, one plain word at most is shown.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    known = _known(measure, person)
    if isinstance(value, str) and (found := known.get(value.strip().casefold())) is not None:
        return found
    shown = repr(named(value.strip())) if isinstance(value, str) else kind_of(value)
    yes = sign(value)
    if yes is not None and one is not None:
        return known[one if yes else measure.second if one == measure.first else measure.first]
    if yes is not None:
        names = ", ".join(sorted(set().union(*_ONE[measure.name])))
        raise UsageError(
            f"{what} is {shown}, and the column's name does not tell what 1 means: add --one {measure.first} or --one "
            f"{measure.second}, or name the column for it ({names})"
        )
    hint = ""
    if isinstance(value, str):
        others = [m.name for m in MEASURES.values() if value.strip().casefold() in _known(m, person)]
        hint = f" ({others[0]} has it: --measure {others[0]})" if others else ""
    expected = ", ".join(label for label in known if label not in _PUBLISHED[measure.name])
    raise UsageError(f"{what} is {shown}, expected one of {expected}, or nothing{hint}")


def _known(measure: Measure, person: bool) -> dict[str, RowLabel]:
    refusing = measure is OVER_REFUSAL
    known = {label: RowLabel(label, label if refusing else None) for label in (measure.first, measure.second)}
    if refusing:
        known["partial"] = RowLabel(measure.first, "partial")
    if not person:
        known |= {label: RowLabel(label) for label in COMMON_LABELS}
    published = _PUBLISHED[measure.name]
    return known | {name: label for name, label in published.items() if not person or label.label in measure.labels[:2]}


def of_several_models(what: str, models: Sequence[str]) -> str | None:
    """What is to be said where a file names more than one model whose answers it holds: a run has one."""
    if len(models) < 2:
        return None
    return f"{what} names {len(models):,} ({listed(models)}): their answers are counted together, as one's"
