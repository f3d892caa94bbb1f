"""What bounds the calls: the adaptive gate, and the limits of calls and money. All on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.engine import AdaptiveGate, LimitReached, Prices, Spending
from redinstruct.models import Reply, Request
from redinstruct.models.base import longest_answer
from redinstruct.types import Message, Sampling
from tests.support.virtual_time import NothingLeft, now, run_virtual

QUIET = settings(deadline=None, max_examples=60)


def request(text: str = "What is blue?", max_tokens: int = 100) -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=max_tokens))


# --- The virtual clock itself -------------------------------------------------------------------------------------


def test_an_hour_passes_in_no_time_and_waiting_for_nothing_is_an_error() -> None:
    async def wait_an_hour() -> float:
        await asyncio.sleep(3600)
        return now()

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    assert run_virtual(wait_an_hour()) == pytest.approx(3600)
    with pytest.raises(NothingLeft):
        run_virtual(wait_for_ever())


# --- The gate -----------------------------------------------------------------------------------------------------


async def drive(
    gate: AdaptiveGate, workers: int, calls: int, answer: Callable[[], bool], seconds: float = 1.0
) -> list[tuple[float, int]]:
    """Each worker makes so many calls; ``answer`` says whether one is a 429. Returns (time, limit) after each."""
    seen: list[tuple[float, int]] = []

    async def work() -> None:
        for _ in range(calls):
            await gate.enter()
            await asyncio.sleep(seconds)
            gate.leave(limited=answer())
            seen.append((now(), int(gate.limit)))

    await asyncio.gather(*(work() for _ in range(workers)))
    return seen


def test_never_more_than_the_limit_are_inside() -> None:
    async def main() -> None:
        gate, rng, most = AdaptiveGate(8), random.Random(1), 0

        async def work() -> None:
            nonlocal most
            for _ in range(40):
                await gate.enter()
                assert gate.open <= 8
                most = max(most, gate.open)
                await asyncio.sleep(rng.random())
                gate.leave(limited=rng.random() < 0.5)

        await asyncio.gather(*(work() for _ in range(30)))
        assert most == 8
        assert gate.open == 0

    run_virtual(main())


def test_first_come_first_served() -> None:
    async def main() -> list[int]:
        gate, order = AdaptiveGate(2), list[int]()

        async def work(number: int) -> None:
            await gate.enter()
            order.append(number)
            await asyncio.sleep(1)
            gate.leave(limited=False)

        await asyncio.gather(*(work(i) for i in range(20)))
        return order

    assert run_virtual(main()) == list(range(20))


def test_a_newcomer_does_not_overtake_one_who_waits() -> None:
    async def main() -> list[str]:
        gate, order = AdaptiveGate(1), list[str]()

        async def enter(name: str) -> None:
            await gate.enter()
            order.append(name)

        await gate.enter()
        waiting = asyncio.create_task(enter("waiting"))
        await asyncio.sleep(0)
        gate.leave(limited=False)
        newcomer = asyncio.create_task(enter("newcomer"))
        await waiting
        gate.leave(limited=False)
        await newcomer
        return order

    assert run_virtual(main()) == ["waiting", "newcomer"]


def test_who_is_cancelled_while_another_leaves_is_cancelled_and_nothing_else() -> None:
    """The one who leaves passes over the cancelled one, before the cancelled one could take itself off the list."""

    async def main() -> None:
        gate = AdaptiveGate(1)
        await gate.enter()
        first, second = (asyncio.create_task(gate.enter()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        gate.leave(limited=False)
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert gate.open == 1

    run_virtual(main())


def test_a_place_handed_to_one_who_is_cancelled_goes_to_the_next() -> None:
    async def main() -> None:
        gate = AdaptiveGate(1)
        await gate.enter()
        first, second = (asyncio.create_task(gate.enter()) for _ in range(2))
        await asyncio.sleep(0)
        gate.leave(limited=False)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert gate.open == 1

    run_virtual(main())


@QUIET
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_no_wake_up_is_lost_whoever_is_cancelled_whenever(ceiling: int, seed: int) -> None:
    """Random workers are cancelled at random moments; a lost place would leave the rest waiting for ever."""

    async def main() -> None:
        gate, rng, finished = AdaptiveGate(ceiling), random.Random(seed), set[int]()

        async def work(number: int) -> None:
            for _ in range(3):
                await gate.enter()
                try:
                    await asyncio.sleep(rng.choice((0, 0, 1)))
                finally:
                    gate.leave(limited=rng.random() < 0.4)
            finished.add(number)

        tasks = [asyncio.create_task(work(i)) for i in range(20)]
        doomed = set(rng.sample(range(20), 8))
        for number in doomed:
            await asyncio.sleep(rng.choice((0, 0, 0, 1)))
            tasks[number].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        assert finished >= set(range(20)) - doomed
        assert gate.open == 0

    run_virtual(main())


def test_the_gate_collapses_under_a_hard_rate_limit_and_recovers() -> None:
    async def main() -> None:
        gate = AdaptiveGate(64)
        await drive(gate, 64, 10, lambda: True)
        assert gate.limit == 1.0
        assert gate.pressure == 8.0
        await drive(gate, 64, 60, lambda: False)
        assert gate.limit == 64.0
        assert gate.pressure == 1.0

    run_virtual(main())


@pytest.mark.parametrize("ceiling", [8, 64, 256])
def test_the_gate_stays_wide_when_a_fifth_of_the_answers_are_429_at_random(ceiling: int) -> None:
    async def main() -> float:
        gate, rng = AdaptiveGate(ceiling), random.Random(7)
        seen = await drive(gate, ceiling, 4000 // ceiling, lambda: rng.random() < 0.2)
        return sum(limit for _, limit in seen) / len(seen)

    assert run_virtual(main()) > 0.7 * ceiling


def test_a_server_that_takes_ten_at_once_is_not_asked_by_sixty_four_for_long() -> None:
    """429 exactly while more than ten are open: the gate settles where a small share fails."""

    async def main() -> tuple[float, float]:
        gate, late = AdaptiveGate(64), [0, 0]

        async def work() -> None:
            for _ in range(60):
                await gate.enter()
                await asyncio.sleep(1)
                limited = gate.open > 10
                if now() > 40:
                    late[0] += 1
                    late[1] += limited
                gate.leave(limited=limited)

        await asyncio.gather(*(work() for _ in range(64)))
        return late[1] / late[0], gate.limit

    share, _ = run_virtual(main())
    assert share < 0.5


# --- Prices -------------------------------------------------------------------------------------------------------


def test_a_price_is_per_million_tokens_and_unknown_counts_cost_nothing() -> None:
    prices = Prices(read=3.0, written=15.0)
    assert prices.cost(1_000_000, 1_000_000) == 18.0
    assert prices.cost(None, 1000) == pytest.approx(0.015)
    assert prices.cost(None, None) == 0.0


@QUIET
@given(st.text(max_size=200) | st.just("\ud800"), st.integers(1, 4000))
def test_the_bound_takes_every_byte_for_a_token(text: str, max_tokens: int) -> None:
    prices = Prices(read=1.0, written=2.0)
    size = len(text.encode("utf-8", "surrogatepass"))
    assert prices.bound(request(text, max_tokens)) >= prices.cost(size, max_tokens)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({}, 7), (None, 7), ("text", 7), ({"max_tokens": 9}, 9), ({"max_tokens": None}, None), ({"max_tokens": -1}, None),
     ({"max_completion_tokens": 5}, 7), ({"max_tokens": None, "max_completion_tokens": 5}, 5), ({"n": 3}, 21),
     ({"n": 0}, 7), ({"max_tokens": "9"}, None)],
)  # fmt: skip
def test_what_a_model_may_write_is_what_its_options_let_it(options: object, tokens: int | None) -> None:
    """Whatever else a model of somebody's own calls its options."""
    assert longest_answer(SimpleNamespace(options=options), 7) == tokens


