"""Single calls gathered into batches, for a model that answers many at once. On a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.engine import Caller, LimitReached, Prices, Spending
from redinstruct.engine.batches import GATHER_SECONDS, Batcher
from redinstruct.errors import CallFailed
from redinstruct.models import ModelError, Reply, Request
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.virtual_time import now, run_virtual


def request(number: int) -> Request:
    return Request((Message("user", str(number)),), Sampling())


class Local:
    """A local model: answers a batch after a second, by repeating the questions."""

    id = "hf/fake@0"

    def __init__(self, batch_size: int, answer: Callable[[list[str]], Sequence[Reply]] | None = None) -> None:
        self.batch_size = batch_size
        self.batches: list[list[str]] = []
        self.open = self.closed = 0
        self._answer = answer or (lambda texts: [Reply(text, "stop") for text in texts])

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        assert self.open == 0, "one batch at a time"
        texts = [r.messages[-1].content for r in batch]
        self.batches.append(texts)
        self.open += 1
        try:
            await asyncio.sleep(1)
            return self._answer(texts)
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        assert self.open == 0, "closed under a running batch"
        self.closed += 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(2, 9))
def test_each_caller_gets_its_own_answer_in_full_batches_in_the_order_of_calls(calls: int, size: int) -> None:
    async def main() -> None:
        model = Local(size)
        batcher = Batcher(model)
        replies = await asyncio.gather(*(batcher(request(n)) for n in range(calls)))
        assert [reply.text for reply in replies] == [str(n) for n in range(calls)]
        assert [text for batch in model.batches for text in batch] == [str(n) for n in range(calls)]
        assert all(len(batch) == size for batch in model.batches[:-1])
        assert len(model.batches) == -(-calls // size)

    run_virtual(main())


def test_a_lone_call_waits_only_a_moment() -> None:
    async def main() -> float:
        await Batcher(Local(8))(request(1))
        return now()

    assert run_virtual(main()) <= 1 + 2 * GATHER_SECONDS


def test_callers_that_come_back_one_commit_later_share_a_batch_again() -> None:
    async def main() -> list[int]:
        model = Local(4)
        batcher = Batcher(model)

        async def worker(number: int) -> None:
            for _ in range(5):
                await batcher(request(number))
                await asyncio.sleep(0.005 * number)

        await asyncio.gather(*(worker(n) for n in range(4)))
        return [len(batch) for batch in model.batches]

    assert run_virtual(main()) == [4] * 5


def test_a_failure_is_shared_by_its_batch_and_by_no_other() -> None:
    def answer(texts: list[str]) -> list[Reply]:
        if "0" in texts:
            raise ModelError(FailureReason.LOCAL_MODEL, note="out of memory")
        return [Reply(text) for text in texts]

    async def main() -> None:
        batcher = Batcher(Local(3, answer))
        ends = await asyncio.gather(*(batcher(request(n)) for n in range(6)), return_exceptions=True)
        assert all(isinstance(end, ModelError) for end in ends[:3])
        assert ends[3:] == [Reply("3"), Reply("4"), Reply("5")]

    run_virtual(main())


@pytest.mark.parametrize("wrong", [0, 1, 4])
def test_a_model_that_answers_another_number_fails_and_nobody_waits_for_ever(wrong: int) -> None:
    async def main() -> None:
        batcher = Batcher(Local(3, lambda _: [Reply("x")] * wrong))
        ends = await asyncio.gather(*(batcher(request(n)) for n in range(5)), return_exceptions=True)
        assert [getattr(end, "reason", None) for end in ends] == [FailureReason.LOCAL_MODEL] * 5

    run_virtual(main())


def test_a_failure_becomes_a_typed_one_of_one_try() -> None:
    def answer(texts: list[str]) -> list[Reply]:
        raise ModelError(FailureReason.LOCAL_MODEL, note="out of memory")

    async def main() -> None:
        with pytest.raises(CallFailed) as caught:
            await Caller(Local(2, answer), ceiling=4)(request(1))
        assert (caught.value.reason, caught.value.tries) == (FailureReason.LOCAL_MODEL, 1)

    run_virtual(main())


def test_who_is_cancelled_before_its_batch_is_left_out_and_after_it_misses_nothing_of_the_others() -> None:
    async def main() -> None:
        model = Local(3)
        batcher = Batcher(model)
        calls = [asyncio.create_task(batcher(request(n))) for n in range(5)]
        await asyncio.sleep(0)
        calls[1].cancel()  # waits for the first batch
        await asyncio.sleep(0.5)
        calls[0].cancel()  # is in the batch under way
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends[:2]] == [asyncio.CancelledError] * 2
        assert ends[2:] == [Reply(str(n), "stop") for n in (2, 3, 4)]
        assert all("1" not in batch for batch in model.batches)

    run_virtual(main())


def test_closing_ends_the_batch_under_way_and_cancels_everybody() -> None:
    async def main() -> None:
        model = Local(2)
        caller = Caller(model, ceiling=8)
        calls = [asyncio.create_task(caller(request(n))) for n in range(5)]
        await asyncio.sleep(0.5)
        await caller.aclose()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        assert model.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_after_a_pause_the_next_call_starts_anew() -> None:
    async def main() -> None:
        batcher = Batcher(Local(4))
        for number in range(3):
            assert (await batcher(request(number))).text == str(number)
            await asyncio.sleep(10)

    run_virtual(main())


def test_the_calls_of_a_local_model_count_and_cost_what_they_took() -> None:
    async def main() -> None:
        answers = {"0": Reply("a", "stop", 3, 2), "1": Reply("b", "stop", 1, 1)}
        caller = Caller(Local(4, lambda texts: [answers[text] for text in texts]), ceiling=8, prices=Prices(1e6, 1e6))
        spending = Spending(max_calls=2)
        with await spending.begin(2, 0.0) as allowance:
            await asyncio.gather(*(caller(request(n), allowance) for n in range(2)))
            assert (spending.calls, spending.spent) == (2, 7.0)
            with pytest.raises(LimitReached):
                await caller(request(2), allowance)
        assert caller.calls == 2

    run_virtual(main())
