"""Which recipe for the policy laboratory? A sweep on the dev families of gardening, the subject that no figure is of.

    python -m benchmarks.policy_lab --folder FOLDER                 teaches the policy, then sweeps; goes on
    python -m benchmarks.policy_lab --folder FOLDER --recipes a,b   some of the points
    python -m benchmarks.policy_lab --folder FOLDER --seed 1        another policy model, and its alignments
    python -m benchmarks.policy_lab --folder FOLDER --table         the table of what is there, by frame

Every model is asked forbidden and harmless questions in the same frames, in wordings that no recipe is told by in the
end (``-3`` is not among them). What is chosen here is what ``demo --real`` has; its test families and its subject are
not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import msgspec

from redinstruct.policy import subject
from redinstruct.policy.files import COU, RULES, STANDARD, STORY, write_laboratory
from redinstruct.progress import unheard
from redinstruct.prompts import forms
from redinstruct.rounds.beside import measured_beside
from redinstruct.rounds.config import LoopConfig, MemoryPart, PickPart, Recipe, SweepConfig, SweepPart
from redinstruct.rounds.laboratory import FORBIDDEN, HARMLESS, TUNED, WHOLE, install, laboratory_config
from redinstruct.rounds.ledger import Ledger
from redinstruct.rounds.run import carry_out
from redinstruct.rounds.sweep import carry_out_sweep

SUBJECT = "gardening"
FRAMES = (STANDARD, COU, f"{COU}-2", RULES, STORY)
ITEMS = 24
STEPS, BATCH = 14, 12


class Varied(TypedDict, total=False):
    """What a point differs in."""

    mix: dict[str, float]
    rate: float
    weight: float
    deep: float
    strategy: str
    steps: int
    forms: tuple[str, ...]
    depth: int
    kl: float
    picked: int
    lora: int


REFUSED = tuple(form for form in forms.FORMS if form != forms.DEEP)
POINTS: Mapping[str, Varied] = {
    "few-harmless": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}},
    "more-harmless": {"mix": {"blue": 2.0, "general": 9.0, "red": 1.0}},
    "blue": {"mix": {"blue": 2.5, "general": 9.5}, "strategy": "blue"},
    "gentle": {"mix": {"blue": 2.0, "general": 9.0, "red": 1.0}, "rate": 5e-5},
    "long": {"mix": {"blue": 2.0, "general": 9.0, "red": 1.0}, "rate": 5e-5, "steps": 22},
    "most-harmless": {"mix": {"blue": 1.0, "general": 10.0, "red": 1.0}},
    "no-prefix": {"mix": {"blue": 2.0, "general": 9.0, "red": 1.0}, "deep": 0.0, "forms": REFUSED},
    "short": {"mix": {"blue": 2.0, "general": 9.0, "red": 1.0}, "steps": 9},
    "twice": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 28},
    "twice-no-prefix": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 28, "deep": 0.0, "forms": REFUSED},
    "twice-kl": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 28, "kl": 1.0},
    "twice-shallow": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 28, "deep": 0.5, "depth": 8},
    "four-times": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 56},
    "four-times-kl": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 56, "kl": 1.0},
    "four-times-shallow": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 56, "depth": 8},
    "picked": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 56, "picked": 14},
    "lora-8": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 28, "lora": 8, "rate": 8e-4},
    "lora-8-long": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 56, "lora": 8, "rate": 4e-4},
    "eight-times-kl": {"mix": {"blue": 4.0, "general": 7.0, "red": 1.0}, "steps": 112, "kl": 1.0},
    "twice-blue": {"mix": {"blue": 4.0, "general": 8.0}, "strategy": "blue", "steps": 28, "deep": 0.0},
}


def recipe(name: str, varied: Varied) -> Recipe:
    """A point as a recipe of the sweep."""
    strategy = varied.get("strategy", "npo-len")
    return Recipe(
        name=name,
        strategy=strategy,
        preset="starling",
        settings={**TUNED, "learning_rate": varied.get("rate", 8e-5), "steps": varied.get("steps", STEPS),
                  "batch": BATCH, "mix": varied["mix"], "deep_prefix": varied.get("deep", 0.3),
                  "deep_prefix_tokens": varied.get("depth", 100)},
        forms=varied.get("forms", forms.FORMS if strategy == "npo-len" else REFUSED),
        parameters={"red_weight": varied.get("weight", 0.1), "kl_weight": varied.get("kl", 0.0)}
        if strategy == "npo-len"
        else {},
        pick_every=varied.get("picked"),
        lora=varied.get("lora", 0),
        guard=False,
        memory=MemoryPart(gb=5.0),
    )  # fmt: skip


def config_of(folder: Path, names: list[str], seed: int) -> SweepConfig:
    """The policy model of a seed, made or found, and the sweep on it."""
    lab = write_laboratory(folder, subject(SUBJECT))
    policy = install(folder / "policy", lab, seed, WHOLE, unheard, SUBJECT)
    sizes = msgspec.structs.replace(WHOLE, items=ITEMS, harmless=ITEMS, frames=FRAMES)
    loop = laboratory_config(policy, lab, folder / "sweep", seed, sizes, "dev")
    assert loop.align is not None
    # Which step is kept is chosen in the dialogue and under rules, of the questions that the table is of: on dev.
    safety, utility = (
        msgspec.structs.replace(part, name=name, prompts=(COU, RULES))
        for part, name in zip(loop.eval, ("safety", "utility"), strict=False)
    )
    align = msgspec.structs.replace(
        loop.align,
        recipes=tuple(recipe(name, POINTS[name]) for name in names),
        pick=PickPart(safety, utility) if any("picked" in POINTS[name] for name in names) else None,
    )
    return SweepConfig(
        loop.model, loop.eval, loop.folder, collect=loop.collect, align=align, sweep=SweepPart(seeds=(seed,))
    )


def table(folder: Path) -> list[str]:
    """Answered, refused of 24, by frame: forbidden, then harmless; and perplexity per word on prose in no row."""
    cells = [(kind, frame) for kind in (FORBIDDEN, HARMLESS) for frame in FRAMES]
    heads = ["model", *(f"{kind}, {frame}" for kind, frame in cells), "perplexity"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, rows in json.loads((folder / "figures.json").read_text()).items():
        told = [", ".join(map(str, rows[kind][frame])) for kind, frame in cells]
        lines.append(f"| {title} | {' | '.join(told)} | {rows['perplexity']:.1f} |")
    return lines


def sweep(folder: Path, names: list[str], seed: int) -> None:
    """Carry it out; the counts go into ``figures.json``."""
    config = config_of(folder, names, seed)
    carry_out_sweep(config, on_progress=unheard)
    # The same call again finds every stage done: the loop's own figures, by frame.
    loop = {name: getattr(config, name) for name in ("model", "eval", "folder", "collect", "align")}
    found: dict[str, dict[str, dict[str, list[int]] | float]] = {}
    models = carry_out(LoopConfig(**loop), on_progress=unheard).models
    ledger = Ledger(Path(config.folder), unheard, len(models))
    for model in models:
        rows: dict[str, dict[str, list[int]]] = {FORBIDDEN: {}, HARMLESS: {}}
        found[model.title] = {**rows, "perplexity": measured_beside(ledger, model, None)[0]}
        for one in model.results:
            kind = one.bank.split("-")[0]
            refused = one.details.refused if kind == FORBIDDEN else one.counts.first
            answered = one.counts.first if kind == FORBIDDEN else one.details.complied
            rows[kind][one.prompt] = [answered, refused]
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recipes", default=",".join(POINTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        sweep(given.folder / f"seed-{given.seed}", given.recipes.split(","), given.seed)
    print("\n".join(table(given.folder / f"seed-{given.seed}")))


if __name__ == "__main__":
    main()
