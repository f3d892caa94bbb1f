"""Log-probabilities of given answers as calls, so that a model that computes them may do it here or in a worker.

An endpoint is asked for a text's own tokens; who computes is asked for an answer to a question, rendered as it renders
any question. What is longer than it reads loses its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from redinstruct.models.base import Model, Reply, Request, TokenChoice
from redinstruct.models.placement import Copy
from redinstruct.types import Message, Sampling

CUT = "cut"
"""How a reply ends whose text lost its beginning."""


def computes_here(model: Model) -> bool:
    """Whether it computes log-probabilities in this process."""
    return hasattr(model, "likelihoods")


def computes(model: Model) -> bool:
    """Whether it computes log-probabilities itself, here or in a worker."""
    return computes_here(model) or bool(getattr(model, "scores", False))


def answering(model: Model) -> Model:
    """The model, which answers what :func:`asked_for` asks as well, where it computes that in this process."""
    return _Scorer(cast("Copy", model)) if computes_here(model) else model


def asked_for(question: str, answer: str) -> Request:
    """A request for the natural log-probability of an answer to a question."""
    return Request((Message("user", question), Message("assistant", answer)), Sampling(max_tokens=1), echo=True)


def told(reply: Reply) -> float:
    """The log-probability that the reply to it tells."""
    return reply.choices[0].alternatives[0][1]


class _Scorer:
    """A model of this process whose log-probabilities are replies, batch by batch as its answers are."""

    def __init__(self, model: Copy) -> None:
        self._model = model
        self.id, self.batch_size = model.id, model.batch_size

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer a batch that asks for one kind of thing. Raises ``ModelError``, as the model does."""
        if not batch[0].echo:
            return await self._model.generate(batch)
        before, pairs = self._model.cut, [(one.messages[0].content, one.messages[-1].content) for one in batch]
        found = await asyncio.to_thread(self._model.likelihoods, pairs, cut=True)
        cut = self._model.cut - before  # so many of the batch, whichever
        return [
            Reply(None, CUT if at < cut else None, choices=(TokenChoice("", (("", chance),)),))
            for at, chance in enumerate(found)
        ]

    async def aclose(self) -> None:
        """Close the model."""
        await self._model.aclose()
