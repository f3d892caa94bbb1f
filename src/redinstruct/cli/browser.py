"""A page for the browser: its port, and shown there, where there is one."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console

port_option = click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, metavar="P", help="0: any free one."
)


def temporary_page() -> Path:
    """A place for a page in a new folder that is its owner's alone; it stays until the system clears it."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="redinstruct-")) / "report.html"


def show_in_browser(page: Path) -> None:
    """Open a page where there is a browser, and say where it lies."""
    found = in_browser(page.resolve().as_uri())
    console.note(f"the page is {page}" if found else f"no browser was found: open {page} in one")


def in_browser(address: str) -> bool:
    """Open an address; whether there was a browser to do it."""
    import webbrowser

    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
