"""How many requests may be open at one server: as many as it carries, learnt from its 429s and its time-outs."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

ROOM_UNDER_DEADLINE = 0.8
"""The share of what a server answered within one deadline that is asked of it from then on."""
LIMITED_IN_A_ROW = 3
"""So many 429s that name a wait, and no other answer between them: nobody is served before then."""
WINDOW_SECONDS = 5.0
"""Seconds. Who was waited for once is waited for at the next 429 that names such a wait: it counts by windows."""


class AdaptiveGate:
    """At most ``limit`` requests open at once; the limit follows the share of 429 answers, and time-outs.

    The share is looked at once per window of ``max(32, limit)`` answers. Above 60 % the limit halves, above 35 % it
    shrinks by a fifth, under 15 % it grows by an eighth. In between it stays: with six tries a share of 25 % costs
    one attempt in four thousand, and an endpoint that fails at random does not starve the run.

    A request that timed out tells more: the server answered k others while it waited, so that k is what can be open
    and still be answered before the deadline (Little's law). The limit falls to 0.8 k at once; what was sent before
    that, when more were open, tells nothing new. A row of 429s that name a wait tells as much: k is what was answered
    since the last such row.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._again: deque[asyncio.Future[None]] = deque()
        self._seen = 0
        self._limited = 0
        self._answered = 0
        self._shrunk_at = -1
        self._held_at: int | None = None
        self._in_a_row = 0
        self._held: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Requests open now."""
        return self._open

    def enter_now(self) -> int | None:
        """As :meth:`enter`, where a request may be sent now and nobody waits before it; else None."""
        if self._waiting or self._again or self._held or self._open >= int(self.limit):
            return None
        self._open += 1
        return self._answered

    @property
    def load(self) -> int:
        """Requests open now, and those that wait for room."""
        return self._open + len(self._waiting) + len(self._again)

    @property
    def pressure(self) -> float:
        """How far the limit was pushed under its ceiling: 1 when not at all, at most 8."""
        return min(8.0, self.ceiling / self.limit)

    async def enter(self, *, first: bool = False) -> int:
        """Wait for room, first come first served; ``first`` goes before those that were not sent yet.

        Returns what :meth:`leave` wants to know of a request that timed out.
        """
        if (ticket := self.enter_now()) is not None:
            return ticket
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._again if first else self._waiting
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Somebody who left in the meantime may have passed it over already.
                with suppress(ValueError):
                    queue.remove(turn)
            else:
                # The place was already handed over: pass it on.
                self._open -= 1
                self._wake()
            raise
        return self._answered

    def leave(self, *, limited: bool, late: int | None = None, unused: bool = False) -> None:
        """Give the place back, and say whether the answer was a 429.

        ``late`` is what :meth:`enter` returned, for a request that timed out. ``unused``: nothing was asked.
        """
        self._open -= 1
        if not unused:
            self._in_a_row = self._in_a_row + 1 if limited else 0
            if late is None:
                self._answered += not limited
                self._seen += 1
                self._limited += limited
                if self._seen >= max(32, self.limit):
                    self._adjust(self._limited / self._seen)
                    self._seen = self._limited = 0
            elif late > self._shrunk_at:
                self._shrunk_at = self._answered
                self._shrink_to(ROOM_UNDER_DEADLINE * (self._answered - late))
        if self._waiting or self._again:
            self._wake()

    def hold(self, seconds: float) -> bool:
        """The server named a wait with a 429. Once several did so in a row, nobody enters before it is over.

        Returns whether the gate waits, so that the caller need not.
        """
        known = self._held_at is not None and seconds >= WINDOW_SECONDS
        if self._in_a_row < LIMITED_IN_A_ROW and not known:
            return False
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._held is not None:
            if self._held.when() >= until:
                return True
            self._held.cancel()
        else:
            self._shrink_to(self._answered - (self._held_at or 0))
            self._held_at = self._answered
        self._held = loop.call_at(until, self._let_go)
        return True

    def scatter(self) -> None:
        """Send away everybody who waits: they look for another server."""
        for queue in (self._again, self._waiting):
            while queue:
                self._let_in(queue)

    def _let_go(self) -> None:
        self._held = None
        self._wake()

    def _shrink_to(self, limit: float) -> None:
        self.limit = max(1.0, min(self.limit, limit))
        self._seen = self._limited = 0

    def _adjust(self, share: float) -> None:
        if share > 0.60:
            self.limit = max(1.0, self.limit / 2)
        elif share > 0.35:
            self.limit = max(1.0, self.limit * 0.8)
        elif share < 0.15:
            self.limit = min(float(self.ceiling), self.limit + max(1.0, self.limit / 8))

    def _wake(self) -> None:
        while (queue := self._again or self._waiting) and self._held is None and self._open < int(self.limit):
            self._let_in(queue)

    def _let_in(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = queue.popleft()
        if not turn.done():
            self._open += 1
            turn.set_result(None)
