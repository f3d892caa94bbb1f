"""Labels to and from files: CSV, Argilla's records, Label Studio's tasks.

    csv            one line per answer and annotator; without texts unless asked for
    argilla        JSON: a list of records {id, fields, metadata, responses}, as ``rg.Dataset.records.to_json`` of the
                   Argilla 2 SDK writes and ``from_json`` reads; one label question named ``label``
    label-studio   JSON: a list of tasks {data, meta, annotations}, as Label Studio's JSON export and import have it;
                   one <Choices name="label" toName="answer">

Promised: every row that is imported is about an attempt of this very run (its key; ``id`` here) and, where the file
holds the answer's hash, about this very answer (a question that is asked anew has the same key); its label is one of
the measure's, and nobody says two things of one answer; a file with any other row is refused whole, row named, nothing
written; labels that stand already are not added again; an export imported elsewhere gives the same labels. The judge's
verdict is in no file: people label blind there too. Not promised: that these two tools' next versions keep their
formats (written from their documentation as known in 2025; neither program was run here).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

from redinstruct.annotate.draw import earlier_draws
from redinstruct.annotate.figures import ADJUDICATING
from redinstruct.annotate.session import Choices, checked_name, choices_of, judge_of, judged_text
from redinstruct.annotate.settings import Format, LabelsSettings
from redinstruct.errors import BankError, UsageError
from redinstruct.figures.people import follow_people
from redinstruct.files import RowFile, fold, kind_of
from redinstruct.files.words import Fields
from redinstruct.run import NAMED, Annotated, AnnotationStore, AttemptView, Store, by_answer, is_run, no_run
from redinstruct.safetext import csv_cell, in_csv, redact, short_hash, terminal
from redinstruct.settings import check_said
from redinstruct.types import MEASURES, Annotation, JsonObject, Measure

HASH = "answer_hash"
COLUMNS = ("id", "bank", "prompt", HASH, "annotator", "act", "label", "detail")
_TEXTS = ("question", "answer")
UNSURE = "unsure"


# ---- out ----


def exported(store: Store, judge: int, kind: str, *, content: bool) -> tuple[str, int]:
    """A run's drawn answers (every judged one, where nothing was drawn) with what people said, as a file's text.

    Whatever people said of another answer, one that they differ on, say, is in it too. Returns the text and the number
    of answers. Names of annotators are in it; texts only with ``content``.
    """
    keys = [key for body in earlier_draws(store, judge) for key in body.keys]
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    said = by_answer(AnnotationStore(store).standing())
    measure = next(MEASURES[card.measure] for row, card in store.judges() if row == judge)
    views = [
        view
        for view in store.attempts(judge)
        if bytes.fromhex(view.key) in said or (view.key in order if order else view.label in measure.labels[:2])
    ]
    views.sort(key=lambda view: order.get(view.key, len(order)))
    rows = [(view, said.get(bytes.fromhex(view.key), [])) for view in views]
    if kind == "csv":
        return _to_csv(rows, content), len(rows)
    make = _argilla_record if kind == "argilla" else _label_studio_task
    return _json([make(view, acts, choices_of(measure)) for view, acts in rows]), len(rows)


def _to_csv(rows: Sequence[tuple[AttemptView, list[Annotation]]], content: bool) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *(_TEXTS if content else ())])
    for view, acts in rows:
        texts = [view.question.text, judged_text(view)] if content else []
        said = [[a.annotator, a.act, a.label or "", a.detail or ""] for a in acts] or [[""] * 4]
        for cells in said:
            about = view.key, view.bank, view.prompt, _hash(view) or ""
            writer.writerow([in_csv(cell) for cell in (*about, *cells, *texts)])
    return out.getvalue()


def _argilla_record(view: AttemptView, acts: Sequence[Annotation], choices: Choices) -> JsonObject:
    return {
        "id": view.key,
        "fields": {"question": view.question.text, "answer": judged_text(view)},
        "metadata": {"bank": view.bank, "prompt": view.prompt, HASH: _hash(view)},
        "suggestions": {},
        "responses": {
            "label": [{"value": name, "user_id": a.annotator} for a in acts if (name := _name(a, choices)) is not None]
        },
        "vectors": {},
    }


def _label_studio_task(view: AttemptView, acts: Sequence[Annotation], choices: Choices) -> JsonObject:
    return {
        "data": {"id": view.key, "question": view.question.text, "answer": judged_text(view)},
        "meta": {"bank": view.bank, "prompt": view.prompt, HASH: _hash(view)},
        "annotations": [
            {
                "completed_by": {"email": a.annotator},
                "result": [
                    {"from_name": "label", "to_name": "answer", "type": "choices", "value": {"choices": [name]}}
                ],
            }
            for a in acts
            if (name := _name(a, choices)) is not None
        ],
    }


def _hash(view: AttemptView) -> str | None:
    """What tells the answer from another; None where there is none. A spreadsheet takes bare digits for a number."""
    text = judged_text(view)
    return f"sha256:{short_hash(text)}" if text else None


def _name(a: Annotation, choices: Choices) -> str | None:
    """What a person chose, by the page's name of it; None for a skip and for an adjudication, which is nobody's own."""
    if a.act == "unsure":
        return UNSURE
    if a.act != "label":
        return None
    return next((name for name, value in choices.items() if value == (a.label, a.detail)), a.label)


def _json(rows: Sequence[JsonObject]) -> str:
    # Escaped throughout: whatever reads this gets the same text, lone surrogates included.
    return redact(json.dumps(rows, ensure_ascii=True, indent=1)) + "\n"


# ---- in ----


def imported(path: Path, kind: str, measure: Measure, annotator: str | None, store: Store) -> list[Annotated]:
    """A file's labels, checked against the run; rows without a label are passed over.

    Raises:
        UsageError: the file does not read, or a row is about no answered attempt of this run, has a label that the
            measure does not have, or says nobody's name (and ``annotator`` is None).
    """
    judge, _ = judge_of(store, None)
    known = {view.key: _hash(view) for view in store.attempts(judge) if view.completion.outcome == "text"}
    read = {"csv": _from_csv, "argilla": _from_argilla, "label-studio": _from_label_studio}[kind]
    choices = choices_of(measure)
    found: dict[tuple[str, str], Annotated] = {}
    for number, (key, labelled, name, said, act) in enumerate(read(_records(path, kind), choices), 1):
        where = f"--import: row {number}"
        if key not in known:
            raise UsageError(f"{where}: its id is no answered attempt of this run")
        if None not in (labelled, known[key]) and labelled != known[key]:
            raise UsageError(f"{where}: it labels another answer: the question was asked anew since")
        if said is None and act is None:
            continue
        who = name or annotator
        if not who:
            raise UsageError(f"{where}: it does not say whose label it is; give --annotator")
        if said is not None and said not in choices and said != UNSURE:
            raise UsageError(f"{where}: its label is none of {', '.join([*choices, UNSURE])}")
        if said is None and act in ("label", "adjudicate"):
            raise UsageError(
                f"{where}: its act is {act}, and its label is empty; empty the act as well to pass it over"
            )
        annotation = _annotation(who, said, act, choices)
        entry = Annotated(bytes.fromhex(key), annotation)
        if found.setdefault((key, annotation.annotator), entry) != entry:
            raise UsageError(
                f"{where}: the same person says something else of this answer in an earlier row; leave one"
            )
    return list(found.values())


def _annotation(who: str, said: str | None, act: str | None, choices: Choices) -> Annotation:
    if said is None or said == UNSURE:
        return Annotation(who, "skip" if act == "skip" else "unsure", origin="import")
    label, detail = choices[said]
    if act == "adjudicate":  # nobody's own label: it stands beside the one that the same person gave
        return Annotation(who.removesuffix(ADJUDICATING) + ADJUDICATING, "adjudicate", label, detail, "import")
    return Annotation(who, "label", label, detail, "import")


LabelRow = tuple[str, str | None, str | None, str | None, str | None]
"""Key (hex), the answer's hash, annotator, choice, act; None where the row does not say."""


