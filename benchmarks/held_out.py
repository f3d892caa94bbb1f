"""Topic hold-out on the toy world: no item, family or frame that is tested stands in an alignment's rows.

    python -m benchmarks.held_out --seeds 0,1 --folder FOLDER            builds, collects, aligns, asks; goes on
    python -m benchmarks.held_out --seeds 0,1 --folder FOLDER --table    the tables of what is there, as Markdown
    python -m benchmarks.held_out --seeds 0,1 --folder FOLDER --split dev --models npo-len,kl     which recipe? on dev
    python -m benchmarks.held_out --seeds 5,9 --folder FOLDER --split dev --models npo-len --no-in-frame
    python -m benchmarks.held_out --seeds 0,1 --folder FOLDER --models among-words --among-words

The base, `blue` and the demo's `npo-len`, each collected and trained on five families of ten and half of the plain
things; asked about three other families and other plain things (dev: two others), in frames of the demo and four unlike
ones. Greedy, judged exactly.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from redinstruct.figures.report import ResultFigures
from redinstruct.rounds.config import Recipe
from redinstruct.rounds.run import carry_out
from redinstruct.rounds.toy import RECIPES, ToyLoop, reform, toy_config
from redinstruct.stats import wilson
from redinstruct.toyworld import build
from redinstruct.toyworld.alignment import AMONG_WORDS, FORMS, IN_COU
from redinstruct.toyworld.held_out import GENERAL_AMONG_WORDS, UNLIKE, write_held_out
from redinstruct.types import OVER_REFUSAL

MODELS = ("blue", "npo-len")
_DEMO = next(recipe for recipe in RECIPES if recipe.title == "npo-len")


def _varied(name: str, *, forms: Sequence[str] = (), lora: int = 0, parameters: Mapping[str, float] | None = None,
            **settings: object) -> Recipe:  # fmt: skip
    """The demo's recipe with something else in it."""
    return replace(
        _DEMO,
        name=name,
        settings={**_DEMO.settings, **settings},
        parameters={**_DEMO.parameters, **(parameters or {})},
        forms=(*(_DEMO.forms or ()), *forms),
        lora=lora,
    )


def _among_words(name: str, general: float, steps: int = 180) -> Recipe:
    """An adapter of rank 2, with refusals in the CoU text and among random words."""
    mix = {"blue": 1.0, "general": general, "red": 1.0}
    return _varied(name, forms=(IN_COU, *AMONG_WORDS), lora=2, learning_rate=5e-3, mix=mix, steps=steps)


TRIED: Mapping[str, Recipe] = {
    **{recipe.title: recipe for recipe in RECIPES},
    "kl": _varied("kl", parameters={"kl_weight": 1.0}),
    "kl-10": _varied("kl-10", parameters={"kl_weight": 10.0}),
    "more-general": _varied("more-general", mix={"blue": 1.0, "general": 6.0, "red": 1.0}),
    "long": _varied("long", steps=360),
    "short": _varied("short", steps=90),
    "lora-2": _varied("lora-2", lora=2, learning_rate=5e-3),
    "lora-8": _varied("lora-8", lora=8, learning_rate=5e-3),
    "lora-2-low": _varied("lora-2-low", lora=2, learning_rate=2e-3),
    "gentle": _varied("gentle", learning_rate=1.5e-4, steps=360),
    "in-cou": _varied("in-cou", forms=(IN_COU,)),
    "in-cou-lora": _varied("in-cou-lora", forms=(IN_COU,), lora=8, learning_rate=5e-3),
    "in-cou-lora-2": _varied("in-cou-lora-2", forms=(IN_COU,), lora=2, learning_rate=5e-3),
    "in-cou-short": _varied("in-cou-short", forms=(IN_COU,), steps=90),
    "in-cou-lora-2-short": _varied("in-cou-lora-2-short", forms=(IN_COU,), lora=2, learning_rate=5e-3, steps=90),
    "among-words": _among_words("among-words", 4.0, steps=360),
    "among-words-short": _among_words("among-words-short", 4.0),
    "among-words-general": _among_words("among-words-general", 8.0),
    "in-cou-lora-2-long": _varied("in-cou-lora-2-long", forms=(IN_COU,), lora=2, learning_rate=5e-3, steps=360),
}
FRAMES = ("standard", "cot", "cou", "cou-paraphrase-1", "story")
ITEMS = 160


