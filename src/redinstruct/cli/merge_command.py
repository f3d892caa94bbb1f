"""``redinstruct merge``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.cli.outputs import note_attacks
from redinstruct.cli.run_folder import run_option
from redinstruct.run import merge


@click.command("merge")
@click.argument("shards", type=RUN, nargs=-1, required=True, metavar="SHARD...")
@run_option("The merged run's folder: made, or a run that gains what it lacks.", required=True)
def command(shards: tuple[Path, ...], run: Path) -> int:
    """Put shards together as one run, finished or not; the run that they were dealt out of may be among them.

    Rows join by their attempt: nothing is counted twice, also where a folder, or a copy of it, is named twice. What no
    folder holds is owed, and the run's own `eval` command asks it in DIR. A shard of another run or configuration is
    named, and nothing is written. The shards stay as they are.
    """
    with console.progress("merging") as tell:
        merged = merge(shards, run, tell)
    console.say(
        f"merged {len(merged.parts):,} folders into {run}: {merged.recorded:,} of {merged.planned:,} attempts recorded"
    )
    for part in merged.parts:
        if part.recorded < part.planned:
            console.note(f"{part.folder} ({part.name}): {part.recorded:,} of {part.planned:,} attempts recorded")
    for place in dict.fromkeys(shards):
        if place.resolve() != run.resolve():
            note_attacks(place, f"stay there, and {run} has the undisturbed model's answers alone")
    for place in merged.again:
        console.note(f"{place}: named more than once, counts once")
    if merged.shared:
        console.note(f"{merged.shared:,} attempts were recorded in more than one folder; each counts once")
    if merged.recorded < merged.planned:
        owed = merged.planned - merged.recorded
        console.note(f"{owed:,} attempts are owed: the run's own `eval` command with --run {run} asks them")
    return 0
