"""SAFE-ALIGN on the toy world: every strategy at one budget, and the demo's recipes, over base seeds.

    python -m benchmarks.alignment --seeds 5,6,7,8,9 --folder FOLDER     trains and measures; goes on where it stopped
    python -m benchmarks.alignment --seeds 5,6,7,8,9 --folder FOLDER --table    the tables of what is there, as Markdown
    python -m benchmarks.alignment --parts --split dev --seeds 0,1,2 --folder FOLDER    the demo's recipe, part by part

One thread. Seeds can run side by side in one folder. The split is ``test`` unless ``--split dev``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.figures.report import plain
from redinstruct.rounds.config import Recipe
from redinstruct.rounds.run import Measured, carry_out
from redinstruct.rounds.toy import BENIGN, BEST, BORDERLINE, FORBIDDEN, FRAMES, RECIPES, ToyLoop, reform, toy_config
from redinstruct.stats import wilson
from redinstruct.toyworld import build

STEPS = 90
PLAIN = ("chat", "talk")
PARTS, NO_RED, OUT_OF_FRAME = "-parts", "no-red-term", "none-in-frame"
EQUAL = ("general", "blue", "paper-s", "paper-r", "unbounded", "hinge", "npo", "npo-len", "simnpo", "unlikelihood")


def equal_budget() -> tuple[Recipe, ...]:
    """Every strategy with its own defaults: the same steps, the same rows, no deep prefixes."""
    return tuple(
        # The unbounded one is shown without the guard that would drop its red term.
        Recipe(name=f"{name}.{STEPS}", strategy=name, preset="toy", forms=PLAIN, guard=name != "unbounded",
               settings={"steps": STEPS, "deep_prefix": 0.0})
        for name in EQUAL
    )  # fmt: skip


def parts_of_the_best() -> tuple[Recipe, ...]:
    """The demo's best recipe, with one part of it left out at a time; and with all of them, but without a red term."""
    (best,) = (recipe for recipe in RECIPES if recipe.title == BEST)
    replace = msgspec.structs.replace

    def without(name: str, *, forms: tuple[str, ...] | None = best.forms, **settings: Any) -> Recipe:
        return replace(best, name=name, forms=forms, settings={**best.settings, **settings})

    return (
        best,
        without("plain-forms", forms=PLAIN),
        without("no-deep-prefix", deep_prefix=0.0),
        without("60-steps", steps=60),
        replace(best, name="red-weight-0.3", parameters={}),  # the strategy's own
        without("plain-forms+no-deep-prefix", forms=PLAIN, deep_prefix=0.0),
        replace(best, name=NO_RED, strategy="blue", parameters={}),
        replace(best, name=OUT_OF_FRAME),
    )


def run(
    seed: int, folder: Path, split: str, items: int, recipes: tuple[Recipe, ...], rounds: int, study: str = ""
) -> None:
    """Measure one base seed; its figures go into ``seed-N<study>.json``."""
    checkpoint = build(folder / f"toy-{seed}", seed)
    place = folder / f"loop-{seed}-{split}{study}"
    models: list[Measured] = []
    seconds: dict[str, float] = {}
    # The base and the collection are found done by the second: only the general rows differ.
    for in_frame in (True, False):
        some = tuple(recipe for recipe in recipes if (recipe.title != OUT_OF_FRAME) == in_frame)
        if not some:
            continue
        general = ("general-in-frame" if in_frame else "general",)
        toy = ToyLoop(split=split, items=items, recipes=some, rounds=rounds, general=general)
        config = toy_config(checkpoint, place, toy)
        result = carry_out(config, reform=reform(100), on_progress=lambda _: None)
        models += result.models if in_frame else [model for model in result.models if model.before is not None]
        seconds |= {stage.name: stage.seconds for stage in result.stages}
    rows = [
        {
            "model": model.title if rounds == 1 or model.before is None else f"round {model.round}: {model.title}",
            "cells": {
                f"{cell.bank.rpartition('-')[0]}/{cell.prompt}": {**plain(cell.counts), **plain(cell.details)}
                for cell in model.results
            },
        }
        for model in models
    ]
    _file(folder, seed, study).write_text(json.dumps({"seed": seed, "rows": rows, "seconds": seconds}))


def _file(folder: Path, seed: int, study: str) -> Path:
    return folder / f"seed-{seed}{study}.json"


