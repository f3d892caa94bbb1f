"""``redinstruct toyworld``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import seed_option
from redinstruct.cli.prepared import stop_signals
from redinstruct.errors import UsageError, from_extra
from redinstruct.run import check_outside
from redinstruct.toyworld.held_out import write_held_out


@click.group("toyworld", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """The embedded toy model: a tiny Llama of a fictional world, trained here, harmless by construction."""
    if context.invoked_subcommand is None:
        raise UsageError("toyworld: say what to do with it: redinstruct toyworld build --out DIR")


@command.command("build")
@click.option("--out", required=True, type=RUN, metavar="DIR", help="The checkpoint's folder: use it as hf/DIR.")
@seed_option
@click.option("--quick", is_flag=True, help="A smaller model on part of the world.")
def build_command(out: Path, seed: int, quick: bool) -> int:
    """Build the tiny model as an ordinary checkpoint, with its banks and its prompts.

    Takes about a minute on one core, or no time when it was built before.
    """
    check_outside(out, "--out")
    with from_extra("local", "toyworld"), stop_signals(), console.steps() as tell:
        from redinstruct.toyworld import build

        build(out, seed, quick=quick, on_progress=tell)
    console.say(f"the toy model of seed {seed} is in {out}; its banks are in {out / 'banks'}. Try")
    bank = out / "banks" / "forbidden-test.json"
    sampling = "--temperature 0 --max-tokens 64"
    console.say(f"  redinstruct eval --model hf/{out} --bank {bank} --judge exact {sampling} --run runs/toy")
    return 0


@command.command("held-out")
@click.option("--out", required=True, type=RUN, metavar="DIR", help="A new or empty folder.")
def held_out_command(out: Path) -> int:
    """Write banks, data and frames for a topic hold-out: nothing that is tested stands in an alignment's rows.

    An alignment collects about five families of forbidden things and learns harmless answers about half of the plain
    ones (data/); it is asked about other families and other plain things (banks/, dev and test), in frames unlike any
    that its rows have (prompts/). Any toy checkpoint can be tried with it, by `loop`: the model itself is as it was.
    """
    check_outside(out, "--out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: holds something already; give a new or an empty folder")
    write_held_out(out)
    console.say(f"banks, data and prompts are in {out}; docs/examples/loop-held-out.toml is a loop with them")
    return 0
