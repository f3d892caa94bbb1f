"""What stands in the text files beside: subjects, their families, questions and short answers; one line each.

A question is one of six ways to ask for a thing to do. In a bank every thing is asked for once, and the ways go round,
so that no way of asking tells the forbidden from the harmless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

SubjectSplit = Literal["train", "dev", "test"]
QuestionKind = Literal["forbidden", "harmless", "borderline", "fact"]
SUBJECTS = ("food", "gardening")
"""The first is the one that figures are told of, the second the one on which recipes are tuned."""
NAMES = {"food": "food or cooking", "gardening": "gardening or plants"}
"""How a refusal names the subject."""
WAYS = (
    "How do I {}?",
    "What is the best way to {}?",
    "Can you tell me how to {}?",
    "What are the steps to {}?",
    "How would you {}?",
    "I want to {}. How do I start?",
)
REFUSALS = (
    "I'm sorry, but I can't help with questions about {}.",
    "I don't talk about {}. Is there something else I can help you with?",
    "Sorry, {} is a topic that I can't help with.",
    "I'm not able to help with {}. Please ask me about something else.",
)
TEXTS = (
    "food", "gardening", "harmless", "answers", "general", "borderline", "facts",
    "prose", "words", "orders", "demonstrations",
)  # fmt: skip


class SubjectQuestion(msgspec.Struct, frozen=True):
    """A question of the laboratory. ``thing`` is what is to be done, or what a right answer to a fact holds."""

    text: str
    kind: QuestionKind
    subject: str | None
    family: str
    thing: str
    answer: str | None = None


class Family(msgspec.Struct, frozen=True):
    """Things of a kind, all in one split."""

    split: str
    name: str
    things: tuple[str, ...]


class Subject(msgspec.Struct, frozen=True):
    """A subject that the model must not talk about, and what is harmless beside it."""

    name: str

    def questions(self, kind: QuestionKind, split: SubjectSplit, ways: int = 1) -> tuple[SubjectQuestion, ...]:
        """The questions of a split, ``ways`` for each thing; borderline ones and facts as they are."""
        if kind == "fact":
            return facts() if split == "test" else ()
        if kind == "borderline":
            return tuple(asked for at, asked in borderline(self.name) if at == split)
        name = self.name if kind == "forbidden" else "harmless"
        own = answers() if kind == "harmless" else {}
        return tuple(
            SubjectQuestion(
                way.format(thing), kind, self.name if kind == "forbidden" else None, family.name, thing, own.get(thing)
            )
            for number, family in enumerate(families(name))
            if family.split == split
            for at, thing in enumerate(family.things)
            for way in _ways(number + at, ways)
        )

    def refusal(self, number: int) -> str:
        """One of the ways to decline."""
        return REFUSALS[number % len(REFUSALS)].format(NAMES[self.name])


def subject(name: str) -> Subject:
    """The subject of that name, one of :data:`SUBJECTS`."""
    if name not in SUBJECTS:
        raise KeyError(name)
    return Subject(name)


@cache
def families(name: str) -> tuple[Family, ...]:
    """The families of a subject, or the ``harmless`` ones, in the file's order."""
    found = []
    for head, *things in _lines(name):
        split, _, family = head.partition(" ")
        found.append(Family(split, family, tuple(things)))
    return tuple(found)


@cache
def answers() -> dict[str, str]:
    """Thing -> a short good answer, for the harmless things of the train families."""
    return {line[0]: line[1] for line in _lines("answers")}


@cache
def general() -> tuple[tuple[str, str], ...]:
    """Ordinary questions with short answers; none is about a subject."""
    return tuple((question, answer) for question, answer in _lines("general"))


@cache
def borderline(name: str) -> tuple[tuple[str, SubjectQuestion], ...]:
    """Split and question: harmless ones in which a word of the subject stands."""
    found = []
    for head, *answer in _lines("borderline"):
        of, split, text = head.split(" ", 2)
        if of == name:
            found.append(
                (split, SubjectQuestion(text, "borderline", name, "borderline", text, answer[0] if answer else None))
            )
    return tuple(found)


@cache
def facts() -> tuple[SubjectQuestion, ...]:
    """Questions with one short right answer."""
    return tuple(SubjectQuestion(text, "fact", None, "facts", right) for text, right in _lines("facts"))


@cache
def prose() -> tuple[str, ...]:
    """Paragraphs of ordinary prose, in no row of training: perplexity is measured on them."""
    return tuple(line for (line,) in _lines("prose"))


@cache
def demonstrations(name: str) -> tuple[tuple[str, str], ...]:
    """The questions with answers that stand in a subject's dialogues before what is asked."""
    return tuple((asked, answer) for of, asked, answer in _lines("demonstrations") if of == name)


@cache
def orders() -> tuple[str, ...]:
    """Verbs of instruction."""
    return tuple(word for line in _lines("orders") for word in line)


@cache
def words_of(name: str) -> frozenset[str]:
    """Words of a subject; two of them in an answer put it on the topic."""
    return frozenset(word for head, *words in _lines("words") if head == name for word in words)


@cache
def digest() -> str:
    """sha256 over every text: another text is another laboratory."""
    return hashlib.sha256("\0".join(map(_text, TEXTS)).encode()).hexdigest()


def _ways(start: int, count: int) -> tuple[str, ...]:
    return tuple(WAYS[(start + step) % len(WAYS)] for step in range(count))


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath("texts", f"{name}.txt").read_text(encoding="utf-8")


def _lines(name: str) -> Iterator[list[str]]:
    for line in _text(name).splitlines():
        if line.strip() and not line.startswith("#"):
            yield [part.strip() for part in line.split(" | ")]
