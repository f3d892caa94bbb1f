"""What the fault and security suites print: for each promise, how much was tried and how much of it failed.

``make test-faults`` and ``make test-security`` name a file in ``REDINSTRUCT_TALLY``: it gets one JSON object a line.
``python -m tests.support.tally FILE ... [--cut WORDS]`` writes ``docs/reliability.md`` from such files (``make
reliability``; ``CUT=WORDS`` says on the page what did not run).
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


_PAGE = """# Reliability and security, as the suites found them

Made by `make reliability` from what `make test-faults`, `make test-security` and `make fuzz` printed, not by hand.
"Failed" is what broke the promise of its line. What is promised, and what is not, stands in
[SECURITY.md](../SECURITY.md).

| promise: what would break it | tried | failed | |
|---|---:|---:|---|
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


def page(files: list[Path]) -> str:
    """The page of all that the suites printed; a promise that was printed more than once is summed."""
    sums: dict[str, list[int]] = {}
    notes: dict[str, str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            counts = sums.setdefault(one["what"], [0, 0])
            counts[0] += one["tried"]
            counts[1] += one["failed"]
            notes[one["what"]] = one["note"]
    rows = (f"| {what} | {tried:,} | {failed:,} | {notes[what]} |\n" for what, (tried, failed) in sorted(sums.items()))
    total = [sum(column) for column in zip(*sums.values(), strict=True)] or [0, 0]
    return _PAGE + "".join(rows) + f"| all together | {total[0]:,} | {total[1]:,} | |\n" + _NOT_REACHED


if __name__ == "__main__":
    place = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
    names, _, cut = " ".join(sys.argv[1:]).partition(" --cut ")
    text = page([Path(name) for name in names.split()])
    place.write_text(text + (f"- {cut}\n" if cut else ""), encoding="utf-8")
