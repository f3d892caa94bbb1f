"""Two of Ray's workers against one for a model that computes: ``hf/``, one thread a worker, eight at once.

    python -m benchmarks.ray_workers --model hf/smollm2 [--attempts 160] [--tokens 64] [--rounds 3]

Seconds of wall time for so many attempts, what starting takes taken off (a run of two attempts for each worker), and
the workers' own CPU seconds: on cores that others use, the share of a core that a worker got tells what the ratio of
wall times is worth. Needs Ray, and two cores that nobody else uses for a ratio that means something.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

TITLE = b"ray::RedInstructWorker"
_TICK = os.sysconf("SC_CLK_TCK")


class Watched:
    """The CPU seconds of Ray's workers that begin meanwhile, read as long as they live."""

    def __init__(self) -> None:
        self._before = set(self._workers())
        self._spent: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """All of it."""
        self._ended.set()
        self._thread.join()
        return sum(self._spent.values())

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for number, spent in self._workers().items():
                if number not in self._before:
                    self._spent[number] = spent

    @staticmethod
    def _workers() -> dict[int, float]:
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cmdline").read_bytes().startswith(TITLE):
                        fields = (entry / "stat").read_text().rpartition(")")[2].split()
                        found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICK
                except OSError:
                    continue
        return found


def taken(place: Path, model: str, attempts: int, tokens: int, workers: int) -> tuple[float, float]:
    """Wall seconds of one command, and CPU seconds of its workers."""
    bank = place / "bank.json"
    bank.write_text(json.dumps([f"Say something about the number {n}." for n in range(attempts)]))
    with tempfile.TemporaryDirectory(dir=place) as run:
        watched, begun = Watched(), time.monotonic()
        command = ["eval", "--model", model, "--bank", bank, "--prompt", "standard", "--judge", "refusal", "--run",
                   f"{run}/run", "--max-tokens", tokens, "--threads", 1, "--batch", 8, "--concurrency", 16, "--json",
                   "--engine", "ray", "--workers", workers]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "redinstruct", *map(str, command)], check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return time.monotonic() - begun, watched.end()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--attempts", type=int, default=160)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    print(
        "| workers | wall s | CPU s of the workers | attempts a CPU second | cores used |\n|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as made:
        for _ in range(given.rounds):
            for workers, walls in found.items():
                start = taken(Path(made), given.model, 2 * workers, given.tokens, workers)
                whole = taken(Path(made), given.model, given.attempts + 2 * workers, given.tokens, workers)
                wall, cpu = whole[0] - start[0], whole[1] - start[1]
                walls.append(wall)
                print(
                    f"| {workers} | {wall:.1f} | {cpu:.1f} | {given.attempts / cpu:.2f} | {cpu / wall:.2f} |",
                    flush=True,
                )
    print(f"\ntwo workers are {median(found[1]) / median(found[2]):.2f} times as fast as one")


if __name__ == "__main__":
    main()