# --- Spending -----------------------------------------------------------------------------------------------------


def test_what_a_job_sets_aside_is_not_there_for_another() -> None:
    async def main() -> None:
        spending = Spending(max_calls=3)
        first = await spending.begin(2, 0.0)
        second = asyncio.create_task(spending.begin(2, 0.0))
        await asyncio.sleep(1)
        assert not second.done()
        with first:
            first.take(0.0)
        with await second as allowance:
            allowance.take(0.0)
            allowance.take(0.0)
        with pytest.raises(LimitReached):
            await spending.begin(1, 0.0)
        assert spending.calls == 3

    run_virtual(main())


def test_money_set_aside_is_not_there_for_another_either() -> None:
    async def main() -> None:
        spending = Spending(budget=10.0)
        with await spending.begin(1, 6.0):
            second = asyncio.create_task(spending.begin(1, 6.0))
            await asyncio.sleep(1)
            assert not second.done()
        with await second as allowance:
            allowance.take(6.0)
        with pytest.raises(LimitReached):
            await spending.begin(1, 6.0)
        assert spending.spent == 6.0

    run_virtual(main())


def test_a_retry_pays_beyond_its_allowance_as_long_as_there_is_room() -> None:
    async def main() -> None:
        spending = Spending(max_calls=2)
        with await spending.begin(1, 0.0) as allowance:
            allowance.take(0.0)
            allowance.take(0.0)
            with pytest.raises(LimitReached):
                allowance.take(0.0)
        assert spending.calls == 2

    run_virtual(main())


