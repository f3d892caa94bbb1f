"""How far a reader has to go: calls of our own functions, files, and changes of file, from a question to its figures.

    python -m benchmarks.journeys [--json] [--top N]

Counted with ``sys.setprofile`` in every thread, so that nothing depends on the machine or the clock. A call counts when
its function stands in a file under ``src/redinstruct`` (once, however often a coroutine or generator goes on); a change
of file is such a call that stands in another file than the call before it in the same thread. Three journeys:

- question: a bank of one question, the prompt cou, a stub endpoint on a socket, judged by keywords, in a new run, one
  call at a time, up to the report's JSON (``redinstruct.evaluate`` and ``redinstruct.report``);
- attempt: what each further question adds to that (banks of 10 and 30 questions, the mean);
- label: a person's act on one answer, committed, and the labelling page's new state.

What is imported or cached at the first use is done before, on another run.
"""

from __future__ import annotations

import argparse
import dis
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from tests.support.endpoint import Endpoint

import redinstruct
from redinstruct.annotate.session import Session
from redinstruct.engine import Limits
from redinstruct.run import Store

OURS = f"{Path(redinstruct.__file__).parent}/"
FEW, MANY = 10, 30


@cache
def beginning(code: CodeType) -> int:
    """Where a function's own work begins, in bytes: a coroutine or generator that goes on stands behind that."""
    return next(i.offset for i in dis.get_instructions(code) if i.opname == "RESUME")


class Journey:
    """What was gone through while it was open. Use as a context manager."""

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()
        self.changes = 0
        self._at = threading.local()

    def __enter__(self) -> Journey:
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not (file := code.co_filename).startswith(OURS) or frame.f_lasti > beginning(code):
            return
        self.functions[f"{file.removeprefix(OURS)}:{code.co_qualname}"] += 1
        before, self._at.file = getattr(self._at, "file", file), file
        self.changes += file != before


class Length(NamedTuple):
    """How long a journey is."""

    calls: float
    files: float
    changes: float


def length(journey: Journey) -> Length:
    """The counts of one journey."""
    files = {name.partition(":")[0] for name in journey.functions}
    return Length(journey.functions.total(), len(files), journey.changes)


def evaluated(folder: Path, questions: int) -> Journey:
    """From a bank of so many questions to their figures."""
    bank = folder / f"bank-{questions}.json"
    bank.write_text(json.dumps([f"What is the colour of item number {i}?" for i in range(questions)]))
    run = folder / f"run-{questions}"
    with Journey() as journey:
        redinstruct.evaluate(
            model="openai-api/stub/m", bank=bank, judge="refusal", prompts="cou", run=run, limits=Limits(concurrency=1)
        )
        found = redinstruct.report(run)
    counts = found["results"][0]["counts"]
    assert counts["harmful"] + counts["unharmful"] == questions
    return journey


def labelled(run: Path) -> Journey:
    """A person's label on one answer, and the page's new state."""
    with Store.open_for_writing(run) as store:
        page = Session(store, "reader", sample=FEW)
        page.state()
        with Journey() as journey:
            page.act(page.state()["item"]["id"], "label", next(iter(page.choices)))
            page.state()
    return journey


def measure(folder: Path) -> tuple[dict[str, Length], dict[str, float]]:
    """Every journey's length; and how often each function is called by a further attempt."""
    evaluated(folder, 2)  # imports, and what is made once
    question, few, many = (evaluated(folder, count) for count in (1, FEW, MANY))
    attempt = Length(*((b - a) / (MANY - FEW) for a, b in zip(length(few), length(many), strict=True)))
    lengths = {"question": length(question), "attempt": attempt, "label": length(labelled(folder / f"run-{FEW}"))}
    return lengths, {name: (n - few.functions[name]) / (MANY - FEW) for name, n in many.functions.most_common()}


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--top", type=int, default=0, help="also the functions that a further attempt calls most")
    arguments = parser.parse_args()
    with Endpoint() as stub, tempfile.TemporaryDirectory() as folder:
        os.environ.update(STUB_BASE_URL=stub.url, STUB_API_KEY="sk-stub")
        lengths, functions = measure(Path(folder))
    if arguments.json:
        print(json.dumps({name: one._asdict() for name, one in lengths.items()}, indent=2))
        return
    print(f"{'journey':<10}{'calls':>9}{'files':>9}{'changes':>9}")
    for name, one in lengths.items():
        print(f"{name:<10}" + "".join(f"{x:>9,.0f}" if x == int(x) else f"{x:>9,.1f}" for x in one))
    for function, count in sorted(functions.items(), key=lambda entry: -entry[1])[: arguments.top]:
        print(f"{count:>8.2f}  {function}")


if __name__ == "__main__":
    main()
