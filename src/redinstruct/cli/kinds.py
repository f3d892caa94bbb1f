"""What flags take: a run's folder, a whole number, pairs."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from redinstruct.errors import UsageError
from redinstruct.settings import MOST, Setting, why_outside
from redinstruct.types import Json, JsonObject


class PathParameter(click.Path):
    """A file or a folder: any path that the file system can have. An empty name is none: of a shell variable that is
    not set, say, it would be "here".
    """

    within = ""
    """What is looked for in the folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Fails for an empty name, and for a path that no file can have, a name of a thousand letters say."""
        if isinstance(value, str) and not value.strip():
            self.fail("the name is empty (is a shell variable not set?)", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        try:
            (path / self.within).lstat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self.fail(f"{str(path)[:40]}...: {error.strerror}", param, ctx)
        return path


class RunParameter(PathParameter):
    """A run's folder."""

    within = "run.sqlite-journal"


RUN = RunParameter(path_type=Path)
PATH = PathParameter(path_type=Path)
FILE = PathParameter(path_type=Path, dir_okay=False)


class Whole(click.IntRange):
    """A whole number of at least ``least``, where that is said, and no larger than any run can hold."""

    name = "whole number"

    def __init__(self, least: int | None, most: int | None = None) -> None:
        super().__init__(min=least, max=most)

    def _describe_range(self) -> str:
        return "" if self.min is self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Fails for what is not a whole number, or is one that no run can have."""
        try:
            number = int(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if abs(number) > MOST:
            self.fail(f"{number} is not in the range up to {MOST}", param, ctx)
        found: int = super().convert(number, param, ctx)
        return found


class Number(click.ParamType[float]):
    """A number within the bounds of its setting."""

    name = "float"

    def __init__(self, said: Setting) -> None:
        self._said = said

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Fails for what is not a number; raises UsageError, by the flag, for one out of bounds."""
        number: float = click.FLOAT.convert(value, param, ctx)
        if why := why_outside(number, {float}, self._said):
            raise UsageError(f"{param.opts[0] if param is not None else 'a number'} must {why}")
        return number


def parse_options(pairs: tuple[str, ...], flag: str = "--model-option") -> JsonObject:
    """``KEY=JSON`` pairs; a value that is no JSON is taken as text.

    Raises:
        UsageError: a pair without ``=``, a key given twice, a value that JSON cannot carry, or one of the fields that
            have a meaning of their own.
    """
    options: dict[str, Json] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            # The value is not shown: it may be a key.
            raise UsageError(f"{flag}: expected KEY=JSON, for example reasoning_effort=low")
        if key in ("model", "messages", "stream"):
            raise UsageError(f"{flag} {key}: this field is the tool's own")
        if key in options:
            raise UsageError(f"{flag} {key}: given twice")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
        except RecursionError:
            raise UsageError(f"{flag} {key}: the JSON is nested too deep") from None
        try:
            # NaN and infinity, lone surrogates: Python reads them, no endpoint would.
            json.dumps(options[key], allow_nan=False, ensure_ascii=False).encode()
        except ValueError:
            raise UsageError(f"{flag} {key}: its value is nothing that JSON can carry") from None
    return options


def columns_from(given: tuple[str, ...], several: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Purpose -> the columns that ``--column`` names; several only for the purposes that may have them.

    Raises:
        UsageError: an entry that is none, or a purpose given twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in given:
        role, sign, name = (part.strip() for part in entry.partition("="))
        if not sign or not name or (role in found and role not in several):
            repeated = "".join(f" ({purpose} once a person)" for purpose in several)
            raise UsageError(f"--column {entry}: expected PURPOSE=NAME, each purpose once{repeated}")
        found[role] = (*found.get(role, ()), name)
    return found


def numbers_from(given: Sequence[str], flag: str) -> dict[str, float]:
    """``NAME=NUMBER`` pairs.

    Raises:
        UsageError: an entry that is none, or a name given twice.
    """
    found: dict[str, float] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not key or key in found or math.isnan(number):
            raise UsageError(f"{flag} {pair!r}: expected NAME=NUMBER, each name once")
        found[key.strip()] = number
    return found
