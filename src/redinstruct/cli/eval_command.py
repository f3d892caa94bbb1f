"""``redinstruct eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import Grouped, flags_of
from redinstruct.cli.endings import say_ending
from redinstruct.cli.figures import say_figures
from redinstruct.cli.options import as_json, how_to_ask, money, on_engine, seal_option, stop_when_decided
from redinstruct.cli.prepared import limits_from, stop_signals
from redinstruct.cli.run_folder import BEGUN, run_option, run_or_dated
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.redeval import EvalSettings, evaluate, prepare
from redinstruct.run import is_run
from redinstruct.settings import settings_from


@click.command("eval", cls=Grouped)
@flags_of(EvalSettings)
@run_option(BEGUN.format("The run's folder"))
@stop_when_decided
@how_to_ask()
@on_engine
@money()
@seal_option
@as_json
def command(run: Path | None, as_json: bool, **flags: Any) -> int:
    """Measure how often a model can be talked into harm.

    Asks every question of the bank under each prompt, records every answer before it is judged, and prints rates with
    intervals. The same command resumes an interrupted run: nothing recorded is asked again but what ended as `error`.

    Exit codes: 0 all recorded (at most 5 % of any result as errors) or decided; 2 bad input, or an endpoint that
    refuses everything (nothing is recorded); 11 cut by --max-calls or --budget, too many errors, or stopped
    because the endpoint fails later on (the same command goes on); 130 interrupted.
    """
    limits = limits_from(flags)
    plan = prepare(settings_from(EvalSettings, flags), limits.timeout, run)
    run = run_or_dated(run, plan.config.model)
    if (foreign := plan.foreign()) is not None and not is_run(
        run
    ):  # a run that stands may refuse these flags: one line
        console.note(foreign)
    with stop_signals(), console.progress(f"{plan.config.model}") as tell:
        outcome = evaluate(plan, run, limits, tell)
    report = read_report([run])
    if as_json:
        console.say_json(plain(report))
    else:
        say_figures(report, failures=False)  # the ending says them
        for line in plan.left_out():
            console.note(line)
        console.note(
            f"recorded {outcome.recorded:,} of {outcome.planned:,} attempts in {run} ({outcome.calls:,} calls now)"
        )
    for decision in outcome.decisions:
        console.note(decision)
    return say_ending(outcome)
