"""What Ray's workers cost the command: its own CPU time for one attempt, in one process and on two workers of Ray.

    python -m benchmarks.ray_driver [--attempts 20000] [--concurrency 64 512] [--rounds 2]

``scripted/weak`` judged by keywords under one prompt: nobody computes, so that what is left is the command's own work.
User and system time of the command alone, without Ray's processes, from before the first call to the end, and for one
process the same. Needs Ray (``make test-ray`` makes an environment that has it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

_CHILD = """
import resource, sys
from redinstruct.cli import main
code = main(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_SELF)
open(sys.argv[1], "w").write(str(used.ru_utime + used.ru_stime))
sys.exit(code)
"""


def spent(place: Path, attempts: int, concurrency: int, *engine: str) -> float:
    """CPU seconds of one command."""
    bank, told = place / f"bank-{attempts}.json", place / "told"
    bank.write_text(json.dumps([f"What is the colour of item {n}?" for n in range(attempts)]))
    with tempfile.TemporaryDirectory(dir=place) as run:
        command = ["eval", "--model", "scripted/weak", "--bank", bank, "--prompt", "standard", "--judge", "refusal",
                   "--run", f"{run}/run",
                   "--concurrency", concurrency, "--json", *engine]  # fmt: skip
        subprocess.run(
            [sys.executable, "-c", _CHILD, str(told), *map(str, command)], check=True, stdout=subprocess.DEVNULL
        )
    return float(told.read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    engines = {"one process": (), "two workers of Ray": ("--engine", "ray", "--workers", "2")}
    print("| concurrency | " + " | ".join(engines) + " |\n|---:|" + "---:|" * len(engines))
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        for concurrency in given.concurrency:
            cells = []
            for engine in engines.values():
                each = []
                for _ in range(given.rounds):
                    # What starting costs is that of a run of a hundred.
                    whole, start = (spent(place, n, concurrency, *engine) for n in (given.attempts, 100))
                    each.append(1e6 * (whole - start) / (given.attempts - 100))
                cells.append(", ".join(f"{one:.0f}" for one in each) + " us")
            print(f"| {concurrency} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
