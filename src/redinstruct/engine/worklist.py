"""What is owed, carried out: asked under the limits, held back for the fuse, committed, told.

A stage says only what is owed and what a reply means. Requests and replies are plain data, so that a model may compute
anywhere; the fuse, the limits, the progress and the single writer are in this process all the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from redinstruct.engine.calls import Caller
from redinstruct.engine.fuse import Held, is_failing
from redinstruct.engine.limits import Allowance, Limits, Prices, Spending
from redinstruct.engine.pool import Job, run_pool
from redinstruct.engine.writer import GroupWriter, Then, Written
from redinstruct.errors import CallFailed, UsageError
from redinstruct.models.base import Model, Reply, Request
from redinstruct.progress import OnProgress, Progress


class Party(msgspec.Struct, frozen=True):
    """Somebody who is asked: a model, and its prices.

    ``begun``: other work of the run stands already, so that failing from the first call on is no bad input.
    """

    model: Model
    prices: Prices | None = None
    begun: bool = False


class Asked(NamedTuple):
    """A reply, how many requests it took, and how many seconds."""

    reply: Reply
    tries: int
    seconds: float


class Worklist:
    """One invocation's work: who is asked (by role), under which limits, and who hears of it.

    ``limited``: calls or money are. ``writer`` is to be entered before anything is recorded.
    """

    def __init__(
        self,
        parties: Mapping[str, Party],
        limits: Limits,
        spending: Spending | None = None,
        on_progress: OnProgress | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.limits = limits
        self.callers = {
            role: Caller(
                party.model,
                ceiling=limits.concurrency,
                prices=party.prices,
                patience=limits.patience,
                begun=party.begun,
            )
            for role, party in parties.items()
        }
        self.progress = progress or Progress(0, 0)
        self.limited = spending is not None
        self.writer = GroupWriter()
        self._spending = spending
        self._on_progress = on_progress
        self._held = Held()

    @property
    def calls(self) -> int:
        """Requests sent by this invocation, tries that failed included."""
        return sum(caller.calls for caller in self.callers.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoints do not take, and what is sent instead."""
        return tuple(dict.fromkeys(note for caller in self.callers.values() for note in caller.notes))

    async def carry_out(self, jobs: Iterable[Job], work: Callable[[Job], Awaitable[None]], count: int) -> bool:
        """Do every one of ``count`` jobs, at most ``limits.concurrency`` at once; False when a limit cut it short."""
        return await run_pool(jobs, work, min(self.limits.concurrency, count))

    async def set_aside(self, calls: int, cost: float) -> Allowance:
        """So many calls and dollars for one job, where there are limits; see :meth:`Spending.begin`."""
        assert self._spending is not None
        return await self._spending.begin(calls, cost)

    async def ask(self, role: str, request: Request, allowance: Allowance | None = None) -> Asked:
        """One call to the model of that role; without an ``allowance`` it is paid for by itself.

        Raises:
            CallFailed: there is no reply; it says why, and how many requests and seconds that took.
            LimitReached: no calls or money are left.
            EndpointDenied, EndpointLost: nobody there answers, and no other call would fare better.
            UsageError: nobody has that role.
        """
        caller = self.callers.get(role)
        if caller is None:
            raise UsageError(f"there is no model to be asked as the {role}: name one with --{role}-model")
        started = time.perf_counter()
        try:
            if allowance is None and self._spending is not None:
                with await self._spending.begin(1, caller.bound(request)) as own:
                    reply, tries = await caller(request, own)
            else:
                reply, tries = await caller(request, allowance)
        except CallFailed as failure:
            failure.seconds = time.perf_counter() - started
            raise
        return Asked(reply, tries, time.perf_counter() - started)

    async def record(
        self,
        role: str,
        reason: str | None,
        commit: Callable[[Sequence[Written]], None],
        row: Written,
        then: Then | None = None,
    ) -> bool:
        """Commit what came of a call; what failed for a failing model (``reason``) waits until another answer has come.

        ``commit``, ``row`` and ``then`` as for :meth:`GroupWriter.put`. Returns whether it was committed now, and did
        not have to wait.
        """
        if reason is not None and is_failing(reason) and role in self.callers:
            self._held.add(self.callers[role].fuse, partial(self.writer.put, commit, row, then))
            return False
        await self.writer.put(commit, row, then)
        if self._held.waiting:
            await self._held.release()
        return True

    def check(self) -> None:
        """Before work that builds on what was done. Raises ``EndpointDenied`` or ``EndpointLost``: nobody answers."""
        self._held.check()

    async def finish(self) -> None:
        """Commit what was held back: nothing more will be asked. Raises as :meth:`check` does."""
        await self._held.release(ended=True)

    def tell(self, stage: str = "", label: str | None = None) -> None:
        """One more is done, and how it came out."""
        progress = self.progress
        progress.done += 1
        if label is not None:
            progress.labels[label] = progress.labels.get(label, 0) + 1
        progress.stage = stage
        progress.calls = progress.retries = 0
        for caller in self.callers.values():
            progress.calls += caller.calls
            progress.retries += caller.retries
        if self._on_progress is not None:
            self._on_progress(progress)


class Calling:
    """The calls of one piece of work (a verdict, say) to one model; ``tries`` are the requests that they took."""

    def __init__(self, work: Worklist, role: str, allowance: Allowance | None = None) -> None:
        self.tries = 0
        self._work, self._role, self._allowance = work, role, allowance

    async def __call__(self, request: Request) -> Reply:
        """The reply. Raises ``CallFailed``, and as :meth:`Worklist.ask` does."""
        try:
            asked = await self._work.ask(self._role, request, self._allowance)
        except CallFailed as failure:
            self.tries += failure.tries
            raise
        self.tries += asked.tries
        return asked.reply
