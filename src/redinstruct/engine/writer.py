"""The single writer: rows from many workers, committed in groups by one thread.

While one commit is under way the next rows gather, and go together in the next one: the group grows with the load, and
a lone row waits for nobody. ``put`` returns once its row is committed, never before.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redinstruct.errors import StoreError

Written = TypeVar("Written")

Commit = Callable[[Sequence[Any]], None]
"""Commits rows of one kind in one transaction. Raises ``StoreError``."""

Then = Callable[[], None]
"""Called in the loop once a row is committed, also where nobody waits for it any more."""

_Waiting = tuple["asyncio.Future[None]", Then | None]
_Item = tuple[Commit, Any, _Waiting]


class GroupWriter:
    """Owns the store while a run is under way. Use as an async context manager."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> GroupWriter:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        # What is queued is still committed; a second Ctrl-C must not leave the thread with half a group.
        self._queue.put(None)
        cancelled: asyncio.CancelledError | None = None
        while self._thread.is_alive():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError as again:
                cancelled = again
        await asyncio.sleep(0)  # the last group's rows are told
        if cancelled is not None:
            raise cancelled

    async def put(self, commit: Callable[[Sequence[Written]], None], row: Written, then: Then | None = None) -> None:
        """Commit one row: ``commit`` is called in the writer's thread, with a group of such rows.

        Raises:
            StoreError: it could not be recorded.
        """
        assert self._loop is not None
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((commit, row, (done, then)))
        await done

    def _run(self) -> None:
        open_ = True
        while open_:
            item = self._queue.get()
            groups: dict[Commit, tuple[list[Any], list[_Waiting]]] = {}
            while True:
                if item is None:
                    open_ = False
                else:
                    commit, row, done = item
                    rows, waiting = groups.setdefault(commit, ([], []))
                    rows.append(row)
                    waiting.append(done)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            for commit, (rows, waiting) in groups.items():
                self._commit(commit, rows, waiting)

    def _commit(self, commit: Commit, rows: list[Any], waiting: list[_Waiting]) -> None:
        error: BaseException | None = None
        try:
            commit(rows)
        except StoreError as failure:
            error = failure
        except Exception as failure:  # a fault of ours: the waiting workers must hear of it
            error = StoreError(f"recording failed ({type(failure).__name__}: {failure})")
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_resolve, waiting, error)


def _resolve(waiting: list[_Waiting], error: BaseException | None) -> None:
    for done, then in waiting:
        failed = error
        if failed is None and then is not None:
            try:
                then()
            except Exception as failure:  # raised where the row came from
                failed = failure
        if not done.done():
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)
