"""A worklist: asked under limits, held back while a model fails, committed, told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from redinstruct.engine import Calling, Limits, Party, Prices, Spending, Worklist
from redinstruct.engine.limits import LimitReached
from redinstruct.errors import CallFailed, EndpointDenied, UsageError
from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.progress import Progress
from redinstruct.types import FailureReason, Message, Sampling

REQUEST = Request((Message("user", "What colour is it?"),), Sampling(max_tokens=8))


class Fails:
    """Fails as told, then answers."""

    id, batch_size = "function/fails", 1

    def __init__(self, *reasons: FailureReason) -> None:
        self.reasons = list(reasons)

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        if self.reasons:
            raise ModelError(self.reasons.pop(0))
        return [Reply("blue", "stop", 4, 1) for _ in batch]

    async def aclose(self) -> None:
        pass


def test_a_call_that_fails_is_told_as_one_with_its_tries() -> None:
    async def go() -> None:
        work = Worklist({"target": Party(Fails(FailureReason.BAD_REQUEST))}, Limits())
        with pytest.raises(CallFailed) as failed:
            await work.ask("target", REQUEST)
        assert (failed.value.reason, failed.value.tries) == (FailureReason.BAD_REQUEST, 1)
        assert failed.value.seconds > 0
        second = await work.ask("target", REQUEST)
        assert (second.reply.text, second.tries, work.calls) == ("blue", 1, 2)

    asyncio.run(go())


def test_calls_that_belong_together_add_up_their_tries_failed_ones_too() -> None:
    async def go() -> None:
        work = Worklist({"judge": Party(Fails())}, Limits())
        call = Calling(work, "judge")
        await call(REQUEST)
        work.callers["judge"].model.reasons = [FailureReason.BAD_REQUEST]  # type: ignore[attr-defined]
        with pytest.raises(CallFailed):
            await call(REQUEST)
        assert call.tries == 2

    asyncio.run(go())


def test_a_role_that_nobody_has_is_said() -> None:
    with pytest.raises(UsageError, match="--judge-model"):
        asyncio.run(Worklist({}, Limits()).ask("judge", REQUEST))


def test_a_call_without_an_allowance_is_paid_for_by_itself() -> None:
    async def go() -> None:
        spending = Spending(2)
        work = Worklist({"target": Party(Fails(), Prices(1.0, 1.0))}, Limits(), spending)
        await work.ask("target", REQUEST)
        with await work.set_aside(1, 0.0) as allowance:
            await work.ask("target", REQUEST, allowance)
        assert (spending.calls, work.limited) == (2, True)
        with pytest.raises(LimitReached):
            await work.ask("target", REQUEST)

    asyncio.run(go())


def test_what_failed_for_a_failing_model_is_committed_once_it_answers_again_or_never() -> None:
    async def go(*, answers: bool) -> list[str]:
        committed: list[str] = []
        model = Fails(FailureReason.NOT_FOUND)
        work = Worklist({"target": Party(model)}, Limits())

        with pytest.raises(CallFailed) as failed:
            await work.ask("target", REQUEST)
        async with work.writer:
            assert not await work.record("target", failed.value.reason, committed.extend, "failed")
            assert committed == []
            if answers:
                await work.ask("target", REQUEST)
                assert await work.record("target", None, committed.extend, "answered")
            else:
                with pytest.raises(EndpointDenied):
                    await work.finish()
        return committed

    assert asyncio.run(go(answers=True)) == ["answered", "failed"]
    assert asyncio.run(go(answers=False)) == []


def test_progress_says_what_is_done_and_how_it_came_out() -> None:
    heard: list[tuple[int, int, dict[str, int], str]] = []

    def hear(p: Progress) -> None:
        heard.append((p.done, p.calls, dict(p.labels), p.stage))

    async def go() -> None:
        work = Worklist({"target": Party(Fails())}, Limits(concurrency=2), on_progress=hear, progress=Progress(5, 8))

        async def one(number: int) -> None:
            await work.ask("target", REQUEST)
            work.tell("asking", label="odd" if number % 2 else "even")

        assert await work.carry_out(range(3), one, 3)

    asyncio.run(go())
    assert heard[-1][0] == 8
    assert heard[-1][1:] == (3, {"even": 2, "odd": 1}, "asking")
