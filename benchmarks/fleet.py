"""What a run of many attempts takes on machines that fail: a simulation.

    python -m benchmarks.fleet [--attempts N ...] [--machines K ...] [--seconds S] [--in-flight C]

Each machine asks its shard, ``in_flight`` calls at a time, each of ``seconds``. Machines die by a Poisson process and
are back after ten minutes; what was in flight then is asked again, and nothing else (the promise that the fault suite
holds). Bytes and CPU per attempt are measured ones, see docs/experiments/scale.md.
"""

from __future__ import annotations

import argparse
import random

BYTES_PER_ATTEMPT = 310
"""Of a finished store: 10,000 short answers took 3,096,576 bytes."""
CPU_PER_ATTEMPT = 210e-6
"""Seconds, of the program itself, on a machine that was loaded eight times over."""
BACK_AFTER = 600.0


def simulate(attempts: int, machines: int, seconds: float, in_flight: int, between: float, seed: int) -> list[float]:
    """Wall hours of the slowest shard; calls and deaths in all."""
    chance = random.Random(seed)
    slowest, calls, deaths = 0.0, 0, 0
    share = attempts // machines
    rate = in_flight / seconds
    for _ in range(machines):
        left, clock = share, 0.0
        while left > 0:
            alive = chance.expovariate(1 / between)
            need = left / rate
            if alive >= need:
                clock, calls, left = clock + need, calls + left, 0
                break
            done = int(alive * rate)
            left -= done
            calls += done + in_flight
            deaths += 1
            clock += alive + BACK_AFTER
        slowest = max(slowest, clock)
    return [slowest / 3600, float(calls), float(deaths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--hours-between-failures", type=float, default=20.0)
    given = parser.parse_args()
    print("| attempts | machines | wall hours (20 seeds) | deaths | asked again | store | CPU of ours |")
    print("|---|---|---|---|---|---|---|")
    for attempts in given.attempts:
        for machines in given.machines:
            between = 3600 * given.hours_between_failures
            runs = [simulate(attempts, machines, given.seconds, given.in_flight, between, seed) for seed in range(20)]
            hours, calls, deaths = (sum(column) / len(runs) for column in zip(*runs, strict=True))
            again = (calls - attempts) / attempts
            print(
                f"| {attempts:,} | {machines} | {hours:,.1f} | {deaths:,.1f} | {100 * again:.3f} % |"
                f" {attempts * BYTES_PER_ATTEMPT / 1e9:,.2f} GB | {attempts * CPU_PER_ATTEMPT / 3600:,.2f} h |"
            )


if __name__ == "__main__":
    main()
