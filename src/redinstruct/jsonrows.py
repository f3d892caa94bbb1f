"""JSON read row by row, so that what cannot be read has a row number: a list, or one value after another.

A file is read as it is gone through: its size does not matter, and the memory it takes is that of its largest row.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from redinstruct.errors import BankError, UsageError
from redinstruct.rowfiles import limits
from redinstruct.safetext import terminal

_CHUNK = 1 << 20
_MARGIN = 16
"""Characters from the window's end within which a value may be cut."""
_NO_WEIGHT = ": a weight must be a finite number"


class Malformed(Exception):
    """What is wrong within one row. Never holds a text of it."""


_SPACE = re.compile(r"[ \t\r\n]*")


class _Window:
    """The part of a text that is being looked at: ``text[at:]``, of which more may come."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self.text, self.at, self._line, self._chunks, self._ended = "", 0, 1, chunks, False
        self._passed = 0

    def more(self, least: int = 1) -> bool:
        """Forget what was read, and take at least so many characters more; whether any came."""
        self._line += self.text.count("\n", 0, self.at)
        self._passed += self.at
        parts, got = [self.text[self.at :]], 0
        while got < least and not self._ended:
            part = next(self._chunks, None)
            self._ended = part is None
            parts.append(part or "")
            got += len(parts[-1])
        self.text, self.at = "".join(parts), 0
        return got > 0

    def skip(self, count: int = 0) -> bool:
        """Go on by so many characters and then over white space; whether anything is left."""
        self.at += count
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return True
            if not self.more():
                return False

    def starts(self, character: str) -> bool:
        return self.text.startswith(character, self.at)

    @property
    def passed(self) -> int:
        """The characters before the place."""
        return self._passed + self.at

    @property
    def line(self) -> int:
        return self._line + self.text.count("\n", 0, self.at)


def json_values(text: str, where: str, *, nan: str = ", which JSON does not know") -> Iterator[object]:
    """The values of a JSON list, or of JSON values that follow one another (one a line, say), one by one.

    ``nan`` ends the message about NaN and Infinity. A text of spaces alone holds no value.

    Raises:
        UsageError: with the row and what is wrong with it; never a text of it.
    """
    return _values(_Window(iter((text,))), where, nan)


def _values(window: _Window, where: str, nan: str) -> Iterator[object]:
    def no_constant(_: str) -> object:
        raise Malformed(f"holds NaN or Infinity{nan}")

    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=no_constant)
    number = 0
    left = window.skip()
    listed = left and window.starts("[")
    if listed:
        left = window.skip(1)
    while left and not (listed and window.starts("]")):
        if listed and number:
            if not window.starts(","):
                raise UsageError(f"{where}: row {number}: something follows it that is no comma")
            window.skip(1)
        number += 1
        try:
            value = _next(decoder, window)
            limits.check_keys(value, "it")
            limits.check_rows(number, window.passed)
        except Malformed as error:
            raise UsageError(f"{where}: row {number}: {error}") from None
        except BankError as error:  # beyond the limits
            told = str(error).removeprefix(f"row {number}: ")
            raise UsageError(f"{where}: row {number}: {told}") from None
        except (ValueError, RecursionError):
            raise UsageError(f"{where}: row {number}: is not valid JSON (line {window.line})") from None
        yield value
        left = window.skip()
    if listed and not left:
        raise UsageError(f"{where}: the list ends after row {number} without a bracket: the file was cut")
    if listed and window.skip(1):
        raise UsageError(f"{where}: something follows the end of the list")


def _next(decoder: json.JSONDecoder, window: _Window) -> object:
    """The value that begins here; what the window holds of it may have to grow first."""
    while True:
        begin, size = window.at, len(window.text) - window.at
        try:
            value, end = decoder.raw_decode(window.text, begin)
            # What ends where the window does may go on: a number.
            if end + _MARGIN <= len(window.text) or not window.more(_CHUNK):
                window.at += end - begin
                return value
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated") or error.pos > len(window.text) - _MARGIN
            if not cut or not window.more(size):
                raise
            if size > limits.MAX_ROW:
                raise limits.too_long("it ") from None
            limits.check_values(window.text, window.at, "it ")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("an object holds a key twice")
    return made


class JsonFile:
    """The values of a JSON file, read as they are asked for. ``sha256`` is that of its bytes, once all are read."""

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, terminal(path.name)
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes that were read."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[object]:
        """
        Raises:
            UsageError: the file cannot be read, is no UTF-8, or is not JSON; the row is named.
        """
        return _values(_Window(self._chunks()), self._name, _NO_WEIGHT)

    def _chunks(self) -> Iterator[str]:
        name = self._name
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise UsageError(f"{name}: is not a regular file")  # a pipe would be waited for
            decoder, lines = codecs.getincrementaldecoder("utf-8-sig")(), 1
            with self._path.open("rb") as file:
                while data := file.read(_CHUNK):
                    self._digest.update(data)
                    yield decoder.decode(data)
                    lines += data.count(b"\n")
                yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line = lines + error.object.count(b"\n", 0, error.start)
            raise UsageError(f"{name}: line {line} is not UTF-8 text; save the file as UTF-8") from None
        except FileNotFoundError:
            raise UsageError(f"{name}: no such file") from None
        except OSError as error:
            raise UsageError(f"{name}: cannot be read: {error.strerror or type(error).__name__}") from None
        except ValueError:  # a NUL or a lone surrogate in the path
            raise UsageError(f"{name}: is not a possible file name") from None
