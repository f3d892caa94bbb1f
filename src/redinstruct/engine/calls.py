"""One call to a model, with everything around it: the servers and their gates, the retries, the limits, the fuse."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import NamedTuple

from redinstruct.engine.batches import Batcher
from redinstruct.engine.fuse import FAILING, Fuse
from redinstruct.engine.limits import Allowance, Prices
from redinstruct.engine.retry import RetryPolicy
from redinstruct.engine.servers import PATIENCE, GaveUp, Place, Servers
from redinstruct.errors import CallFailed
from redinstruct.models.base import Model, ModelError, Reply, Request
from redinstruct.types import FailureReason

# What an endpoint turned away before it worked: nobody bills for that. A request that broke off, or that nobody
# answered in time, may have been worked on.
_UNBILLED = FAILING - {FailureReason.CONNECTION, FailureReason.TIMEOUT} | {
    FailureReason.RATE_LIMITED,
    FailureReason.BAD_REQUEST,
    FailureReason.UNPROCESSABLE,
    FailureReason.CONFLICT,
}


class Answer(NamedTuple):
    """A reply, and how many requests it took."""

    reply: Reply
    tries: int


class Caller:
    """Calls one model. Shared by all workers; counts its requests in ``calls``.

    ``patience`` is how many seconds calls wait for a server that answered before and does not now. ``begun``: other
    work of the run stands already, so that failing from the first call on does not make the run bad input.
    """

    def __init__(
        self,
        model: Model,
        *,
        ceiling: int,
        retry: RetryPolicy | None = None,
        prices: Prices | None = None,
        rng: random.Random | None = None,
        patience: float = PATIENCE,
        begun: bool = False,
    ) -> None:
        self.model = model
        self.prices = prices or Prices()
        self.servers = Servers(model, ceiling, patience)
        self.fuse = Fuse(model.id, getattr(model, "address_from", "the endpoint's address"), begun)
        self.calls = 0
        self.retries = 0
        self._patience = patience
        self._numbers = itertools.count()
        self._retry = retry or RetryPolicy()
        self._rng = rng or random.Random()
        self._batcher = Batcher(model) if model.batch_size > 1 else None

    async def __call__(self, request: Request, allowance: Allowance | None = None) -> Answer:
        """One call, tried up to six times.

        Raises:
            CallFailed: no usable answer, with the last typed reason.
            LimitReached: no calls or money are left for a further request.
            EndpointDenied: all attempts so far have failed, and there were enough of them.
            EndpointLost: too many in a line have, or nobody answers any more.
        """
        if self._batcher is not None:
            return await self._local(self._batcher, request, allowance)
        number = next(self._numbers)
        sent = tries = 0
        while True:
            try:
                place = self.servers.at_once() or await self.servers.enter(first=sent > 0)
            except GaveUp:
                raise self.fuse.gave_up(self._patience) from None
            sent += 1
            free, failure, reply = await self._once(place, number, request, allowance)
            if failure is None:
                assert reply is not None
                self.fuse.ended(None)
                return Answer(reply, sent)
            tries += not free
            if not (failure.transient or free) or tries >= self._retry.max_tries:
                raise self._ended(failure, sent)
            self.retries += 1
            if not self.servers.is_out(place.server):
                await self._pause(place, max(1, tries), failure)

    def _ended(self, failure: ModelError, sent: int) -> CallFailed:
        """A call that failed for good. Raises as the fuse does."""
        failed = CallFailed(failure.reason, sent, failure.note)
        self.fuse.ended(failed)
        return failed

    def bound(self, request: Request) -> float:
        """Dollars that the request can cost at most."""
        return self.prices.bound(request, self.model)

    @property
    def in_batches(self) -> bool:
        """Whether the model answers several requests at once, here or elsewhere."""
        return self._batcher is not None or getattr(self.model, "in_batches", False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoint does not take, and what is sent instead; which of several servers are not asked."""
        return (*getattr(self.model, "notes", ()), *(f"{self.model.id}: {note}" for note in self.servers.notes))

    async def _pause(self, place: Place, tries: int, failure: ModelError) -> None:
        """The wait between two tries: this call's own, or the whole server's where it told several calls to wait."""
        wait = self._retry.wait(tries, failure.retry_after, self._rng, place.server.gate.pressure)
        limited = failure.reason is FailureReason.RATE_LIMITED and failure.retry_after
        if not (limited and place.server.gate.hold(wait)):
            await asyncio.sleep(wait)

    async def _once(
        self, place: Place, number: int, request: Request, allowance: Allowance | None
    ) -> tuple[bool, ModelError | None, Reply | None]:
        """One request: whether it is no try of the call's own, and its failure or its reply."""
        clock = asyncio.get_running_loop().time
        started, paid = clock(), 0.0
        failure: ModelError | None = None
        reply: Reply | None = None
        free = False
        try:
            if allowance is not None:
                bound = self.bound(request)
                allowance.take(bound)
                paid = bound
            self.calls += 1
            (reply,) = await place.server.model.generate((request,))
        except ModelError as error:
            failure = error
        finally:
            asked = reply is not None or failure is not None
            free = self.servers.leave(place, number, failure, clock() - started, asked=asked)
            if allowance is not None and paid:
                billed = failure is None or failure.reason not in _UNBILLED
                allowance.settle(paid, reply, self.prices, billed=billed)
        return free, failure, reply

    async def _local(self, batcher: Batcher, request: Request, allowance: Allowance | None) -> Answer:
        paid = 0.0
        reply: Reply | None = None
        if allowance is not None:
            paid = self.bound(request)
            allowance.take(paid)
        try:
            self.calls += 1
            reply = await batcher(request)
        except ModelError as error:
            raise self._ended(error, 1) from None
        finally:
            if allowance is not None and paid:
                allowance.settle(paid, reply, self.prices, billed=reply is not None)
        self.fuse.ended(None)
        return Answer(reply, 1)

    async def aclose(self) -> None:
        """End what is still under way, and close the model."""
        if self._batcher is not None:
            await self._batcher.aclose()
        await self.model.aclose()
