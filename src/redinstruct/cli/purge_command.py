"""``redinstruct purge``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.run import purge, purge_places


@click.command("purge")
@click.argument("run", type=RUN)
@click.option("--yes", is_flag=True, help="Do not ask, even on a terminal.")
def command(run: Path, yes: bool) -> int:
    """Overwrite and remove a run folder and everything in it.

    What a killed import, report or purge left of it, or beside it, goes too. Asks first on a terminal. What a file
    system's snapshots, a backup or a flash drive's spare blocks hold is out of reach.
    """
    if not yes and purge_places(run) and sys.stdin is not None and sys.stdin.isatty():  # None: closed (`<&-`)
        click.confirm(console.clean(f"Remove the run in {run} for good?"), abort=True, err=True)
    count = purge(run)
    console.say(f"removed {run} ({count} files, overwritten first)")
    return 0
