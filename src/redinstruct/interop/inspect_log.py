"""Inspect's logs (``.eval``, and ``.json`` of the same content), read without Inspect.

Read are the samples' questions, answers, errors and scores, and of the header the model, the data set, the solvers and
the scorers. Events, tool calls and stores are passed over. A scorer's values are the verdicts of the judge
``inspect/<scorer>``, of one that gives several those of ``inspect/<scorer>/<value>``. A sample that does not hold what
it should is left out and named, never the log.

Shapes: inspect_ai 0.3 (log version 1 and 2), ``inspect_ai/log/_log.py`` and ``_recorders/eval.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from redinstruct.errors import BankError
from redinstruct.files import JsonRow, Leaf, Malformed, fold, limits, named
from redinstruct.files.zipped import ZipParts, is_zip, opened_zip
from redinstruct.prompts import DEFAULT_PROMPTS, parse_template, render, shipped
from redinstruct.questions.turns import ROLES
from redinstruct.safetext import terminal
from redinstruct.types import Message, PromptTemplate

_T = TypeVar("_T")
_ATTACHED = "attachment://"
_SAMPLES, _HEADER, _START = "samples/", "header.json", "_journal/start.json"


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message's content; one that is not text (an image, a thought) has no ``text``."""

    type: str
    text: str | None = None


class LogMessage(msgspec.Struct, frozen=True):
    """One message."""

    role: str = ""
    content: str | list[ContentPart | str] = ""


class Choice(msgspec.Struct, frozen=True):
    """One of a model's answers to the same input."""

    message: LogMessage
    stop_reason: str | None = None


class Output(msgspec.Struct, frozen=True):
    """What the model said last."""

    choices: list[Choice] = []
    completion: str | None = None
    error: str | None = None


class Value(msgspec.Struct, frozen=True):
    """One scorer's score. ``value`` NaN: not scored, and ``reason`` says why."""

    value: object = None
    answer: str | None = None
    reason: str | None = None
    metadata: object = None


class Failure(msgspec.Struct, frozen=True):
    """What ended a sample."""

    message: str = ""


class Sample(msgspec.Struct, frozen=True):
    """One sample in one epoch, as far as it is read."""

    id: int | str
    input: str | list[LogMessage]
    epoch: int = 1
    messages: list[LogMessage] = []
    output: Output | None = None
    scores: Mapping[str, Value] | None = None
    score: Value | None = None
    metadata: object = None
    error: Failure | None = None
    attachments: Mapping[str, str] = {}

    def text(self, turn: LogMessage) -> str:
        """What a message says in text; its parts as Inspect joins them."""
        if isinstance(turn.content, str):
            return self.attached(turn.content)
        parts = [part if isinstance(part, str) else part.text for part in turn.content if _is_text(part)]
        return "\n".join(self.attached(part) for part in parts if part is not None)

    def attached(self, text: str) -> str:
        """A text that stands apart in the sample, where this is a reference to it."""
        return self.attachments.get(text.removeprefix(_ATTACHED), text) if text.startswith(_ATTACHED) else text

    @property
    def answer(self) -> str:
        """What the model said last, as the scorers read it."""
        if self.output is None:
            return ""
        if self.output.completion:
            return self.attached(self.output.completion)
        return self.text(self.output.choices[0].message) if self.output.choices else ""

    @property
    def stop_reason(self) -> str | None:
        """Why the answer ended, in Inspect's words."""
        return self.output.choices[0].stop_reason if self.output is not None and self.output.choices else None


class Scorer(msgspec.Struct, frozen=True):
    """A scorer, and the options it was called with."""

    name: str
    options: object = None


class Dataset(msgspec.Struct, frozen=True):
    """What was asked."""

    name: str | None = None
    sample_ids: list[int | str] | None = None


class Spec(msgspec.Struct, frozen=True):
    """What was evaluated."""

    model: str = ""
    task: str = ""
    dataset: Dataset = Dataset()
    scorers: list[Scorer] | None = None


class Step(msgspec.Struct, frozen=True):
    """One solver."""

    solver: str


class Steps(msgspec.Struct, frozen=True):
    """The solvers."""

    steps: list[Step] = []


class Header(msgspec.Struct, frozen=True):
    """A log without its samples."""

    eval: Spec = Spec()
    plan: Steps = Steps()
    status: str = ""


