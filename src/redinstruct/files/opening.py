"""A file's text in chunks: what it is by its first bytes, unpacked, decoded, never held whole."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import limits

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What ``msgspec.json.decode`` raises on bytes that are no such value: no JSON, another shape, no UTF-8, too deep."""
OwnFile = TypeVar("OwnFile")
CHUNK = 2**16
_GZIP = b"\x1f\x8b"
_STRANGERS = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook (.xlsx): save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "is an old Office file (.xls): save the sheet as CSV"),
    (b"PAR1", "is a Parquet file: save it as CSV or JSONL"),
    (b"ARROW1", "is an Arrow file: save it as CSV or JSONL"),
    (b"SQLite format 3\0", "is an SQLite database: save its rows as CSV or JSONL"),
    (b"%PDF", "is a PDF file"),
    (b"BZh", "is packed by bzip2: unpack it (gzip is read as it is)"),
    (b"\xfd7zXZ", "is packed by xz: unpack it (gzip is read as it is)"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd: unpack it (gzip is read as it is)"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file: fetch it (git lfs pull)"),
    (b"<!DOCTYPE html", "is a web page, not the file: fetch the raw file"),
    (b"<!doctype html", "is a web page, not the file: fetch the raw file"),
    (b"<html", "is a web page, not the file: fetch the raw file"),
)
"""What other files begin with, and what to do about it."""


def place_of(name: str | os.PathLike[str]) -> Path:
    """A file or a folder by its name, as for the command line.

    Raises:
        UsageError: the name is empty: of a variable that holds nothing, say, it would be "here".
    """
    if not os.fspath(name).strip():
        raise UsageError("the name of a file or folder is empty")
    return Path(name)


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, folded: that of ``bank.json.gz`` is ``.json``."""
    name = path.with_suffix("") if path.suffix.casefold() == ".gz" else path
    return name.suffix.casefold()


def stem_of(path: Path) -> str:
    """The file's name without what tells its format."""
    name = path.with_suffix("") if path.suffix.casefold() == ".gz" else path
    return name.stem


@contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[Iterator[bytes]]:
    """A regular file's bytes in chunks, unpacked where gzip packed them; ``most`` of them (else the limit of banks).

    Raises:
        BankError: it cannot be read, is larger than is read, or is a kind of file that holds no text.
    """
    most = limits.MAX_BYTES if most is None else most
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BankError("is a folder, expected a file")
        if not stat.S_ISREG(status.st_mode):
            raise BankError("is not a regular file")  # a pipe would be waited for
        if status.st_size > most:
            raise BankError(f"has {status.st_size} bytes, more than the {most} that are read")
        file = path.open("rb")
    except FileNotFoundError:
        raise BankError("no such file") from None
    except (OSError, ValueError) as error:
        raise unreadable(error) from None
    with file:
        yield _unpacked(file, status.st_size, most)


def unreadable(error: OSError | ValueError) -> BankError:
    """What is said of a file that cannot be opened or read."""
    if not isinstance(error, OSError):  # a NUL or a lone surrogate in the path
        return BankError("is not a possible file name")
    return BankError(f"cannot be read: {error.strerror or type(error).__name__}")


def _unpacked(file: IO[bytes], size: int, most: int) -> Iterator[bytes]:
    try:
        head = file.read(32)
        file.seek(0)
        for mark, words in _STRANGERS:
            if head.startswith(mark):
                raise BankError(words)
        packed = head.startswith(_GZIP)
        source: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
        total = 0
        while chunk := source.read(CHUNK):
            total += len(chunk)
            if packed:
                limits.check_unpacked(size, total)
            elif total > most:
                raise BankError(f"grew over the {most} bytes that are read")
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BankError("is packed by gzip, and damaged or cut short") from None
    except OSError as error:
        raise unreadable(error) from None


def read_json(path: Path, kind: type[OwnFile]) -> OwnFile | None:
    """A file of our own as the value that it holds; None where it is not there, or holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *NOT_JSON):
        return None


def digested(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """The chunks, each noted in a digest on its way."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def digest_of(path: Path) -> str:
    """The sha256 of a file's bytes, unpacked. Raises ``BankError`` as :func:`opened` does."""
    digest = hashlib.sha256()
    with opened(path) as chunks:
        for _ in digested(chunks, digest):
            pass
    return digest.hexdigest()


def decoded(chunks: Iterator[bytes]) -> Iterator[str]:
    """Their text: UTF-8, or UTF-16 with a byte-order mark; the mark is left out.

    Raises:
        BankError: the line is named, for anything else, and for a NUL.
    """
    line = 1
    decoder: codecs.IncrementalDecoder | None = None
    for chunk in chunks:
        if decoder is None:
            wide = chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")()
        yield (text := _text(decoder, chunk, line, final=False))
        line += text.count("\n")
    if decoder is not None:
        yield _text(decoder, b"", line, final=True)


def _text(decoder: codecs.IncrementalDecoder, chunk: bytes, line: int, *, final: bool) -> str:
    try:
        text = decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        at = line + error.object.count(b"\n", 0, error.start)
        raise BankError(f"line {at} is not UTF-8 text, save the file as UTF-8") from None
    if (nul := text.find("\0")) >= 0:
        at = line + text.count("\n", 0, nul)
        raise BankError(f"line {at} holds a NUL byte, expected UTF-8 text (UTF-16 is to be saved as UTF-8)")
    return text
