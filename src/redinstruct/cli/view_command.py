"""``redinstruct view``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.browser import in_browser, port_option
from redinstruct.cli.kinds import PATH
from redinstruct.errors import UsageError, from_extra


@click.command("view")
@click.argument("folder", type=PATH, required=False, metavar="[DIR]")
@port_option
@click.option("open_it", "--open", is_flag=True, help="Show the list in a browser too.")
def command(folder: Path | None, port: int, open_it: bool) -> int:
    """All runs of a folder in the browser: list them, find some, open a report, compare two by two clicks.

    DIR is looked through five folders deep; left out, it is `runs` where there is such a folder, else this one. The
    page is on this machine only, at the address that is printed. Nothing is written; Ctrl-C ends.
    """
    place = folder if folder is not None else Path("runs") if Path("runs").is_dir() else Path()
    if not place.is_dir():
        raise UsageError(f"{place}: there is no such folder")

    def ready(address: str) -> None:
        console.say(f"The runs of {place.resolve().name or place}. Open in a browser:")
        console.say(f"  {address}")
        console.say("Nothing is written. Ctrl-C ends.")
        if open_it and not in_browser(address):
            console.note("no browser was found: open the address in one")

    with from_extra("ui", "view"):
        from redinstruct.viewer.server import serve
    serve(place.resolve(), port, ready)
    return 0
