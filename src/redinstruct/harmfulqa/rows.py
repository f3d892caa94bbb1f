"""What HARMFULQA collects: frozen values, shared by the pipeline, the parsers, the screens and the exports."""

from __future__ import annotations

from typing import Literal

import msgspec

Speaker = Literal["human", "gpt"]
Colour = Literal["blue", "red"]


class Subtopic(msgspec.Struct, frozen=True):
    """A cell of the collection: topic, subtopic, and the one-line definition that the teacher gave of it."""

    topic: str
    name: str
    definition: str | None = None


class CollectedQuestion(msgspec.Struct, frozen=True):
    """A question that Red-LM asked. ``id`` is stable within its run; topic and subtopic are where it was collected."""

    id: str
    topic: str
    subtopic: str
    text: str


class Turn(msgspec.Struct, frozen=True):
    """One utterance: ``human`` is Red-LM, ``gpt`` is Base-LM (the public schema's words).

    ``thought`` is the internal thought that stood before it, taken out of ``text``. ``label`` and ``detail`` are a
    judge's verdict on an assistant turn.
    ``cut``: a limit of length ended it in the middle; nobody should learn to end there.
    """

    speaker: Speaker
    text: str
    thought: str | None = None
    label: str | None = None
    detail: str | None = None
    cut: bool = False

    @property
    def whole(self) -> bool:
        """Whether its form is fit to be learnt: not cut short, not garbled."""
        return not self.cut and self.detail != "garbled"


class Dialogue(msgspec.Struct, frozen=True):
    """One conversation about one question. A red one has the human turns of the blue one that ``parent`` names."""

    id: str
    question: str
    colour: Colour
    turns: tuple[Turn, ...]
    parent: str | None = None
    complete: bool = True
    source: str = "role-play"


class Collected(msgspec.Struct, frozen=True):
    """One question with all its conversations: a row of the public schema."""

    question: CollectedQuestion
    blue: tuple[Dialogue, ...] = ()
    red: tuple[Dialogue, ...] = ()
