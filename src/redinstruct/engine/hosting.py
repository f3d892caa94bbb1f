"""A worker's end: it holds models, answers what it is sent, and knows nothing of runs, stores, limits or retries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import msgspec

from redinstruct.engine.batches import Batcher
from redinstruct.engine.scoring import answering, computes
from redinstruct.engine.wire import Came, Errand, Failed, Group, Loaded, ModelSpec, pack, unpack
from redinstruct.errors import RedInstructError
from redinstruct.models.base import Model, ModelError, Reply, Request
from redinstruct.models.placement import Placement, placed
from redinstruct.models.registry import make_model
from redinstruct.safetext import redact
from redinstruct.types import FailureReason
from redinstruct.version import __version__

LINGER = 0.02
"""Seconds that a reply waits for others, where others are still being worked on: at most 50 messages a second."""

Answerer = Callable[[Request], Awaitable[Reply]]


class Host:
    """The models of one worker. Addresses and keys are read from this process's own environment."""

    def __init__(self) -> None:
        self._models: list[Model] = []
        self._parts: list[list[Answerer]] = []
        self._said: list[tuple[str, ...]] = []
        self._ready: list[Came] = []
        self._changed = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()

    def load(self, packed: bytes) -> bytes:
        """Make a model ready (a :class:`ModelSpec`); tells what it is, or why it cannot be (a :class:`Loaded`)."""
        wanted = unpack(packed, ModelSpec)
        try:
            with placed(Placement(batch=wanted.batch, threads=wanted.threads)):
                model = make_model(
                    wanted.spec,
                    options=json.loads(wanted.options),
                    timeout=wanted.timeout,
                    chat_template=wanted.chat_template,
                )
        except RedInstructError as error:
            return pack(Loaded(__version__, error=redact(str(error))))
        self._models.append(model)
        parts: list[Model] = list(getattr(model, "replicas", (model,)))
        self._parts.append([_answerer(answering(part)) for part in parts])
        self._said.append(_notes(model))
        told = Loaded(
            __version__,
            model.id,
            len(parts),
            any(part.batch_size > 1 for part in parts),
            getattr(model, "address_from", None),
            self._said[-1],
            scores=computes(model),
        )
        return pack(told)

    def take(self, packed: bytes) -> None:
        """Begin work on a group of requests."""
        for wanted in unpack(packed, list[Errand]):
            task = asyncio.get_running_loop().create_task(self._answer(wanted))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def exchange(self, packed: bytes) -> bytes:
        """Begin work on a group of requests, if it is one, and tell what is ready."""
        if packed:
            self.take(packed)
        return await self.give()

    async def give(self) -> bytes:
        """What is ready (a :class:`Group`), as soon as there is something."""
        await self._changed.wait()
        if self._working:
            await asyncio.sleep(LINGER)
        self._changed.clear()
        came, self._ready = self._ready, []
        notes = []
        for number, model in enumerate(self._models):
            said = _notes(model)
            if said != self._said[number]:
                self._said[number] = said
                notes.append((number, said))
        return pack(Group(came, notes))

    async def _answer(self, wanted: Errand) -> None:
        try:
            reply = await self._parts[wanted.model][wanted.part](wanted.request)
            came = Came(wanted.number, _masked(reply))
        except ModelError as error:
            told = Failed(error.reason, error.transient, error.retry_after, _words(error.note), error.refused)
            came = Came(wanted.number, None, told)
        except RedInstructError as error:
            came = Came(wanted.number, None, _broken(redact(str(error))))
        except Exception as error:  # a fault of a model must not leave its caller waiting for ever
            came = Came(wanted.number, None, _broken(type(error).__name__))
        self._ready.append(came)
        self._changed.set()


def _answerer(model: Model) -> Answerer:
    if model.batch_size > 1:
        return Batcher(model)

    async def answer(request: Request) -> Reply:
        (reply,) = await model.generate((request,))
        return reply

    return answer


def _notes(model: Model) -> tuple[str, ...]:
    return tuple(redact(note) for note in getattr(model, "notes", ()))


def _broken(note: str) -> Failed:
    return Failed(FailureReason.LOCAL_MODEL, False, None, note, ())


def _words(text: str | None) -> str | None:
    return None if text is None else redact(text, stored=True)


def _masked(reply: Reply) -> Reply:
    """The reply without a key that it repeats: only this process knows the keys of its environment."""
    text, thought, note = _words(reply.text), _words(reply.thought), _words(reply.note)
    if (text, thought, note) == (reply.text, reply.thought, reply.note):
        return reply
    return msgspec.structs.replace(reply, text=text, thought=thought, note=note)
