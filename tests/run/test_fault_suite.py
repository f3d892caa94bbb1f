"""The fault suite (`make test-faults`): every verb that writes, disturbed in every way, ends as if nothing had been.

What is done, and what is checked after it, stands in :mod:`tests.support.fault_runs`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import environment
from tests.support.kills import ROOT
from tests.support.tally import faults, tally

EVERY = ("eval", "judge", "collect", "import", "labels", "report", "export", "shard", "merge", "purge",
         "eval --seal", "seal", "seal --rotate")  # fmt: skip


def disturbed(place: Path, what: str, count: int, *names: str) -> list[tuple[str, int, list[str]]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fault_runs", what, str(place / what), str(count), *names],
        cwd=ROOT,
        env={**environment(), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(one["what"], one["tried"], one["said"]) for one in found]


def held(place: Path, promise: str, what: str, count: int, *names: str) -> None:
    found = disturbed(place, what, count, *names)
    said = [f"{name}: {line}" for name, _, lines in found for line in lines]
    tally(
        f"{promise} ({', '.join(name for name, _, _ in found)})",
        sum(n for _, n, _ in found),
        len(said),
        said[0] if said else "",
    )


@faults
@pytest.mark.parametrize("verb", EVERY)
def test_a_kill_at_every_operation(place: Path, verb: str) -> None:
    held(place, "SIGKILL at every operation: a row lost, a call doubled, another result, a file left", "every", 1, verb)


@faults
@pytest.mark.parametrize("verb", EVERY)
def test_kills_at_random_moments(place: Path, verb: str) -> None:
    held(place, "killed at random moments after random operations: the same", "random", -(-1000 // len(EVERY)), verb)


@faults
@pytest.mark.parametrize("verb", ["eval", "collect", "import", "report"])
def test_a_signal_to_stop(place: Path, verb: str) -> None:
    held(place, "SIGINT: an exit code but 0 and 130, or the same", "interrupt", 25, verb)


@faults
@pytest.mark.parametrize("verb", ["eval", "collect", "import", "report", "shard", "merge", "seal --rotate"])
def test_a_full_disk(place: Path, verb: str) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        held(place, "disk full: an internal error, or the same", "full", 100 if verb == "eval" else 30, verb)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@faults
@pytest.mark.parametrize("verb", ["eval", "collect", "judge"])
def test_a_clock_that_jumps(place: Path, verb: str) -> None:
    held(place, "clock jumps of a day, and a kill: the same", "clock", 20, verb)


@faults
@pytest.mark.parametrize("verb", ["eval", "collect", "import", "purge"])
def test_two_at_once(place: Path, verb: str) -> None:
    held(place, "two processes on one run: the same, or more than one line", "two", 25, verb)


def test_a_kill_here_and_there_of_an_evaluation(place: Path) -> None:
    """A thinned part of the fault suite, for the fast one."""
    held(place, "SIGKILL at every 80th operation", "every", 80, "eval")
