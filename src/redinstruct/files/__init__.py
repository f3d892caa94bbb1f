"""Files of rows as others publish them: one reader for question banks and for files of answers.

Promised: a file is read row by row, whatever it holds, and refused with one line (row, line or column named, no text of
it shown) where it is broken, is no text, or would cost more than its size allows (:mod:`.limits`). Told apart by
content and suffix, never by a name: JSON (a list, or an object of topics), JSONL, CSV by any delimiter, one text a line
in ``.txt``; each also packed by gzip, in UTF-8 or in UTF-16 with its byte-order mark.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from redinstruct.errors import BankError, UsageError
from redinstruct.files import limits
from redinstruct.files.buffer import Buffer, LongLine
from redinstruct.files.csv_rows import csv_records, delimiter_of
from redinstruct.files.json_blocks import RowBlock
from redinstruct.files.json_rows import WRAPPERS, Doubled, FilePart, JsonRow, Leaf, json_rows, json_values
from redinstruct.files.limits import MAX_BYTES
from redinstruct.files.opening import decoded, digest_of, digested, opened, stem_of, suffix_of
from redinstruct.files.words import Fields, Malformed, fold, kind_of, listed, named, twice
from redinstruct.safetext import terminal

__all__ = [
    "MAX_BYTES", "WRAPPERS", "Doubled", "Fields", "JsonFile", "JsonRow", "Leaf", "Malformed", "RowBlock", "RowFile",
    "digest_of", "fold", "kind_of", "listed", "named", "stem_of", "twice",
]  # fmt: skip

# The suffixes whose content is one JSON value or one a line. Any other file says by its first character what it is.
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_CSV_SUFFIXES = (".csv", ".tsv")


class RowFile:
    """A file, to be read once.

    ``what`` is what a row should be, for messages ("a question"). ``lacks`` says what the columns of a CSV header lack,
    None for nothing; ``meant`` of one column whether it is read at all; ``is_row`` of an object that is the whole file
    whether it is one row; ``plain`` whether a ``.txt`` without such a header holds one text a line. After the last row
    ``sha256`` is that of the unpacked bytes.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        *,
        lacks: Callable[[Sequence[str]], str | None],
        meant: Callable[[str], bool],
        is_row: Callable[[dict[str, object]], bool],
        plain: bool = False,
    ) -> None:
        self._path, self._what = path, what
        self._lacks, self._meant, self._is_row, self._plain = lacks, meant, is_row, plain
        self.sha256 = ""
        self.empty = True
        """Whether there is nothing in the file, no header either; true until the first of it is read."""

    def _knows(self, columns: Sequence[str]) -> bool:
        return self._lacks(columns) is None

    def rows(self) -> Generator[JsonRow | Leaf, None, None]:
        """The rows, one by one.

        Raises:
            BankError: the file, or a row of it, does not read.
        """
        with closing(self.parts()) as parts:
            for part in parts:
                if isinstance(part, RowBlock):
                    yield from (JsonRow(where, value) for where, value in part.rows())
                else:
                    yield part

    def parts(self) -> Generator[FilePart, None, None]:
        """The same, rows that are alike many at a time."""
        digest = hashlib.sha256()
        with opened(self._path) as chunks:
            yield from self._rows(Buffer(decoded(digested(chunks, digest))))
        self.sha256 = digest.hexdigest()

    def _rows(self, buffer: Buffer) -> Iterator[FilePart]:
        suffix = suffix_of(self._path)
        buffer.fill(2**16)
        start = buffer.text.lstrip()[:1]
        self.empty = not start and buffer.ended
        if suffix in _JSON_SUFFIXES or (suffix not in _CSV_SUFFIXES and start in ("[", "{")):
            yield from json_rows(buffer, suffix, self._is_row)
            return
        if suffix == ".txt" and self._plain and delimiter_of(buffer, self._knows) is None:
            yield from self._text_lines(buffer)
        else:
            yield from self._csv(csv_records(buffer, self._knows))

    def _csv(self, records: Iterator[tuple[int, list[str]]]) -> Iterator[JsonRow]:
        header = next(records, None)
        if header is None:
            return
        columns = [column.strip() for column in header[1]]
        for name, times in Counter(map(fold, columns)).items():
            if times > 1 and self._meant(name):
                raise BankError(f"the header holds {name} twice, expected it once")
        if (lacking := self._lacks(columns)) is not None:
            raise BankError(lacking)
        for number, (line, cells) in enumerate(records, 1):
            where = f"row {number} (line {line})"
            if not cells:
                raise BankError(f"{where} is an empty line, expected {self._what}")
            if len(cells) != len(columns):
                raise BankError(f"{where} has {len(cells)} fields, expected {len(columns)} as in the header")
            yield JsonRow(where, dict(zip(columns, cells, strict=True)))

    def _text_lines(self, buffer: Buffer) -> Iterator[JsonRow]:
        """One text a line, blank lines left out."""
        number = 0
        try:
            for number, line in enumerate(buffer.lines(), 1):
                if line.strip():
                    limits.check_rows(number, buffer.consumed)
                    yield JsonRow(f"line {number}", line)
        except LongLine:
            raise limits.too_long(f"line {number + 1} ") from None


class JsonFile:
    """The values of a JSON file, read as they are asked for: of a list, or one after another.

    ``name`` is how messages call it. ``sha256`` is that of the bytes that were read (unpacked), ``empty`` whether there
    is nothing but space in it. Files of training rows may be as large as the disk.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path, self._name = path, terminal(path.name) if name is None else name
        self._digest = hashlib.sha256()
        self.empty = False

    @property
    def sha256(self) -> str:
        """Of the bytes that were read."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[object]:
        """
        Raises:
            UsageError: the file cannot be read, is not UTF-8, or is not JSON; the row is named.
        """
        try:
            with opened(self._path, most=sys.maxsize) as chunks:
                buffer = Buffer(decoded(digested(chunks, self._digest)))
                yield from json_values(buffer)
                self.empty = not buffer.text.strip() and not buffer.passed
        except BankError as error:
            raise UsageError(f"{self._name}: {error}") from None
