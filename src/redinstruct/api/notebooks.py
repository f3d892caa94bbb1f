"""The verbs inside a notebook: beside its event loop, with a bar of their own, and stopped by its stop button."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from redinstruct.engine.loops import Stop, stoppable
from redinstruct.progress import OnProgress, Progress
from redinstruct.safetext import in_markup, shown

Returned = TypeVar("Returned")
SECONDS_BETWEEN = 0.2
"""A bar that moves five times a second moves."""


def beside_the_loop(work: Callable[[], Returned]) -> Returned:
    """Do work that brings its own event loop, also where one runs already (a notebook): in a thread then.

    An interrupt that comes while the thread is waited for stops its work as Ctrl-C would, and is raised once it has
    ended: what is recorded is safe, and nothing goes on behind the notebook's back.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    found: list[Returned] = []
    failed: list[BaseException] = []
    stops: list[Stop | None] = [None]
    interrupted = threading.Event()

    def learn(stop: Stop | None) -> None:
        stops[0] = stop
        if stop is not None and interrupted.is_set():
            stop()

    def inside() -> None:
        try:
            with stoppable(learn):
                found.append(work())
        except BaseException as error:  # raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(inside,))
    thread.start()
    while True:
        try:
            thread.join()
            break
        except KeyboardInterrupt:
            interrupted.set()
            if (stop := stops[0]) is not None:
                stop()
    if interrupted.is_set():
        raise KeyboardInterrupt
    if failed:
        raise failed[0]
    return found[0]


def listener(title: str, given: OnProgress | None) -> OnProgress | None:
    """Who listens to a verb's progress: whoever was named; in a notebook, where nobody was, a bar under the cell."""
    if given is not None:
        return given
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    return _Bar(title, importlib.import_module("IPython.display")).tell


class _Bar:
    """One line under the cell: how far, and how it came out so far."""

    def __init__(self, title: str, display: Any) -> None:
        self._title, self._display = title, display
        self._handle: Any = None
        self._shown = 0.0
        self._state = Progress(0, None)

    def tell(self, state: Progress) -> None:
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN and state.done != state.total:
            return
        self._shown, self._state = now, msgspec.structs.replace(state)
        if self._handle is None:
            self._handle = self._display.display(self, display_id=True)
        else:
            self._handle.update(self)

    def _told(self) -> str:
        state = self._state
        part = "" if state.part is None else f"stage {state.part.number} of {state.part.of}, {state.part.name}: "
        return "; ".join(
            [f"{part}{state.stage or self._title}: {state.far}", *filter(None, [state.detail]), *state.outcomes]
        )

    def __repr__(self) -> str:
        return shown(self._told())

    def _repr_html_(self) -> str:
        state = self._state
        bar = "" if state.total is None else f'<progress value="{state.done}" max="{max(state.total, 1)}"></progress> '
        return f"<div>{bar}{in_markup(self._told())}</div>"
