"""Files of rows, JSON and JSON lines: written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from redinstruct.errors import UsageError
from redinstruct.files.atomic import whole_file
from redinstruct.files.words import Fields
from redinstruct.safetext import terminal

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# Lone surrogates cannot be UTF-8; the others end a line for readers that split as str.splitlines() does.
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")


def json_line(value: object) -> str:
    r"""One JSON value on one line that UTF-8 can hold; every reader of JSON gets the same text back.

    Lone surrogates and line separators are escaped (``\ud800``, ``\u2028``). A surrogate pair becomes the character it
    means, as every reader of JSON would read its two escapes.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text = _PAIR.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _ESCAPED.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def write_rows(path: Path, rows: Iterable[Fields], *, as_list: bool = False, private: bool = True) -> int:
    """Replace a file by the rows: one JSON a line, or one JSON list with a row a line. Gives the number of rows.

    The file is there whole or not at all. ``private`` (to be given whenever red is included) makes it the owner's
    alone, 0600, also where another file stood; without it the process's umask decides. A device or pipe is written to.

    Raises:
        UsageError: the place cannot be written.
    """
    name = terminal(str(path))
    try:
        if path.is_dir():
            raise UsageError(f"{name}: is a folder, expected a file")
        with whole_file(path, public=not private) as file:
            return _write(file, rows, as_list)
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error.strerror or type(error).__name__}") from None


def _write(file: BinaryIO, rows: Iterable[Fields], as_list: bool) -> int:
    count = 0
    for count, row in enumerate(rows, 1):
        before = "" if not as_list else "[\n" if count == 1 else ",\n"
        file.write((before + json_line(row) + ("" if as_list else "\n")).encode())
    if as_list:
        file.write(b"\n]\n" if count else b"[]\n")
    return count
