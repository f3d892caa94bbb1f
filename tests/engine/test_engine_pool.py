"""A fixed number of workers over a stream of jobs: at most N at once, and a clean end whatever happens."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.engine import LimitReached, run_pool
from tests.support.virtual_time import run_virtual


class Work:
    """Counts jobs: begun, open now, most open at once, finished, cancelled."""

    def __init__(self, seconds: float = 1.0, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.begun: list[int] = []
        self.finished: list[int] = []
        self.cancelled: list[int] = []
        self.open = self.most = 0
        self._seconds = seconds
        self._fail_at = fail_at
        self._error = error or RuntimeError("as planned")

    async def __call__(self, job: int) -> None:
        self.begun.append(job)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if job == self._fail_at:
                await asyncio.sleep(self._seconds / 2)
                raise self._error
            await asyncio.sleep(self._seconds)
            self.finished.append(job)
        except asyncio.CancelledError:
            self.cancelled.append(job)
            raise
        finally:
            self.open -= 1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 12))
def test_every_job_is_done_once_in_order_and_at_most_so_many_at_once(jobs: int, concurrency: int) -> None:
    work = Work()
    assert run_virtual(run_pool(range(jobs), work, concurrency))
    assert work.begun == sorted(work.finished) == list(range(jobs))
    assert work.most == min(jobs, concurrency)
    assert work.open == 0


def test_the_stream_is_read_no_further_than_there_are_workers() -> None:
    read: list[int] = []

    def stream() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    async def main() -> None:
        pool = asyncio.create_task(run_pool(stream(), Work(seconds=10), 5))
        await asyncio.sleep(5)
        assert len(read) == 5
        await pool

    run_virtual(main())


def test_a_limit_lets_the_others_finish_and_starts_no_more() -> None:
    work = Work(fail_at=3, error=LimitReached())
    assert run_virtual(run_pool(range(100), work, 8)) is False
    assert work.begun == list(range(8))
    assert sorted(work.finished) == [0, 1, 2, 4, 5, 6, 7]
    assert work.cancelled == []


def test_any_other_exception_stops_everything_and_is_raised() -> None:
    work = Work(fail_at=3)
    with pytest.raises(RuntimeError, match="as planned"):
        run_virtual(run_pool(range(100), work, 8))
    assert work.begun == list(range(8))
    assert work.finished == []
    assert sorted(work.cancelled) == [0, 1, 2, 4, 5, 6, 7]


def test_an_exception_in_the_stream_itself_is_raised_too() -> None:
    def stream() -> Iterator[int]:
        yield 0
        raise OSError("the stream broke")

    work = Work()
    with pytest.raises(OSError, match="the stream broke"):
        run_virtual(run_pool(stream(), work, 4))
    assert work.open == 0


def test_a_cancellation_stops_everything_even_when_it_comes_twice() -> None:
    cleaned: list[int] = []

    async def slow_to_go(job: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append(job)

    async def main() -> None:
        for times in (1, 2):
            cleaned.clear()
            pool = asyncio.create_task(run_pool(range(10), slow_to_go, 4))
            await asyncio.sleep(1)
            for _ in range(times):
                pool.cancel()
                await asyncio.sleep(0.01)
            with pytest.raises(asyncio.CancelledError):
                await pool
            assert sorted(cleaned) == ([0, 1, 2, 3] if times == 1 else [])
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_ctrl_c_stops_everything() -> None:
    work = Work(seconds=100)

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, signal.raise_signal, signal.SIGINT)
        await run_pool(range(50), work, 8)

    with pytest.raises(KeyboardInterrupt):
        run_virtual(main())
    assert sorted(work.cancelled) == list(range(8))
    assert work.finished == []
    assert work.open == 0
