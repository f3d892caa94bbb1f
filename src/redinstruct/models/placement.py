"""Where and how widely a local model computes: what changes no answer, and so is not part of a run's configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from redinstruct.models.base import Model, Reply, Request


class Elsewhere(Protocol):
    """Makes models that compute in other processes, or on other machines."""

    def make(self, spec: str, options: str, timeout: float, chat_template: str) -> Model:
        """The model of that id; ``options`` are JSON. Raises ``ModelSpecError`` or ``ConfigError``."""
        ...


@dataclass(frozen=True)
class Placement:
    """``devices``: a copy of the model on each, None for the GPU if there is one; ``batch`` and ``threads`` of each.

    ``elsewhere`` makes the models, where they do not compute in this process.
    """

    devices: tuple[str, ...] | None = None
    batch: int | None = None
    threads: int | None = None
    elsewhere: Elsewhere | None = None


_ANYWHERE = Placement()
_NOW: ContextVar[Placement] = ContextVar("placement", default=_ANYWHERE)


def placement() -> Placement:
    """What holds for the models that are loaded now."""
    return _NOW.get()


@contextmanager
def placed(wanted: Placement) -> Iterator[None]:
    """Let ``wanted`` hold for the models that are loaded meanwhile."""
    token = _NOW.set(wanted)
    try:
        yield
    finally:
        _NOW.reset(token)


class Copy(Model, Protocol):
    """A model in this process, which computes log-probabilities itself (``LocalModel``)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What it has to say."""
        ...

    cut: int

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        """The natural log-probability of each answer to its question, in order; ``cut`` counts those cut to fit."""
        ...


class Replicas:
    """Several copies of one model that answer parts of a batch at the same time, each on its device."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        self.copies = tuple(copies)

    @property
    def id(self) -> str:
        """That of each."""
        return self.copies[0].id

    @property
    def batch_size(self) -> int:
        """As much as all take together."""
        return sum(copy.batch_size or 1 for copy in self.copies)

    @property
    def notes(self) -> tuple[str, ...]:
        """What any of them has to say."""
        return tuple(dict.fromkeys(note for copy in self.copies for note in copy.notes))

    @property
    def cut(self) -> int:
        """Texts that lost their beginnings so far, in any of them."""
        return sum(copy.cut for copy in self.copies)

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        """The natural log-probability of each answer to its question, in order; see ``LocalModel.likelihoods``."""
        count = len(self.copies)
        with ThreadPoolExecutor(count) as threads:
            asked = [threads.submit(one.likelihoods, pairs[at::count], cut=cut) for at, one in enumerate(self.copies)]
        found = [0.0] * len(pairs)
        for at, part in enumerate(asked):
            found[at::count] = part.result()
        return found

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer a batch, in order: every copy has rows of all lengths, since a batch is sorted by length."""
        count = len(self.copies)
        asked = [(at, copy) for at, copy in enumerate(self.copies) if batch[at::count]]
        parts = await asyncio.gather(*(copy.generate(batch[at::count]) for at, copy in asked))
        replies: list[Reply | None] = [None] * len(batch)
        for (at, _), part in zip(asked, parts, strict=True):
            replies[at::count] = part
        return [reply for reply in replies if reply is not None]

    async def aclose(self) -> None:
        """Close each."""
        await asyncio.gather(*(copy.aclose() for copy in self.copies))
