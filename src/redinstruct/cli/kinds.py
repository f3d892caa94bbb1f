"""What flags take: a run's folder, a whole number, pairs."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable
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


def pairs_of(
    given: Iterable[str], flag: str, example: str, several: tuple[str, ...] = (), *, names: bool = False
) -> dict[str, list[str]]:
    """``KEY=VALUE`` pairs as key -> values: each key once, but for those that may be given several times.

    ``names``: the values are names, none of them empty, and a wrong entry is shown; else it may hold a secret.

    Raises:
        UsageError: an entry without a key or a sign, an empty name, or a key given twice.
    """
    found: dict[str, list[str]] = {}
    for entry in given:
        key, sign, value = entry.partition("=")
        key = key.strip()
        if not sign or not key or (names and not value.strip()):
            raise UsageError(f"{flag}{f' {entry}' if names else ''}: expected {example}")
        if key in found and key not in several:
            raise UsageError(f"{flag} {key}: given twice")
        found.setdefault(key, []).append(value)
    return found


def request_fields(given: Iterable[str], flag: str) -> JsonObject:
    """Fields of a request; a value that is no JSON is taken as text.

    Raises:
        UsageError: no pairs, a value that JSON cannot carry, or one of the fields that have a meaning of their own.
    """
    options: dict[str, Json] = {}
    for key, (value,) in pairs_of(given, flag, "KEY=JSON, for example reasoning_effort=low").items():
        if key in ("model", "messages", "stream"):
            raise UsageError(f"{flag} {key}: this field is the tool's own")
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


def numbers(given: Iterable[str], flag: str) -> dict[str, float]:
    """Numbers by their names.

    Raises:
        UsageError: no pairs, or a value that is no number.
    """
    found = {}
    for key, (value,) in pairs_of(given, flag, "NAME=NUMBER").items():
        try:
            found[key] = float(value)
        except ValueError:
            found[key] = math.nan
        if math.isnan(found[key]):
            raise UsageError(f"{flag} {key}={value[:40]}: expected NAME=NUMBER")
    return found
