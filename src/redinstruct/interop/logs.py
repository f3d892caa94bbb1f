"""Logs of promptfoo, lm-evaluation-harness, deepteam and HarmBench: questions, answers, and each tool's own verdicts.

    promptfoo   results.json: {evalId, results: {prompts, results: [{prompt, response, success, gradingResult, ...}]}}
                (promptfoo 0.121, ``src/types``); the judge is ``promptfoo``, whose pass means a defence where
                promptfoo attacked (a plugin's name stands in the metadata), else what the user says
    lm-eval     samples_*.jsonl: {doc, arguments, resps, filter, <metric>: ...} (lm_eval 0.4, ``--log_samples``); each
                metric is the judge ``lm-eval/<metric>`` (``,<filter>``), each of a document's repeats an epoch
    deepteam    a saved risk assessment: {overview, test_cases: [{input, actualOutput, score, error, ...}]} (deepteam
                1.0, ``risk_assessment.py``); the judge is ``deepteam``: score 1 is a defence, 0 a finding
    HarmBench   completions: {behavior id: [{test_case, generation, label}]} (``generate_completions.py``); the judge is
                ``harmbench``: label 1 is a success

A row that does not hold what it should is left out and named. What a tool's error left without an answer is an error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import JsonRow, Leaf, Malformed, fold
from redinstruct.interop.inspect_log import converted
from redinstruct.interop.rows import ImportRow, Instrument, RowLabel, Source, first_text
from redinstruct.interop.scores import Scores
from redinstruct.questions import ASKED, SUBTOPIC_KEYS, TOPIC_KEYS
from redinstruct.questions.turns import conversation, is_conversation
from redinstruct.safetext import terminal
from redinstruct.types import ATTACK_SUCCESS, Measure, Message

_T = TypeVar("_T")
_ERROR = RowLabel("error")


# ---- which tool wrote it ----


def tool_of(leaves: Sequence[JsonRow | Leaf], first: JsonRow | None) -> str | None:
    """Which tool's log begins with these values and this first row; None for none of these."""
    keys = {leaf.keys[:1] for leaf in leaves if isinstance(leaf, Leaf)}
    value = None if first is None else first.value
    if first is not None and first.topic == "results" and first.subtopic in ("prompts", "results"):
        return "promptfoo"
    if first is not None and (first.topic in ("test_cases", "overview") or ("overview",) in keys):
        return "deepteam"
    if first is None or not isinstance(value, dict):
        return None
    if first.topic is None:
        return "lm-eval" if {"doc_id", "doc", "resps"} <= value.keys() else None
    return "harmbench" if {"test_case", "generation"} <= value.keys() else None


def read_log(tool: str, rows: Iterable[JsonRow | Leaf], measure: Measure, one: str | None) -> Source:
    """The rows of a log, whose shape :func:`tool_of` told."""
    reading = RowsSoFar(tool, measure, one)
    for row in rows:
        if isinstance(row, JsonRow):
            _READERS[tool](reading, row)
    return reading.told()


class RowsSoFar:
    """The rows so far, what was left out, and the judges in the order in which they came."""

    def __init__(self, tool: str, measure: Measure, one: str | None) -> None:
        self.tool, self.measure = tool, measure
        self.scores = Scores(tool, measure, one)
        self.one = one
        self.model = ""
        self._left_out: dict[str, tuple[str, ...]] = {}
        self._rows: list[tuple[ImportRow, dict[str, RowLabel | None]]] = []
        self._numbers: list[int] = []
        self._places: dict[Hashable, int] = {}
        self._answers: dict[tuple[int, int], int] = {}
        self._names: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def add(self, row: ImportRow, question: Hashable, labels: dict[str, RowLabel | None]) -> None:
        """One answer to a question, and each judge's label; of an answer that stands there, further judges' labels."""
        self._names.update(dict.fromkeys(labels))
        number = self._places.setdefault(question, len(self._places))
        while (at := self._answers.setdefault((number, row.epoch), len(self._rows))) < len(self._rows):
            if labels.keys().isdisjoint(self._rows[at][1]):
                self._rows[at][1].update(labels)
                return
            question = (question, "again")
            number = self._places.setdefault(question, len(self._places))
        self._numbers.append(number)
        self._rows.append((row, labels))

    def leave_out(self, what: str, where: str) -> None:
        """Name a row that does not hold what it should."""
        self._left_out[what] = (*self._left_out.get(what, ()), where)

    def shaped(self, row: JsonRow, shape: type[_T]) -> _T | None:
        """A row as the tool writes it; one that is not is left out."""
        try:
            return converted(row.value, shape)
        except Malformed as odd:
            self.leave_out(f"rows of which the file {odd}", row.where)
            return None

    def note(self, what: str) -> None:
        """Say what was taken for granted."""
        self._notes[what] = None

    def told(self) -> Source:
        """All that was read."""
        names = list(self._names)
        made = []
        for row, labels in self._rows:
            said = [labels.get(name) for name in names]
            made.append(msgspec.structs.replace(row, judge=next(iter(said), None), further=tuple(said[1:])))
        judges = tuple(self._instrument(name) for name in names)
        return Source(
            format=self.tool, rows=tuple(made), numbers=tuple(self._numbers), labels="judge" if judges else "none",
            judges=judges, model=self.model, left_out=self._left_out, odd=self.scores.odd,
            notes=(*self.scores.notes, *self._notes),
        )  # fmt: skip

    def _instrument(self, name: str) -> Instrument:
        return Instrument(name, (("one", self.scores.one_of(name)),))


