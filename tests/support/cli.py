"""The command line as a user runs it: in a process of its own, or in this one where that is the same and quicker."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import math
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

ROOT = Path(__file__).parent.parent.parent


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return msgspec.json.decode(self.out)

    @property
    def error_line(self) -> str:
        """The one line on standard error of a command that refused its input."""
        assert self.code == 2, self
        assert self.out == "", self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        assert "Traceback" not in self.err, self
        return self.err


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child sees: this process's environment without anybody's keys and addresses, and ``extra``."""
    ours = ("_api_key", "_base_url", "_headers", "_proxy")
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith(ours)}
    for name in ("REDINSTRUCT_DEBUG", "COLUMNS"):
        kept.pop(name, None)
    return {**kept, "PYTHONWARNINGS": "error", **(extra or {})}


def command(*arguments: object) -> list[str]:
    """The argument vector of ``redinstruct ...``."""
    return [sys.executable, "-m", "redinstruct", *map(str, arguments)]


def run(
    *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
) -> Result:
    """``redinstruct ...`` in a process of its own, without a terminal."""
    done = subprocess.run(
        command(*arguments),
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def here(*arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Result:
    """:func:`run` in this process: the same answer for a fraction of the time, where nothing needs one of its own."""
    from redinstruct.cli import main

    raw = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(kept, "utf-8", newline="\n") for kept in raw)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        with _unhurried():
            code = main([str(a) for a in arguments])
    out.flush()
    err.flush()
    return Result(code, *(kept.getvalue().decode() for kept in raw))


@contextlib.contextmanager
def _unhurried() -> Iterator[None]:
    """However slow the machine is, no line says after ten seconds how far the work is; unless the test asked for it."""
    from redinstruct.cli import console

    with pytest.MonkeyPatch.context() as patch:
        if console.PLAIN_PROGRESS_SECONDS >= 1:
            patch.setattr(console, "PLAIN_PROGRESS_SECONDS", math.inf)
        yield


_MEASURED = """
import re, sys
from pathlib import Path
from redinstruct.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(code)
"""


def run_measured(*arguments: object, env: Mapping[str, str] | None = None, timeout: float = 120) -> tuple[Result, int]:
    """:func:`run`, and the most memory, in bytes, that this very process held at once (Linux)."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, arguments)],
        env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
    )  # fmt: skip
    *said, kilobytes = done.stderr.decode().splitlines(keepends=True)
    return Result(done.returncode, done.stdout.decode(), "".join(said)), int(kilobytes) * 1024


def start(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """``redinstruct ...`` in the background, its streams in pipes."""
    return subprocess.Popen(
        command(*arguments), env=environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def on_terminal(
    *arguments: object, columns: int = 80, env: Mapping[str, str] | None = None, answer: str = ""
) -> tuple[int, str]:
    """``redinstruct ...`` on a terminal of so many columns: the exit code, and all that it showed."""
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {k: v for k, v in environment(env).items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        command(*arguments), env={**variables, "TERM": "xterm"}, stdin=child, stdout=child, stderr=child, close_fds=True
    )
    os.close(child)
    if answer:
        os.write(main, answer.encode())
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.2)[0]:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(main)
    return process.wait(10), shown.decode()


class InProcess:
    """``redinstruct.cli.main`` called in this process, its two streams captured."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Result:
        from redinstruct.cli import main

        self._capture.readouterr()
        with _unhurried():
            code = main([str(a) for a in arguments])
        out, err = self._capture.readouterr()
        return Result(code, out, err)


def tree(folder: Path) -> dict[str, str]:
    """Every path under a folder with the hash of its bytes: two equal trees, and nothing was written."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """Fails when anything under the folder was made, changed or removed."""
    before = tree(folder)
    yield
    assert tree(folder) == before


def report(folder: Path) -> dict[str, Any]:
    """``report --json`` of a run."""
    done = here("report", folder, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    return found


def write_bank(folder: Path, count: int, name: str = "bank") -> Path:
    """A bank of ``count`` inert questions."""
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.encode([f"What is the colour of item number {i}?" for i in range(count)]))
    return path
