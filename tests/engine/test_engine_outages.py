"""Servers that are slow, rate-limited, down for a while or for good: what a whole run makes of them, in virtual time.

Each server is a model of one (slots, a queue, a clock); the run is the engine's own pool, callers and fuse at the
command's defaults: 64 in flight, a deadline of 120 s, six tries, a patience of 120 s.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from redinstruct.engine import Caller, Held, is_failing, run_pool
from redinstruct.errors import CallFailed, EndpointDenied, EndpointLost
from redinstruct.models import ModelError, Reply, Request
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.tally import finding
from tests.support.virtual_time import now, run_virtual


def request(number: int) -> Request:
    return Request((Message("user", f"What is item {number}?"),), Sampling(max_tokens=10))


DEADLINE = 120.0


class Simulated:
    """A server with ``slots``, ``seconds`` an answer; ``fault`` may say that a request fails, and how."""

    id = "openai-api/simulated/m"
    address_from = "SIMULATED_BASE_URL"
    batch_size = 1

    def __init__(
        self,
        *,
        slots: int = 1000,
        seconds: float = 1.0,
        fault: Callable[[float], ModelError | None] = lambda at: None,
    ) -> None:
        self.asked: list[float] = []
        self.answered = 0
        self._seconds = seconds
        self._fault = fault
        self._slots = asyncio.Semaphore(slots)

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        self.asked.append(now())
        if (fault := self._fault(now())) is not None:
            raise fault
        try:
            async with asyncio.timeout(DEADLINE), self._slots:
                await asyncio.sleep(self._seconds)
        except TimeoutError:
            raise ModelError(FailureReason.TIMEOUT, transient=True) from None
        if (fault := self._fault(now())) is not None:
            raise fault if fault.reason is not FailureReason.UNREACHABLE else broken()
        self.answered += 1
        return [Reply("The sky.", "stop", 4, 3)]

    async def aclose(self) -> None:
        pass


class Several:
    """One model behind several servers."""

    id = "openai-api/simulated/m"
    address_from = "SIMULATED_BASE_URL"
    batch_size = 1

    def __init__(self, *replicas: Simulated) -> None:
        self.replicas = replicas

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        raise AssertionError("the engine asks the servers one by one")

    async def aclose(self) -> None:
        pass


def gone() -> ModelError:
    return ModelError(FailureReason.UNREACHABLE, transient=True)


def broken() -> ModelError:
    return ModelError(FailureReason.CONNECTION, transient=True)


def sick() -> ModelError:
    return ModelError(FailureReason.SERVER_ERROR, transient=True, note="backend is down")


def a_page() -> ModelError:
    return ModelError(FailureReason.INVALID_JSON, transient=True, note="Sign in")


def between(start: float, end: float, error: Callable[[], ModelError]) -> Callable[[float], ModelError | None]:
    return lambda at: error() if start <= at < end else None


class Ended:
    """How a run ended: attempts by outcome, its stop, its seconds."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.stop: Exception | None = None
        self.seconds = 0.0
        self.calls = 0
        self.notes: tuple[str, ...] = ()


def carry_out(
    make: Callable[[], Simulated | Several], attempts: int, concurrency: int = 64, patience: float = 120.0
) -> Ended:
    """The engine's way of every attempt, as the run's session has it."""

    async def main() -> Ended:
        end = Ended()
        caller = Caller(make(), ceiling=concurrency, rng=random.Random(7), patience=patience)
        held = Held()

        async def work(number: int) -> None:
            try:
                await caller(request(number))
            except CallFailed as failed:
                reason = str(failed.reason)

                async def record() -> None:
                    end.outcomes[reason] += 1

                if is_failing(reason):
                    held.add(caller.fuse, record)
                else:
                    await record()
                    await held.release()
                return
            end.outcomes["answer"] += 1
            await held.release()

        try:
            await run_pool(range(attempts), work, concurrency)
            await held.release(ended=True)
        except (EndpointDenied, EndpointLost) as stop:
            end.stop = stop
        end.seconds, end.calls, end.notes = now(), caller.calls, caller.notes
        assert caller.servers.open == 0 or end.stop
        return end

    return run_virtual(main())


# --- Slow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "seconds"), [(4, 25.0), (1, 25.0), (2, 50.0), (8, 100.0), (16, 30.0)])
def test_a_slow_server_loses_no_attempt_at_default_flags(slots: int, seconds: float) -> None:
    end = carry_out(lambda: Simulated(slots=slots, seconds=seconds), 300)
    assert end.outcomes == {"answer": 300}
    # Little of it was asked in vain.
    assert end.calls < 300 * 1.6
    assert end.seconds < 1.5 * 300 * seconds / slots + 300


