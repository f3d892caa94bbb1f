"""A large run as a page: seconds and memory to render it, seconds to open it in Chromium.

    python -m benchmarks.report [--attempts 100000] [--rounds 5] [--characters 1000] [--json]

The run is written through the store: attempts of two prompts over ten topics, answers of ``--characters`` characters,
all six labels, 300 of people's labels. Each round starts `redinstruct report RUN --out FILE` as a process of its own
(wall and CPU seconds with start-up, its own peak memory), with questions and answers hidden and then shown, and opens
the page in a fresh context of a headless Chromium: from the request to the end of the load event, by its own clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.stores import Setup, make_bank

from redinstruct.run import AnnotationStore, Store
from redinstruct.types import ATTACK_SUCCESS, Annotation, Completion, Verdict

LABELLED = 300
BATCH = 5000


class Round(NamedTuple):
    """One rendering: seconds, peak memory in MB, size of the page in MB, seconds to open it (None without Chromium)."""

    wall: float
    cpu: float
    peak: float
    size: float
    opened: float | None


def build(folder: Path, attempts: int, characters: int) -> None:
    """A finished run of so many attempts."""
    dice = random.Random(0)
    topics = [f"Topic {number}" for number in range(10)]
    setup = Setup(banks=(make_bank(attempts // 2, topics=topics),))
    shares = (30, 60, 4, 1, 2, 3)
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        rows = [owed.row for owed in store.owed(judge)]
        for start in range(0, len(rows), BATCH):
            completions, verdicts = [], []
            for row in rows[start : start + BATCH]:
                label = dice.choices(ATTACK_SUCCESS.labels, shares)[0]
                if label in ("no_response", "error"):
                    completions.append((row, 0, Completion(label, reason="empty")))  # type: ignore[arg-type]
                    continue
                words = f"{row} " + "inert words " * (characters // 12)
                completions.append((row, 0, Completion("text", words, words, tokens_in=100, tokens_out=200)))
                verdicts.append((row, 0, judge, 0, Verdict(label)))
            store.commit_completions(completions)
            store.commit_verdicts(verdicts)
        labelled = [key for key, _, _, label in store.labels(judge) if label in ATTACK_SUCCESS.labels[:2]]
        acts = [
            (key, Annotation("ann", "label", dice.choice(ATTACK_SUCCESS.labels[:2])))
            for key in dice.sample(labelled, LABELLED)
        ]
        AnnotationStore(store).record(acts)


def render(run: Path, page: Path, *more: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (MB) of one `redinstruct report`."""
    command = [sys.executable, "-m", "redinstruct", "report", str(run), "--out", str(page), *more]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Chromium:
    """Debian's Chromium, or nothing where there is none."""

    def __init__(self) -> None:
        self._browser: Any = None
        program = shutil.which("chromium")
        if program is None:
            return
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])

    def seconds(self, page: Path) -> float | None:
        """From the request to the end of the load event."""
        if self._browser is None:
            return None
        context = self._browser.new_context()
        tab = context.new_page()
        tab.goto(page.as_uri())
        found: float = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
        context.close()
        return found

    def close(self) -> None:
        if self._browser is not None:
            self._browser.close()
            self._playwright.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--characters", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    found: dict[str, list[Round]] = {"hidden": [], "shown": []}
    with tempfile.TemporaryDirectory(prefix="redinstruct-") as place:
        run, page = Path(place) / "run", Path(place) / "report.html"
        build(run, flags.attempts, flags.characters)
        store_size = (run / "run.sqlite").stat().st_size / 1e6
        browser = Chromium()
        for _ in range(flags.rounds):
            for name, more in (("hidden", ()), ("shown", ("--show-content",))):
                measured = render(run, page, *more)
                found[name].append(Round(*measured, page.stat().st_size / 1e6, browser.seconds(page)))
        browser.close()
    if flags.json:
        print(json.dumps({"store": store_size, **{k: [r._asdict() for r in v] for k, v in found.items()}}))
        return
    print(f"{flags.attempts:,} attempts, {flags.characters} characters an answer, a store of {store_size:.0f} MB")
    print("content  wall, s  CPU, s  peak, MB  page, MB  opened, s")
    for name, rounds in found.items():
        for r in rounds:
            opened = "-" if r.opened is None else f"{r.opened:.2f}"
            print(f"{name:<8} {r.wall:7.2f} {r.cpu:7.2f} {r.peak:9.0f} {r.size:9.2f} {opened:>10}")


if __name__ == "__main__":
    main()
