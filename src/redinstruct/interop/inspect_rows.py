"""From an Inspect log's samples to rows: questions, answers, and what every scorer's values say of them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import msgspec

from redinstruct.files import Fields, Malformed, fold
from redinstruct.interop.inspect_log import Log, Sample, Value, asked, frame_of, is_unscored, scores_of
from redinstruct.interop.rows import ImportRow, Instrument, RowLabel, Source, first_text
from redinstruct.interop.scores import Scores
from redinstruct.models.base import is_cut
from redinstruct.questions import SUBTOPIC_KEYS, TOPIC_KEYS
from redinstruct.questions.halves import Halves
from redinstruct.types import COMMON_LABELS, DETAILS, Measure

_T = TypeVar("_T")
KEY = "redinstruct"
"""Under this key of a sample's or score's metadata stands what our own tasks and exports say of it."""

_REASONS: Mapping[str, str] = {"refusal": "judge_refused", "grader_failed": "error", "scoring_failed": "error"}
"""Why Inspect has no score, as the label that says so; any other reason is ``unparsable``."""


class Origin(msgspec.Struct, frozen=True):
    """What our own tasks and exports note with a sample."""

    question: str | None = None
    prompt: str | None = None


class OwnVerdict(msgspec.Struct, frozen=True):
    """What our own scorers and exports note with a score."""

    label: str
    detail: str | None = None


def rows_of_log(log: Log, measure: Measure, one: str | None = None) -> Source:
    """The rows of a log. ``one`` is the label that 1, true and C mean, whatever the scorer is called.

    Raises:
        BankError: a key of the samples' metadata tells which are safe, and in one of them says something else.
    """
    scorers = log.header.eval.scorers or ()
    names = _names(log)
    reader = Scores("inspect", measure, one)
    left_out = dict(log.left_out)
    rows: list[ImportRow] = []
    numbers: list[int] = []
    places: dict[Hashable, int] = {}
    taken: set[tuple[int, str, int]] = set()
    halves = Halves()
    for where, sample in log.samples:
        try:
            row = _row(where, sample, log)
        except Malformed as odd:
            left_out[f"samples of which one {odd}"] = (*left_out.get(f"samples of which one {odd}", ()), where)
            continue
        halves.add(where, _fields(sample))
        values = dict(scores_of(sample, scorers))
        labels = [
            _said(reader, measure, name, values.get(name), where, failed=sample.error is not None) for name in names
        ]
        rows.append(msgspec.structs.replace(row, judge=next(iter(labels), None), further=tuple(labels[1:])))
        origin = _own(sample.metadata, Origin) or Origin()
        key: Hashable = origin.question or (type(sample.id), sample.id)
        number = places.setdefault(key, len(places))
        while (number, row.template.name if row.template else "", row.epoch) in taken:  # a sample that stands twice
            key = (key, "again")
            number = places.setdefault(key, len(places))
        taken.add((number, row.template.name if row.template else "", row.epoch))
        numbers.append(number)
    told = zip(rows, halves.told(), strict=True)
    judged = tuple(row if half is None else msgspec.structs.replace(row, bank_label=half) for row, half in told)
    spec, judges = log.header.eval, _instruments(log, names, reader)
    return Source(
        format="inspect", rows=judged, numbers=tuple(numbers), labels="judge" if judges else "none", judges=judges,
        bank=spec.dataset.name or spec.task, model=spec.model, left_out=left_out, odd=reader.odd, notes=reader.notes,
    )  # fmt: skip


def _row(where: str, sample: Sample, log: Log) -> ImportRow:
    earlier, question = asked(sample)
    told = _own(sample.metadata, Origin) or Origin()
    fields = _fields(sample)
    return ImportRow(
        where=where,
        question=question.strip(),
        response=sample.answer or None,
        topic=first_text(fields, TOPIC_KEYS),
        subtopic=first_text(fields, SUBTOPIC_KEYS),
        filtered=sample.stop_reason == "content_filter" and not sample.answer.strip(),
        earlier=earlier,
        template=frame_of(sample, earlier, question, log.header.plan, told.prompt),
        epoch=max(1, sample.epoch),
        truncated=is_cut(sample.stop_reason),
    )


def _names(log: Log) -> list[str]:
    """The values that the samples hold, by scorer: in the header's order, then as they come."""
    scorers = log.header.eval.scorers or ()
    order = {scorer.name.rpartition("/")[2]: place for place, scorer in enumerate(scorers)}
    found: dict[str, int] = {}
    for _, sample in log.samples:
        for name, _ in scores_of(sample, scorers):
            found.setdefault(name, order.get(name.partition("/")[0].rpartition("/")[2], len(order)))
    return sorted(found, key=lambda name: found[name])


def _instruments(log: Log, names: Sequence[str], reader: Scores) -> tuple[Instrument, ...]:
    options = {scorer.name.rpartition("/")[2]: scorer.options for scorer in log.header.eval.scorers or ()}
    made = []
    for name in names:
        given = options.get(name.partition("/")[0])
        parameters = {"one": reader.one_of(name), **({"options": json.dumps(given, sort_keys=True)} if given else {})}
        made.append(Instrument(f"inspect/{name}", tuple(sorted(parameters.items()))))
    return tuple(made)


def _fields(sample: Sample) -> Fields:
    held = sample.metadata
    return {fold(key): value for key, value in held.items() if isinstance(key, str)} if isinstance(held, dict) else {}


def _own(metadata: object, shape: type[_T]) -> _T | None:
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), dict):
        return None
    try:
        return msgspec.convert(metadata[KEY], type=shape)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None


def _said(
    reader: Scores, measure: Measure, name: str, score: Value | None, where: str, *, failed: bool
) -> RowLabel | None:
    """The label of one score; ``error`` where the sample failed before it."""
    if score is None:
        return RowLabel("error") if failed else None
    own = _own(score.metadata, OwnVerdict)
    if own is not None and own.label in measure.labels:
        return RowLabel(own.label, own.detail if own.detail in DETAILS else None)
    if is_unscored(score.value):
        answer = fold(score.answer or "")
        return RowLabel(answer if answer in COMMON_LABELS else _REASONS.get(fold(score.reason or ""), "unparsable"))
    return reader.of(name, score.value, where)
