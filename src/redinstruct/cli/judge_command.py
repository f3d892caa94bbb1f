"""``redinstruct judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.endings import say_ending
from redinstruct.cli.figures import say_figures
from redinstruct.cli.groups import Grouped
from redinstruct.cli.options import RUN, Whole, as_json, how_to_ask, money, on_engine, which_judge
from redinstruct.cli.prepared import judge_options_from, limits_from, stop_signals


@click.command("judge", cls=Grouped)
@click.argument("run", type=RUN)
@which_judge()
@click.option(
    "--sample",
    type=Whole(1),
    metavar="N",
    help="Ask the judge on a random part only: N answers of each bank and prompt. The report combines the two judges.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Ask the same judge once more of every answer: the newest verdict counts, the report says how far they agree.",
)
@how_to_ask()
@on_engine
@money()
@as_json
def command(run: Path, sample: int | None, again: bool, as_json: bool, **flags: Any) -> int:
    """Judge a run's recorded answers by another judge.

    Never samples: the answers are those of the run. Verdicts of other judges stay, and each judge has its own line in
    the report. The same command resumes.
    """
    from redinstruct.figures.rates import read_report
    from redinstruct.figures.report import plain
    from redinstruct.redeval import rejudge

    limits = limits_from(flags)
    with stop_signals(), console.progress(f"judging by {flags['judge']}") as tell:
        outcome = rejudge(
            run, flags["judge"], flags["judge_model"], limits, tell, judge_options_from(flags), sample, again
        )
    report = read_report([run])
    if as_json:
        console.say_json(plain(report))
    else:
        say_figures(report, failures=False)  # the ending says them
    return say_ending(outcome)
