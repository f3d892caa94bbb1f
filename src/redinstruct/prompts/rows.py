"""Rows of training data as they stand in files: what ``export`` writes, and ``align`` and other trainers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NotRequired, TypedDict


class MessageFields(TypedDict):
    """A message of a row; an answer may have a weight."""

    role: str
    content: str
    weight: NotRequired[float]


class MessagesRow(TypedDict):
    """A conversation (``--to messages``)."""

    messages: list[MessageFields]
    stream: str
    id: str
    topic: NotRequired[str]
    subtopic: NotRequired[str]
    source: NotRequired[str]


class KtoRow(TypedDict):
    """An answer, what was said before it, and whether it is to be learnt (``--to kto``)."""

    prompt: list[MessageFields]
    completion: list[MessageFields]
    label: bool


class DpoRow(TypedDict):
    """Two answers to the same messages (``--to dpo``)."""

    prompt: list[MessageFields]
    chosen: list[MessageFields]
    rejected: list[MessageFields]


PublicTurn = TypedDict("PublicTurn", {"from": str, "value": str, "weight": NotRequired[float]})
"""An utterance by the public schema's words: ``human`` or ``gpt``, and what it said."""


class ShareGptRow(TypedDict):
    """A conversation (``--to sharegpt``)."""

    id: str
    stream: str
    conversations: list[PublicTurn]


class PublicRow(TypedDict):
    """A question with its conversations (``--to harmfulqa``)."""

    id: str
    topic: str
    subtopic: str
    question: str
    blue_conversations: dict[str, list[PublicTurn]]
    red_conversations: dict[str, list[PublicTurn]]


def weighted_answers(
    rows: Iterable[MessagesRow],
) -> Iterator[tuple[list[MessageFields], MessageFields, float]]:
    """What was said before each answer that is learnt or penalised, the answer, and its weight."""
    for row in rows:
        said: list[MessageFields] = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        for at, message in enumerate(row["messages"]):
            if weight := message.get("weight"):
                yield said[:at], said[at], weight


def kto_rows(rows: Iterable[MessagesRow]) -> list[KtoRow]:
    """One row an answer. Masked answers have none: KTO (Ethayarajh et al. 2024) knows two labels, no third."""
    return [
        {"prompt": said, "completion": [answer], "label": weight > 0} for said, answer, weight in weighted_answers(rows)
    ]
