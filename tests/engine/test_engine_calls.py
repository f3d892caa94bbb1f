"""One call with everything around it: which failures are tried again, how often and after how long; the fuse.

All on a virtual clock. The schedules at the end are the promise about money (reliability A19): whatever an endpoint
does, there are never more requests than planned x 6, and no limit is overrun.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import cycle, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.engine import (
    Allowance,
    Answer,
    Caller,
    Fuse,
    Held,
    LimitReached,
    Prices,
    RetryPolicy,
    Spending,
    run_pool,
)
from redinstruct.engine.fuse import FAILING
from redinstruct.engine.retry import LONGEST_RETRY_AFTER, LONGEST_WAIT
from redinstruct.errors import CallFailed, EndpointDenied, EndpointLost
from redinstruct.models import ModelError, Reply, Request
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.virtual_time import now, run_virtual

REQUEST = Request((Message("user", "What is blue?"),), Sampling(max_tokens=10))
GOOD = Reply("The sky.", "stop", 4, 3)

TRANSIENT = {
    FailureReason.TIMEOUT,
    FailureReason.CONNECTION,
    FailureReason.UNREACHABLE,
    FailureReason.RATE_LIMITED,
    FailureReason.CONFLICT,
    FailureReason.SERVER_ERROR,
    FailureReason.INVALID_JSON,
}
NEVER_AGAIN = set(FailureReason) - TRANSIENT


class Fake:
    """An endpoint that plays a script: a reply, or an error to raise. It notes when it was asked."""

    id = "openai-api/fake/m"
    batch_size = 1

    def __init__(self, script: Iterator[Reply | ModelError], seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.asked_at: list[float] = []
        self.closed = 0
        self._script = script
        self._seconds = seconds

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        assert len(batch) == 1
        self.asked_at.append(now())
        step = next(self._script)
        await asyncio.sleep(self._seconds())
        if isinstance(step, ModelError):
            raise step
        return [step]

    async def aclose(self) -> None:
        self.closed += 1


def failure(reason: FailureReason, retry_after: float | None = None) -> ModelError:
    return ModelError(reason, transient=reason in TRANSIENT, retry_after=retry_after, note="as the endpoint said")


def play(*steps: Reply | ModelError) -> Iterator[Reply | ModelError]:
    return iter(steps)


def again(step: Reply | ModelError) -> Iterator[Reply | ModelError]:
    steps: list[Reply | ModelError] = [step]
    return cycle(steps)


def ask(*script: Reply | ModelError, seed: int = 0) -> tuple[Answer | CallFailed, list[float]]:
    """One call against a script whose last step is repeated; how it ended, and when requests were sent."""

    def steps() -> Iterator[Reply | ModelError]:
        yield from script
        while True:
            yield script[-1]

    async def main() -> tuple[Answer | CallFailed, list[float]]:
        model = Fake(steps())
        caller = Caller(model, ceiling=4, rng=random.Random(seed))
        try:
            end: Answer | CallFailed = await caller(REQUEST)
        except CallFailed as failed:
            end = failed
        assert caller.calls == len(model.asked_at)
        assert caller.retries == caller.calls - 1
        return end, model.asked_at

    return run_virtual(main())


def waits(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


# --- Which failures are tried again --------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(TRANSIENT))
def test_what_may_pass_is_tried_six_times_and_no_more(reason: FailureReason) -> None:
    end, times = ask(failure(reason))
    assert isinstance(end, CallFailed)
    assert (end.reason, end.tries, end.note) == (reason, 6, "as the endpoint said")
    assert len(times) == 6


@pytest.mark.parametrize("reason", sorted(NEVER_AGAIN))
def test_what_will_not_pass_is_tried_once(reason: FailureReason) -> None:
    """400, 401, 403, 404 and 422 among them."""
    end, times = ask(failure(reason), GOOD)
    assert isinstance(end, CallFailed)
    assert (end.reason, end.tries) == (reason, 1)
    assert len(times) == 1


def test_the_sixth_try_may_succeed() -> None:
    end, times = ask(*[failure(FailureReason.SERVER_ERROR)] * 5, GOOD)
    assert end == Answer(GOOD, 6)
    assert len(times) == 6


def test_a_lasting_failure_among_passing_ones_ends_the_call_with_its_own_reason() -> None:
    end, _ = ask(failure(FailureReason.RATE_LIMITED), failure(FailureReason.UNPROCESSABLE), GOOD)
    assert isinstance(end, CallFailed)
    assert (end.reason, end.tries) == (FailureReason.UNPROCESSABLE, 2)


# --- After how long ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
def test_waits_double_with_jitter_between_half_and_whole(seed: int) -> None:
    _, times = ask(failure(FailureReason.SERVER_ERROR), seed=seed)
    for number, wait in enumerate(waits(times)):
        whole = 0.5 * 2**number
        assert whole / 2 - 1e-9 <= wait <= whole + 1e-9


def test_two_callers_do_not_come_back_in_the_same_instant() -> None:
    assert len({tuple(ask(failure(FailureReason.SERVER_ERROR), seed=seed)[1]) for seed in range(20)}) == 20


@pytest.mark.parametrize(("asked", "least"), [(1.0, 1.0), (30.0, 30.0), (120.0, 120.0), (121.0, 120.0), (1e9, 120.0)])
def test_retry_after_is_honoured_up_to_two_minutes(asked: float, least: float) -> None:
    end, times = ask(failure(FailureReason.RATE_LIMITED, asked), GOOD)
    assert isinstance(end, Answer)
    (wait,) = waits(times)
    assert least <= wait <= 1.1 * least


def test_retry_after_of_zero_does_not_use_up_six_tries_in_an_instant() -> None:
    _, times = ask(failure(FailureReason.RATE_LIMITED, 0.0))
    assert len(times) == 6
    assert times[-1] > 7


@given(
    st.integers(1, 6),
    st.none() | st.floats(0, 1e6) | st.floats(allow_nan=False),
    st.floats(1, 8),
    st.integers(0, 2**32),
)
def test_a_wait_is_never_sooner_than_asked_nor_longer_than_its_bounds(
    tries: int, retry_after: float | None, pressure: float, seed: int
) -> None:
    wait = RetryPolicy().wait(tries, retry_after, random.Random(seed), pressure)
    own = min(LONGEST_WAIT, 0.5 * 2 ** (tries - 1) * pressure)
    assert own / 2 <= wait <= max(own, 1.1 * LONGEST_RETRY_AFTER)
    if retry_after is None:
        assert wait <= own
    else:
        assert wait >= min(retry_after, LONGEST_RETRY_AFTER)


def test_pressure_stretches_the_waits_so_that_six_tries_reach_over_minutes() -> None:
    policy = RetryPolicy()
    assert sum(policy.wait(n, None, random.Random(0), 8.0) for n in range(1, 6)) > 60
    assert sum(policy.wait(n, None, random.Random(0), 1.0) for n in range(1, 6)) < 16


def test_a_call_that_waits_for_its_next_try_leaves_its_place_to_others() -> None:
    async def main() -> float:
        steps = play(failure(FailureReason.RATE_LIMITED, 100.0), GOOD, GOOD)
        caller = Caller(Fake(steps), ceiling=1, rng=random.Random(0))
        slow = asyncio.create_task(caller(REQUEST))
        await asyncio.sleep(0)
        await caller(REQUEST)
        done_at = now()
        await slow
        assert now() >= 100
        return done_at

    assert run_virtual(main()) < 1


# --- The fuse ------------------------------------------------------------------------------------------------------

NOT_FAILING = sorted(set(FailureReason) - FAILING)


def ended(reason: FailureReason, words: str | None = "as it said") -> CallFailed:
    return CallFailed(reason, note=words)


@given(st.lists(st.sampled_from(sorted(FAILING)), min_size=20, max_size=20))
def test_twenty_failing_attempts_and_no_other_are_denied(reasons: list[FailureReason]) -> None:
    fuse = Fuse("openai-api/fake/m")
    for reason in reasons[:-1]:
        fuse.ended(ended(reason))
    with pytest.raises(EndpointDenied, match="openai-api/fake/m") as caught:
        fuse.ended(ended(reasons[-1]))
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert "\n" not in line
    assert "as it said" in line
    assert "none of them was recorded" in line
    for reason in set(reasons[:5]) if len(set(reasons)) <= 5 else ():
        assert f"{reason} {reasons.count(reason)}" in line


@given(
    st.lists(st.sampled_from([None, *NOT_FAILING]), min_size=1, max_size=5),
    st.integers(0, 19),
    st.sampled_from(sorted(FAILING)),
)
def test_one_answer_and_it_takes_twenty_in_a_line_which_lose_the_endpoint(
    others: list[FailureReason | None], before: int, reason: FailureReason
) -> None:
    fuse = Fuse("m")
    for other in others:
        for _ in range(before):
            fuse.ended(ended(reason))
        fuse.ended(None if other is None else ended(other))
    for _ in range(19):
        fuse.ended(ended(reason))
    with pytest.raises(EndpointLost, match="20") as caught:
        fuse.ended(ended(reason))
    assert caught.value.exit_code == 11


def test_where_other_work_stands_already_nobody_is_denied() -> None:
    fuse = Fuse("judge", begun=True)
    fuse.ended(ended(FailureReason.NOT_FOUND))
    assert isinstance(fuse.stop(), EndpointLost)


@given(st.lists(st.sampled_from(["answer", "failing", "bad_request"]), max_size=60), st.booleans())
def test_a_failing_end_is_recorded_once_its_line_is_broken_and_not_before(ends: list[str], begun: bool) -> None:
    """Against a list of ends: what stands behind an answer is recorded, the line at the end is not."""
    recorded: list[int] = []

    async def main() -> None:
        fuse, held = Fuse("m", begun=begun), Held()
        lost: type[Exception] | None = None
        for number, end in enumerate(ends):

            async def record(number: int = number) -> None:
                recorded.append(number)

            failing = end == "failing"
            try:
                fuse.ended(None if end == "answer" else ended(FailureReason("not_found" if failing else "bad_request")))
            except (EndpointDenied, EndpointLost) as stop:
                lost = type(stop)
                break
            if failing:
                held.add(fuse, record)
            else:
                recorded.append(number)
                await held.release()
        done = ends[: number + 1] if ends and lost else ends
        line = next((n for n, end in enumerate(reversed(done)) if end != "failing"), len(done))
        assert sorted(recorded) == list(range(len(done) - line))
        if lost is not None:
            assert line == 20
            assert lost is (EndpointLost if begun or len(done) > 20 else EndpointDenied)
        elif line < len(done) or not done:
            await held.release(ended=True)
            assert sorted(recorded) == list(range(len(done)))
        else:
            with pytest.raises(EndpointLost if begun else EndpointDenied):
                await held.release(ended=True)
            assert recorded == []

    run_virtual(main())


@pytest.mark.parametrize("seed", range(5))
def test_an_address_at_which_nobody_answers_is_denied_soon_and_its_variable_is_named(seed: int) -> None:
    async def main() -> tuple[int, float]:
        model = Fake(again(failure(FailureReason.UNREACHABLE)))
        model.address_from = "FAKE_BASE_URL"  # type: ignore[attr-defined]
        caller = Caller(model, ceiling=64, rng=random.Random(seed))

        async def work(_: int) -> None:
            with suppress(CallFailed):
                await caller(REQUEST)

        with pytest.raises(EndpointDenied, match="FAKE_BASE_URL"):
            await run_pool(range(100), work, 64)
        return caller.calls, now()

    calls, seconds = run_virtual(main())
    # What was in flight, and what began while the first 20 ended.
    assert calls <= (64 + 19) * 6
    assert seconds < 20


@pytest.mark.parametrize("reason", ["unauthorized", "forbidden", "not_found", "quota"])
def test_the_fuse_stops_a_pool_with_no_more_than_its_width_of_further_requests(reason: str) -> None:
    async def main() -> int:
        caller = Caller(Fake(again(failure(FailureReason(reason))), lambda: 1.0), ceiling=64)

        async def work(_: int) -> None:
            with suppress(CallFailed):
                await caller(REQUEST)

        with pytest.raises(EndpointDenied):
            await run_pool(range(1000), work, 64)
        return caller.calls

    assert run_virtual(main()) <= 20 + 64


# --- Money ---------------------------------------------------------------------------------------------------------


def test_the_limit_is_looked_at_before_the_request_is_sent() -> None:
    async def main() -> None:
        model = Fake(iter([GOOD, GOOD]))
        caller, spending = Caller(model, ceiling=4), Spending(max_calls=1)
        with await spending.begin(1, 0.0) as allowance:
            await caller(REQUEST, allowance)
            with pytest.raises(LimitReached):
                await caller(REQUEST, allowance)
        assert len(model.asked_at) == 1
        assert caller.servers.open == 0

    run_virtual(main())


def test_a_cancelled_request_stays_paid_at_its_bound_and_gives_its_place_back() -> None:
    async def main() -> None:
        prices = Prices(read=0.0, written=1e5)
        caller = Caller(Fake(iter([GOOD]), lambda: 50.0), ceiling=1, prices=prices)
        spending = Spending(budget=5.0)
        with await spending.begin(1, 1.0) as allowance:
            call = asyncio.create_task(caller(REQUEST, allowance))
            await asyncio.sleep(1)
            call.cancel()
            await asyncio.wait([call])
        assert spending.spent == pytest.approx(prices.bound(REQUEST))
        assert caller.servers.open == 0

    run_virtual(main())


def schedule(rng: random.Random) -> Iterator[Reply | ModelError]:
    """What an endpoint may do, for ever: a mood, and answers drawn by it."""
    reasons = sorted(
        set(FailureReason)
        - {FailureReason.UNAUTHORIZED, FailureReason.FORBIDDEN, FailureReason.NOT_FOUND, FailureReason.UNREACHABLE}
    )
    mood = rng.choice(["good", "storm", "limited", "dead", "chaos"])
    share = {"good": 0.05, "storm": 0.3, "limited": 0.7, "dead": 1.0, "chaos": 0.6}[mood]
    while True:
        if rng.random() >= share:
            used = rng.randint(0, 10)
            yield rng.choice([Reply("x", "stop", rng.randint(0, 5), used), Reply("x", "stop", None, used), Reply("x")])
        else:
            reason = FailureReason.RATE_LIMITED if mood == "limited" else rng.choice(reasons)
            yield failure(reason, rng.choice([None, None, 0.0, 0.2, 3.0, 60.0, 1000.0]))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 4))])
def test_two_thousand_schedules_of_failures_never_overrun_calls_nor_money(part: int) -> None:
    """500 schedules a part: calls <= planned x 6, --max-calls and --budget kept, what is cut stays owed."""
    cuts = 0
    for seed in range(part * 500, part * 500 + 500):
        cuts += run_virtual(one_schedule(seed))
    assert 100 < cuts < 400


async def tries_of(caller: Caller, allowance: Allowance) -> int:
    try:
        return (await caller(REQUEST, allowance)).tries
    except CallFailed as failed:
        passing = FailureReason(failed.reason) in TRANSIENT
        return failed.tries if not passing or failed.tries == 6 else 1000


async def one_schedule(seed: int) -> bool:
    rng = random.Random(seed)
    planned, concurrency = rng.randint(1, 12), rng.randint(1, 6)
    max_calls = rng.choice([None, rng.randint(1, 2 * planned)])
    prices = Prices(read=rng.choice([0.0, 1e4]), written=1e5)
    bound = prices.bound(REQUEST)
    budget = rng.choice([None, bound * rng.uniform(0.5, planned)])
    spending = Spending(max_calls, budget)
    model = Fake(schedule(rng), lambda: rng.random())
    caller = Caller(model, ceiling=concurrency, prices=prices, rng=rng)
    recorded = set[int]()

    async def work(job: int) -> None:
        with await spending.begin(1, bound) as allowance:
            tries = await tries_of(caller, allowance)
            assert tries <= 6
            assert job not in recorded
            recorded.add(job)

    complete = await run_pool(range(planned), work, concurrency)
    assert caller.calls == len(model.asked_at) == spending.calls
    assert caller.calls <= planned * 6
    assert max_calls is None or caller.calls <= max_calls
    assert budget is None or spending.spent <= budget + 1e-9
    assert complete == (len(recorded) == planned)
    assert caller.servers.open == 0
    if not complete:
        assert max_calls is not None or budget is not None
    return not complete
