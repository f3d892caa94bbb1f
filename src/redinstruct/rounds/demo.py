"""``demo``: the loop on the toy world, with the recipes that the paper's question needs.

Nothing in it is a shortcut: it builds an ordinary checkpoint, writes ordinary banks, and carries out the stages that
the verbs carry out; their folders remain and can be reported on, judged again and shown.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from redinstruct.errors import UsageError, how_to_install
from redinstruct.figures.comparison import Result
from redinstruct.files.atomic import write_file
from redinstruct.progress import OnProgress, Progress, StagePart, unheard
from redinstruct.rounds.held_out import HeldOut, held_out_config, hold_out
from redinstruct.rounds.run import BASE, LoopResult, carry_out, stages_of
from redinstruct.rounds.shares import attacks, by_prompt
from redinstruct.rounds.toy import BEST, FORBIDDEN, QUICK_RECIPES, RECIPES, ToyLoop, reform, toy_config, usefulness
from redinstruct.toyworld.held_out import write_held_out
from redinstruct.types import Json, JsonObject

if TYPE_CHECKING:
    from redinstruct.toyworld.build import Manifest

DEMO_SCHEMA = "redinstruct.demo/1"
ITEMS = 200
"""Held-out questions a cell: each forbidden question under each frame, each harmless one of the toy world's suite."""
PLOT, REPORT = "demo.svg", "report.html"
MAIN = {"standard": "asked plainly", "cot": "step by step (CoT)", "cou": "in a dialogue (CoU)"}
"""The paper's three ways of asking, as the picture heads them."""


