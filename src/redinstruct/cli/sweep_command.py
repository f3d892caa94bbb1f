"""``redinstruct sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from redinstruct.cli import console
from redinstruct.cli.env_file import env_file
from redinstruct.cli.kinds import PATH
from redinstruct.cli.options import as_json
from redinstruct.cli.prepared import stop_signals
from redinstruct.figures.numbers import percent
from redinstruct.figures.report import plain

if TYPE_CHECKING:
    from redinstruct.rounds.sweep import Spread, SweepResult, SweepRow


@click.command("sweep")
@click.argument("config", type=PATH, metavar="CONFIG.toml")
@click.option("--check", is_flag=True, help="Read and check the file, say how many alignments it means, and stop.")
@click.option("--force", is_flag=True, help="Go on with a judge that failed its self-test.")
@env_file
@as_json
def command(config: Path, check: bool, force: bool, as_json: bool) -> int:
    """Which recipe? Strategies x settings x seeds, each aligned and measured, in one table and on one front.

    The file is a loop's (`redinstruct loop`), of one round, with a table [sweep]: seeds, strategies, and lists of
    values under [sweep.settings] and [sweep.parameters]; every recipe of [align] is tried with each. Needs an [[eval]]
    of attacks and one of harmless questions (measure = "over_refusal"): a model counts by its worst prompt of each.
    What is done is not done again: the same command goes on after a kill, and a longer list keeps the shorter one's.
    """
    from redinstruct.rounds.checks import check_extras, check_inputs
    from redinstruct.rounds.config import read_sweep
    from redinstruct.rounds.sweep import PLOT, carry_out_sweep, check_points, grid

    wanted = read_sweep(config)
    points, seeds = grid(wanted), wanted.sweep.seeds
    check_extras(wanted)
    check_inputs(wanted)
    check_points(wanted)
    if check:
        console.note(f"{config}: {len(points) * len(seeds):,} alignments ({len(points):,} recipes, "
                     f"{len(seeds):,} seeds); results will go to {wanted.folder}")  # fmt: skip
        return 0
    with stop_signals(), console.steps() as tell:
        found = carry_out_sweep(wanted, on_progress=tell, force=force)
    if as_json:
        shown = plain(found)
        del shown["folder"]
        console.say_json(shown)
        return 0
    _say(found)
    console.note(f"the picture: {found.folder / PLOT}; every stage's folder is in {found.folder}")
    return 0


def _say(found: SweepResult) -> None:
    rows = [
        {
            "": "*" if row.front else "",
            "recipe": row.recipe,
            "attack succeeds": _spread(row.asr),
            "harmless answered": _spread(row.useful),
            "worst prompt": _worst(row),
            "stopped": f"{row.stopped:,}" if row.stopped else "",
            "seconds": f"{row.seconds:,.0f}" if row.seconds else "",
        }
        for row in found.rows
    ]
    console.say_section(
        "Safer, and still useful?",
        f"per cent, the worst prompt of each model; mean of {len(found.seeds)} seeds, lowest to highest, and the 95 %"
        " interval of the pooled answers",
        "* on the front: none other is at least as safe and as useful, and better in one",
        rows=rows, right=("attack succeeds", "harmless answered", "stopped", "seconds"),
    )  # fmt: skip


def _worst(row: SweepRow) -> str:
    """The prompt that was worst in most of the seeds."""
    named = [one.worst for one in row.by_seed]
    return max(dict.fromkeys(named), key=named.count) if named else ""


def _spread(of: Spread) -> str:
    if of.estimate is None or of.lowest is None or of.highest is None:
        return "-"
    between = f" ({percent(of.lowest)} to {percent(of.highest)})" if of.lowest != of.highest else ""
    return f"{percent(of.estimate)}{between} [{percent(of.low)}, {percent(of.high)}]"
