"""CSV row by row, by the delimiter that its header shows."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterator, Sequence

from redinstruct.errors import BankError
from redinstruct.files import limits
from redinstruct.files.buffer import Buffer, LongLine

Record = tuple[int, list[str]]
"""The line at which a record begins, from 1, and its cells."""

DELIMITERS = (",", ";", "\t", "|")
"""What separates cells: a comma, or what spreadsheets write in its place in half of the world."""

# csv has one limit for the whole process.
_csv_limit = threading.Lock()


def csv_records(buffer: Buffer, knows: Callable[[Sequence[str]], bool]) -> Iterator[Record]:
    """The records of a CSV text, the header first; empty ones after the last row are left out.

    ``knows`` says of a header's columns whether they are what is looked for: the first delimiter by which they are is
    the file's. A record of empty cells alone, after the last row, is what spreadsheets leave behind.

    Raises:
        BankError: it is broken, or goes beyond the limits; the row is named.
    """
    blank: list[Record] = []
    # Where no delimiter gives the columns, the message names those by the likeliest one.
    delimiter = delimiter_of(buffer, knows) or max(DELIMITERS, key=_first_line(buffer).count)
    for number, record in enumerate(_read(buffer, delimiter)):
        if number == 0 and len(record[1]) > limits.MAX_COLUMNS:
            raise BankError(
                f"the header has {len(record[1]):,} columns, more than the {limits.MAX_COLUMNS:,} that are read"
            )
        limits.check_rows(number, buffer.consumed)
        if number and not any(map(str.strip, record[1])):
            blank.append(record)
            continue
        yield from blank
        blank.clear()
        yield record


def delimiter_of(buffer: Buffer, knows: Callable[[Sequence[str]], bool]) -> str | None:
    """The first delimiter by which the first line is a header with the known columns; None if there is none."""
    line = _first_line(buffer)
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        if len(header) <= limits.MAX_COLUMNS and knows([column.strip() for column in header]):
            return delimiter
    return None


def _first_line(buffer: Buffer) -> str:
    buffer.fill(limits.SMALL_ROW)
    end = min((at for mark in "\n\r" if (at := buffer.text.find(mark, buffer.at)) >= 0), default=len(buffer.text))
    return buffer.text[buffer.at : end]


def _read(buffer: Buffer, delimiter: str) -> Iterator[Record]:
    size = count = 0

    def lines() -> Iterator[str]:
        """The text's lines, as long as one record of them is not too long."""
        nonlocal size, count
        for text in buffer.lines():
            size, count = size + len(text), count + 1
            if size > limits.MAX_ROW or count > limits.MAX_LINES:
                raise LongLine
            yield text

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    number, line = 0, 1
    try:
        while (cells := _next(reader)) is not None:
            yield line, cells
            number, line = number + 1, reader.line_num + 1
            size = count = 0
    except LongLine:
        raise BankError(f"{_place(number, line)} does not end where a row would: is a quote left open?") from None
    except csv.Error as error:
        raise BankError(f"{_place(number, line)}: broken CSV: {error}") from None


def _place(number: int, line: int) -> str:
    return f"{f'row {number}' if number else 'the header'} (line {line})"


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next record, its fields as long as a row may be; None at the end."""
    with _csv_limit:
        before = csv.field_size_limit(limits.MAX_ROW)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)
