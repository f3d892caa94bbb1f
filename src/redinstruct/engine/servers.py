"""The servers behind one model: which one is asked next, which one is out, and how it comes back.

Each has a gate of its own. A server that nobody answers at, that gives nothing but failures to several callers (or,
while another is up, pages that are no answer), or that turns a call away (its key, the model's name, its quota, its
limit, its address) while another is up, is out: it gets no more calls than a probe now and then (a call that waits
anyway), and comes back with the first answer.
While all are out, calls wait; what waited is not used up. Who has never answered in this invocation is not waited for:
its address is most likely wrong, and the calls' own tries tell that soonest.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from redinstruct.engine.fuse import FAILING
from redinstruct.engine.gate import AdaptiveGate
from redinstruct.engine.retry import LONGEST_RETRY_AFTER
from redinstruct.models.base import Model, ModelError
from redinstruct.types import FailureReason

PATIENCE = 120.0
FIRST_PROBE, LONGEST_PROBE = 0.5, 10.0
CALLS = 8
"""So many calls that failed without an answer between them, and a server counts as out; where fewer are in flight, all
of them and one more. Fewer may be the fault of what is asked."""
DOWN = frozenset({FailureReason.UNREACHABLE, FailureReason.CONNECTION, FailureReason.SERVER_ERROR})
_SILENT = DOWN | {FailureReason.TIMEOUT}
_TURNED_AWAY = FAILING - _SILENT | {FailureReason.RATE_LIMITED, FailureReason.REDIRECT}
LATE_SECONDS, GATEWAY_SECONDS = 0.25, 10.0
"""A time-out that comes sooner was the server's own answer (408), a 5xx that comes sooner no gateway's deadline."""


class GaveUp(Exception):
    """Nobody has answered anywhere for as long as the patience lasts."""


class Server:
    """One server: its gate, and whether it is out."""

    def __init__(self, model: Model, ceiling: int) -> None:
        self.model = model
        self.gate = AdaptiveGate(ceiling)
        self.failures = 0
        self.out_since: float | None = None
        self.probe_at = 0.0
        self.probed = False
        self.silent = False
        self.last: ModelError | None = None
        self._pause = FIRST_PROBE
        self._calls = min(CALLS, ceiling + 1)
        self._callers: set[int] = set()

    def answered(self) -> None:
        """It answered, if only to say that it is busy, or that the request is wrong."""
        self.out_since = None
        if self.failures:
            self.failures = 0
            self._callers.clear()

    def failed(self, failure: ModelError, caller: int, now: float) -> None:
        """It did not: now, or once there is more than one caller's word for it, it is out."""
        self.failures += 1
        self._callers.add(caller)
        self.last = failure
        self.silent = failure.reason is FailureReason.UNREACHABLE
        at_once = self.silent or failure.reason in _TURNED_AWAY
        if self.out_since is None and (at_once or len(self._callers) >= self._calls):
            self.out_since, self._pause = now, FIRST_PROBE / 2
            self.still_out(now)
            self.gate.scatter()

    def still_out(self, now: float) -> None:
        """The next probe comes after a longer pause, and not before the server itself wants to be asked."""
        self._pause = min(LONGEST_PROBE, 2 * self._pause)
        asked = None if self.last is None else self.last.retry_after
        self.probe_at = now + max(self._pause, min(LONGEST_RETRY_AFTER, asked or 0.0))


class Place(NamedTuple):
    """A call's place at a server: its gate's ticket, and whether the call is a probe of a server that is out."""

    server: Server
    ticket: int
    probe: bool