def _from_csv(records: Iterable[Fields], choices: Choices) -> Iterator[LabelRow]:
    for number, row in enumerate(records, 1):
        # Spreadsheets and people begin words with a capital.
        label, detail, act = ((_cell(row, name) or "").lower() or None for name in ("label", "detail", "act"))
        if act not in (None, "label", "unsure", "skip", "adjudicate"):
            raise UsageError(f"--import: row {number}: its act is none that a person can do")
        said = next((name for name, value in choices.items() if value == (label, detail)), label)
        yield _cell(row, "id") or "", _cell(row, HASH), _cell(row, "annotator"), said, act or (label and "label")


def _cell(row: Fields, name: str) -> str | None:
    value = row.get(name)
    # The apostrophe is what keeps a spreadsheet from reading a formula: `csv_cell` put it there.
    value = value.strip() if isinstance(value, str) else ""
    return (value[1:] if value.startswith("'") and csv_cell(value[1:]) == value else value) or None


def _from_argilla(records: Iterable[Fields], _: Choices) -> Iterator[LabelRow]:
    for record in records:
        key, labelled = str(record.get("id") or ""), _hash_in(record.get("metadata"))
        responses = record.get("responses") or {}
        if not isinstance(responses, dict):
            raise UsageError("--import: a record's responses are no object")
        answers = responses.get("label") or []
        if not isinstance(answers, list):
            raise UsageError("--import: a record's responses to `label` are no list")
        if not answers:
            yield key, labelled, None, None, None
        for answer in answers:
            if not isinstance(answer, dict):
                raise UsageError("--import: a record's response is no object")
            value, who = answer.get("value"), answer.get("user_id")
            yield key, labelled, None if who is None else str(who), None if value is None else str(value), None