class Log(msgspec.Struct, frozen=True):
    """A log: its samples with the words that name each, in the data set's order; what was left out, why -> where."""

    header: Header
    samples: Sequence[tuple[str, Sample]]
    left_out: Mapping[str, tuple[str, ...]]


def _is_text(part: ContentPart | str) -> bool:
    return isinstance(part, str) or (part.type == "text" and part.text is not None)


# ---- the two shapes of a file ----


def read_parts(parts: ZipParts) -> Log:
    """A ``.eval`` archive.

    Raises:
        BankError: it is no log of Inspect, or larger than is read.
    """
    names = [name for name in parts.names if name.startswith(_SAMPLES) and name.endswith(".json")]
    head = next((name for name in (_HEADER, _START) if name in parts.names), None)
    if head is None:
        raise BankError("is a zip archive without header.json: not a log of Inspect")
    try:
        header = _decoded(parts.read(head), Header, head)
    except Malformed as odd:
        raise BankError(f"{head} {odd}") from None
    left_out: dict[str, tuple[str, ...]] = {}
    found: list[tuple[str, Sample]] = []
    for name in names:
        where = f"sample {len(found) + sum(map(len, left_out.values())) + 1}"
        try:
            found.append(_called(_decoded(parts.read(name), Sample, where)))
        except Malformed as odd:
            what = f"samples of which the file {odd}"
            left_out[what] = (*left_out.get(what, ()), where)
    return _log(header, found, left_out)


def is_log(leaves: Sequence[JsonRow | Leaf]) -> bool:
    """Whether a JSON object that begins with these values is a log of Inspect: a version, and what was evaluated."""
    keys = [leaf.keys for leaf in leaves if isinstance(leaf, Leaf)]
    return ("version",) in keys[:1] and any(len(path) == 2 and path[0] == "eval" for path in keys)


def is_archive(path: Path) -> bool:
    """Whether a file is a log's archive: by its suffix, or by what it holds."""
    if not is_zip(path):
        return False
    if path.suffix.casefold() == ".eval":
        return True
    try:
        with opened_zip(path) as parts:
            return _HEADER in parts.names or _START in parts.names
    except BankError:
        return False


def read_rows(rows: Iterable[JsonRow | Leaf]) -> Log:
    """A ``.json`` log, of what stands under its keys.

    Raises:
        BankError: its header holds other things than it should.
    """
    leaves: dict[tuple[str, ...], object] = {}
    lists: dict[tuple[str, str], list[object]] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    found: list[tuple[str, Sample]] = []
    number = 0
    for row in rows:
        if isinstance(row, Leaf):
            leaves[row.keys] = row.value
        elif row.topic == "samples" and row.subtopic is None:
            number += 1
            where = f"sample {number}"
            try:
                found.append(_called(converted(row.value, Sample)))
            except Malformed as odd:
                what = f"samples of which the file {odd}"
                left_out[what] = (*left_out.get(what, ()), where)
        elif row.topic in ("eval", "plan") and row.subtopic in ("scorers", "steps"):
            lists.setdefault((row.topic, row.subtopic), []).append(row.value)
    spec = {keys[1]: value for keys, value in leaves.items() if len(keys) == 2 and keys[0] == "eval"}
    spec |= {key: held for (topic, key), held in lists.items() if topic == "eval"}
    whole = {"eval": spec, "plan": {"steps": lists.get(("plan", "steps"), [])}, "status": leaves.get(("status",), "")}
    try:
        header = converted(whole, Header)
    except Malformed as odd:
        raise BankError(f"the log's header {odd}") from None
    return _log(header, found, left_out)


def _called(sample: Sample) -> tuple[str, Sample]:
    return f"sample {named(str(sample.id))} in epoch {sample.epoch}", sample


def _log(header: Header, found: Iterable[tuple[str, Sample]], left_out: Mapping[str, tuple[str, ...]]) -> Log:
    """In the data set's order: archives hold samples as they ended."""
    order = {_key(name): place for place, name in enumerate(header.eval.dataset.sample_ids or ())}
    samples = list(found)
    first: dict[tuple[bool, str], int] = {}
    for place, (_, sample) in enumerate(samples):
        first.setdefault(_key(sample.id), place)
    samples.sort(key=lambda it: (order.get(_key(it[1].id), len(order) + first[_key(it[1].id)]), it[1].epoch))
    return Log(header, samples, left_out)


