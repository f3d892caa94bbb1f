"""``redinstruct purge``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.options import RUN
from redinstruct.errors import ConfigError


@click.command("purge")
@click.argument("run", type=RUN)
@click.option("--yes", is_flag=True, help="Do not ask, even on a terminal.")
def command(run: Path, yes: bool) -> int:
    """Overwrite and remove a run folder and everything in it.

    Asks first on a terminal. What a file system's snapshots, a backup or a flash drive's spare blocks hold is out of
    reach.
    """
    from redinstruct.store import is_run, purge

    if not is_run(run) or run.is_symlink():
        raise ConfigError(f"{run}: there is no run in this folder; nothing was removed")
    if not yes and sys.stdin is not None and sys.stdin.isatty():  # None: closed before we began (`<&-`)
        click.confirm(console.clean(f"Remove the run in {run} for good?"), abort=True, err=True)
    count = purge(run)
    console.say(f"removed {run} ({count} files, overwritten first)")
    return 0
