"""The run's end of workers that hold its models: to the engine they are servers behind one model.

Which worker is asked, and how one that is lost comes back, is the rule of ``servers``: it is out, what it had in flight
is asked of another, and it is probed until it is there again. Nothing else is asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from redinstruct.engine.wire import Errand, Group, Loaded, ModelSpec, pack, unpack
from redinstruct.errors import ConfigError, ModelSpecError
from redinstruct.models.base import ModelError, Options, Reply, Request
from redinstruct.types import FailureReason
from redinstruct.version import __version__

SUSPICIOUS_DEATHS, MOST_DEATHS = 2, 8
"""A request that was in flight in so many workers' deaths is asked with no other such one beside it; in so many, never
again."""


GATHER = 0.005
"""Seconds that a request waits for others: a message costs the command as much as ten attempts do."""


class WorkerLost(Exception):
    """The worker's process is gone; the text says what is known of it."""


class Link(Protocol):
    """A way to one worker's :class:`redinstruct.engine.hosting.Host`."""

    def load(self, packed: bytes) -> None:
        """Begin to load a model."""
        ...

    def loaded(self, wait: float | None) -> list[bytes] | None:
        """What came of each ``load``, in order; None while one is not done after ``wait`` seconds (None: for ever).

        Raises:
            WorkerLost: it died, or could not be started.
        """
        ...

    def send(self, packed: bytes) -> None:
        """Send requests. Does not wait."""
        ...

    async def exchange(self, packed: bytes) -> bytes:
        """Send requests (none: no bytes), and wait for the next group of replies, of these or of others.

        May be cancelled, and called again without bytes: nothing is lost.

        Raises:
            WorkerLost: it died.
        """
        ...


class Suspects:
    """Requests that may be what workers die of. One at a time is in flight, so that a death tells something of it."""

    def __init__(self) -> None:
        self.deaths: Counter[Request] = Counter()
        self._joint: Counter[Request] = Counter()
        """Of those, the ones in which no suspect was in flight."""
        self._others = 0
        """All such deaths."""
        self._lane: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __contains__(self, request: Request) -> bool:
        return bool(self.deaths) and self.deaths[request] >= SUSPICIOUS_DEATHS

    def blame(self, requests: Sequence[Request]) -> None:
        """A worker died of these: of the suspect among them, if there is one."""
        named = [one for one in requests if one in self]
        self._others += not named
        for request in named or requests:
            self.deaths[request] += 1
            self._joint[request] += not named

    def lane(self) -> asyncio.Lock:
        """What a suspect holds while it is in flight."""
        loop = asyncio.get_running_loop()
        if self._lane is None or self._loop is not loop:
            self._lane, self._loop = asyncio.Lock(), loop
        return self._lane

    def check(self, request: Request) -> None:
        """Raises ``ModelError`` for a request that is asked no more.

        Each death without it and without another suspect speaks for it: workers die of something else as well.
        """
        elsewhere = self._others - self._joint[request]
        if self.deaths[request] - elsewhere >= MOST_DEATHS:
            note = f"{MOST_DEATHS} workers died while they worked on it"
            raise ModelError(FailureReason.LOCAL_MODEL, note=note)


class _Flight:
    """One request on its way."""

    __slots__ = ("done", "request")

    def __init__(self, request: Request, done: asyncio.Future[Reply]) -> None:
        self.request, self.done = request, done


