"""A file of answers made into an ordinary run: every verb that reads a run reads this one.

Promised: the run appears as a whole, by one rename of a folder that was written, sealed and closed beside it; a kill
leaves no run, and the same command makes it. The same file again changes nothing. Rows stay apart, also where they
hold the same prompt.

Not promised: that the file tells the truth. The verdicts are the file's, under a judge named ``imported``, or under the
names that a log gives its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from redinstruct.annotate.figures import ADJUDICATING
from redinstruct.errors import ConfigError, UsageError
from redinstruct.figures.people import PEOPLE_ALONE, verdict_of_people
from redinstruct.interop.rows import ImportRow, RowLabel, Source
from redinstruct.interop.settings import IMPORTED, ImportSettings
from redinstruct.interop.sources import read_source
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.prompts import parse_template
from redinstruct.run import (
    MAJORITY,
    UNANIMOUS,
    AnnotationStore,
    ImportedStore,
    Store,
    check_run_folder,
    is_run,
    whole_run,
)
from redinstruct.run import settle as settle_labels
from redinstruct.run.config import Pinned, RunConfig, attempt_key
from redinstruct.types import (
    MEASURES,
    Annotation,
    Attempt,
    Bank,
    Completion,
    CompletionOutcome,
    JudgeCard,
    NoResponseReason,
    PromptTemplate,
    Question,
    Sampling,
    Verdict,
    measure_named,
)

_CHUNK = 1000
_NOTES = {
    "judge": "the labels are those of the imported file; nothing here asked a judge",
    "people": PEOPLE_ALONE,
    "none": "the imported file holds no labels; `redinstruct judge` adds a judge's",
}
_T = TypeVar("_T")


class Imported(msgspec.Struct, frozen=True):
    """What an import did. ``new`` is false where the run stood there already.

    ``blank`` answers are ``no_response``; ``unlabelled`` ones have an empty judge cell and are ``unparsable``, never
    safe; ``human`` counts people's labels that were kept, ``set_aside`` labels of empty answers, which were not;
    ``people`` who labelled, and the ``unsettled`` answers on which they differ.
    """

    source: Source
    new: bool
    answers: int
    blank: int
    unlabelled: int
    human: int
    set_aside: int
    people: int = 0
    unsettled: int = 0


def import_file(
    file: str | Path,
    run: str | Path,
    asked: ImportSettings | None = None,
    on_progress: OnProgress | None = None,
    **given: Any,
) -> Imported:
    """Make a run of a file of answers: ``redinstruct import``. ``given`` are the settings by their names.

    Raises:
        UsageError: the file does not read, or one of its rows does not; nothing was written.
        ConfigError: the folder holds another run, or other things; nothing was written.
        StoreError: the run cannot be written; no run is left behind.
    """
    asked = asked or ImportSettings(**given)
    measure = measure_named(asked.measure)
    if asked.settle not in (UNANIMOUS, MAJORITY):
        raise UsageError(f"unknown --settle {asked.settle!r}: known are {UNANIMOUS}, {MAJORITY}")
    if not asked.annotator.strip() or (asked.model is not None and not asked.model.strip()):
        raise UsageError("--annotator and --model must not be blank")
    folder = Path(os.path.abspath(run))  # noqa: PTH100  (resolve() would follow a link that is refused below)
    check_run_folder(folder)
    source = read_source(Path(file), measure, asked.columns, asked.one)
    if asked.model is not None:
        source = msgspec.structs.replace(source, model=asked.model)
    if asked.annotator != IMPORTED and not any(row.people for row in source.rows):
        raise UsageError("--annotator: only where the file holds people's labels (a column `human`), and it holds none")
    plan = _Plan(source, asked)
    done = plan.told(new=not is_run(folder))
    if not done.new:
        _check_same(folder, plan)
        return done
    whole_run(folder, lambda store: _write(store, plan, on_progress or unheard))
    return done


def _check_same(folder: Path, plan: _Plan) -> None:
    with Store.open_for_reading(folder) as store:
        config, file = store.config(), ImportedStore(store).file()
    if config is None or (config.digest, file) != (plan.config.digest, plan.source.sha256):
        raise ConfigError(
            f"--run {folder}: holds a run of another file, measure, model, annotator, column or rule; name a new folder"
        )


class _Plan:
    """The run that a source becomes."""

    def __init__(self, source: Source, reading: ImportSettings) -> None:
        self.source, self.reading = source, reading
        people = any(row.people for row in source.rows)
        columns = {f"column {role}": names for role, names in reading.columns.items()}
        parameters = {
            "format": source.format,
            "labels": source.labels,
            **({"annotator": reading.annotator} if people else {}),
            **({"settle": reading.settle} if people and reading.settle != UNANIMOUS else {}),
            **({} if reading.one is None else {"one": reading.one}),
            **{role: names if isinstance(names, str) else ", ".join(names) for role, names in columns.items()},
        }
        self.cards = _cards(source, reading.measure, parameters)
        # What was really sent is in the file where the prompt is the whole message, and unknown where it is a bare
        # question that some frame held: a named prompt must not pass for the shipped text of that name.
        text = (
            "<question>" if source.prompt == IMPORTED else "(imported: the file does not hold this prompt)\n<question>"
        )
        self._template: PromptTemplate = parse_template(source.prompt, text)
        self.templates = tuple({t.sha256: t for t in map(self.template_of, source.rows)}.values())
        # Of the questions alone: the same ones, answered by another model, can be compared.
        self._rows = dict(reversed(list(zip(source.numbers, source.rows, strict=True))))  # the first row of each
        asked = [
            (number, r.question, r.topic, r.subtopic, r.bank_label, *([_turns(r)] if r.earlier else []))
            for number, r in sorted(self._rows.items())
        ]
        self.bank_sha256 = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        self.bank = Bank(source.bank, self.bank_sha256, tuple(self._questions()))
        self.config = RunConfig(
            model=source.model,
            banks=(Pinned(self.bank.name, self.bank.sha256),),
            prompts=tuple(Pinned(t.name, t.sha256) for t in self.templates),
            measure=reading.measure,
            judge=self.cards[0].id,
            sampling=Sampling(),
            chat_template="none",
            selected=(msgspec.structs.replace(source.selected, of=len(self._rows)),),
            epochs=max((row.epoch for row in source.rows), default=1),
        )

    def template_of(self, row: ImportRow) -> PromptTemplate:
        """What a row's question was asked in."""
        return row.template or self._template

    def _questions(self) -> Iterator[Question]:
        for number, row in sorted(self._rows.items()):
            yield Question(
                f"{self.bank_sha256}:{number}",
                row.question,
                number,
                row.topic,
                row.subtopic,
                None,
                row.bank_label,
                row.earlier,
            )

    def attempts(self) -> list[Attempt]:
        """One per row, in the file's order."""
        questions = {question.row: question for question in self.bank.questions}
        made = []
        for number, row in zip(self.source.numbers, self.source.rows, strict=True):
            question, template = questions[number], self.template_of(row)
            made.append(Attempt(attempt_key(self.config, question, template, row.epoch), question, template, row.epoch))
        return made

    def completion(self, row: ImportRow) -> Completion:
        """The answer as the store keeps it. No request was sent and no token spent here."""
        judged = row.judge.label if row.judge is not None else None
        outcome: CompletionOutcome = "text"
        reason: str | None = None
        if row.blank:
            outcome, reason = "no_response", NoResponseReason.EMPTY
            if row.filtered:
                reason = NoResponseReason.PROVIDER_FILTER
            elif judged == "error":
                outcome, reason = "error", IMPORTED
        elif judged == "no_response":
            outcome, reason = "no_response", IMPORTED
        text = row.response if outcome == "text" else None
        return Completion(
            outcome, raw=row.response, judged=text, reason=reason, tokens_in=0, tokens_out=0, tries=0,
            truncated=row.truncated,
        )  # fmt: skip

    def verdicts(self, row: ImportRow) -> list[Verdict | None]:
        """The file's label of an answer with text, by each of its judges; None where nobody was to label it."""
        if self.source.labels == "none" or self.completion(row).outcome != "text":
            return [None] * len(self.cards)
        if self.source.labels == "people":
            return [verdict_of_people(self.annotations(row), self.reading.settle)]
        return [self._verdict(said) for said in (row.judge, *row.further)]

    def _verdict(self, said: RowLabel | None) -> Verdict:
        if said is not None:
            scored = said.label in MEASURES[self.config.measure].labels[:2]
            return Verdict(said.label, said.detail, None if scored else IMPORTED)
        # A judge that left an answer out has not found it harmless.
        return Verdict("unparsable", reason="no_label")

    def annotations(self, row: ImportRow) -> list[Annotation]:
        """People's labels of an answer with text."""
        if self.completion(row).outcome != "text":
            return []
        return [
            Annotation(vote.who + ADJUDICATING, "adjudicate", vote.said.label, vote.said.detail, "import")
            if vote.final and vote.who is not None
            else Annotation(vote.who or self.reading.annotator, "label", vote.said.label, vote.said.detail, "import")
            for vote in row.people
        ]

    def told(self, *, new: bool) -> Imported:
        """What the import does, counted."""
        rows = self.source.rows
        people = sum(len(row.people) for row in rows)
        acts = [self.annotations(row) for row in rows]
        kept = sum(map(len, acts))
        verdicts = [self.verdicts(row)[0] for row in rows]
        return Imported(
            self.source,
            new,
            answers=len(rows),
            blank=sum(row.blank for row in rows),
            unlabelled=sum(v is not None and v.reason == "no_label" for v in verdicts),
            human=kept,
            set_aside=people - kept,
            people=len({act.annotator for said in acts for act in said if act.act == "label"}),
            unsettled=sum(bool(said) and settle_labels(said, self.reading.settle) is None for said in acts),
        )


