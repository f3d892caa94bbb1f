"""``redinstruct seal``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.run.resealing import reseal


@click.command("seal")
@click.argument("run", type=RUN)
@click.option("--rotate", is_flag=True, help="Another key: the new one is in REDINSTRUCT_SEAL_KEY_NEW(_FILE).")
def command(run: Path, rotate: bool) -> int:
    """Encrypt a run's questions, answers and conversations on the disk (AES-256-GCM); figures need no key.

    The key is in REDINSTRUCT_SEAL_KEY, or in the file that REDINSTRUCT_SEAL_KEY_FILE names (`openssl rand -hex 32`
    makes one). The store is written anew, and the old bytes are overwritten. With --rotate a sealed run is encrypted
    anew, under a new key. Nobody reads it without the key: keep it. `--seal` of other verbs begins a run so.
    """
    with console.steps() as tell:
        reseal(run, rotate=rotate, on_progress=tell)
    if rotate:
        console.say(f"sealed {run} by the new key; from now on REDINSTRUCT_SEAL_KEY has to hold it")
    else:
        console.say(f"sealed {run}")
    return 0
