"""A stress run: an evaluation of the undisturbed model, and beside it, in folders of its own, one of each attack on it.

The run's folder is that first evaluation, so that every verb reads it as any other; ``attacks/`` within holds the
others, each an evaluation too. ``stress.json`` says which belong together and what must be equal when the same command
goes on with them.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.errors import ConfigError
from redinstruct.files.atomic import open_plain, write_file
from redinstruct.files.opening import NOT_JSON
from redinstruct.run.folder import ATTACKS, is_run
from redinstruct.run.same import Pinned
from redinstruct.settings import Kept

NAME, SCHEMA = "stress.json", "redinstruct.stress-run/1"
NONE = "none"
TRIES = ("samples", "ranks")
"""Attacks whose setting is a number of tries: one success is enough, and all their settings are one evaluation."""
MOST_BYTES = 1 << 20


class Condition(msgspec.Struct, frozen=True):
    """One line of a stress run: an attack at a setting (tokens, tries, steps, bits), None for the undisturbed model."""

    attack: str
    setting: int | None = None

    @property
    def name(self) -> str:
        """As a folder and a flag name it. All numbers of tries are one evaluation."""
        return self.attack if self.setting is None or self.attack in TRIES else f"{self.attack}-{self.setting}"


class StressRun(msgspec.Struct, frozen=True):
    """What a stress run asks, and of whom. ``settings`` are the other flags that decide it, as (flag, value).

    ``told`` is what was learnt of an attack beside its answers, by name: how often a beginning was the model's own, the
    loss of a tuning. It decides nothing.
    """

    schema: str
    model: str
    bank: Pinned
    benign: Pinned | None
    prompts: Annotated[tuple[Pinned, ...], Kept("--prompt")]
    judge: str
    benign_judge: str | None
    settings: Annotated[tuple[tuple[str, str], ...], Kept(parts=True)]
    conditions: Annotated[tuple[Condition, ...], Kept("the attacks")]
    told: Annotated[dict[str, dict[str, float]], Kept(free=True)] = {}

    def with_told(self, name: str, figures: dict[str, float]) -> StressRun:
        """The same, with what was learnt of an attack."""
        return msgspec.structs.replace(self, told={**self.told, name: figures})


def part_of(run: Path, condition: Condition, *, benign: bool = False) -> Path:
    """The folder of a condition's evaluation: of the bank, or of the harmless questions."""
    if condition.attack == NONE and not benign:
        return run
    return run / ATTACKS / (f"{condition.name}-benign" if benign else condition.name)


def is_stress(run: Path) -> bool:
    """Whether the folder holds a stress run."""
    try:
        return is_run(run) and stat.S_ISREG((run / NAME).lstat().st_mode)
    except (OSError, ValueError):
        return False


def read_stress(run: Path) -> StressRun:
    """What a stress run is.

    Raises:
        ConfigError: it is none, or its ``stress.json`` does not read.
    """
    if not is_stress(run):
        raise ConfigError(f"{run}: there is no stress run in this folder")
    try:
        with open(open_plain(run / NAME), "rb") as file:  # noqa: PTH123  (a handle, not a path)
            found = msgspec.json.decode(file.read(MOST_BYTES), type=StressRun)
    except (OSError, *NOT_JSON):
        raise ConfigError(f"{run / NAME} is damaged: it is not what redinstruct stress wrote") from None
    if found.schema != SCHEMA or not found.conditions or found.conditions[0] != Condition(NONE):
        raise ConfigError(f"{run / NAME}: its schema is not the one that this version writes ({SCHEMA})")
    return found


def write_stress(run: Path, what: StressRun) -> None:
    """Put ``stress.json`` into the folder, whole."""
    write_file(run / NAME, msgspec.json.format(msgspec.json.encode(what)) + b"\n")


def evaluations_of(run: Path) -> list[Path]:
    """The folders of all evaluations of a stress run that were begun, the undisturbed model's first; else the run.

    Raises:
        ConfigError: a ``stress.json`` that does not read.
    """
    if not is_stress(run):
        return [run]
    what = read_stress(run)
    sides = (False, True) if what.benign is not None else (False,)
    found = dict.fromkeys(part_of(run, one, benign=benign) for one in what.conditions for benign in sides)
    return [folder for folder in found if is_run(folder)]
