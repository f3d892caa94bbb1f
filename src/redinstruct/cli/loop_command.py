"""``redinstruct loop``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from redinstruct.checkpoints.embedded import folder_of
from redinstruct.cli import console
from redinstruct.cli.env_file import env_file
from redinstruct.cli.kinds import PATH
from redinstruct.cli.options import as_json, seal_option
from redinstruct.cli.prepared import stop_signals
from redinstruct.figures.numbers import in_column
from redinstruct.figures.report import plain
from redinstruct.figures.scores import score_figures
from redinstruct.files.words import Fields
from redinstruct.render.useful import value_words
from redinstruct.run.encryption import check_sealing
from redinstruct.types import JsonObject

if TYPE_CHECKING:
    from redinstruct.rounds import LoopResult, Measured
    from redinstruct.rounds.config import LoopConfig

SCHEMA = "redinstruct.loop/1"


@click.command("loop")
@click.argument("config", type=PATH, metavar="CONFIG.toml")
@click.option("--check", is_flag=True, help="Read and check the file, and stop.")
@click.option("--force", is_flag=True, help="Go on with a judge that failed its self-test.")
@seal_option
@env_file
@as_json
def command(config: Path, check: bool, force: bool, as_json: bool) -> int:
    """Close the loop: red-team a model, collect from it, align it, red-team it again, compare; from one TOML file.

    A stage whose inputs are unchanged is not carried out again: the same command goes on after a kill, and ends with
    the same table. Every stage's folder can be used by hand: report, show, compare, export, annotate.
    """
    from redinstruct.rounds import carry_out, read_config
    from redinstruct.rounds.checks import check_extras, check_inputs
    from redinstruct.rounds.config import chosen_on_what_is_measured

    check_sealing()
    wanted = read_config(config)
    check_extras(wanted)
    check_inputs(wanted)
    for bank in chosen_on_what_is_measured(wanted):
        console.note(
            f"{Path(bank).name}: [align.pick] chooses on it and [[eval]] measures on it, so that the chosen model looks"
            " better than it is; name dev banks in [align.pick]"
        )
    if check:
        _say_plans(wanted)
        console.note(f"{config}: can be carried out; its results will go to {wanted.folder}")
        return 0
    with stop_signals(), console.steps() as tell:
        found = carry_out(wanted, on_progress=tell, force=force)
    if as_json:
        console.say_json(_document(found))
        return 0
    _say(found)
    console.note(
        f"every stage's folder is in {wanted.folder}: redinstruct report, compare, show, export go on from there"
    )
    return 0


def _say_plans(wanted: LoopConfig) -> None:
    """What each alignment takes, where the model is a folder; one that does not fit here is said, not refused."""
    from redinstruct.rounds.alignment import plans

    if not folder_of(wanted.model).is_dir():
        return
    for title, plan in plans(wanted):
        console.note(f"{title}: {plan.sentence}" if plan.fits else f"{title}: {plan.why}")


def _document(found: LoopResult) -> JsonObject:
    """The result without paths and clocks but the stages' seconds."""
    return {
        "schema": SCHEMA,
        "models": [
            {"round": model.round, "model": model.title, "made_from": model.before, "results": plain(model.results),
             "figures": model.figures, "utility": _utility(model)}
            for model in found.models
        ],
        "comparisons": msgspec.to_builtins(found.comparisons),
        "stopped": found.stopped,
        "stages": [
            {"stage": stage.name, "seconds": stage.seconds, "skipped": stage.skipped} for stage in found.stages
        ],
    }  # fmt: skip


def _utility(model: Measured) -> list[JsonObject] | None:
    return None if model.useful is None else [plain(score_figures(one)) for one in model.useful.headline]


def _say(found: LoopResult) -> None:
    words = {
        (name, cell.name if cell.bank is None else cell.bank, cell.prompt, cell.measure): cell.verdict
        for name, comparisons in found.comparisons.items()
        for comparison in comparisons
        for cell in comparison.results
    }
    tables: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for model in found.models:
        for r in model.results:
            about = f"{r.bank}, {r.prompt}", r.measure.replace("_", " "), "per cent of all attempts, 95 % interval"
            word = words.get((model.name, r.bank, r.prompt, r.measure), "")
            row = {"model": model.name, "rate": in_column(r.rate.all), "n": f"{r.counts.total:,}", "": word}
            tables.setdefault(about, []).append(row)
        for one in () if model.useful is None else model.useful.headline:
            word = words.get((model.name, one.task, None, one.metric), "")
            row = {"model": model.name, "value": value_words(one), "n": f"{one.n:,}", "": word}
            tables.setdefault((f"{one.task}, {one.metric}", "utility", "95 % interval"), []).append(row)
    for heading, rows in tables.items():
        console.say_section(*heading, rows=rows, left=("model", ""))
    if chosen := [kept for model in found.models if (kept := _choice(model))]:
        console.say_section("What was chosen", "by the questions of [align.pick]", rows=chosen)
    for model in found.models:
        for warning in _warnings(model):
            console.note(f"{model.name}: {warning}")
    for name, why in found.stopped.items():
        console.note(f"{name}: {why}")
    took = [
        {"stage": stage.name, "seconds": f"{stage.seconds:,.1f}", "calls": _calls(stage.figures),
         "": "skipped" if stage.skipped else ""}
        for stage in found.stages
    ]  # fmt: skip
    console.say_section("What it took", "a stage that was skipped had unchanged inputs", rows=took, left=("stage", ""))


def _choice(model: Measured) -> dict[str, str] | None:
    """Which of a recipe's checkpoints this model is, where there was a choice."""
    trained = model.figures.get("figures", {})
    if "chosen step" in trained:
        kept = f"step {trained['chosen step']} of {trained['steps']}"
        before, after = trained["base"], trained["candidates"][f"step {trained['chosen step']}"]
    elif "coefficient" in model.figures and "dev" in model.figures:
        kept = f"coefficient {model.figures['coefficient']:g}"
        before, after = (model.figures["dev"][f"{at:g}"] for at in (0.0, model.figures["coefficient"]))
    else:
        return None
    row = {"model": model.name, "kept": kept}
    return row | {name: f"{before[name]:.1%} to {after[name]:.1%}" for name in ("safety", "utility")}


def _warnings(model: Measured) -> tuple[str, ...]:
    if model.figures.get("kept_utility") is False:
        return ("no coefficient kept the base's utility; the one that keeps the most is kept",)
    return tuple(model.figures.get("warnings", ()))


def _calls(figures: Fields) -> str:
    return f"{figures['calls']:,}" if "calls" in figures else ""