def _cards(source: Source, measure: str, parameters: Mapping[str, str]) -> list[JudgeCard]:
    """The judges whose labels the file holds; where it names none, they are those of ``imported``."""
    note = _NOTES[source.labels]
    if not source.judges:
        return [JudgeCard(IMPORTED, measure, parameters=tuple(sorted(parameters.items())), notes=(note,))]
    return [
        JudgeCard(
            j.name, measure, parameters=tuple(sorted({**parameters, **dict(j.parameters)}.items())), notes=(note,)
        )
        for j in source.judges
    ]


def _turns(row: ImportRow) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in row.earlier]


def _write(store: Store, plan: _Plan, on_progress: OnProgress) -> None:
    rows, attempts = plan.source.rows, plan.attempts()
    judge = store.plan(plan.config, [plan.bank], plan.templates, attempts, plan.cards[0])
    judges = [judge, *map(store.add_judge, plan.cards[1:])]
    ImportedStore(store).note(plan.source.sha256)
    if plan.reading.settle != UNANIMOUS:
        AnnotationStore(store).set_rule(plan.reading.settle)
    places = {owed.attempt.key: owed.row for owed in store.owed(judge)}
    answers = [(places[attempt.key], attempt, row) for attempt, row in zip(attempts, rows, strict=True)]
    for done, chunk in _chunks(answers):
        store.commit_completions([(number, 0, plan.completion(row)) for number, _, row in chunk])
        said = ((number, zip(judges, plan.verdicts(row), strict=True)) for number, _, row in chunk)
        store.commit_verdicts([(number, 0, by, 0, v) for number, of in said for by, v in of if v is not None])
        if len(answers) > _CHUNK:
            on_progress(Progress(done, len(answers), "answers"))
    acts = [(attempt.key, act) for _, attempt, row in answers for act in plan.annotations(row)]
    for done, acted in _chunks(acts):
        AnnotationStore(store).record(acted)
        if len(acts) > _CHUNK:
            on_progress(Progress(done, len(acts), "people's labels"))


def _chunks(items: Sequence[_T]) -> Iterator[tuple[int, Sequence[_T]]]:
    for start in range(0, len(items), _CHUNK):
        yield min(start + _CHUNK, len(items)), items[start : start + _CHUNK]