def tables(folder: Path, seeds: list[int], study: str = "") -> str:
    """Per recipe: attack success over seeds and pooled, the answers apart, and what became of harmless questions."""
    found = [json.loads(_file(folder, seed, study).read_text()) for seed in seeds]
    names = [row["model"] for row in found[0]["rows"]]
    by_name = [{row["model"]: row["cells"] for row in one["rows"]} for one in found]

    def cells(name: str, cell: str) -> list[dict[str, int]]:
        return [one[name][cell] for one in by_name]

    def share(counts: dict[str, int], key: str) -> float:
        return counts[key] / counts["total"]

    def over_seeds(name: str, cell: str, key: str) -> str:
        shares = [share(counts, key) for counts in cells(name, cell)]
        return f"{sum(shares) / len(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"

    def pooled(name: str, cell: str, key: str) -> str:
        told, total = (sum(counts[what] for counts in cells(name, cell)) for what in (key, "total"))
        found = wilson(told, total)
        return f"[{found.low:.3f}, {found.high:.3f}]"

    lines = ["**Attack success, mean over seeds (lowest to highest)**", "", _head(["recipe", *FRAMES])]
    lines += [
        _row([name, *(over_seeds(name, f"{FORBIDDEN}/{frame}", "harmful") for frame in FRAMES)]) for name in names
    ]
    lines += ["", "**CoU: per seed, and Wilson 95 % of the pooled answers**", ""]
    lines += [_head(["recipe", *(f"seed {seed}" for seed in seeds), "pooled"])]
    for name in names:
        each = [f"{share(counts, 'harmful'):.3f}" for counts in cells(name, f"{FORBIDDEN}/cou")]
        lines += [_row([name, *each, pooled(name, f"{FORBIDDEN}/cou", "harmful")])]
    if study == PARTS:
        lines += ["", "**Garbled, mean over seeds (lowest to highest)**", "", _head(["recipe", *FRAMES])]
        lines += [
            _row([name, *(over_seeds(name, f"{FORBIDDEN}/{frame}", "garbled") for frame in FRAMES)]) for name in names
        ]
    apart = ("complied", "refused", "partial", "garbled")
    for frame in ("standard", "cot", "cou"):
        lines += ["", f"**{frame}: all seeds' answers apart**", "", _head(["recipe", *apart])]
        for name in names:
            counted = [sum(counts[what] for counts in cells(name, f"{FORBIDDEN}/{frame}")) for what in apart]
            lines += [_row([name, *map(str, counted)])]
    useful = {
        "benign": (f"{BENIGN}/standard", "complied"),
        "benign in frame": (f"{BENIGN}/cou", "complied"),
        "over-refusal": (f"{BORDERLINE}/standard", "refused"),
    }
    lines += ["", "**Harmless questions: answered rightly; borderline ones refused**", "", _head(["recipe", *useful])]
    lines += [_row([name, *(over_seeds(name, *where) for where in useful.values())]) for name in names]
    lines += ["", "**Seconds of aligning, median over seeds**", "", _head(["recipe", "seconds"])]
    for name in names[1:]:
        took = sorted(_seconds(one["seconds"], name) for one in found)
        lines += [_row([name, f"{took[len(took) // 2]:.0f}"])]
    return "\n".join(lines)


def _seconds(stages: dict[str, float], name: str) -> float:
    number, _, title = name.removeprefix("round ").partition(": ") if name.startswith("round ") else ("1", "", name)
    return sum(s for stage, s in stages.items() if stage in (f"{number}-align-{title}", f"{number}-sweep-{title}"))


def _head(names: list[str]) -> str:
    return _row(names) + "\n" + _row(["---"] * len(names))


def _row(values: list[Any]) -> str:
    return f"| {' | '.join(map(str, values))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="5,6,7,8,9")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=1, help="2: the blue recipe again, on its own model and new data")
    parser.add_argument("--parts", action="store_true", help="the demo's best recipe with one part left out at a time")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    study = PARTS if chosen.parts else "" if chosen.rounds == 1 else f"-{chosen.rounds}-rounds"
    if chosen.table:
        print(tables(chosen.folder, seeds, study))
        return
    chosen.folder.mkdir(parents=True, exist_ok=True)
    recipes = (*equal_budget(), *(recipe for recipe in RECIPES if recipe.title in (BEST, "resta")))
    if chosen.parts:
        recipes = parts_of_the_best()
    elif chosen.rounds > 1:
        recipes = tuple(recipe for recipe in equal_budget() if recipe.strategy == "blue")
    for seed in seeds:
        run(seed, chosen.folder, chosen.split, chosen.items, recipes, chosen.rounds, study)
        print(f"seed {seed} is done", flush=True)


if __name__ == "__main__":
    main()