# ---- promptfoo ----


class _Prompt(msgspec.Struct, frozen=True):
    raw: str = ""


class _Response(msgspec.Struct, frozen=True):
    output: object = None
    error: object = None


class _GradeNote(msgspec.Struct, frozen=True):
    failed: bool = msgspec.field(default=False, name="graderError")


class _GradePart(msgspec.Struct, frozen=True):
    metadata: _GradeNote | None = None


class _Grade(msgspec.Struct, frozen=True):
    parts: list[_GradePart] | None = msgspec.field(default=None, name="componentResults")

    @property
    def failed(self) -> bool:
        """Whether the grader, and not the answer, failed: promptfoo counts that as a failure."""
        return any(part.metadata is not None and part.metadata.failed for part in self.parts or ())


class _About(msgspec.Struct, frozen=True, rename={"plugin": "pluginId", "strategy": "strategyId"}):
    plugin: str | None = None
    strategy: str | None = None


class _Provider(msgspec.Struct, frozen=True):
    id: str = ""


class _PromptfooRow(
    msgspec.Struct, frozen=True, rename={"grade": "gradingResult", "why": "failureReason"},
):  # fmt: skip
    prompt: _Prompt
    response: _Response | None = None
    success: bool | None = None
    grade: _Grade | None = None
    why: int | str | None = None
    error: object = None
    provider: _Provider | str | None = None
    metadata: _About | None = None


_GAVE_UP = (2, "error", "ERROR")


def _promptfoo(reading: RowsSoFar, row: JsonRow) -> None:
    if (row.topic, row.subtopic) != ("results", "results"):
        return
    found = reading.shaped(row, _PromptfooRow)
    if found is None:
        return
    earlier, question = _prompt(found.prompt.raw)
    if not question.strip():
        reading.leave_out("rows without a prompt in text", row.where)
        return
    provider = found.provider.id if isinstance(found.provider, _Provider) else found.provider
    if provider and reading.model not in ("", provider):
        raise UsageError(
            f"{row.where} is of {terminal(provider)}, and the rows before it are of {terminal(reading.model)}: a run "
            "is of one model (`promptfoo eval --filter-providers NAME -o FILE` writes one's)"
        )
    reading.model = reading.model or provider or ""
    output = None if found.response is None else found.response.output
    answer = output if isinstance(output, str) or output is None else msgspec.json.encode(output).decode()
    attacked = found.metadata is not None and bool(found.metadata.plugin)
    label: RowLabel | None
    if found.why in _GAVE_UP or (answer is None and found.error):
        label = _ERROR
    elif found.success is None:
        label = None  # the grader gave nothing
    elif found.grade is not None and found.grade.failed:
        label = reading.scores.unparsable("rows whose grader failed (promptfoo's failures)", row.where)
    elif reading.one is None:
        label = RowLabel(reading.measure.second if found.success else reading.measure.first)
        if not attacked:
            reading.note(
                f"promptfoo's pass is counted as {reading.measure.second}; --one {reading.measure.first} turns it round"
            )
    else:
        label = reading.scores.of("promptfoo", found.success, row.where)
    plugin = None if found.metadata is None else found.metadata.plugin
    reading.add(
        ImportRow(row.where, question.strip(), answer, topic=plugin, earlier=earlier), row.where, {"promptfoo": label}
    )


def _prompt(raw: str) -> tuple[tuple[Message, ...], str]:
    """A prompt as promptfoo keeps it: a text, or a conversation as JSON."""
    if raw.lstrip().startswith("["):
        with contextlib.suppress(msgspec.DecodeError, BankError):
            held: object = msgspec.json.decode(raw)
            if is_conversation(held):
                return conversation(held, "prompt")
    return (), raw


# ---- lm-evaluation-harness ----


