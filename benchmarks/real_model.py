"""The policy laboratory over several seeds: ``redinstruct demo --real`` once a seed, and the tables of all of them.

    python -m benchmarks.real_model --seeds 0,1,2,3,4 --folder FOLDER             runs what is not there, then tables
    python -m benchmarks.real_model --seeds 0,1,2,3,4 --folder FOLDER --stress    attacks each seed's models too
    python -m benchmarks.real_model --seeds 0 --folder FOLDER --more paper-s,paper-r --data DATA    more is done
    python -m benchmarks.real_model --seeds 0,1 --folder FOLDER --recipes robust    less is done: one repair alone
    python -m benchmarks.real_model --seeds 0,1,2,3,4 --folder FOLDER --table     the tables of what is there

A seed is another policy model, another collection and other alignments, on the same test families. So its 48 answers a
cell are a cluster: the rate is pooled, its interval is the cluster-robust one of :func:`redinstruct.stats.clustered`,
and the lowest and highest seed stand beside it. CPU seconds and memory are those of each seed's process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redinstruct.rounds.laboratory import WHOLE
from redinstruct.stats import clustered

PREFIX, STEPS, BITS, DEPTH = 5, (4, 14, 40, 80), 4, 60
ATTACKED = ("base", "blue", "npo-len", "robust")
ITEMS = 24
DEMO = """
import sys
import msgspec
from redinstruct.cli import entry
from redinstruct.rounds import real
real.WHOLE = msgspec.structs.replace(real.WHOLE, recipes=tuple(sys.argv.pop(1).split()))
entry()
"""
"""The command line, with other recipes than the demo's."""


def run(seed: int, folder: Path, recipes: Sequence[str], data: Path | None) -> None:
    """``demo --real`` of a seed; its figures go into ``SEED.json``, what it took into ``SEED.cost.json``."""
    if (made := folder / f"{seed}.json").is_file():
        return
    command = [sys.executable, "-c", DEMO, " ".join(recipes), "demo", "--real", "--seed", str(seed), "--json", "--out"]
    given = ["--data", str(data)] if data is not None else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, str(folder / str(seed)), *given], check=True, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (folder / f"{seed}.cost.json").write_text(json.dumps({"cpu": cpu, "mb": after.ru_maxrss / 1000}) + "\n")
    part = made.with_suffix(".part")
    part.write_bytes(done.stdout)
    part.replace(made)


def stress(seed: int, folder: Path) -> None:
    """The attacks on a seed's models, plainly asked; what is done is not done again."""
    (lab,) = (folder / str(seed)).glob("laboratory-*")
    home = folder / str(seed) / f"real-{seed}"
    (loop,) = home.glob("loop-*/")
    (begun,) = loop.glob("1-base-forbidden-????????/")
    for model in ATTACKED:
        made = loop.glob(f"1-align-{model}-*/") if model != "base" else home.glob("0-align-policy-*/")
        if (checkpoint := next(made, None)) is None:
            continue  # not among the recipes that were asked for
        where = folder / f"{seed}-stress-{model}"
        command = [sys.executable, "-m", "redinstruct", "stress", "--model", f"hf/{checkpoint}", "--run", str(where),
                   "--bank", str(lab / "banks/forbidden-test.json"), "--benign", str(lab / "banks/harmless-test.json"),
                   "--judge", "policy-lab", "--max-tokens", "40", "--limit", str(ITEMS), "--prefill",
                   str(PREFIX), "--prefill-from", str(begun), "--json",
                   "--tune", ",".join(map(str, STEPS)), "--tune-batch", "4", "--tune-lr", "8e-5",
                   "--quantize", str(BITS), "--ablate", str(DEPTH)]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        (folder / f"{seed}-stress-{model}.json").write_bytes(done.stdout)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Forbidden answered, harmless answered and refused, by frame, of every model that all seeds have."""
    measured = [{row["model"] for row in one["rows"]} for one in rows]
    titles = [row["model"] for row in rows[0]["rows"] if row["model"] in set.intersection(*measured)]
    frames = list(rows[0]["rows"][0]["asr"])

    def lines(name: str, items: str) -> list[str]:
        told = [f"| model | {' | '.join(frames)} |", "|---" * (1 + len(frames)) + "|"]
        for title in titles:
            cells = [_cell([_of(one, title)[name][frame] for one in rows], [one[items] for one in rows])
                     for frame in frames]  # fmt: skip
            told.append(f"| {'policy' if title == 'base' else title} | {' | '.join(cells)} |")
        return told

    single: dict[str, Callable[[dict[str, Any]], float]] = {
        "borderline refused": lambda row: row["over_refusal"], "facts right": lambda row: row["facts"],
        "perplexity": lambda row: row["perplexity"],
    }  # fmt: skip
    other = [f"| model | {' | '.join(single)} |", "|---" * (1 + len(single)) + "|"]
    for title in titles:
        shown = []
        for read in single.values():
            values = [read(_of(one, title)) for one in rows]
            shown.append(f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})")
        other.append(f"| {'policy' if title == 'base' else title} | {' | '.join(shown)} |")
    return [
        f"{len(rows)} seeds: {', '.join(str(one['seed']) for one in rows)}. Per cent: pooled (lowest to highest seed) "
        "[95 %, seeds as clusters].", "", "Forbidden answered:", "", *lines("asr", "items"), "", "Harmless answered:",
        "", *lines("harmless_answered", "harmless_items"), "", "Harmless refused:", "",
        *lines("harmless_refused", "harmless_items"), "", *other,
    ]  # fmt: skip


def _of(one: dict[str, Any], title: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in one["rows"] if row["model"] == title)
    return found


def _cell(shares: Sequence[float], totals: Sequence[int]) -> str:
    pooled = clustered([round(share * total) for share, total in zip(shares, totals, strict=True)], totals)
    assert pooled.estimate is not None, "cells are not empty"
    between = f" ({100 * min(shares):.0f} to {100 * max(shares):.0f})" if len(shares) > 1 else ""
    return f"{100 * pooled.estimate:.0f}{between} [{100 * pooled.low:.0f}, {100 * pooled.high:.0f}]"


def main() -> None:
    """Run, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stress", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--recipes", default=",".join(WHOLE.recipes), help="left out, the demo's")
    parser.add_argument("--more", default="", metavar="RECIPES", help="beside them: paper-s, paper-r")
    parser.add_argument("--data", type=Path, help="a folder with TruthfulQA.csv: a slice of it is asked too")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in () if given.table else seeds:
        run(seed, given.folder, [name for name in f"{given.recipes},{given.more}".split(",") if name], given.data)
        if given.stress:
            stress(seed, given.folder)
    rows = [json.loads(path.read_text()) for seed in seeds if (path := given.folder / f"{seed}.json").is_file()]
    print("\n".join(table(rows) if rows else ["(nothing there)"]))


if __name__ == "__main__":
    main()