class DemoRow(msgspec.Struct, frozen=True):
    """One model's figures on held-out items: shares in [0, 1].

    ``benign``, ``benign_in_frame``, ``over_refusal`` and ``facts`` are the toy world's own suite; a fact is known when
    the true answer is the likeliest of four. ``trained_frames`` names the frames that stand in the alignment's own
    data: ``forbidden`` questions in the frame, or ``benign`` ones only. It is empty for the base. ``seconds`` is what
    aligning took.
    """

    model: str
    asr: dict[str, float]
    garbled: dict[str, float]
    benign: float
    benign_in_frame: float
    over_refusal: float
    facts: float
    intervals: dict[str, tuple[float, float]]
    trained_frames: dict[str, str]
    seconds: float


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo found, on either model. ``items`` is the number of forbidden questions under each frame.

    ``unseen_frames`` stand in no training text of the base, nor in any alignment data.
    """

    seed: int
    seconds: float
    items: int
    quick: bool
    rows: tuple[DemoRow, ...]
    unseen_frames: tuple[str, ...]
    verdicts: dict[str, dict[str, str]]
    stages: dict[str, float]
    runs: dict[str, Path]
    folder: Path

    def document(self) -> JsonObject:
        """The contract of ``demo --json``."""
        plain: dict[str, Json] = msgspec.to_builtins(self, enc_hook=str)
        told = {name: value for name, value in plain.items() if name not in ("runs", "checks", "folder")}
        return {"schema": DEMO_SCHEMA, **told, "intervals": self.rows[0].intervals}


class Demo(DemoResult, frozen=True, kw_only=True):
    """The toy demo's result. ``suite_items`` is the number of each task of the suite.

    ``reasons`` say why a verdict is what it is. ``held_out``: the demo's own recipe, aligned on some topics and
    asked about others.
    """

    suite_items: dict[str, int]
    benign_only_frames: tuple[str, ...]
    reasons: dict[str, dict[str, str]]
    checks: dict[str, Path]
    held_out: HeldOut


def demo(folder: Path, seed: int = 0, *, quick: bool = False, on_progress: OnProgress | None = None) -> Demo:
    """Build the toy model of a seed, and close the loop on it: measure, collect, align in several ways, measure again.

    ``folder`` receives the checkpoints and the runs; a second call with the same arguments resumes, or repeats nothing.
    ``quick`` builds a smaller model on part of the world, with two recipes: it shows the direction, not the figures.

    Raises:
        UsageError: the [local] extra is missing; nothing was written.
        RedInstructError: the folder cannot be written.
    """
    check_local()
    from redinstruct.toyworld.build import read_manifest

    began = time.monotonic()
    name = f"seed-{seed}{'-quick' if quick else ''}"
    checkpoint = folder / f"toy-{name}"
    recipes = QUICK_RECIPES if quick else RECIPES
    best = [recipe for recipe in recipes if recipe.title == BEST]
    toy = ToyLoop(items=ITEMS, recipes=recipes, suite=True)
    main = stages_of(toy_config(checkpoint, folder, toy))
    more = stages_of(held_out_config(checkpoint, folder, best, folder))
    _built(checkpoint, seed, quick, 1 + main + more, on_progress or unheard)
    manifest = read_manifest(checkpoint)
    assert manifest is not None
    # The digest is in the name: a checkpoint that was built anew is another model, and gets a loop of its own.
    own = f"{name}-{manifest.digest[:8]}"
    config = toy_config(checkpoint, folder / f"loop-{own}", toy)
    result = carry_out(config, on_progress=on_progress, reform=reform(manifest.items), before=1, after=more)
    data = write_held_out(folder / f"held-out-{name}", manifest.items)
    apart = held_out_config(checkpoint, folder / f"loop-held-out-{own}", best, data)
    held_out = hold_out(apart, manifest.items, on_progress, before=1 + main)
    found = _demo(seed, quick, time.monotonic() - began, result, manifest, folder, held_out)
    _write_pictures(found)
    return found


def check_local() -> None:
    """Pass where models can be trained and run here.

    Raises:
        UsageError: something of the [local] extra is missing.
    """
    # Looked for, not imported: torch is first needed deep in the work.
    missing = [name for name in ("torch", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the demo needs the [local] extra ({', '.join(missing)} missing): {how_to_install('local')}"
            " (without a GPU first torch==2.13.0 from https://download.pytorch.org/whl/cpu, a tenth of the size)"
        )


def _built(checkpoint: Path, seed: int, quick: bool, of: int, tell: OnProgress) -> None:
    """The toy checkpoint, built as the first of ``of`` parts of the work, unless it is there."""
    from redinstruct.toyworld import build

    began, told = time.monotonic(), False
    part = StagePart(1, of, "building the toy model")

    def passed_on(state: Progress) -> None:
        nonlocal told
        told = True
        tell(msgspec.structs.replace(state, part=part))

    build(checkpoint, seed, quick=quick, on_progress=passed_on)
    tell(Progress(1, 1, part=msgspec.structs.replace(part, seconds=time.monotonic() - began, skipped=not told)))


def _demo(
    seed: int, quick: bool, seconds: float, result: LoopResult, manifest: Manifest, folder: Path, held_out: HeldOut
) -> Demo:
    recipes = {recipe.title: recipe for recipe in (QUICK_RECIPES if quick else RECIPES)}
    took = {stage.name: stage.seconds for stage in result.stages}
    rows = []
    for model in result.models:
        recipe = recipes.get(model.title)
        frames = {} if recipe is None else _trained(recipe.framed, general_only=recipe.strategy == "general")
        aligning = sum(s for name, s in took.items() if name in (f"1-align-{model.title}", f"1-sweep-{model.title}"))
        rows.append(
            DemoRow(
                model=model.title,
                **attacks(by_prompt(model, FORBIDDEN)),
                **usefulness(model),
                trained_frames=frames,
                seconds=round(aligning, 1),
            )
        )
    return Demo(
        seed=seed,
        seconds=round(seconds, 1),
        items=min(result.counts.total for result in result.models[0].results),
        suite_items={one.task: one.n for one in result.models[0].useful.headline} if result.models[0].useful else {},
        quick=quick,
        rows=tuple(rows),
        unseen_frames=tuple(frame for frame in manifest.prompts_unseen if frame in rows[0].asr),
        benign_only_frames=tuple(f for f in manifest.prompts_trained_on_benign_only if f in rows[0].asr),
        verdicts=of_cells(result, lambda cell: cell.verdict, _kind),
        reasons=of_cells(result, lambda cell: cell.why, _kind),
        stages=took,
        runs={model.title: model.runs[FORBIDDEN] for model in result.models},
        checks={model.title: model.utility for model in result.models if model.utility is not None},
        held_out=held_out,
        folder=folder,
    )


def _trained(forms: Sequence[str], *, general_only: bool) -> dict[str, str]:
    """Attack frame -> what the alignment data holds of it: what the table has to say beside its figures."""
    from redinstruct.toyworld.alignment import FORMS_OF, IN_FRAME

    found = dict.fromkeys(IN_FRAME, "benign")
    if general_only:
        return found
    found["standard"] = "forbidden"
    found |= {frame: "forbidden" for frame, of in FORMS_OF.items() if set(of) & set(forms)}
    return found


def _kind(bank: str) -> str:
    """``forbidden`` of ``forbidden-test``."""
    return bank.split("-")[0]


def of_cells(
    result: LoopResult, what: Callable[[Result], str], named: Callable[[str], str] = str
) -> dict[str, dict[str, str]]:
    """Model -> ``bank/prompt``, or a task of a suite -> what ``redinstruct compare`` says of it beside the base.

    ``named``: how a bank is called there.
    """
    return {
        name.partition("-")[2]: {
            cell.name if cell.bank is None else f"{named(cell.bank)}/{cell.prompt}": what(cell)
            for comparison in comparisons
            for cell in comparison.results
        }
        for name, comparisons in result.comparisons.items()
    }


def _write_pictures(found: Demo) -> None:
    from redinstruct.render.page import html_page
    from redinstruct.rounds.plot import PlotLine, frames_svg

    best = best_of(found.rows).model
    lines = [
        PlotLine(row.model, [(row.asr[frame], *row.intervals[frame]) for frame in MAIN], useful=row.benign_in_frame,
             best=row.model == best)
        for row in found.rows
    ]  # fmt: skip
    write_file(found.folder / PLOT, frames_svg(lines, list(MAIN.values()), found.items))
    pairs = [folders[model] for folders in (found.runs, found.checks) for model in (BASE, best)]
    write_file(found.folder / REPORT, html_page(pairs))


def best_of(rows: Sequence[DemoRow]) -> DemoRow:
    """The safest aligned model in the CoU frame among those that answer there as the base does, to two points."""
    base, *aligned = rows
    return min(aligned, key=lambda row: (row.benign_in_frame < base.benign_in_frame - 0.02, row.asr["cou"]))
