"""``redinstruct utility``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.env_file import env_file
from redinstruct.cli.options import as_json, on_engine, prices
from redinstruct.cli.prepared import prices_from, stop_signals
from redinstruct.cli.run_folder import BEGUN, run_option, run_or_dated
from redinstruct.engine import Limits
from redinstruct.errors import EXIT_DONE, EXIT_INCONCLUSIVE
from redinstruct.figures.report import plain
from redinstruct.figures.scores import MeasuredScore, UtilityResult, score_figures
from redinstruct.render.useful import score_cells
from redinstruct.settings import settings_from
from redinstruct.types import JsonObject
from redinstruct.utility_check.runs import check_utility
from redinstruct.utility_check.settings import UtilitySettings

SCHEMA = "redinstruct.utility/1"


@click.command("utility")
@flags_of(UtilitySettings)
@run_option(BEGUN.format("The check's folder"))
@flags_of(Limits, only=("concurrency", "max_calls", "budget", "timeout", "patience"))
@prices(judge=False)
@env_file
@on_engine
@as_json
def command(run: Path | None, as_json: bool, **flags: Any) -> int:
    """Is a model still useful? Tasks of lm-evaluation-harness, HHH by the paper's rule, the toy world's own.

    Every item's value is recorded, so that two runs can be compared item by item. The same command resumes, task by
    task; a larger --limit extends. Without --download nothing is fetched.

    Exit codes: 0 all tasks done, 1 a task could not be carried out, 2 bad input (nothing is written), 11 cut by
    --max-calls or --budget (a task that does not fit is not begun), 130 interrupted.
    """
    run = run_or_dated(run, f"{flags['model']}-utility")
    limits = settings_from(Limits, flags, prices=prices_from(flags)[0])
    with stop_signals(), console.progress("utility") as tell:
        done = check_utility(settings_from(UtilitySettings, flags), run, tell, limits)
    for name, lacking, of in done.absent:
        console.note(f"{name}: " + ("no data, left out" if lacking == of else f"no data for {lacking} of {of} tasks"))
    if as_json:
        console.say_json(_document(done.result, done.absent))
    else:
        _say(done.result, run)
    if done.result.complete:
        return EXIT_DONE
    console.note("cut by --max-calls or --budget: the same command with a larger limit goes on")
    return EXIT_INCONCLUSIVE


def _document(result: UtilityResult, absent: tuple[tuple[str, int, int], ...]) -> JsonObject:

    return {
        "schema": SCHEMA,
        "model": result.model,
        "margin": result.margin,
        "digest": result.digest,
        "harness": result.config.harness,
        "limit": result.config.limit,
        "complete": result.complete,
        "missing": list(result.missing),
        "no_data": [{"name": name, "tasks": lacking, "of": of} for name, lacking, of in absent],
        "results": [plain(score_figures(measured)) for measured in result.headline],
        "tasks": [
            {
                **msgspec.to_builtins(card),
                "figures": plain([score_figures(m) for m in result.tasks if m.task == card.task]),
            }
            for card in result.cards
        ],
    }


_RIGHT = ("value [95 % CI]", "items", "tasks")


def _say(result: UtilityResult, run: Path) -> None:
    console.say_heading(
        f"{result.model}: utility", f"{result.config.harness}", f"margin {result.margin:g}, fixed",
        *([f"first {result.config.limit:,} items of each task"] if result.config.limit else []),
    )  # fmt: skip
    if not result.headline:
        console.say(f"no task is measured yet; owed: {', '.join(result.missing)}")
        return
    console.say_table([_row(measured) for measured in result.headline], right=_RIGHT)
    parts = [
        m for m in result.tasks if not any(m.task == one.task and m.metric == one.metric for one in result.headline)
    ]
    if parts:
        console.say()
        console.say_heading("Task by task")
        console.say_table([_row(measured) for measured in parts], right=_RIGHT)
    for card in result.cards:
        for note in card.notes:
            console.say(f"  {card.task}: {note}")
        for metric in card.metrics:
            if not metric.per_item and metric.reported is not None:
                console.say(f"  {card.task}: {metric.name} {metric.reported:.4f}")
    console.note(f"`redinstruct compare BEFORE {run}` holds it against the model before")


def _row(measured: MeasuredScore) -> dict[str, str]:
    tasks = f"{len(set(measured.parts))} of {measured.of}"
    return {"task": measured.task, **score_cells(measured), "tasks": tasks}
