"""``redinstruct models``."""

from __future__ import annotations

import click

from redinstruct.cli import console
from redinstruct.cli.options import as_json
from redinstruct.judges import JUDGES
from redinstruct.models import MODEL_KINDS


@click.command("models")
@as_json
def command(as_json: bool) -> int:
    """How to name a model, and which environment variables each kind reads."""
    if as_json:
        kinds = [{"id": k.pattern, "reads": k.reads, "description": k.description} for k in MODEL_KINDS]
        console.say_json({"models": kinds, "judges": JUDGES})
        return 0
    console.say_heading("models")
    for kind in MODEL_KINDS:
        console.say(f"  {kind.pattern}")
        console.say_folded(kind.description, indent="      ")
        if kind.reads:
            console.say_folded(f"reads {kind.reads}", indent="      ")
    console.say()
    console.say_section("judges", rows=[{"judge": name, "what": what} for name, what in JUDGES.items()])
    return 0
