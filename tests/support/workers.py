"""Workers without Ray: hosts in this process's own loop, which can be made to die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redinstruct.engine.hosting import Host
from redinstruct.engine.remote import RemoteModel, Suspects, Worker, WorkerLost, held_by
from redinstruct.engine.wire import Errand, ModelSpec, unpack


class Nearby:
    """A link to a host in this process. ``dies`` is asked at each group of requests whether the worker dies of it."""

    def __init__(self, dies: Callable[[list[Errand]], bool] = lambda _: False) -> None:
        self.host: Host | None = None
        self.dies = dies
        self.dead = False
        self.asked = 0
        self.starting = 0
        self._told: list[bytes] = []
        self._specs: list[bytes] = []
        self._giving: asyncio.Task[bytes] | None = None
        self._death = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self, packed: bytes) -> None:
        self.host = self.host or Host()
        self._told.append(self.host.load(packed))

    def loaded(self, wait: float | None) -> list[bytes] | None:
        if wait is not None and self.starting:  # not there yet, so many times
            self.starting -= 1
            return None
        return self._told

    def send(self, packed: bytes) -> None:
        wanted = unpack(packed, list[Errand])
        self.asked += len(wanted)
        if self.dies(wanted):
            self.dead = True
            self._death.set()
        elif self.host is not None:
            self.host.take(packed)

    async def exchange(self, packed: bytes) -> bytes:
        assert self.host is not None
        if self._loop is not asyncio.get_running_loop():
            # A real worker outlives the loop of who asks it; this one goes on in the next.
            self._loop, self._giving, self._death = asyncio.get_running_loop(), None, asyncio.Event()
            self.host._changed = asyncio.Event()
        if packed:
            self.send(packed)
        if self._giving is None:
            self._giving = asyncio.create_task(self.host.give())
        death = asyncio.create_task(self._death.wait())
        try:
            await asyncio.wait([self._giving, death], return_when=asyncio.FIRST_COMPLETED)
        finally:
            death.cancel()
        if self.dead:
            self._giving.cancel()
            raise WorkerLost("killed by the test")
        packed, self._giving = await self._giving, None
        return packed


class NearbyEngine:
    """Makes models on such workers."""

    def __init__(self, links: Callable[[int], Nearby], count: int = 2) -> None:
        self.links: list[Nearby] = []
        self.suspects = Suspects()
        self._new = links
        self.workers = [Worker(lambda number=number: self._connect(number), self.suspects) for number in range(count)]  # type: ignore[misc]
        self.held = 0

    def _connect(self, number: int) -> Nearby:
        link = self._new(number)
        self.links.append(link)
        return link

    def make(self, spec: str, options: str, timeout: float, chat_template: str) -> RemoteModel:
        wanted = ModelSpec(spec, options, timeout, chat_template)
        self.held += 1
        return held_by(self.workers, self.held - 1, wanted, "--ray-address")
