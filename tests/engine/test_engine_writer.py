"""The single writer: what it acknowledges is committed, what is queued is committed whatever happens to who waits.

On the real clock: the commits run in a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from redinstruct.engine import GroupWriter
from redinstruct.errors import StoreError
from redinstruct.types import Completion, Verdict


class FakeStore:
    """Remembers groups of rows. ``hold`` keeps commits waiting; ``broken`` makes them fail."""

    def __init__(self) -> None:
        self.completions: list[list[Any]] = []
        self.verdicts: list[list[Any]] = []
        self.threads = set[int]()
        self.hold: threading.Event | None = None
        self.holding = threading.Event()
        self.broken: Exception | None = None

    def _commit(self, groups: list[list[Any]], rows: Sequence[Any]) -> None:
        self.threads.add(threading.get_ident())
        if self.hold is not None:
            self.holding.set()
            assert self.hold.wait(5)
        if self.broken is not None:
            raise self.broken
        groups.append(list(rows))

    def commit_completions(self, rows: Sequence[Any]) -> None:
        self._commit(self.completions, rows)

    def commit_verdicts(self, rows: Sequence[Any]) -> None:
        self._commit(self.verdicts, rows)

    def rows(self) -> list[int]:
        return [row[0] for group in self.completions for row in group]


def answer(number: int) -> tuple[int, int, Completion]:
    return number, 1, Completion("text", raw="an answer")


def verdict(number: int) -> tuple[int, int, int, int, Verdict]:
    return number, 1, 1, 1, Verdict("harmful")


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_what_is_committed_is_told_though_whoever_waited_was_stopped() -> None:
    """Ctrl-C ends the workers at once; what they had queued is committed, and counts in what is said."""

    async def main() -> list[int]:
        store, told = FakeStore(), list[int]()
        store.hold = threading.Event()
        async with GroupWriter() as write:
            tasks = [
                asyncio.create_task(write.put(store.commit_completions, answer(n), partial(told.append, n)))
                for n in range(5)
            ]
            await until(store.holding.is_set)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert told == []
            store.hold.set()
        assert store.rows() == [0, 1, 2, 3, 4]
        return told

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_who_tells_may_fail_and_whoever_waits_hears_of_it() -> None:
    def fails() -> None:
        raise KeyError("the listener")

    async def main() -> None:
        store = FakeStore()
        async with GroupWriter() as write:
            with pytest.raises(KeyError):
                await write.put(store.commit_completions, answer(1), fails)

    asyncio.run(main())


def test_a_row_is_acknowledged_after_its_commit_and_not_before() -> None:
    async def main() -> None:
        store = FakeStore()
        store.hold = threading.Event()
        async with GroupWriter() as write:
            task = asyncio.create_task(write.put(store.commit_completions, answer(1)))
            await until(store.holding.is_set)
            await asyncio.sleep(0.02)
            assert not task.done()
            assert store.rows() == []
            store.hold.set()
            await task
            assert store.rows() == [1]

    asyncio.run(main())


def test_what_gathers_during_a_commit_goes_together_in_the_next_one() -> None:
    async def main() -> None:
        store = FakeStore()
        store.hold = threading.Event()
        async with GroupWriter() as write:
            first = asyncio.create_task(write.put(store.commit_completions, answer(0)))
            await until(store.holding.is_set)
            rest = [asyncio.create_task(write.put(store.commit_completions, answer(n))) for n in range(1, 50)]
            judged = [asyncio.create_task(write.put(store.commit_verdicts, verdict(n))) for n in range(20)]
            await asyncio.sleep(0.02)
            store.hold.set()
            await asyncio.gather(first, *rest, *judged)
        assert [len(group) for group in store.completions] == [1, 49]
        assert [len(group) for group in store.verdicts] == [20]
        assert store.rows() == list(range(50))

    asyncio.run(main())


def test_one_thread_commits_and_it_is_not_the_loops() -> None:
    async def main() -> None:
        store = FakeStore()
        async with GroupWriter() as write:
            for number in range(5):
                await write.put(store.commit_completions, answer(number))
                await write.put(store.commit_verdicts, verdict(number))
        assert len(store.threads) == 1
        assert threading.get_ident() not in store.threads

    asyncio.run(main())


def test_a_store_error_reaches_everybody_who_waits_for_that_group() -> None:
    async def main() -> None:
        store = FakeStore()
        store.broken = StoreError("the disk is full")
        async with GroupWriter() as write:
            ends = await asyncio.gather(
                *(write.put(store.commit_completions, answer(n)) for n in range(9)), return_exceptions=True
            )
            assert all(isinstance(end, StoreError) and "disk is full" in str(end) for end in ends)
            store.broken = None
            await write.put(store.commit_completions, answer(9))
        assert store.rows() == [9]

    asyncio.run(main())


def test_a_fault_of_ours_is_a_store_error_too_and_nobody_waits_for_ever() -> None:
    async def main() -> None:
        store = FakeStore()
        store.broken = KeyError("a bug")
        async with GroupWriter() as write:
            with pytest.raises(StoreError, match="KeyError"):
                await asyncio.wait_for(write.put(store.commit_completions, answer(1)), 5)

    asyncio.run(main())


def test_a_failed_answer_does_not_take_the_verdicts_of_the_same_group_with_it() -> None:
    class HalfBroken(FakeStore):
        def commit_completions(self, rows: Sequence[Any]) -> None:
            raise StoreError("no")

    async def main() -> None:
        store = HalfBroken()
        async with GroupWriter() as write:
            ends = await asyncio.gather(
                write.put(store.commit_completions, answer(1)),
                write.put(store.commit_verdicts, verdict(2)),
                return_exceptions=True,
            )
        assert isinstance(ends[0], StoreError)
        assert ends[1] is None
        assert store.verdicts == [[verdict(2)]]

    asyncio.run(main())


def test_leaving_commits_what_is_queued_though_nobody_waits_for_it_any_more() -> None:
    async def main() -> None:
        store = FakeStore()
        store.hold = threading.Event()
        async with GroupWriter() as write:
            tasks = [asyncio.create_task(write.put(store.commit_completions, answer(n))) for n in range(10)]
            await until(store.holding.is_set)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            store.hold.set()
        assert sorted(store.rows()) == list(range(10))

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2, 5])
def test_cancellations_wait_for_the_commit_and_are_not_lost(times: int) -> None:
    """Ctrl-C, and again, while the last group is being written: it is written, and then the task is cancelled."""

    async def main() -> None:
        store = FakeStore()
        store.hold = threading.Event()

        async def session() -> None:
            async with GroupWriter() as write:
                task = asyncio.create_task(write.put(store.commit_completions, answer(1)))
                await until(store.holding.is_set)
                task.cancel()

        running = asyncio.create_task(session())
        await until(store.holding.is_set)
        await asyncio.sleep(0.01)
        for _ in range(times):
            running.cancel()
            await asyncio.sleep(0.005)
        assert not running.done()
        store.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert store.rows() == [1]

    asyncio.run(main())


def test_an_exception_inside_leaves_no_thread_behind() -> None:
    async def main() -> None:
        before = threading.active_count()

        async def session() -> None:
            async with GroupWriter() as write:
                await write.put(FakeStore().commit_completions, answer(1))
                raise RuntimeError("inside")

        with pytest.raises(RuntimeError, match="inside"):
            await session()
        assert threading.active_count() == before

    asyncio.run(main())
