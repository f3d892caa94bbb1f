"""What the fault and security suites print: for each promise, how much was tried and how much of it failed.

``make test-faults`` and ``make test-security`` name a file in ``REDINSTRUCT_TALLY``: it gets one JSON object a line.
A test that does again what broke one of the eleven promises of the first audit is a :func:`finding`.
``python -m tests.support.tally FILE ... [--cut WORDS]`` writes ``docs/reliability.md`` from such files (``make
reliability``; ``CUT=WORDS`` says on the page what did not run).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object] | type)

FINDINGS = (
    "purge leaves nothing on the disk",
    "a denied run removes nothing but its own",
    "a run folder from elsewhere falsifies nothing, and nothing hangs on it",
    "nonces cannot be told from a run folder",
    "a bomb is refused within a second and 200 MB",
    "what a kill leaves is found and removed",
    "a folder that is replaced is never missing",
    "nothing is written through a planted link",
    "a killed purge is ended by the next",
    "a hostile checkpoint is refused in one line",
    "a folder that is gone, a key among options, a storm of 429",
)
"""What the first audit found broken; the eleven reproductions show that it holds."""


def faults(test: _Test) -> _Test:
    """A test of ``make test-faults``."""
    marked: _Test = pytest.mark.slow(pytest.mark.faults(test))
    return marked


def security(test: _Test) -> _Test:
    """A test of ``make test-security``."""
    marked: _Test = pytest.mark.slow(pytest.mark.security(test))
    return marked


def finding(number: int) -> pytest.MarkDecorator:
    """A test that tries again what the audit's finding of that number tells of; ``make test-security`` counts it."""
    return pytest.mark.finding(number)


def count_finding(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Count one reproduction when its test has ended, or could not begin; one that was skipped is none."""
    mark = item.get_closest_marker("finding")
    skipped = call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception)
    if mark is not None and not skipped and (call.when == "call" or (call.when == "setup" and call.excinfo)):
        keep(f"finding {mark.args[0]}: {FINDINGS[mark.args[0] - 1]}", 1, int(call.excinfo is not None))


def reproductions(files: list[Path]) -> list[str]:
    """A line for each finding, and one for all: what was tried again, and what of it failed."""
    lines, sums = [], _sums(files)
    counts = [sums.get(f"finding {number}: {what}", (0, 0)) for number, what in enumerate(FINDINGS, 1)]
    for number, (what, (tried, failed)) in enumerate(zip(FINDINGS, counts, strict=True), 1):
        lines.append(f"finding {number}: {what}: {f'tried {tried}, failed {failed}' if tried else 'not tried'}")
    tried, failed = (sum(column) for column in zip(*counts, strict=True))
    return [*lines, f"eleven reproductions: {tried} tried, {failed} failed"]


def keep(what: str, tried: int, failed: int, note: str = "") -> None:
    """One line more in the file that the suite named, if it named one."""
    if place := os.environ.get("REDINSTRUCT_TALLY"):
        line = json.dumps({"what": what, "tried": tried, "failed": failed, "note": note})
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def tally(what: str, tried: int, failed: int, note: str = "") -> None:
    """Print one promise's count, and keep it where the suite asked for it. Fails when anything failed."""
    sys.stdout.write(f"{what}: tried {tried}, failed {failed}{f' ({note})' if note else ''}\n")
    keep(what, tried, failed, note)
    assert tried > 0, f"{what}: nothing was tried"
    assert failed == 0, f"{what}: {failed} of {tried} failed"


_PAGE = """# Reliability and security, as the suites found them

Made by `make reliability` from what `make test-faults`, `make test-security` and `make fuzz` printed, not by hand.
"Failed" is what broke the promise of its line. What is promised, and what is not, stands in
[SECURITY.md](../SECURITY.md).

| promise: what would break it | tried | failed | |
|---|---:|---:|---|
"""

_FINDINGS = """
## What the first audit found broken

Tests that try again what broke each of eleven promises; those that count more than tests stand above too.

"""

_NOT_REACHED = """
## Not reached, or not tried

- The suites run on one machine: power cuts are only simulated (while the log is overwritten), not made.
- Kills while `align` saves, and of `loop` and `stress`, are tried by their own slow tests and not counted above.
- A1's pages in a real browser are `make test-browser`. "Mutants" above are faults planted by hand, one property each;
  `make mutation` draws small changes of the code itself.
- Coverage-guided fuzzing (`make fuzz`) takes 20,000 inputs for each reader, not hours.
- Texts are encrypted at rest only in sealed runs ([Sealed runs](sealing.md)); dependencies were not audited.
"""


def _lines(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def _sums(files: list[Path]) -> dict[str, tuple[int, int]]:
    """Tried and failed of each promise; one that was printed more than once is summed."""
    sums: dict[str, tuple[int, int]] = {}
    for one in _lines(files):
        tried, failed = sums.get(one["what"], (0, 0))
        sums[one["what"]] = tried + one["tried"], failed + one["failed"]
    return sums


def page(files: list[Path]) -> str:
    """The page of all that the suites printed."""
    notes = {one["what"]: one["note"] for one in _lines(files)}
    sums = {what: counts for what, counts in _sums(files).items() if not what.startswith("finding ")}
    rows = (f"| {what} | {tried:,} | {failed:,} | {notes[what]} |\n" for what, (tried, failed) in sorted(sums.items()))
    total = [sum(column) for column in zip(*sums.values(), strict=True)] or [0, 0]
    again = "".join(f"- {line}\n" for line in reproductions(files))
    return (
        _PAGE + "".join(rows) + f"| all together | {total[0]:,} | {total[1]:,} | |\n" + _FINDINGS + again + _NOT_REACHED
    )


if __name__ == "__main__":
    place = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
    names, _, cut = " ".join(sys.argv[1:]).partition(" --cut ")
    text = page([Path(name) for name in names.split()])
    place.write_text(text + (f"- {cut}\n" if cut else ""), encoding="utf-8")