def _from_label_studio(records: Iterable[Fields], _: Choices) -> Iterator[LabelRow]:
    for task in records:
        data, labelled = task.get("data"), _hash_in(task.get("meta"))
        key = str(data.get("id") or "") if isinstance(data, dict) else ""
        annotations = task.get("annotations") or []
        if not isinstance(annotations, list):
            raise UsageError("--import: a task's annotations are no list")
        if not annotations:
            yield key, labelled, None, None, None
        for annotation in annotations:
            if not isinstance(annotation, dict):
                raise UsageError("--import: a task's annotation is no object")
            if annotation.get("was_cancelled"):
                continue
            yield key, labelled, _completed_by(annotation), _choice(annotation), None


def _hash_in(about: object) -> str | None:
    found = about.get(HASH) if isinstance(about, dict) else None
    return found if isinstance(found, str) else None


def _completed_by(annotation: Fields) -> str | None:
    who = annotation.get("completed_by")
    if isinstance(who, dict):  # the user's record; JSON-MIN and some versions give the number alone
        who = who.get("email") or who.get("id")
    return None if who is None else str(who)


def _choice(annotation: Fields) -> str | None:
    parts = annotation.get("result")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("from_name") == "label" and isinstance(part.get("value"), dict):
            chosen = part["value"].get("choices")
            if isinstance(chosen, list) and len(chosen) == 1:
                return str(chosen[0])
            raise UsageError("--import: an annotation must choose exactly one label")
    return None


def _records(path: Path, kind: str) -> Iterator[Fields]:
    """The rows of a file, read one by one within the limits of every file of rows."""

    def lacks(columns: Sequence[str]) -> str | None:
        missing = {"id", "label"} - {fold(column) for column in columns}
        if kind != "csv":
            return "is not JSON: a list of objects is expected"
        return f"the CSV has no column {' and '.join(sorted(missing))}" if missing else None

    def is_row(value: Fields) -> bool:
        if not value.keys() & {"id", "data"}:
            raise BankError("is an object, and a list of objects is expected")
        return True

    file = RowFile(path, "a label", lacks=lacks, meant=bool, is_row=is_row)
    try:
        with closing(file.rows()) as rows:
            for row in rows:
                if not isinstance(row.value, dict):
                    raise BankError(f"{row.where} is {kind_of(row.value)}, and a list of objects is expected")
                yield {fold(key): value for key, value in row.value.items()} if kind == "csv" else row.value
        if file.empty and (lacking := lacks(())) is not None:
            raise BankError(lacking)
    except BankError as error:
        raise UsageError(f"--import {terminal(path.name)}: {error}") from None


def format_of(kind: Format | None, path: Path) -> Format:
    """The format of a file of labels.

    Raises:
        UsageError: it was not said, and the file's ending does not say it.
    """
    if kind is None and path.suffix.lower() != ".csv":
        raise UsageError(f"--format: which of {', '.join(get_args(Format))} is {path.name}?")
    return kind or "csv"


def take_in(run: Path, asked: LabelsSettings) -> tuple[int, int] | None:
    """Take a file's labels into a run, and keep by which rule several people's labels of one answer settle.

    Returns how many labels were new, and how many the file holds; None without a file.

    Raises:
        UsageError: there is no run, or the file does not fit it (:func:`imported`).
        StoreError: the store cannot be written.
    """
    check_said(asked)
    if not is_run(run):
        raise no_run(run, NAMED["evaluation"])
    taken = None
    if asked.source is not None:
        kind = format_of(asked.kind, asked.source)
        if asked.annotator is not None:
            checked_name(asked.annotator)
        with Store.open_for_reading(run) as store:
            _, card = judge_of(store, asked.judge)
            rows = imported(asked.source, kind, MEASURES[card.measure], asked.annotator, store)
        with Store.open_for_writing(run) as store:
            taken = store_labels(store, rows), len(rows)
            follow_people(store)
    if asked.settle is not None:
        with Store.open_for_writing(run) as store:
            AnnotationStore(store).set_rule(asked.settle)
            follow_people(store)
    return taken


def store_labels(store: Store, rows: Sequence[Annotated]) -> int:
    """Commit what does not stand already, all of it or nothing; returns how many rows that were.

    Raises:
        StoreError: the store cannot be written.
    """
    annotations = AnnotationStore(store)
    standing = {(e.key, e.annotation.annotator): _said(e.annotation) for e in annotations.standing()}
    new = [(e.key, a) for e in rows if standing.get((e.key, (a := e.annotation).annotator)) != _said(a)]
    if new:
        annotations.record(new)
    return len(new)


def _said(a: Annotation) -> tuple[str, str | None, str | None]:
    """What one act says; the page of older versions gave a plain refusal no detail."""
    return a.act, a.label, a.detail or a.label
