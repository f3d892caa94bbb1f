"""SIGKILL at every numbered operation of some work: SQLite's way of testing, n = 1, 2, 3, ... until nothing dies.

An operation is whatever changes, opens, locks or syncs a file: every such audit event of the interpreter, every
statement given to SQLite, every fsync, flock and renameat2. The work is done in a forked child, so that a process that
uses this must have no other threads: the tests start one of their own for it (:func:`run_script`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.endpoint import Endpoint

ROOT = Path(__file__).parent.parent.parent
_EVENTS = frozenset({
    "open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.truncate", "os.link", "os.symlink",
    "shutil.rmtree", "sqlite3.connect", "ctypes.dlsym",
})  # fmt: skip
_DONE = 7


class _Dying(sqlite3.Connection):
    """Each statement and transaction is an operation."""

    tick: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        type(self).tick()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        type(self).tick()
        return super().executemany(*arguments)

    def close(self) -> None:
        type(self).tick()
        super().close()
        type(self).tick()


def dies_at(number: int, seconds: float | None = None) -> None:
    """This process kills itself before its operation of that number (from 0), or so many seconds after it began.

    With ``seconds`` at any instruction, in SQLite's own code too: by its own timer, whose signal nobody handles, so
    that no load of the machine puts it off.
    """
    left = [number]

    def tick() -> None:
        if left[0] == 0 and seconds is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif left[0] == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds or 0, 1e-6))
        left[0] -= 1

    _before_operations(tick)


def operations_of(work: Callable[[], object]) -> int:
    """How many operations this process does in some work."""
    done = [0]

    def tick() -> None:
        done[0] += 1

    _before_operations(tick)
    work()
    return done[0]


def _before_operations(tick: Callable[[], None]) -> None:
    """Call this before each operation of this process from now on."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and not (event == "open" and _is_read(arguments)):
            tick()

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            tick()
            return function(*arguments, **named)

        return counted

    sys.addaudithook(hook)
    for module, name in ((os, "fsync"), (os, "pwrite"), (os, "ftruncate"), (os, "write"), (fcntl, "flock")):
        setattr(module, name, wrapped(getattr(module, name)))
    _Dying.tick = staticmethod(tick)
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, **{**k, "factory": _Dying})


def _is_read(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return mode in ("r", "rb")
    return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def killed_past(process: subprocess.Popen[Any], stub: Endpoint, goal: float, rng: random.Random, within: float) -> bool:
    """Kill a command once the endpoint has had ``goal`` requests, or after so many seconds; whether it still lived."""
    deadline = time.monotonic() + within
    while stub.requests < goal and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def at_every_operation(
    prepare: Callable[[], None], work: Callable[[], object], check: Callable[[], str | None], *, step: int = 1
) -> tuple[int, list[str]]:
    """Prepare, work and die, check; for every operation (or every ``step``-th). The kills, and what checks said."""
    ctypes.CDLL(None)
    said: list[str] = []
    for kills, number in enumerate(range(0, 1_000_000, step)):
        prepare()
        child = os.fork()
        if child == 0:
            try:
                silent = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silent, 1)
                dies_at(number)
                work()
            finally:
                os._exit(_DONE)
        _, status = os.waitpid(child, 0)
        if (wrong := check()) is not None:
            said.append(f"operation {number}: {wrong}")
        if os.WIFEXITED(status):
            return kills, said
    raise AssertionError("the work has no end")


def run_script(script: str, *arguments: object, timeout: float = 600) -> str:
    """A Python script in a process of its own, in the repository's root; its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
