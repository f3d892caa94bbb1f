"""``redinstruct shard``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.cli.outputs import note_attacks
from redinstruct.run import shard


@click.command("shard")
@click.argument("run", type=RUN)
@click.option("--of", required=True, type=int, metavar="K", help="How many shards.")
@click.option("--out", required=True, type=RUN, metavar="DIR", help="A new folder: the shards are DIR/1 to DIR/K.")
def command(run: Path, of: int, out: Path) -> int:
    """Deal out what a run has not asked yet to machines without a common network.

    Begin the run with `eval ... --max-calls 0`, deal it out, copy each shard to its machine, and give it the same
    `eval` command there, with --run DIR/N. `redinstruct merge` puts them together. What the run has recorded stays
    with it, and it is not changed. Parts are equal to one attempt, and each is a random part of every bank and prompt.
    """
    with console.progress("dealing out") as tell:
        made = shard(run, of, out, tell)
    fewest, most = min(made.attempts), max(made.attempts)
    each = f"{most:,}" if fewest == most else f"{fewest:,} or {most:,}"
    if not made.new:
        console.say(f"{len(made.folders):,} shards of {run} were already in {out}, {each} attempts in each")
        return 0
    console.say(f"dealt out {sum(made.attempts):,} attempts to {len(made.folders):,} shards in {out}, {each} in each")
    if made.recorded:
        console.note(f"{made.recorded:,} attempts that are recorded stay with {run}: name it too when you merge")
    note_attacks(run, "stay with it, and the same `stress` command asks them")
    console.note(f"each is resumed by the run's own `eval` command with --run {out}/N; `redinstruct merge` follows")
    return 0
