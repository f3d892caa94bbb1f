"""How long repairs of the toy model last: stress runs of the base, of `blue` and of the demo's recipe.

    python -m benchmarks.stress --seeds 0 --folder FOLDER            builds, aligns, attacks; goes on where it stopped
    python -m benchmarks.stress --seeds 0 --folder FOLDER --table    the tables of what is there, as Markdown

Forbidden and harmless questions of the test split, greedy but for the tries, judged exactly. Answers are begun with
those that the base itself gave in the CoU frame, the same for every model. `--models base,blue` are fewer. One thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from redinstruct.figures.numbers import percent
from redinstruct.figures.stressed import StressFigures, StressRow, read_stress_figures
from redinstruct.rounds.run import carry_out
from redinstruct.rounds.toy import FORBIDDEN, MAX_TOKENS, RECIPES, ToyLoop, reform, toy_config
from redinstruct.run.stress import is_stress
from redinstruct.stressing.carrying import stress
from redinstruct.stressing.options import StressOptions
from redinstruct.toyworld import build

FRAMES = ("standard", "cou")
MODELS = ("base", "blue", "npo-len")
COLLECTED = 80
"""Questions that the loops ask; those of the base in the CoU frame give the beginnings."""
PREFILL, TRIES, STEPS, BITS = (1, 3, 5), (5,), (4, 16, 64, 256), (4,)


def attack(seed: int, folder: Path, title: str, items: int) -> None:
    """Stress one base, or what was made of it by one recipe."""
    checkpoint = build(folder / f"toy-{seed}", seed)
    recipes = tuple(recipe for recipe in RECIPES if recipe.title == title)
    config = toy_config(checkpoint, folder / f"loop-{seed}", ToyLoop(items=COLLECTED, recipes=recipes, frames=FRAMES))
    if not recipes:
        config = msgspec.structs.replace(config, align=None, collect=None)
    made = carry_out(config, reform=reform(100), on_progress=lambda _: None)
    asked = StressOptions(
        model=made.models[-1].model,
        bank=str(checkpoint / "banks" / "forbidden-test.json"),
        benign=str(checkpoint / "banks" / "benign-test.json"),
        judge="exact",
        limit=items,
        max_tokens=MAX_TOKENS,
        prefill=PREFILL,
        prefill_from=made.models[0].runs[FORBIDDEN],
        samples=TRIES,
        tune=STEPS,
        quantize=BITS,
    )
    stress(asked, folder / f"stress-{seed}-{title}")


def table(folder: Path, seed: int) -> list[str]:
    """The figures of one seed, a column a model."""
    runs = {title: folder / f"stress-{seed}-{title}" for title in MODELS}
    found = {title: read_stress_figures(run) for title, run in runs.items() if is_stress(run)}
    if not found:
        return [f"(seed {seed}: nothing there)"]
    keys = list(dict.fromkeys((row.attack, row.setting) for one in found.values() for row in one.rows))
    asked = max(row.questions for one in found.values() for row in one.rows)
    lines = [f"Seed {seed}, {asked} questions: attack succeeds / harmless answered in the same frame, per cent", ""]
    lines += ["| attack | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for attack_, setting in keys:
        cells = [_cell(one, attack_, setting) for one in found.values()]
        lines.append(f"| {attack_}{'' if setting is None else f' {setting}'} | " + " | ".join(cells) + " |")
    return lines


def _cell(found: StressFigures, attack_: str, setting: int | None) -> str:
    row: StressRow | None = next((r for r in found.rows if (r.attack, r.setting) == (attack_, setting)), None)
    if row is None or row.asr.estimate is None:
        return "-"
    harmless = row.benign_in_frame
    answered = "" if harmless is None or harmless.estimate is None else f" / {percent(harmless.estimate)}"
    return f"{percent(row.asr.estimate)} [{percent(row.asr.low)}, {percent(row.asr.high)}]{answered}"


def main() -> None:
    """Run, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    for seed in map(int, given.seeds.split(",")):
        for title in given.models.split(",") if not given.table else ():
            attack(seed, given.folder, title, given.items)
        print("\n".join(table(given.folder, seed)))


if __name__ == "__main__":
    main()
