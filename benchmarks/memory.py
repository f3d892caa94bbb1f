"""What `align --plan` says an alignment takes, against the peak that it took.

    python -m benchmarks.memory [--checkpoint SMOLLM2] [--only NAME,...] [--json]

Each configuration is planned and then run, in processes of their own, on a CPU with one thread: two steps of 8 inert
rows (benign toy-world conversations, a third of them in a Chain-of-Utterances text), the writing of the checkpoint
included. Measured is the largest resident size that the system saw of the run (ru_maxrss); the plan's figure is
``host_gb``. Without --checkpoint (a SmolLM2-135M-Instruct folder) a random Llama of 5 million parameters is used alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


class Case(msgspec.Struct, frozen=True):
    """One configuration: flags of ``align`` beside data and folders. ``turns`` exchanges make a row."""

    name: str
    flags: tuple[str, ...]
    small: bool = False
    turns: int = 1


CASES = (
    Case("random 5M", ("--strategy", "blue", "--accumulation", "1"), small=True),
    Case("full", ("--strategy", "blue", "--max-length", "256")),
    Case("full, checkpointed", ("--strategy", "npo-len", "--max-length", "256", "--activation-checkpointing")),
    Case("full, 8 rows at once", ("--strategy", "blue", "--accumulation", "1", "--max-length", "192")),
    Case("adapter", ("--strategy", "blue", "--lora", "8", "--accumulation", "2", "--max-length", "192")),
    Case("starling, long rows, at most 4 GB", ("--strategy", "blue", "--memory", "4"), turns=8),
    Case("starling, long rows", ("--strategy", "blue"), turns=12),
)
_RUN = "import sys; from redinstruct.cli import entry; sys.argv[0] = 'redinstruct'; entry()"


def write_rows(folder: Path, turns: int = 1) -> list[str]:
    """Inert rows of every stream: what is learnt, what is general, and what is penalised."""
    from benchmarks.training import rows

    random.seed(0)
    made = rows(144)
    streams: dict[str, list[dict[str, Any]]] = {"blue": made[:48], "general": made[48:96], "red": made[96:]}
    for name, own in streams.items():
        starts = range(0, len(own) - turns + 1, turns)
        streams[name] = [
            {"messages": [turn for row in own[at : at + turns] for turn in row["messages"]]} for at in starts
        ]
    for row in streams["red"]:
        row["messages"][-1]["weight"] = -1.0
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in (*streams["blue"], *streams["red"])))
    general = folder / "general.jsonl"
    general.write_text("".join(json.dumps(row) + "\n" for row in streams["general"]))
    return ["--data", str(data), "--general", str(general)]


def peak_of(command: list[str], said: Path) -> tuple[int, float]:
    """Exit code, and the largest resident size in GB."""
    with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024 / 1e9


def measure(case: Case, base: Path, data: list[str], folder: Path) -> dict[str, Any]:
    flags = ["align", "--base", str(base), *data, *case.flags, "--preset", "starling", "--steps", "2", "--batch", "8",
             "--threads", "1", "--out", str(folder / "out"), "--json"]  # fmt: skip
    said = folder / "said"
    peak_of([sys.executable, "-c", _RUN, *flags, "--plan", "--gpus", "0"], said)
    plan = json.loads(said.read_text())
    code, peak = peak_of([sys.executable, "-c", _RUN, *flags], said)
    if code:
        sys.exit(f"{case.name}: {said.with_suffix('.err').read_text()[-2000:]}")
    subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
    return {"case": case.name, "planned": plan["host_gb"], "peak": round(peak, 3), "over": plan["host_gb"] / peak - 1,
            "micro_batch": plan["micro_batch"], "accumulation": plan["accumulation"], "longest": plan["longest_row"],
            "checkpointing": plan["checkpointing"], "dtype": plan["dtype"], "parts": plan["parts"]}  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| configuration | longest row | micro-batch | checkpointed | base | planned GB | peak GB | off by |"]
    lines.append("|---|--:|--:|---|---|--:|--:|--:|")
    lines += [
        f"| {one['case']} | {one['longest']} | {one['micro_batch']} | {'yes' if one['checkpointing'] else 'no'}"
        f" | {one['dtype']} | {one['planned']:.2f} | {one['peak']:.2f} | {100 * one['over']:+.0f} % |"
        for one in found
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else [case.name for case in CASES]
    found = []
    with tempfile.TemporaryDirectory() as name:
        from benchmarks.training import save_model

        folder = Path(name)
        save_model(folder / "small", 32_000)
        for case in CASES:
            if case.name not in wanted or (given.checkpoint is None and not case.small):
                continue
            data = write_rows(folder, case.turns)
            found.append(measure(case, folder / "small" if case.small else given.checkpoint, data, folder))
            print(table(found[-1:]).splitlines()[-1], json.dumps(found[-1]["parts"]), file=sys.stderr, flush=True)
    print(json.dumps(found) if given.json else table(found))


if __name__ == "__main__":
    main()
