"""What a folder holds, and how it is said where a verb needs something else: one form for every verb."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

from redinstruct.errors import ConfigError
from redinstruct.run.connection import reading
from redinstruct.run.folder import LOCK_NAME, STORE_NAME, is_run

Kind = Literal["evaluation", "collection", "utility check"]
NAMED: dict[Kind, str] = {
    "evaluation": "an evaluation (`redinstruct eval`)",
    "collection": "a collection (`redinstruct collect`)",
    "utility check": "a utility check (`redinstruct utility`)",
}
A_RUN = "a run (`redinstruct eval`, `collect` or `utility`)"
_LOOKED_AT = 1000


def kind_of(db: sqlite3.Connection) -> Kind | None:
    """What the run in an open store is; None: it was never begun."""
    with reading("reading the configuration"):
        if db.execute("SELECT 1 FROM configs LIMIT 1").fetchone() is not None:
            return "evaluation"
        if db.execute("SELECT 1 FROM collections LIMIT 1").fetchone() is not None:
            return "collection"
        return None if db.execute("SELECT 1 FROM utility_runs LIMIT 1").fetchone() is None else "utility check"


def check_kind(db: sqlite3.Connection, folder: Path, wanted: Kind) -> bool:
    """Pass a run of the kind that is wanted, and one that was never begun; false for the latter.

    Raises:
        ConfigError: the run is of another kind.
    """
    found = kind_of(db)
    if found not in (None, wanted):
        raise ConfigError(f"{folder} holds {NAMED[found]}, not {NAMED[wanted]}")
    return found is not None


def no_run(folder: Path, wanted: str = A_RUN) -> ConfigError:
    """The error for a place that holds no run: it names what is there, and what is wanted."""
    what = what_is(folder)
    if what is None:
        return ConfigError(f"{folder}: there is no run in this folder")
    return ConfigError(f"{folder} {what}, not {wanted}")


def what_is(folder: Path) -> str | None:
    """What a place is or holds, to follow its name; None where nothing is there that can be read."""
    try:
        if not folder.is_dir():
            return "is a file" if os.path.lexists(folder) else None
        names = {entry.name for _, entry in zip(range(_LOOKED_AT), os.scandir(folder), strict=False)}
    except (OSError, ValueError):
        return None
    if "align.json" in names:
        return "holds an aligned checkpoint (`redinstruct align`)"
    if names & {"config.json", "adapter_config.json"}:
        return "holds a checkpoint (a model's folder)"
    if names <= {LOCK_NAME, ".gitignore"}:
        return "is an empty folder"
    inner = sorted(name for name in names if is_run(folder / name))
    if inner:
        more = "" if len(inner) == 1 else f" and {len(inner) - 1:,} more"
        return f"is a folder of runs ({inner[0]}{more})"
    if STORE_NAME in names:
        return f"holds a {STORE_NAME} that is no plain file"
    return "holds other files"
