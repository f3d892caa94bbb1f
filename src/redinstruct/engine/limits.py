"""How a run is carried out: how many calls at once and in all, how much they may cost, and what was spent so far."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from redinstruct.engine.servers import PATIENCE
from redinstruct.errors import UsageError
from redinstruct.models.base import Reply, Request, longest_answer
from redinstruct.settings import FAILED, JUDGING, LIMITS, Setting, check_said

DEFAULT_CONCURRENCY = 64
MAX_CONCURRENCY = 4096
BYTES_PER_TOKEN_FLOOR = 1.0
"""No tokenizer of the field makes more tokens than bytes: the safe bound for a prompt that is yet to be sent."""


class LimitReached(Exception):
    """A limit of calls or money leaves no room for the next call; what is not recorded stays owed."""


class Prices(msgspec.Struct, frozen=True):
    """US dollars per million tokens, read and written."""

    read: float = 0.0
    written: float = 0.0

    def cost(self, tokens_in: int | None, tokens_out: int | None) -> float:
        """Dollars for so many tokens; a count that the endpoint did not give costs nothing here."""
        return ((tokens_in or 0) * self.read + (tokens_out or 0) * self.written) / 1e6

    def bound(self, request: Request, model: object = None) -> float:
        """The most that this request can cost at a model: every byte a token, every allowed token written."""
        size = sum(len(m.content.encode("utf-8", "surrogatepass")) + 16 for m in request.messages)
        written = longest_answer(model, request.sampling.max_tokens)
        return self.cost(int(size / BYTES_PER_TOKEN_FLOOR), written)


class Limits(msgspec.Struct, frozen=True):
    """How a run is carried out; no part of its configuration.

    ``max_calls`` bounds the requests of one invocation, retries and judge calls included. ``budget`` bounds, in US
    dollars, what the whole run has cost. ``keep_errors`` leaves the attempts labelled ``error`` as
    they are; else each is asked again, once. ``patience`` is how many seconds a server that answered before is waited
    for when nobody answers. ``force`` goes on with a judge that failed its self-test.
    ``stop_when_decided`` ends the asking of a bank and prompt once its rate is known to lie on one side of that limit.
    """

    concurrency: Annotated[
        int,
        Setting("Attempts in flight at once, target and judge together.", "N", LIMITS, least=1, most=MAX_CONCURRENCY),
    ] = DEFAULT_CONCURRENCY
    max_calls: Annotated[
        int | None,
        Setting(
            "Stop before more than N requests of this invocation, retries and judge included (exit 11); 0 begins the "
            "run and asks nothing.",
            "N",
            LIMITS,
            least=0,
        ),
    ] = None
    budget: Annotated[
        float | None, Setting("Stop before the whole run costs more than Z dollars (exit 11).", "Z", LIMITS, above=0)
    ] = None
    prices: Prices | None = None
    judge_prices: Prices | None = None
    keep_errors: Annotated[
        bool, Setting("Leave what ended as `error`; else it is asked again, once.", group=FAILED)
    ] = False
    force: Annotated[bool, Setting("Go on with a judge that failed its self-test.", group=JUDGING)] = False
    stop_when_decided: Annotated[
        float | None,
        Setting(
            "Stop asking a bank under a prompt once its rate surely lies above, or below, RATE; asks in random order.",
            "RATE",
            LIMITS,
            above=0,
            below=1,
        ),
    ] = None
    timeout: Annotated[float, Setting("Deadline of one request.", "SECONDS", LIMITS, above=0)] = 120.0
    patience: Annotated[
        float, Setting("Wait so long for a server that answered before and does not now.", "SECONDS", LIMITS, least=0)
    ] = PATIENCE


def check_limits(limits: Limits) -> None:
    """Raises ``UsageError`` for limits that no run can keep to."""
    check_said(limits)
    if limits.judge_prices is not None and limits.prices is None:
        raise UsageError("--judge-price-in and --judge-price-out: only with --price-in and --price-out")
    if limits.budget is not None and limits.prices is None:
        raise UsageError("--budget needs --price-in and --price-out: the project knows no prices of its own")


class Spending:
    """The limits of one invocation: ``max_calls`` requests (retries count), ``budget`` dollars.

    ``spent`` starts with what the run has cost so far, so that a resumed run keeps to the same budget. A call is
    paid for before it is sent, at the most it can cost, and settled when its answer tells the tokens: the limits are
    never overrun, whatever is in flight.
    """

    def __init__(self, max_calls: int | None = None, budget: float | None = None, spent: float = 0.0) -> None:
        self.calls = 0
        self.spent = spent
        self._max_calls = max_calls
        self._budget = budget
        self._held_calls = 0
        self._held_cost = 0.0
        self._holders = 0
        self._changed = asyncio.Event()

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._max_calls is not None or self._budget is not None

    def _fits(self, calls: int, cost: float) -> bool:
        if self._max_calls is not None and self.calls + self._held_calls + calls > self._max_calls:
            return False
        return self._budget is None or self.spent + self._held_cost + cost <= self._budget

    async def begin(self, calls: int, cost: float) -> Allowance:
        """Set aside so many calls and dollars for one job; waits while other jobs may still give some back.

        Raises:
            LimitReached: there is no room, and nobody who could make any.
        """
        while not self._fits(calls, cost):
            if self._holders == 0:
                raise LimitReached
            self._changed.clear()
            await self._changed.wait()
        self._holders += 1
        self._held_calls += calls
        self._held_cost += cost
        return Allowance(self, calls, cost)

    def take(self, allowance: Allowance, cost: float) -> None:
        """Pay for one request, from the allowance first."""
        from_calls = min(1, allowance.calls)
        from_cost = min(cost, allowance.cost)
        if not self._fits(1 - from_calls, cost - from_cost):
            raise LimitReached
        allowance.calls -= from_calls
        allowance.cost -= from_cost
        self._held_calls -= from_calls
        self._held_cost -= from_cost
        self.calls += 1
        self.spent += cost

    def settle(self, paid: float, actual: float) -> None:
        """Replace what was paid for a request by what it cost."""
        self.spent += actual - paid
        self._changed.set()

    def end(self, allowance: Allowance) -> None:
        """Give back what the job did not use."""
        self._holders -= 1
        self._held_calls -= allowance.calls
        self._held_cost -= allowance.cost
        allowance.calls, allowance.cost = 0, 0.0
        if self._holders == 0:
            # Sums of floats drift; a budget that is just enough must not be refused for it.
            self._held_cost = 0.0
        self._changed.set()


class Allowance:
    """What one job has set aside; a context manager that gives the rest back."""

    __slots__ = ("_spending", "calls", "cost")

    def __init__(self, spending: Spending, calls: int, cost: float) -> None:
        self._spending = spending
        self.calls = calls
        self.cost = cost

    def __enter__(self) -> Allowance:
        return self

    def __exit__(self, *_: object) -> None:
        self._spending.end(self)

    def take(self, cost: float) -> None:
        """Pay for one request before it is sent. Raises ``LimitReached``."""
        self._spending.take(self, cost)

    def settle(self, paid: float, reply: Reply | None, prices: Prices, *, billed: bool) -> None:
        """Settle a request: by its tokens, at nothing when it was turned away, at its bound when nobody can know."""
        if reply is not None and reply.tokens_in is not None and reply.tokens_out is not None:
            self._spending.settle(paid, prices.cost(reply.tokens_in, reply.tokens_out))
        elif not billed:
            self._spending.settle(paid, 0.0)