def test_one_request_in_twenty_that_never_ends_does_not_throttle_the_rest() -> None:
    rng = random.Random(3)

    class Sometimes(Simulated):
        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            if rng.random() < 0.05:
                await asyncio.sleep(DEADLINE)
                raise ModelError(FailureReason.TIMEOUT, transient=True)
            return await super().generate(batch)

    end = carry_out(Sometimes, 3000)
    assert end.outcomes == {"answer": 3000}
    assert end.seconds < 900


def test_a_server_that_hangs_for_a_minute_is_waited_for() -> None:
    class Hanging(Simulated):
        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            if 10 <= now() < 140:
                try:
                    async with asyncio.timeout(DEADLINE):
                        await asyncio.sleep(140 - now())
                except TimeoutError:
                    raise ModelError(FailureReason.TIMEOUT, transient=True) from None
            return await super().generate(batch)

    end = carry_out(Hanging, 2000)
    assert end.outcomes == {"answer": 2000}
    assert end.seconds < 600


# --- Limited -------------------------------------------------------------------------------------------------------


class PerMinute(Simulated):
    """So many requests a minute, and then a 429 that says how long it takes."""

    def __init__(self, requests: int, *, told: bool = True) -> None:
        super().__init__()
        self._left: dict[int, int] = {}
        self._requests, self._told = requests, told

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        minute = int(now() // 60)
        if self._left.setdefault(minute, self._requests) <= 0:
            self.asked.append(now())
            wait = 60 * (minute + 1) - now() if self._told else None
            raise ModelError(FailureReason.RATE_LIMITED, transient=True, retry_after=wait)
        self._left[minute] -= 1
        return await super().generate(batch)


@pytest.mark.parametrize(("requests", "attempts"), [(15, 40), (15, 300), (3, 60), (60, 600)])
def test_a_limit_per_minute_whose_wait_is_told_loses_no_attempt(requests: int, attempts: int) -> None:
    end = carry_out(lambda: PerMinute(requests), attempts)
    assert end.outcomes == {"answer": attempts}
    assert end.seconds < 60 * (1.4 * attempts / requests + 2)


def test_a_limit_per_minute_that_tells_nothing_loses_few() -> None:
    end = carry_out(lambda: PerMinute(60, told=False), 600)
    assert end.outcomes["answer"] > 580


@finding(11)
def test_a_storm_of_429_that_name_short_waits_ends_each_attempt_after_six_tries() -> None:
    """80 % at random: six tries lose 26 % of the attempts, whatever the waits; the same command asks them again."""
    rng = random.Random(5)
    end = carry_out(
        lambda: Simulated(
            seconds=0.1,
            fault=lambda at: (
                ModelError(FailureReason.RATE_LIMITED, transient=True, retry_after=1.0) if rng.random() < 0.55 else None
            ),
        ),
        300,
    )
    assert end.stop is None
    assert end.calls <= 300 * 6
    assert set(end.outcomes) <= {"answer", "rate_limited"}


# --- Down ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [gone, broken, sick])
@pytest.mark.parametrize("concurrency", [2, 8, 64])
def test_a_server_that_is_down_for_a_minute_costs_no_attempt(error: Callable[[], ModelError], concurrency: int) -> None:
    end = carry_out(lambda: Simulated(fault=between(5, 65, error)), 8 * concurrency, concurrency)
    if concurrency == 2 and error is not gone:
        # Two that fail may be the fault of what they ask: it takes a third to tell.
        assert end.outcomes["answer"] >= 14
    else:
        assert end.outcomes == {"answer": 8 * concurrency}
    assert 65 < end.seconds < 65 + 15
    assert end.calls < 8 * concurrency + 6 * concurrency + 20


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_a_server_that_is_gone_for_good_stops_the_run_and_records_nothing_of_it(concurrency: int) -> None:
    end = carry_out(lambda: Simulated(fault=between(3, 1e9, gone)), 20 * concurrency, concurrency)
    assert isinstance(end.stop, EndpointLost)
    assert "120 s" in str(end.stop)
    assert "SIMULATED_BASE_URL" in str(end.stop)
    assert set(end.outcomes) == {"answer"}
    assert 120 < end.seconds < 140


@pytest.mark.parametrize("error", [broken, sick])
def test_a_server_that_only_fails_from_then_on_stops_the_run_too(error: Callable[[], ModelError]) -> None:
    end = carry_out(lambda: Simulated(fault=between(3, 1e9, error)), 600)
    assert isinstance(end.stop, EndpointLost)
    assert set(end.outcomes) == {"answer"}
    assert end.seconds < 200


def test_without_patience_nothing_is_waited_for() -> None:
    end = carry_out(lambda: Simulated(fault=between(3, 1e9, gone)), 600, patience=0)
    assert isinstance(end.stop, EndpointLost)
    assert end.seconds < 30


def test_a_longer_patience_waits_longer() -> None:
    end = carry_out(lambda: Simulated(fault=between(3, 500, gone)), 300, patience=600)
    assert end.outcomes == {"answer": 300}


def test_a_question_that_always_breaks_the_server_ends_as_an_error_and_the_run_goes_on() -> None:
    """One at a time, so that nothing else says that the server is well: six tries, and no waiting for the patience."""

    class Breaking(Simulated):
        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            if 3 <= self.answered < 4 and len(self.asked) < 9:
                self.asked.append(now())
                raise sick()
            return await super().generate(batch)

    end = carry_out(Breaking, 30, concurrency=1)
    assert end.outcomes == {"answer": 29, "server_error": 1}
    assert end.seconds < 60


# --- Several servers -----------------------------------------------------------------------------------------------


def test_several_servers_share_the_work_by_what_is_in_flight() -> None:
    fast, slow = Simulated(slots=8, seconds=1), Simulated(slots=8, seconds=4)
    end = carry_out(lambda: Several(fast, slow), 400, concurrency=16)
    assert end.outcomes == {"answer": 400}
    assert 2.5 < fast.answered / slow.answered < 6


def test_one_that_fails_is_drained_and_comes_back_when_it_recovers() -> None:
    steady, shaky = Simulated(), Simulated(fault=between(10, 40, gone))
    end = carry_out(lambda: Several(steady, shaky), 4000, concurrency=64)
    assert end.outcomes == {"answer": 4000}
    down = [at for at in shaky.asked if 11 < at < 40]
    assert 2 <= len(down) <= 8  # probes
    assert sum(at >= 40 for at in shaky.asked) > 300


@pytest.mark.parametrize("error", [gone, broken, sick, a_page])
def test_one_that_was_never_there_takes_no_part(error: Callable[[], ModelError]) -> None:
    end = carry_out(lambda: Several(Simulated(), Simulated(fault=between(0, 1e9, error))), 600, concurrency=16)
    assert end.outcomes == {"answer": 600}
    assert end.seconds < 60


@pytest.mark.parametrize(
    "reason",
    [
        FailureReason.UNAUTHORIZED,
        FailureReason.NOT_FOUND,
        FailureReason.QUOTA,
        FailureReason.RATE_LIMITED,
        FailureReason.REDIRECT,
    ],
)
@pytest.mark.parametrize(("start", "patience"), [(0, 120.0), (5, 120.0), (0, 0.0)])
def test_one_that_turns_calls_away_costs_no_attempt(reason: FailureReason, start: float, patience: float) -> None:
    again = reason is FailureReason.RATE_LIMITED
    denied = between(start, 1e9, lambda: ModelError(reason, transient=again, note="no such thing"))
    first = Simulated(fault=denied)
    end = carry_out(lambda: Several(first, Simulated(seconds=2)), 600, concurrency=16, patience=patience)
    assert end.outcomes == {"answer": 600}
    assert end.calls < 600 + 60
    assert end.notes == (f"openai-api/simulated/m: server 1 of 2 is passed over: {reason} (no such thing)",)


def test_one_at_its_limit_is_asked_again_when_it_said_and_the_others_go_on() -> None:
    limited = between(5, 65, lambda: ModelError(FailureReason.RATE_LIMITED, transient=True, retry_after=65 - now()))
    first = Simulated(fault=limited)
    end = carry_out(lambda: Several(first, Simulated(seconds=2)), 4000, concurrency=64)
    assert end.outcomes == {"answer": 4000}
    assert [at for at in first.asked if 6 < at < 65] == []
    assert sum(at >= 65 for at in first.asked) > 300


def test_only_when_all_are_out_the_run_waits_and_then_stops() -> None:
    one, two = Simulated(fault=between(5, 1e9, gone)), Simulated(fault=between(20, 1e9, gone))
    end = carry_out(lambda: Several(one, two), 4000)
    assert isinstance(end.stop, EndpointLost)
    assert 140 <= end.seconds < 160


def test_all_denied_from_the_start_is_denied() -> None:
    denied = between(0, 1e9, lambda: ModelError(FailureReason.UNAUTHORIZED, note="no such key"))
    end = carry_out(lambda: Several(Simulated(fault=denied), Simulated(fault=denied)), 100)
    assert isinstance(end.stop, EndpointDenied)
    assert "no such key" in str(end.stop)
    assert end.outcomes == {}


def test_a_few_questions_that_break_the_server_at_the_end_of_a_run_are_not_waited_for() -> None:
    """Seven of seventy, when all others are done: they end with their own six tries."""

    class Breaking(Simulated):
        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            if any(f"item {number}?" in batch[0].messages[-1].content for number in range(63, 70)):
                self.asked.append(now())
                raise sick()
            return await super().generate(batch)

    end = carry_out(lambda: Breaking(seconds=0.01), 70)
    assert end.outcomes == {"answer": 63, "server_error": 7}
    assert end.seconds < 20
