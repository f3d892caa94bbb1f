"""JSON row by row: a list, one value a line, or an object from topics to lists. No row is held when the next one comes.

Every row is refused before it is decoded where it is too long or holds too many values (:mod:`.limits`); the file as a
whole is never decoded, unless it is shorter than a row may be.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from redinstruct.errors import BankError
from redinstruct.files import limits
from redinstruct.files.buffer import Buffer, LongLine
from redinstruct.files.json_blocks import BlockReader, RowBlock
from redinstruct.files.words import fold, kind_of, twice

WRAPPERS = frozenset({"data", "rows", "questions", "prompts", "examples", "instances", "behaviors", "items"})
"""Keys of an object that say nothing of the rows in the list that they hold: they are no topics."""

_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"[\r\n]")


class JsonRow(NamedTuple):
    """What stands in the place of a question or an answer. ``where`` names it for a message.

    ``topic`` and ``subtopic`` are the keys on the way to it, in an object of topics.
    """

    where: str
    value: object
    topic: str | None = None
    subtopic: str | None = None


class Leaf(NamedTuple):
    """What stands in an object of topics in the place of a list of rows. ``keys`` lead to it."""

    where: str
    value: object
    keys: tuple[str, ...]


class Doubled:
    """Stands for an object that holds a key twice, until it is known which row it is."""

    def __init__(self, key: str) -> None:
        self.key = key


FilePart = JsonRow | Leaf | RowBlock
"""What a file comes in: a row, what is none, or many rows that are alike."""


def json_rows(buffer: Buffer, suffix: str, is_row: Callable[[dict[str, object]], bool]) -> Iterator[FilePart]:
    """The rows of one JSON value, or of one value a line, which is also published with the suffix ``.json``.

    ``is_row`` says of an object that is the whole file whether it is one row.

    Raises:
        BankError: it is broken, or goes beyond the limits; row or line are named.
    """
    return _JsonReader(buffer, suffix, is_row).rows()


def json_values(buffer: Buffer) -> Iterator[object]:
    """The values of a JSON list, or of JSON values that follow one another, on however many lines; NaN is none.

    Raises:
        BankError: a value is broken, or goes beyond the limits; its number is named.
    """

    def no_constant(_: str) -> object:
        raise BankError("holds NaN or Infinity: JSON knows finite numbers only")

    reader = _JsonReader(buffer, ".json", bool, no_constant)
    try:
        yield from reader.values()
    except BankError as error:
        row = f"row {reader.number}"
        raise BankError(f"{row}: {str(error).removeprefix(f'{row} ').removeprefix(f'{row}: ')}") from None


class _JsonReader:
    def __init__(
        self,
        buffer: Buffer,
        suffix: str,
        is_row: Callable[[dict[str, object]], bool],
        constant: Callable[[str], object] | None = None,
    ) -> None:
        self._buffer, self._suffix, self._is_row = buffer, suffix, is_row
        self.number = 0
        self._doubled: str | None = None
        self._blocks = BlockReader(limits.MAX_COLUMNS)
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=constant)

    def _object(self, pairs: list[tuple[str, object]]) -> object:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        self._doubled = Counter(key for key, _ in pairs).most_common(1)[0][0]
        return Doubled(self._doubled)

    # ---- what kind of file it is ----

    def rows(self) -> Iterator[FilePart]:
        first = self._peek()
        if not first:
            return iter(())
        if first == "[":
            return self._lines() if self._suffix != ".json" and self._is_one_a_line() else self._list()
        if first != "{":
            return self._lines()
        try:
            value, end = self._decode("", whole=True)
        except _TooLong:
            return self._topics()
        doubled, self._doubled = self._doubled, None
        if self._followed(end):
            return self._lines()
        if not isinstance(value, dict) or not self._is_row(value):
            return self._topics()
        if doubled is not None:
            raise BankError(f"row 1: {twice(doubled)}")
        limits.check_keys(value, "row 1")
        return iter([JsonRow("row 1", value)])

    def _is_one_a_line(self) -> bool:
        """Whether the first line is a whole value and something follows it."""
        self._buffer.fill(limits.SMALL_ROW)
        found = _LINE_END.search(self._buffer.text, self._buffer.at)
        if found is None:  # one line: a list, however long
            return False
        line, end = self._buffer.text[self._buffer.at : found.start()], found.start()
        try:
            _, stop = self._decoder.raw_decode(line)
        except (ValueError, RecursionError):
            return False
        self._doubled = None
        return not line[stop:].strip(" \t\r\n") and self._followed(end)

    def _followed(self, end: int) -> bool:
        """Whether anything but space stands after a place in the buffer's text, without going there."""
        buffer = self._buffer
        while True:
            at = _behind_space(buffer.text, end)
            if at < len(buffer.text) or buffer.ended:
                return at < len(buffer.text)
            ahead = len(buffer.text) - buffer.at
            end -= buffer.at
            buffer.fill(2 * ahead + 2**16)

    def values(self) -> Iterator[object]:
        """What a list holds, or the values that follow one another."""
        if self._peek() == "[":
            yield from (row.value for row in self._list())
            return
        while self._peek():
            yield self._row()[1]

    # ---- one value a line ----

    def _lines(self) -> Iterator[JsonRow | RowBlock]:
        buffer = self._buffer
        lines = buffer.lines()
        while self._followed(buffer.at):
            if (block := self._block()) is not None:
                yield block
                continue
            # One by one, as many as a block would hold.
            until = buffer.consumed + limits.SMALL_ROW
            while buffer.consumed < until and (line := self._line(lines)) is not None:
                yield line

    def _block(self) -> RowBlock | None:
        """The whole lines that the buffer holds, as far as all are alike and within the limits; else None."""
        buffer = self._buffer
        buffer.fill(limits.SMALL_ROW)
        last = buffer.text.rfind("\n", buffer.at, buffer.at + limits.SMALL_ROW)
        if last <= buffer.at or buffer.text.find("\r", buffer.at, last) >= 0:
            return None
        lines = buffer.text[buffer.at : last]
        number = self.number + lines.count("\n") + 1
        if not limits.may_be(number, buffer.consumed) or (columns := self._blocks.read(lines)) is None:
            return None
        block = RowBlock(self.number + 1, columns)
        self.number, buffer.at = number, last + 1
        return block

    def _line(self, lines: Iterator[str]) -> JsonRow | None:
        """The next line's value; None where only space is left."""
        where = f"row {self.number + 1}"
        try:
            line = next(lines, "").strip(" \t\r\n")
        except LongLine:
            raise limits.too_long(f"{where} ") from None
        if not line and not self._followed(self._buffer.at):
            return None
        self.number += 1
        if not line:
            raise BankError(f"{where} is an empty line, expected JSON")
        limits.check_rows(self.number, self._buffer.consumed)
        if len(line) > limits.SMALL_ROW:
            limits.check_values(line, 0, f"{where} ")
        try:
            value, end = self._decoder.raw_decode(line)
        except json.JSONDecodeError as error:
            raise BankError(f"{where}: broken JSON at column {error.colno}: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise BankError(f"{where}: {_undecodable(error)}") from None
        if end < len(line):
            raise BankError(f"{where}: something follows the end of the JSON value, expected one a line")
        limits.check_keys(value, where)
        self._refuse_doubled(where)
        return JsonRow(where, value)

    # ---- a list ----

    def _list(self, place: str = "", topic: str | None = None, subtopic: str | None = None) -> Iterator[JsonRow]:
        """The rows of the list at the place; the outermost list is followed by nothing."""
        buffer = self._buffer
        for _ in self._members("]"):
            yield JsonRow(*self._row(f" ({place})" if place else ""), topic, subtopic)
        line = 0 if place else buffer.line()
        if not place and self._peek():
            raise BankError(f"line {line}: something follows the end of the list")

    # ---- an object of topics ----

    def _topics(self) -> Iterator[JsonRow | Leaf]:
        for at, topic in enumerate(self._keys(""), 1):
            place = f"topic {at}"
            if fold(topic) in WRAPPERS and self._peek() == "[":
                yield from (row._replace(where=row.where.partition(" (")[0]) for row in self._list(place))
            elif self._peek() == "{":
                for below, subtopic in enumerate(self._keys(f"{place}: "), 1):
                    yield from self._held(f"{place}, subtopic {below}", topic, subtopic)
            else:
                yield from self._held(place, topic, None)
        if self._peek():
            raise BankError(f"line {self._buffer.line()}: something follows the end of the object")

    def _held(self, place: str, topic: str, subtopic: str | None) -> Iterator[JsonRow | Leaf]:
        if self._peek() == "[":
            yield from self._list(place, topic, subtopic)
            return
        value, self._buffer.at = self._decode(f"{place} ")
        self._refuse_doubled(place)
        yield Leaf(place, value, (topic,) if subtopic is None else (topic, subtopic))

    def _keys(self, where: str) -> Iterator[str]:
        """The keys of the object at the place, the place before each one's value; it must be passed in between."""
        buffer, seen = self._buffer, set[str]()
        for _ in self._members("}"):
            key, buffer.at = self._decode(where)
            if not isinstance(key, str):
                raise BankError(f"{where}a key is {kind_of(key)}, expected a text")
            if key in seen:
                raise BankError(f"{where}{twice(key)}")
            seen.add(key)
            limits.check_rows(len(seen), buffer.consumed)
            self._peek()
            self._take(":")
            self._peek()
            yield key

    def _row(self, place: str = "") -> tuple[str, object]:
        """The next row's name, and its value at the place."""
        self.number += 1
        where = f"row {self.number}{place}"
        value, self._buffer.at = self._decode(f"row {self.number} ")
        self._refuse_doubled(where)
        limits.check_keys(value, where)
        limits.check_rows(self.number, self._buffer.consumed)
        return where, value

    # ---- the text ----

    def _members(self, close: str) -> Iterator[None]:
        """Stops at each member of the list or object at the place, which must be passed before the next."""
        buffer, first = self._buffer, True
        buffer.at += 1
        while (mark := self._peek()) != close:
            if not first:
                self._take(",")
                self._peek()
            elif not mark:
                self._take(close)
            first = False
            yield
        buffer.at += 1

    def _peek(self) -> str:
        """Pass space; the character there, empty at the end."""
        buffer = self._buffer
        while True:
            buffer.at = _behind_space(buffer.text, buffer.at)
            if buffer.at < len(buffer.text):
                return buffer.text[buffer.at]
            if buffer.ended:
                return ""
            buffer.fill(2**16)

    def _take(self, mark: str) -> None:
        buffer = self._buffer
        if buffer.at >= len(buffer.text):
            raise self._broken(buffer.at, f"the file ends before a '{mark}': it was cut")
        if not buffer.text.startswith(mark, buffer.at):
            raise self._broken(buffer.at, f"Expecting '{mark}' delimiter")
        buffer.at += 1

    def _decode(self, where: str, *, whole: bool = False) -> tuple[object, int]:
        """The value at the place, and where it ends. ``whole``: raise :class:`_TooLong` for one beyond the limits."""
        buffer, size = self._buffer, limits.SMALL_ROW
        while True:
            buffer.fill(size)
            if size > limits.SMALL_ROW:
                if whole and sum(buffer.text.count(mark, buffer.at) for mark in ",[{") > limits.MAX_VALUES:
                    raise _TooLong
                limits.check_values(buffer.text, buffer.at, where)
            try:
                value, end = self._decoder.raw_decode(buffer.text, buffer.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(buffer.text) - 16
                if buffer.ended or not cut:
                    raise self._broken(error.pos, error.msg) from None
            except (RecursionError, ValueError) as error:
                raise BankError(_undecodable(error)) from None
            else:
                if buffer.ended or end < len(buffer.text):  # else a number may go on
                    return value, end
            if size >= limits.MAX_ROW:
                raise _TooLong if whole else limits.too_long(where)
            size *= 2

    def _broken(self, at: int, words: str) -> BankError:
        buffer = self._buffer
        return BankError(f"broken JSON at line {buffer.line(at)} column {buffer.column(at)}: {words}")

    def _refuse_doubled(self, where: str) -> None:
        if self._doubled is not None:
            raise BankError(f"{where}: {twice(self._doubled)}")


class _TooLong(Exception):
    """A value that is the whole file, and longer than a row may be."""


def _undecodable(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the JSON is nested too deep"
    return "a number in the JSON has too many digits"  # Python reads none of more than 4,300


def _behind_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found is not None else start
