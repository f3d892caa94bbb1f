"""``redinstruct list``."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.kinds import PATH
from redinstruct.cli.options import as_json
from redinstruct.errors import EXIT_DONE, UsageError
from redinstruct.figures.numbers import percent
from redinstruct.viewer.shelf import Shelf, ShelfLine

SCHEMA = "redinstruct.list/1"


@click.command("list")
@click.argument("folder", type=PATH, default=Path("runs"), metavar="[FOLDER]")
@as_json
def command(folder: Path, as_json: bool) -> int:
    """List the runs in a folder (left out: runs) and in those below it, newest first. Asks nobody, writes nothing.

    `redinstruct view` shows the same in a browser, with filters and comparisons.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; name the one that holds your runs")
    found = Shelf(folder).lines()
    if as_json:
        console.say_json({"schema": SCHEMA, "runs": msgspec.to_builtins(found)})
        return EXIT_DONE
    if not found:
        console.note(f"{folder}: there is no run in it; `redinstruct eval` makes one")
        return EXIT_DONE
    console.say_table([_row(one, folder) for one in found], right=("recorded",))
    for one in found:
        if one.problem:
            console.remark(one.problem)
    return EXIT_DONE


def _row(one: ShelfLine, folder: Path) -> dict[str, str]:
    recorded = f"{one.done:,}" + ("" if one.planned in (None, one.done) else f" of {one.planned:,}")
    worst = one.worst
    return {
        "run": str(folder if one.place == "." else folder / one.place),
        "begun": "" if one.began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(one.began)),
        "what": "over-refusal" if one.measure == "over_refusal" else one.kind,
        "model": one.model,
        "of": ", ".join(filter(None, (*one.banks, one.judge and f"judge {one.judge}"))),
        "recorded": "" if one.kind == "unreadable" else recorded,
        "worst rate": one.told if worst is None else f"{percent(worst.estimate)} % ({worst.prompt})",
    }