class Worker:
    """One worker; ``connect`` starts its process, again when it was lost."""

    def __init__(self, connect: Callable[[], Link], suspects: Suspects) -> None:
        self._connect = connect
        self._link: Link | None = connect()
        self._specs: list[ModelSpec] = []
        self._suspects = suspects
        self._why: str | None = None
        self._numbers = itertools.count()
        self._flights: dict[int, _Flight] = {}
        self._outbox: list[Errand] = []
        self._waits = False
        """Whether the worker has been asked for replies."""
        self._receiving: asyncio.Task[None] | None = None
        self.notes: dict[int, tuple[str, ...]] = {}

    def begin_to_load(self, spec: ModelSpec) -> None:
        """One more model, the next number."""
        self._specs.append(spec)
        self._there().load(pack(spec))

    def loaded(self) -> Loaded:
        """What the newest model is, once it is there.

        Raises:
            WorkerLost: the process could not be started, or died.
        """
        told = self._there().loaded(None)
        assert told is not None, "waited for ever"
        loaded = unpack(told[-1], Loaded)
        self.notes[len(self._specs) - 1] = loaded.notes
        return loaded

    async def ask(self, model: int, part: int, request: Request) -> Reply:
        """One request.

        Raises:
            ModelError: as the model raised it; or ``unreachable``: the worker is not there (any more).
        """
        if request not in self._suspects:
            return await self._ask(model, part, request)
        async with self._suspects.lane():
            self._suspects.check(request)
            return await self._ask(model, part, request)

    async def _ask(self, model: int, part: int, request: Request) -> Reply:
        if self._why is not None:
            self._come_back()
        loop = asyncio.get_running_loop()
        number, flight = next(self._numbers), _Flight(request, loop.create_future())
        self._flights[number] = flight
        if not self._outbox:
            loop.call_later(GATHER, self._flush)
        self._outbox.append(Errand(number, model, part, request))
        try:
            return await flight.done
        finally:
            self._flights.pop(number, None)

    def _flush(self) -> None:
        """Send what was gathered, if nobody did; by itself only where replies are waited for already."""
        if self._why is not None:  # it died in the meantime
            self._fail()
            return
        loop = asyncio.get_running_loop()
        if self._receiving is None or self._receiving.done() or self._receiving.get_loop() is not loop:
            self._receiving = loop.create_task(self._receive())
        elif self._waits and self._outbox:
            self._there().send(self._gathered())

    def _gathered(self) -> bytes:
        outbox, self._outbox = self._outbox, []
        return pack(outbox) if outbox else b""

    async def _receive(self) -> None:
        """Hand replies to their callers, as long as any waits; what is gathered goes along."""
        while self._flights:
            self._waits = True
            try:
                group = unpack(await self._there().exchange(self._gathered()), Group)
            except WorkerLost as lost:
                self._lose(str(lost))
                return
            finally:
                self._waits = False
            self.notes.update(group.notes)
            for came in group.came:
                flight = self._flights.get(came.number)
                if flight is None or flight.done.done():
                    continue  # nobody waits for it any more
                if came.failed is not None:
                    flight.done.set_exception(came.failed.raised())
                elif came.reply is not None:
                    flight.done.set_result(came.reply)
            await asyncio.sleep(GATHER)  # whoever has an answer asks again, most likely

    def _lose(self, why: str) -> None:
        """The worker died: what it had in flight is told so. The next call, a probe most likely, begins a new one."""
        self._why, self._link, self._outbox = why, None, []
        self._suspects.blame([flight.request for flight in self._flights.values()])
        self._fail()

    def _there(self) -> Link:
        assert self._link is not None, "who is lost is not asked"
        return self._link

    def _fail(self) -> None:
        for flight in self._flights.values():
            if not flight.done.done():
                flight.done.set_exception(self._absent())

    def _come_back(self) -> None:
        """Whether the new worker is there by now. Raises ``ModelError`` as long as it is not."""
        if self._link is None:
            self._link = self._connect()
            for spec in self._specs:
                self._link.load(pack(spec))
        try:
            told = self._link.loaded(0)
        except WorkerLost as lost:
            self._lose(str(lost))
            raise self._absent() from None
        if told is None:
            raise self._absent()
        for number, packed in enumerate(told):
            loaded = unpack(packed, Loaded)
            if loaded.error is not None:
                self._lose(loaded.error)
                raise self._absent()
            self.notes[number] = loaded.notes
        self._why = None

    def _absent(self) -> ModelError:
        return ModelError(FailureReason.UNREACHABLE, transient=True, note=self._why)


class _Part:
    """One server behind a model, as one worker reaches it."""

    batch_size = 1

    def __init__(self, model: RemoteModel, worker: Worker, number: int, part: int) -> None:
        self._model, self._worker, self._number, self._part = model, worker, number, part

    @property
    def id(self) -> str:
        """The model's."""
        return self._model.id

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer each request by the worker. Raises ``ModelError``."""
        if len(batch) == 1:  # as the engine asks; a task for it would be a tenth of the whole cost
            return (await self._worker.ask(self._number, self._part, batch[0]),)
        return await asyncio.gather(*(self._worker.ask(self._number, self._part, request) for request in batch))

    async def aclose(self) -> None:
        """The worker ends with the engine."""


class RemoteModel:
    """A model that every worker holds. ``in_batches``: it answers several requests at once, over there.

    ``scores``: it computes log-probabilities there.
    """

    batch_size = 1

    def __init__(
        self, workers: Sequence[Worker], number: int, loaded: Loaded, where: str, options: Options | None = None
    ) -> None:
        self.id = loaded.id
        self.in_batches, self.scores = loaded.batches, loaded.scores
        self.address_from = loaded.address_from or where
        self.options = options or {}
        self.replicas = tuple(_Part(self, worker, number, part) for worker in workers for part in range(loaded.parts))
        self._workers, self._number = tuple(workers), number

    @property
    def notes(self) -> tuple[str, ...]:
        """What any worker's copy has to say."""
        return tuple(dict.fromkeys(n for worker in self._workers for n in worker.notes.get(self._number, ())))

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer by the first worker; the engine asks :attr:`replicas` instead."""
        return await self.replicas[0].generate(batch)

    async def aclose(self) -> None:
        """The workers end with the engine."""


def held_by(workers: Sequence[Worker], number: int, spec: ModelSpec, where: str) -> RemoteModel:
    """The model loaded by all workers, as their ``number``-th.

    Raises:
        ModelSpecError: a worker cannot have it.
        ConfigError: workers disagree, in what they hold or in their version, or one cannot be started.
    """
    for worker in workers:
        worker.begin_to_load(spec)
    try:
        loaded = [worker.loaded() for worker in workers]
    except WorkerLost as lost:
        raise ConfigError(f"--engine ray: a worker could not be started: {lost}") from None
    strange = next((one.version for one in loaded if one.version != __version__), None)
    if strange is not None:
        raise ConfigError(
            f"--engine ray: a worker has redinstruct {strange}, this is {__version__}: install one version everywhere"
        )
    wrong = next((one.error for one in loaded if one.error is not None), None)
    if wrong is not None:
        raise ModelSpecError(wrong)
    ids = list(dict.fromkeys(one.id for one in loaded))
    if len(ids) > 1:
        raise ConfigError(f"--engine ray: workers hold different models under {spec.spec}: {', '.join(ids)}")
    return RemoteModel(workers, number, loaded[0], where, json.loads(spec.options))
