"""Client CPU per stored attempt, over a bare aiohttp loop that stores nothing, in one run.

    python -m benchmarks.engine [--attempts 4000] [--rounds 3] [--concurrency 64] [--json]

The stub endpoint runs in a process of its own. Each round runs the bare loop and redinstruct's own path (render, ask,
commit the answer, judge by keywords, commit the verdict synced to disk) one after the other, with the same prompts and
the same concurrency; CPU is user + system of this process, without start-up. The ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from redinstruct.engine import Limits
from redinstruct.prompts import render, shipped
from redinstruct.redeval import EvalSettings, Plan, evaluate, prepare
from redinstruct.run import Store

ROOT = Path(__file__).parent.parent


def cpu() -> float:
    """CPU seconds of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def bare(url: str, prompts: list[str], concurrency: int) -> None:
    """The least an aiohttp client can do: send, read, parse, forget."""
    bodies = [
        json.dumps({"model": "m", "messages": [{"role": "user", "content": p}], "max_tokens": 500}).encode()
        for p in prompts
    ]
    stream = iter(bodies)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-stub"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def worker() -> None:
            for body in stream:
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    json.loads(await response.read())["choices"][0]["message"]["content"]

        await asyncio.gather(*(worker() for _ in range(concurrency)))


def make_plan(bank: Path, prompts: tuple[str, ...]) -> Plan:
    """The evaluation that is timed."""
    return prepare(EvalSettings(model="openai-api/stub/m", banks=(bank,), judge="refusal", prompts=tuple(prompts)))


def measure(url: str, attempts: int, concurrency: int, folder: Path) -> dict[str, float]:
    """One round: the bare loop, then the whole path."""
    bank = folder / "bank.json"
    questions = [f"What is the colour of item number {i}?" for i in range(attempts // 2)]
    bank.write_text(json.dumps(questions))
    prompts = [render(shipped(name), q) for name in ("standard", "cou") for q in questions]
    started, wall = cpu(), time.perf_counter()
    asyncio.run(bare(url, prompts, concurrency))
    bare_cpu, bare_wall = cpu() - started, time.perf_counter() - wall
    plan = make_plan(bank, ("standard", "cou"))
    run = folder / f"run-{time.monotonic_ns()}"
    started, wall = cpu(), time.perf_counter()
    outcome = evaluate(plan, run, Limits(concurrency=concurrency))
    own_cpu, own_wall = cpu() - started, time.perf_counter() - wall
    assert outcome.recorded == len(prompts), outcome
    with Store.open_for_reading(run) as store:
        assert sum(c.count for c in store.counts(1) if c.label in ("harmful", "unharmful")) == len(prompts)
    n = len(prompts)
    return {
        "bare_ms": 1000 * bare_cpu / n,
        "own_ms": 1000 * own_cpu / n,
        "ratio": own_cpu / bare_cpu,
        "bare_per_s": n / bare_wall,
        "own_per_s": n / own_wall,
    }


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    stub = subprocess.Popen(
        [sys.executable, "-m", "tests.support.endpoint"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stub.stdout is not None and stub.stdin is not None
    url = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1"
    os.environ.update(STUB_BASE_URL=url, STUB_API_KEY="sk-stub")
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(url, 400, arguments.concurrency, Path(folder))  # imports and first-time costs
            rounds = [
                measure(url, arguments.attempts, arguments.concurrency, Path(folder)) for _ in range(arguments.rounds)
            ]
    finally:
        stub.stdin.close()
        stub.wait(10)
    middle = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    if arguments.json:
        print(json.dumps({"attempts": arguments.attempts, "rounds": rounds, "median": middle}, indent=2))
        return
    print(f"{arguments.attempts} attempts a round, concurrency {arguments.concurrency}, client CPU per stored attempt")
    for number, r in enumerate(rounds, 1):
        print(f"  round {number}: bare {r['bare_ms']:.3f} ms, redinstruct {r['own_ms']:.3f} ms, ratio {r['ratio']:.2f}")
    ratios = [r["ratio"] for r in rounds]
    print(f"ratio: median {middle['ratio']:.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
