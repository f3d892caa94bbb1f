"""One call to a model, with everything around it: the gate, the retries, the limits, the fuse."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from redinstruct.engine.batches import Batcher
from redinstruct.engine.limits import AdaptiveGate, Allowance, Prices
from redinstruct.engine.retry import RetryPolicy
from redinstruct.errors import CallFailed, EndpointDenied
from redinstruct.models.base import Model, ModelError, Reply, Request
from redinstruct.types import FailureReason

DENIED = frozenset({FailureReason.UNAUTHORIZED, FailureReason.FORBIDDEN, FailureReason.NOT_FOUND})
FUSE_ANSWERS = 20

# What an endpoint turned away before it worked: nobody bills for that.
_UNBILLED = frozenset({*DENIED, FailureReason.RATE_LIMITED, FailureReason.SERVER_ERROR, FailureReason.BAD_REQUEST,
                       FailureReason.UNPROCESSABLE, FailureReason.UNREACHABLE, FailureReason.CONFLICT})  # fmt: skip


class Answer(NamedTuple):
    """A reply, and how many requests it took."""

    reply: Reply
    tries: int


class Fuse:
    """Stops a run whose first 20 answers are all 401, 403 or 404, or to which nobody answers at all.

    Until one other answer has come, ``undecided`` is true and denied attempts should not be recorded yet.
    """

    def __init__(self, who: str, address_from: str = "the endpoint's address") -> None:
        self.undecided = True
        self._who = who
        self._address_from = address_from
        self._denied = 0
        self._unreachable = 0

    def saw(self, failure: ModelError | None) -> None:
        """Tell the fuse how one request ended.

        Raises:
            EndpointDenied: that was the twentieth of the first twenty.
        """
        if not self.undecided:
            return
        reason = None if failure is None else failure.reason
        if reason in DENIED:
            self._denied += 1
        elif reason is FailureReason.UNREACHABLE:
            self._unreachable += 1
        else:
            self.undecided = False
            return
        said = f" ({failure.note})" if failure is not None and failure.note else ""
        if self._denied >= FUSE_ANSWERS:
            raise EndpointDenied(
                f"{self._who}: the first {FUSE_ANSWERS} answers were all {reason}{said}. "
                "Check the key, the model's name and the address; none of them was recorded."
            )
        if self._unreachable >= FUSE_ANSWERS:
            raise EndpointDenied(
                f"{self._who}: nobody answers at the address in {self._address_from}{said}. "
                "Is the server up? No failure was recorded."
            )


class Caller:
    """Calls one model. Shared by all workers; counts its requests in ``calls``."""

    def __init__(
        self,
        model: Model,
        *,
        ceiling: int,
        retry: RetryPolicy | None = None,
        prices: Prices | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.model = model
        self.prices = prices or Prices()
        self.gate = AdaptiveGate(ceiling)
        self.fuse = Fuse(model.id, getattr(model, "address_from", "the endpoint's address"))
        self.calls = 0
        self.retries = 0
        self._retry = retry or RetryPolicy()
        self._rng = rng or random.Random()
        self._batcher = Batcher(model) if model.batch_size > 1 else None

    async def __call__(self, request: Request, allowance: Allowance | None = None) -> Answer:
        """One call, tried up to six times.

        Raises:
            CallFailed: no usable answer, with the last typed reason.
            LimitReached: no calls or money are left for a further request.
            EndpointDenied: the fuse blew.
        """
        if self._batcher is not None:
            return await self._local(self._batcher, request, allowance)
        tries = 0
        while True:
            tries += 1
            try:
                return Answer(await self._once(request, allowance), tries)
            except ModelError as error:
                self.fuse.saw(error)
                if not error.transient or tries >= self._retry.max_tries:
                    raise CallFailed(error.reason, tries, error.note) from None
                self.retries += 1
                wait = self._retry.wait(tries, error.retry_after, self._rng, self.gate.pressure)
            await asyncio.sleep(wait)

    async def _once(self, request: Request, allowance: Allowance | None) -> Reply:
        gate = self.gate
        await gate.enter()
        limited = False
        paid = 0.0
        reply: Reply | None = None
        billed = True
        try:
            if allowance is not None:
                bound = self.prices.bound(request)
                allowance.take(bound)
                paid = bound
            self.calls += 1
            (reply,) = await self.model.generate((request,))
            self.fuse.undecided = False
            return reply
        except ModelError as error:
            limited = error.reason is FailureReason.RATE_LIMITED
            billed = error.reason not in _UNBILLED
            raise
        finally:
            gate.leave(limited=limited)
            if allowance is not None and paid:
                allowance.settle(paid, reply, self.prices, billed=billed)

    async def _local(self, batcher: Batcher, request: Request, allowance: Allowance | None) -> Answer:
        paid = 0.0
        reply: Reply | None = None
        if allowance is not None:
            paid = self.prices.bound(request)
            allowance.take(paid)
        try:
            self.calls += 1
            reply = await batcher(request)
            return Answer(reply, 1)
        except ModelError as error:
            raise CallFailed(error.reason, 1, error.note) from None
        finally:
            if allowance is not None and paid:
                allowance.settle(paid, reply, self.prices, billed=reply is not None)

    async def aclose(self) -> None:
        """End what is still under way, and close the model."""
        if self._batcher is not None:
            await self._batcher.aclose()
        await self.model.aclose()