class Way(NamedTuple):
    """What is asked, whether general rows hold harmless questions in the CoU frame, and whether among random words."""

    split: str = "test"
    in_frame: bool = True
    among_words: bool = False

    @property
    def general(self) -> tuple[str, ...]:
        """The files of general rows."""
        return ("general-in-frame" if self.in_frame else "general", *([GENERAL_AMONG_WORDS] * self.among_words))

    def figures(self, folder: Path, seed: int) -> Path:
        """Where a base seed's figures lie."""
        said = {f"{self.split}-": self.split != "test", "no-in-frame-": not self.in_frame, "among-": self.among_words}
        return folder / f"{''.join(name for name, so in said.items() if so)}seed-{seed}.json"


def measure(seed: int, folder: Path, models: Sequence[str], way: Way) -> None:
    """One base seed; its figures go into a file beside its checkpoint."""
    checkpoint = build(folder / f"toy-{seed}", seed)
    held_out = write_held_out(folder / "held-out")
    toy = ToyLoop(
        items=ITEMS, recipes=tuple(TRIED[name] for name in models), frames=FRAMES, held_out=held_out,
        split=way.split, general=way.general,
    )  # fmt: skip
    config = toy_config(checkpoint, folder / f"loop-{seed}", toy)
    reformed = reform(100, held_out=True, forms=(*FORMS, IN_COU, *AMONG_WORDS))
    found = carry_out(config, reform=reformed, on_progress=lambda _: None)
    rows = [
        {"model": model.title, **{f"{one.bank}/{one.prompt}": _cell(one) for one in model.results}}
        for model in found.models
    ]
    way.figures(folder, seed).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _cell(one: ResultFigures) -> list[int]:
    """Successes (harmless ones: answered, not garbled), garbled answers, and questions."""
    harmless = one.measure == OVER_REFUSAL.name
    hits = one.counts.second - one.details.garbled if harmless else one.counts.first
    return [hits, one.details.garbled, one.counts.total]


def table(folder: Path, seeds: list[int], way: Way) -> list[str]:
    """Mean over the seeds (lowest to highest), and the interval of the pooled answers, of every cell."""
    read = [json.loads(path.read_text()) for seed in seeds if (path := way.figures(folder, seed)).is_file()]
    if not read:
        return ["(nothing there)"]
    titles = [row["model"] for row in read[0]]
    cells = [name for name in read[0][0] if name != "model"]
    lines = [
        f"{len(read)} base seed(s)",
        "",
        "| bank, frame | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(titles),
    ]
    for cell in cells:
        found = []
        for title in titles:
            counts = [row[cell] for rows in read for row in rows if row["model"] == title]
            shares = [hits / total for hits, _, total in counts]
            low, high = wilson(sum(c[0] for c in counts), sum(c[2] for c in counts))[1:3]
            garbled = sum(c[1] for c in counts) / sum(c[2] for c in counts)
            between = f" ({min(shares):.2f} to {max(shares):.2f})" if len(shares) > 1 else ""
            found.append(f"{sum(shares) / len(shares):.3f}{between} [{low:.3f}, {high:.3f}]"
                         + (f", garbled {garbled:.2f}" if garbled >= 0.005 else ""))  # fmt: skip
        mark = " (unlike)" if cell.partition("/")[2] in UNLIKE else ""
        lines.append(f"| {cell}{mark} | " + " | ".join(found) + " |")
    return lines


def main() -> None:
    """Run, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--no-in-frame", action="store_true")
    parser.add_argument("--among-words", action="store_true")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    way = Way(given.split, not given.no_in_frame, given.among_words)
    for seed in seeds if not given.table else ():
        measure(seed, given.folder, given.models.split(","), way)
    print("\n".join(table(given.folder, seeds, way)))


if __name__ == "__main__":
    main()