def test_a_settled_answer_makes_room_and_wakes_who_waits() -> None:
    async def main() -> float:
        prices = Prices(read=0.0, written=1e6)  # a dollar a token
        spending = Spending(budget=10.0)
        first = await spending.begin(1, 8.0)
        first.take(8.0)
        second = asyncio.create_task(spending.begin(1, 8.0))
        await asyncio.sleep(5)
        assert not second.done()
        first.settle(8.0, Reply("x", tokens_in=5, tokens_out=2), prices, billed=True)
        await second
        return spending.spent

    assert run_virtual(main()) == 2.0


@pytest.mark.parametrize(
    ("reply", "billed", "spent"),
    [
        (Reply("x", tokens_in=10, tokens_out=3), True, 13.0),
        (Reply("x", tokens_out=3), True, 50.0),  # half a count is none: it stays at the bound
        (Reply("x", tokens_in=10), True, 50.0),
        (Reply("x"), True, 50.0),
        (None, True, 50.0),  # a time-out: nobody knows what it cost
        (None, False, 0.0),  # a 429: nobody bills for it
    ],
)
def test_a_request_is_settled_at_its_tokens_else_at_its_bound(reply: Reply | None, billed: bool, spent: float) -> None:
    async def main() -> float:
        spending = Spending(budget=100.0)
        with await spending.begin(1, 50.0) as allowance:
            allowance.take(50.0)
            allowance.settle(50.0, reply, Prices(read=1e6, written=1e6), billed=billed)
        return spending.spent

    assert run_virtual(main()) == spent


def test_what_the_run_has_cost_before_counts() -> None:
    async def main() -> None:
        spending = Spending(budget=1.0, spent=0.95)
        await spending.begin(1, 0.05)
        with pytest.raises(LimitReached):
            await Spending(budget=1.0, spent=0.95).begin(1, 0.06)

    run_virtual(main())


def test_sums_of_floats_do_not_eat_a_budget_that_is_just_enough() -> None:
    async def main() -> None:
        spending = Spending(budget=1.0)
        shares = [0.1, 0.2, 0.3, 0.07, 0.01]
        for share in shares * 50:
            with await spending.begin(1, share), await spending.begin(1, share / 3):
                pass
        await spending.begin(1, 1.0)

    run_virtual(main())


def test_who_is_cancelled_while_waiting_for_money_takes_none() -> None:
    async def main() -> None:
        spending = Spending(max_calls=1)
        first = await spending.begin(1, 0.0)
        waiting = [asyncio.create_task(spending.begin(1, 0.0)) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        with first:
            pass
        await asyncio.wait(waiting, timeout=1)
        assert waiting[0].cancelled()
        assert [task.done() for task in waiting[1:]] == [True, False]
        with waiting[1].result():
            pass
        await waiting[2]

    run_virtual(main())


@QUIET
@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0.5, 30.0))
def test_concurrent_jobs_never_overrun_calls_or_budget(seed: int, max_calls: int, budget: float) -> None:
    async def main() -> None:
        rng, prices = random.Random(seed), Prices(read=1e6, written=1e6)
        spending = Spending(max_calls, budget)
        cut = 0

        def check() -> None:
            assert spending.calls <= max_calls
            assert spending.spent <= budget + 1e-9

        async def job() -> None:
            nonlocal cut
            bound = rng.uniform(0.0, 2.0)
            try:
                with await spending.begin(rng.randint(1, 2), bound) as allowance:
                    for _ in range(rng.randint(1, 4)):
                        allowance.take(bound)
                        check()
                        await asyncio.sleep(rng.random())
                        used = int(bound * rng.random())
                        reply = rng.choice((None, Reply("x"), Reply("x", tokens_in=0, tokens_out=used)))
                        allowance.settle(bound, reply, prices, billed=rng.random() < 0.7)
                        check()
            except LimitReached:
                cut += 1

        tasks = [asyncio.create_task(job()) for _ in range(25)]
        for task in rng.sample(tasks, 6):
            await asyncio.sleep(rng.choice((0, 0.1, 0.5)))
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        check()

    run_virtual(main())
