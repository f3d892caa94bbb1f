"""The event loop that work brings with it, and how somebody outside of it stops the work.

A notebook runs a loop of its own, so that the verbs' loops run in a thread there, where no Ctrl-C arrives: who waits
for the thread listens for it, and passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Done = TypeVar("Done")
Stop = Callable[[], None]
_TELL: ContextVar[Callable[[Stop | None], None] | None] = ContextVar("who_may_stop", default=None)


def in_a_loop(work: Coroutine[Any, Any, Done]) -> Done:
    """Carry a coroutine out in an event loop of its own; Ctrl-C, or who listens by :func:`stoppable`, cancels it."""
    tell = _TELL.get()
    if tell is None:
        return asyncio.run(work)

    async def told() -> Done:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        tell(lambda: None if loop.is_closed() else _quietly(loop, task))
        try:
            return await work
        finally:
            tell(None)

    return asyncio.run(told())


def _quietly(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # closed since it was looked at
        loop.call_soon_threadsafe(task.cancel)


@contextlib.contextmanager
def stoppable(tell: Callable[[Stop | None], None]) -> Iterator[None]:
    """Within it, ``tell`` learns how to stop the loop that runs now, and None once it has ended."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)