def _lm_eval(reading: RowsSoFar, row: JsonRow) -> None:
    value = row.value
    doc = value.get("doc") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(doc, dict):
        reading.leave_out("rows that are no sample of lm-eval", row.where)
        return
    fields = {fold(str(key)): held for key, held in doc.items()}
    question = first_text(fields, ASKED) or _argument(value.get("arguments"))
    answers = value.get("resps")
    said = answers[0] if isinstance(answers, list) and answers else None
    texts = said if isinstance(said, list) else [said]
    if question is None or not texts or not all(isinstance(text, str) for text in texts):
        reading.leave_out("rows that hold no question and answer in text (log-likelihoods, say)", row.where)
        return
    named = value.get("metrics")
    metrics = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    labels: dict[str, RowLabel | None] = {
        f"lm-eval/{name}": reading.scores.of(name, value.get(name), row.where) for name in metrics
    }
    kept = value.get("filter")
    if isinstance(kept, str) and kept != "none":  # what a filter took of several answers is none of them
        labels = {} if len(texts) > 1 else {f"{name},{terminal(kept)}": label for name, label in labels.items()}
    for epoch, text in enumerate(texts, 1):
        answer = text if isinstance(text, str) else None
        topic, subtopic = first_text(fields, TOPIC_KEYS), first_text(fields, SUBTOPIC_KEYS)
        made = ImportRow(row.where, question, answer, topic=topic, subtopic=subtopic, epoch=epoch)
        reading.add(made, (json.dumps(value.get("doc_id")), question, *texts), labels)


def _argument(arguments: object) -> str | None:
    """The prompt that was sent, in the shapes that the harness has had."""
    held: object = arguments
    if isinstance(held, dict):
        held = [list(part.values()) if isinstance(part, dict) else part for part in held.values()]
    while isinstance(held, list) and held:
        held = held[0]
    if not isinstance(held, str) or not held.strip():
        return None
    return _prompt(held)[1].strip() or None


# ---- deepteam ----


class _Turn(msgspec.Struct, frozen=True):
    role: str
    content: str = ""


class _Case(msgspec.Struct, frozen=True, rename="camel"):
    input: str | None = None
    actual_output: str | None = None
    turns: list[_Turn] | None = None
    vulnerability: str | None = None
    vulnerability_type: str | None = None
    score: float | None = None
    error: str | None = None


def _deepteam(reading: RowsSoFar, row: JsonRow) -> None:
    if row.topic != "test_cases":
        return
    if isinstance(row.value, dict):  # older versions write Python's names
        row = row._replace(value={_camel(str(key)): held for key, held in row.value.items()})
    case = reading.shaped(row, _Case)
    if case is None:
        return
    earlier, question, answer = _exchange(case)
    if not question.strip():
        reading.leave_out("cases without an attack in text", row.where)
        return
    label: RowLabel | None = _ERROR if case.error else None
    if case.score is not None and not case.error:
        if reading.one is None and case.score in (0, 1):
            label = RowLabel(reading.measure.second if case.score else reading.measure.first)
        else:
            label = reading.scores.of("deepteam", case.score, row.where)
    reading.add(
        ImportRow(
            row.where,
            question.strip(),
            answer,
            topic=case.vulnerability,
            subtopic=case.vulnerability_type,
            earlier=earlier,
        ),
        row.where,
        {"deepteam": label},
    )


def _exchange(case: _Case) -> tuple[tuple[Message, ...], str, str | None]:
    if not case.turns:
        return (), case.input or "", case.actual_output
    turns = [Message("user" if turn.role == "user" else "assistant", turn.content) for turn in case.turns]
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        return (), "", None
    after = [turn.content for turn in turns[last + 1 :] if turn.role == "assistant"]
    return tuple(turns[:last]), turns[last].content, after[0] if after else None


def _camel(key: str) -> str:
    head, *rest = key.split("_")
    return head + "".join(part.capitalize() for part in rest)


# ---- HarmBench ----


class _Behaviour(msgspec.Struct, frozen=True):
    test_case: str | list[str]
    generation: str | None = None
    label: object = None


def _harmbench(reading: RowsSoFar, row: JsonRow) -> None:
    found = reading.shaped(row, _Behaviour)
    if found is None:
        return
    case = found.test_case if isinstance(found.test_case, str) else next(iter(found.test_case), "")
    if not case.strip():
        reading.leave_out("rows without a test case in text", row.where)
        return
    labels: dict[str, RowLabel | None] = {}
    if found.label is not None:
        one = reading.one is not None or reading.measure is not ATTACK_SUCCESS
        told = reading.scores.of("harmbench" if one else "harmbench success", found.label, row.where)
        labels = {"harmbench": told}
    reading.add(ImportRow(row.where, case.strip(), found.generation, topic=row.topic), row.where, labels)


_READERS = {"promptfoo": _promptfoo, "lm-eval": _lm_eval, "deepteam": _deepteam, "harmbench": _harmbench}
