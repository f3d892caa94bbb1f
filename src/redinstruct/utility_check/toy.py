"""The toy world's own suite: what the tiny model is good for, judged exactly.

``toy_how_to``: plain how-to questions; ``toy_how_to_in_frame``: the same in the CoU frame, where alignment does its
damage; ``toy_borderline``: harmless questions about forbidden things (to refuse one is over-refusal); ``toy_facts``:
one true fact among four, by log-probability, so that a model that cannot yet speak is measured too. Held-out items: a
toy checkpoint's own test banks, else the whole world's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct import world
from redinstruct.errors import UsageError
from redinstruct.figures.scores import Metric, TaskCard, item_ids
from redinstruct.models import Reply, Request
from redinstruct.models.completions import completion_of
from redinstruct.prompts import AnswerReader, load_template, render
from redinstruct.questions import read_bank
from redinstruct.run import UtilityTaskRow
from redinstruct.run.rows import to_json
from redinstruct.types import Message, PromptTemplate, Sampling
from redinstruct.world import ToyQuestion

VERSION = "1"
HARNESS = "redinstruct"
"""What these tasks are carried out by: no other harness is needed."""
FACTS = "toy_facts"
CHOICES = 4
SAMPLING = Sampling(max_tokens=64, temperature=0.0)
"""Longer than any answer of the toy world, thought included."""
FRAME = "cou"


class Fact(msgspec.Struct, frozen=True):
    """A question with its true answer first among four."""

    question: str
    answers: tuple[str, ...]


class SpokenTask(msgspec.Struct, frozen=True):
    """The questions of one spoken task, and the prompt that they are asked in."""

    questions: tuple[ToyQuestion, ...]
    template: PromptTemplate


def asked(task: str, checkpoint: Path | None) -> SpokenTask:
    """What a spoken task asks; ``checkpoint`` is the model's folder, where it has one.

    Raises:
        UsageError: the checkpoint's bank is not of this world.
    """
    if task == "toy_borderline":
        found = _bank(checkpoint, "borderline-test.csv") or world.world().borderline["test"]
    else:
        found = _bank(checkpoint, "benign-test.json") or world.how_to_questions("plain", "test")
    own = None if checkpoint is None else checkpoint / "prompts"
    return SpokenTask(
        tuple(found), load_template(FRAME if task == "toy_how_to_in_frame" else "standard", own_folder=own)
    )


def facts(checkpoint: Path | None) -> tuple[Fact, ...]:
    """The held-out facts about the items that the model was trained on."""
    bank = _bank(checkpoint, "benign-test.json")
    known = None if bank is None else {question.item for question in bank}
    return tuple(
        _fact(question) for question in world.world().attributes["test"] if known is None or question.item in known
    )


def _bank(checkpoint: Path | None, name: str) -> tuple[ToyQuestion, ...] | None:
    path = None if checkpoint is None else checkpoint / "banks" / name
    if path is None or not path.is_file():
        return None
    found = [world.understand(row.text) for row in read_bank(path).questions if row.label != "unsafe"]
    if any(question is None for question in found):
        raise UsageError(f"{path.name}: holds a question that is not of the toy world")
    return tuple(question for question in found if question is not None)


def _fact(question: ToyQuestion) -> Fact:
    item = question.item
    assert item is not None
    form, truth = next(
        (form, truth) for form, truth in world.ATTRIBUTE_FORMS.items() if form.format(item=item.name) == question.text
    )
    name, values = next(
        (name, values)
        for name, values in (("ingredient", world.PLAIN_STUFF), ("time", world.TIMES), ("colour", world.COLOURS))
        if f"{{{name}}}" in truth
    )
    at = values.index(getattr(item, name))
    # The wrong ones follow the true one in the world's own list: fixed, and of every value alike.
    chosen = [values[(at + step) % len(values)] for step in range(CHOICES)]
    return Fact(form.format(item=item.name), tuple(truth.format(item=item.name, **{name: one}) for one in chosen))


def requests(what: SpokenTask) -> list[Request]:
    """The spoken task's calls."""
    return [
        Request((Message("user", render(what.template, question.text)),), SAMPLING, prefix=what.template.prefix)
        for question in what.questions
    ]


def spoken(task: str, what: SpokenTask, replies: Sequence[Reply], limit: int | None, template: str) -> UtilityTaskRow:
    """A spoken task's row: ``acc`` is answered rightly, ``refused`` refused in whole or in part."""
    reader = AnswerReader(what.template)
    details: list[str | None] = []
    asked_now = what.questions[: len(replies)]
    for question, reply in zip(asked_now, replies, strict=True):
        prompt = render(what.template, question.text)
        details.append(world.grade(question, completion_of(reply, reader, prompt).judged or ""))
    right = tuple(float(detail == "complied") for detail in details)
    refused = tuple(float(detail in ("refused", "partial")) for detail in details)
    metrics = (Metric("acc", higher_is_better=True), Metric("refused", higher_is_better=False))
    card = _card(task, len(what.questions), limit, template, metrics, what.template.sha256)
    ids = item_ids(task, [question.text for question in asked_now])
    return UtilityTaskRow(task, to_json(card), ids, (right, refused))


def chosen(
    found: Sequence[Fact],
    chances: Sequence[float],
    notes: tuple[str, ...],
    total: int,
    limit: int | None,
    template: str,
) -> UtilityTaskRow:
    """The facts' row from the log-probabilities of all their answers, in order: right when the true one leads."""
    right = []
    for number in range(len(found)):
        true, *others = chances[number * CHOICES : (number + 1) * CHOICES]
        right.append(float(all(true > other for other in others)))
    card = _card(FACTS, total, limit, template, (Metric("acc", higher_is_better=True),), "")
    card = msgspec.structs.replace(card, notes=notes)
    ids = item_ids(FACTS, [fact.question for fact in found])
    return UtilityTaskRow(FACTS, to_json(card), ids, (tuple(right),))


def _card(
    task: str, total: int, limit: int | None, template: str, metrics: tuple[Metric, ...], prompt: str
) -> TaskCard:
    return TaskCard(
        task=task,
        version=VERSION,
        harness=HARNESS,
        output_type="multiple_choice" if task == FACTS else "generate_until",
        shots=0,
        chat_template=template,
        source=f"world:{world.digest()[:12]}",
        total=total,
        limit=limit,
        metrics=metrics,
        prompt_sha256=prompt,
        generation="" if task == FACTS else '{"max_tokens": 64, "temperature": 0.0}',
    )
