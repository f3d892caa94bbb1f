"""The folder of a run that begins: named, or by the date and what is asked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from redinstruct.cli import console
from redinstruct.cli.derived import Listed
from redinstruct.cli.kinds import RUN
from redinstruct.settings import NEEDED

F = TypeVar("F", bound=Callable[..., Any])


BEGUN = "{}; made, or resumed if it is this run's. Left out: a new one, runs/DATE-TIME-MODEL."
"""What is said of the folder of what a verb begins."""


def run_option(text: str, *, required: bool = False) -> Callable[[F], F]:
    """The flag that names a run's folder; left out, a verb that begins one makes it by date, and says so."""
    return click.option(
        "--run", "-r", cls=Listed, group=NEEDED, first=5, type=RUN, metavar="DIR", help=text,
        required=required,
    )  # fmt: skip


def run_or_dated(run: Path | None, model: str) -> Path:
    """The folder that was named, or one of a new name by the date and what is asked; nothing is made yet."""
    if run is not None:
        return run
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2])[:40].strip("-.") or "model"
    made = Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{name}"
    count = 1
    while (found := made if count == 1 else made.with_name(f"{made.name}-{count}")).exists():
        count += 1
    console.note(f"run folder: {found} (go on there with --run {found})")
    return found
