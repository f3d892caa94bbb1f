"""The guard and the fixtures that every test shares."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Time says nothing on a loaded machine. CI tries the same examples each time; a person's run looks for new ones, and
# fewer of them: it is made often.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
settings.register_profile("ci", settings.get_profile("suite"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "suite")

# There are as many workers as cores: torch's threads, two a worker, would wait for one another, spinning (eight times
# the processor time on a loaded machine).
os.environ.setdefault("OMP_NUM_THREADS", "1")

GUARD = Path(__file__).parent / "support" / "guard"

sys.path.insert(0, str(GUARD))
from socket_guard import install  # noqa: E402

install()

from tests.support.cli import ROOT, InProcess  # noqa: E402
from tests.support.stores import RAM, roomy, scratch  # noqa: E402
from tests.support.tally import count_finding, reproductions  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    # What the collection loads (torch and its kin: some million objects) stays to the end; walking through it at each
    # of the collector's passes took a fifth of the collection's time, and a tenth of the suite's.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 10, 20)
        gc.enable()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    count_finding(item, call)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if place := os.environ.get("REDINSTRUCT_TALLY"):
        terminalreporter.write_sep("=", "what the first audit found broken")
        terminalreporter.write("\n".join((*reproductions(sorted(Path(place).parent.glob("*.jsonl"))), "")))


def pytest_configure() -> None:
    # A shell starts `make test &` with Ctrl-C ignored, and what is tested inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Child processes (the command line in end-to-end tests) come under the same guard.
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(GUARD) + (os.pathsep + path if path else "")
    # Every child, and every later run, would compile the whole house anew where the shell forbids writing bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Stores sync at every verdict: on a busy disk the suite waits longer for that than it works, and no test cuts
    # the power.
    if roomy(RAM):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(RAM))


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the user's cache, keys or endpoints, nor leaves a secret behind for the next one."""
    from redinstruct.safetext import forget_secrets

    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("REDINSTRUCT_STATE", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.delenv("COLUMNS", raising=False)
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_HEADERS")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    yield
    forget_secrets()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public benchmark files beside the repository."""
    folder = Path(os.environ.get("REDINSTRUCT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "harmfulqa.json").is_file():
        message = f"the benchmark files are not in {folder} (set REDINSTRUCT_DATA)"
        if os.environ.get("CI"):
            pytest.fail(f"CI may not skip this: {message}")
        pytest.skip(message)
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> InProcess:
    """The command line, in this process."""
    return InProcess(capsys)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder in memory, where the machine has one: SQLite syncs there for nothing."""
    with scratch() as folder:
        yield folder


@pytest.fixture
def free_port() -> int:
    """A loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