class Servers:
    """All servers of a model."""

    def __init__(self, model: Model, ceiling: int, patience: float = PATIENCE) -> None:
        self.all = [Server(one, ceiling) for one in getattr(model, "replicas", (model,))]
        self._only = self.all[0] if len(self.all) == 1 else None
        self._patience = patience
        self._has_answered = False
        self._changed = asyncio.Event()

    @property
    def open(self) -> int:
        """Requests open now, at all of them."""
        return sum(server.gate.open for server in self.all)

    @property
    def pressure(self) -> float:
        """How far the least pressed server's limit was pushed under its ceiling."""
        return min(server.gate.pressure for server in self.all)

    @property
    def wait(self) -> bool:
        """Whether a server that is out is waited for: it, or another one, has answered before."""
        return self._has_answered and self._patience > 0

    def at_once(self) -> Place | None:
        """A place at the server that has the least to do, where all are well and it has room: what most calls find."""
        server = self._only or self._idlest()
        if server is None or server.out_since is not None or (ticket := server.gate.enter_now()) is None:
            return None
        return Place(server, ticket, False)

    def _idlest(self) -> Server | None:
        """None where any server is out, or has failed without an answer since."""
        idlest = self.all[0]
        for server in self.all:
            if server.out_since is not None or server.failures:
                return None
            if server.gate.load < idlest.gate.load:
                idlest = server
        return idlest

    async def enter(self, *, first: bool) -> Place:
        """A place at the server that has the least to do, once there is one.

        Raises:
            GaveUp: nobody has answered anywhere for as long as the patience lasts.
        """
        while True:
            chosen = self._choose()
            if chosen is None:
                await self._until_something_happens()
                continue
            server, probe = chosen
            server.probed |= probe
            try:
                ticket = await server.gate.enter(first=first or probe)
            except asyncio.CancelledError:
                server.probed &= not probe
                raise
            if probe or server.out_since is None or not self.wait:
                return Place(server, ticket, probe)
            server.gate.leave(limited=False, unused=True)  # it went out while this call waited for room

    def leave(self, place: Place, caller: int, failure: ModelError | None, seconds: float, *, asked: bool) -> bool:
        """A request has ended; ``asked``: it was sent, and not broken off.

        Returns whether it says something about the server alone, and is not the call's own try.
        """
        server, ticket, probe = place
        if failure is None and asked and not probe and not server.failures:
            server.gate.leave(limited=False)
            self._has_answered = True
            return False
        reason = None if failure is None else failure.reason
        late = _late(reason, seconds)
        limited = reason is FailureReason.RATE_LIMITED or (reason is FailureReason.TIMEOUT and not late)
        server.gate.leave(limited=limited, late=ticket if late else None, unused=not asked)
        if probe:
            server.probed = False
            self._wake()
        if not asked:
            return False
        is_other_up = any(s is not server and s.out_since is None for s in self.all)
        passed_on = reason in _TURNED_AWAY and is_other_up
        no_answer = reason is FailureReason.INVALID_JSON and is_other_up
        if reason not in _SILENT and not passed_on and not no_answer:
            self._has_answered = True
            if server.out_since is not None:
                self._wake()
            server.answered()
            return False
        now = asyncio.get_running_loop().time()
        if failure is not None and (reason in DOWN or passed_on or no_answer):
            server.failed(failure, caller, now)
        if probe:
            server.still_out(now)
        nobody = reason is FailureReason.UNREACHABLE and server.out_since is not None
        return passed_on or (self.wait and (probe or nobody))

    @property
    def notes(self) -> tuple[str, ...]:
        """Which of several are out, and why."""
        out = [
            (number, s.last) for number, s in enumerate(self.all, 1) if s.out_since is not None and s.last is not None
        ]
        return tuple(
            f"server {number} of {len(self.all)} is passed over: {last.reason}{f' ({last.note})' if last.note else ''}"
            for number, last in (out if len(self.all) > 1 else ())
        )

    def is_out(self, server: Server) -> bool:
        """Whether calls look elsewhere, or wait, without pauses of their own."""
        return self.wait and server.out_since is not None

    def _choose(self) -> tuple[Server, bool] | None:
        """The server to ask, and whether as a probe; None where all are out and no probe is due."""
        if self._only is not None and self._only.out_since is None:
            return self._only, False
        up = [server for server in self.all if server.out_since is None]
        if not self.wait:
            # Who fails at once has nothing in flight: its failures count like calls.
            return min(self.all, key=lambda server: server.gate.load + server.failures), False
        now = asyncio.get_running_loop().time()
        for server in self.all:
            if server.out_since is not None and not server.probed and now >= server.probe_at:
                return server, True
        if up:
            return min(up, key=lambda server: server.gate.load), False
        if all(server.out_since is not None and now - server.out_since >= self._patience for server in self.all):
            if all(server.silent for server in self.all):
                raise GaveUp
            # Somebody answers there, if only with failures: each call's own tries say whether all of them fail.
            self._has_answered = False
            return self.all[0], False
        return None

    async def _until_something_happens(self) -> None:
        """All are out: wait for the next probe's time, or for what a probe finds, or for the end of the patience."""
        times = [s.out_since + self._patience for s in self.all if s.out_since is not None]
        times = [max(times), *(server.probe_at for server in self.all if not server.probed)]
        wait = max(0.0, min(times) - asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _late(reason: FailureReason | None, seconds: float) -> bool:
    """Whether the server did not get round to it in time: its own deadline, or that of a gateway before it (504)."""
    return (reason is FailureReason.TIMEOUT and seconds >= LATE_SECONDS) or (
        reason is FailureReason.SERVER_ERROR and seconds >= GATEWAY_SECONDS
    )
