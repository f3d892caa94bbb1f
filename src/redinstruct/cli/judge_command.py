"""``redinstruct judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import Grouped, flags_of
from redinstruct.cli.endings import say_ending
from redinstruct.cli.figures import say_figures
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json, how_to_ask, money, on_engine
from redinstruct.cli.prepared import limits_from, stop_signals
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.redeval import RejudgeSettings, rejudge
from redinstruct.settings import settings_from


@click.command("judge", cls=Grouped)
@click.argument("run", type=RUN)
@flags_of(RejudgeSettings)
@how_to_ask()
@on_engine
@money()
@as_json
def command(run: Path, as_json: bool, **flags: Any) -> int:
    """Judge a run's recorded answers by another judge.

    Never samples: the answers are those of the run. Verdicts of other judges stay, and each judge has its own line in
    the report. The same command resumes.
    """
    limits = limits_from(flags)
    with stop_signals(), console.progress(f"judging by {flags['judge']}") as tell:
        outcome = rejudge(run, settings_from(RejudgeSettings, flags), limits, tell)
    report = read_report([run])
    if as_json:
        console.say_json(plain(report))
    else:
        say_figures(report, failures=False)  # the ending says them
    return say_ending(outcome)
