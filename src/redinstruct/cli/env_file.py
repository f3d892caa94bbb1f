"""``--env-file``: addresses, keys, headers and proxies from a file of ``NAME=value`` lines.

Strict, and nothing in it is executed or expanded. Only what tells how to reach an endpoint is taken; what the
environment holds already stays. What the command sets is taken back when it ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from redinstruct.cli.kinds import PATH
from redinstruct.errors import UsageError
from redinstruct.prompts import read_text_file

F = TypeVar("F", bound=Callable[..., Any])
MAX_BYTES = 1 << 20
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"""'([^']*)'\s*(?:#.*)?|"((?:[^"\\]|\\.)*)"\s*(?:#.*)?""")
_TAKEN = re.compile(r"\w+_(?:BASE_URL|API_KEY|HEADERS)|(?:https?|all|no)_proxy|(?:HTTPS?|ALL|NO)_PROXY")


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file, in its order; the last one of a name counts.

    Raises:
        UsageError: the file cannot be read, or a line is not ``NAME=value``. No message shows a value.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_text_file(path, "--env-file", MAX_BYTES).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = None if match is None else _value(match[2])
        if match is None or value is None or "\x00" in value:
            raise UsageError(f"--env-file {path}: line {number} is not of the form NAME=value")
        found[match[1]] = value
    return found


def _value(text: str) -> str | None:
    """What stands behind the sign: in quotes (in double ones a backslash escapes), or as far as a comment."""
    if text[:1] in ("'", '"'):
        match = _QUOTED.fullmatch(text)
        if match is None:
            return None
        return match[1] if match[1] is not None else re.sub(r'\\(["\\])', r"\1", match[2])
    return re.split(r"\s+#", text, maxsplit=1)[0] if not text.startswith("#") else ""


def _set(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:  # noqa: ARG001 - click's form
    if path is None:
        return
    for name, value in read_env_file(path).items():
        if name not in os.environ and _TAKEN.fullmatch(name):
            os.environ[name] = value
            context.call_on_close(partial(os.environ.pop, name, None))


def env_file(function: F) -> F:
    """The flag; set before anything reads the environment."""
    return click.option(
        "--env-file",
        type=PATH,
        metavar="FILE",
        callback=_set,
        is_eager=True,
        expose_value=False,
        help="Read addresses, keys, headers and proxies from NAME=value lines; what is set already stays.",
    )(function)
