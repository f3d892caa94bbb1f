"""What the fault and security suites print: for each promise, how much was tried and how much of it failed.

``make test-faults`` and ``make test-security`` name a file in ``REDINSTRUCT_TALLY``: it gets one JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object])


def faults(test: _Test) -> _Test:
    """A test of ``make test-faults``."""
    marked: _Test = pytest.mark.slow(pytest.mark.faults(test))
    return marked


def security(test: _Test) -> _Test:
    """A test of ``make test-security``."""
    marked: _Test = pytest.mark.slow(pytest.mark.security(test))
    return marked


def tally(what: str, tried: int, failed: int, note: str = "") -> None:
    """Print one promise's count, and keep it where the suite asked for it. Fails when anything failed."""
    sys.stdout.write(f"{what}: tried {tried}, failed {failed}{f' ({note})' if note else ''}\n")
    if place := os.environ.get("REDINSTRUCT_TALLY"):
        line = json.dumps({"what": what, "tried": tried, "failed": failed, "note": note})
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    assert tried > 0, f"{what}: nothing was tried"
    assert failed == 0, f"{what}: {failed} of {tried} failed"