def _key(sample_id: int | str) -> tuple[bool, str]:
    return isinstance(sample_id, int), str(sample_id)


def _decoded(data: bytes, shape: type[_T], where: str) -> _T:
    """One part's JSON; what of it is not asked for is passed over, and costs nothing.

    Raises:
        Malformed: it is broken, or holds other things than it should.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as odd:
        raise _other(odd) from None
    except (msgspec.DecodeError, RecursionError):  # NaN, which Inspect writes, and lone surrogates
        pass
    try:
        text = data.decode("utf-8")
        if len(text) > limits.SMALL_ROW:
            limits.check_values(text, 0, "")
        value: object = json.loads(text)
    except BankError as error:
        raise Malformed(str(error)) from None
    except (ValueError, RecursionError):
        raise Malformed(f"is no JSON ({where})" if shape is Header else "is no JSON") from None
    return converted(value, shape)


def converted(value: object, shape: type[_T]) -> _T:
    """A JSON value in a shape. Raises ``Malformed``, the place named by its keys, where it holds anything else."""
    try:
        return msgspec.convert(value, type=shape)
    except msgspec.ValidationError as odd:
        raise _other(odd) from None
    except UnicodeEncodeError:  # a key with half of a character, which is legal JSON
        raise Malformed("holds a name that is no text") from None


def _other(odd: msgspec.ValidationError) -> Malformed:
    """In the words of the house: the place by its keys, no text of the file."""
    words = str(odd).replace("`", "").partition(" - at ")
    return Malformed(f"holds other things than it should ({words[0][0].lower()}{words[0][1:]}{_place(words[2])})")


def _place(path: str) -> str:
    keys = [named(key) for key in path.strip("`$").replace("[...]", "").strip(".").split(".") if key]
    return f" at {'.'.join(keys)}" if keys else ""


# ---- what a sample says ----


def asked(sample: Sample) -> tuple[tuple[Message, ...], str]:
    """The turns before the last user turn, and its text. Tools' turns are left out: no question holds them.

    Raises:
        Malformed: nobody asks anything in it in text.
    """
    if isinstance(sample.input, str):
        question, earlier = sample.attached(sample.input), ()
        if not question.strip():
            raise Malformed("has a blank input")
        return earlier, question
    turns = [(ROLES.get(fold(turn.role)), sample.text(turn)) for turn in sample.input]
    last = max((place for place, (role, _) in enumerate(turns) if role == "user"), default=None)
    if last is None or not turns[last][1].strip():
        raise Malformed("asks nothing in text (an image, say)")
    before = tuple(Message(role, text) for role, text in turns[:last] if role is not None and text.strip())
    return before, turns[last][1]


def frame_of(
    sample: Sample, earlier: Sequence[Message], question: str, plan: Steps, told: str | None = None
) -> PromptTemplate:
    """Under which template the question was sent: a shipped one where the message that was sent is exactly its own.

    Anything else is a frame that nobody knows, named as the sample ``told``, else for the solvers.
    """
    sent = [(ROLES.get(fold(turn.role)), sample.text(turn)) for turn in sample.messages]
    before = [(turn.role, turn.content) for turn in earlier]
    if not sent or sent[: len(before)] == before:
        said = sent[len(before)][1] if len(sent) > len(before) and sent[len(before)][0] == "user" else None
        for name in DEFAULT_PROMPTS:
            if said is not None and said == render(shipped(name), question):
                return shipped(name)
        if not sent:  # the log holds no messages
            return parse_template("imported", "<question>")
    solvers = told or "+".join(step.solver.rpartition("/")[2] for step in plan.steps) or "inspect"
    return parse_template(terminal(solvers)[:60], "(imported: the file does not hold this prompt)\n<question>")


def scores_of(sample: Sample, scorers: Sequence[Scorer]) -> Iterator[tuple[str, Value]]:
    """Every value of every scorer, by the name after ``inspect/``; of one that gives several, each by its own name."""
    scores = dict(sample.scores or {})
    if sample.score is not None:  # log version 1
        scores.setdefault(scorers[0].name if scorers else "score", sample.score)
    for name, score in scores.items():
        if isinstance(score.value, dict):
            for key, value in score.value.items():
                yield f"{name}/{key}", msgspec.structs.replace(score, value=value, answer=None)
        else:
            yield name, score


def is_unscored(value: object) -> bool:
    """Whether a score says that there is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))
