"""Zip archives of JSON: their parts read one by one, each within limits, whatever the archive says of itself.

Nothing is unpacked to the disk. Sizes are counted while a part is unpacked, never believed; the directory is refused
before it is parsed where it is larger than any log's. Methods: stored, deflate, zstd (what Inspect writes by default).
"""

from __future__ import annotations

import hashlib
import importlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from redinstruct.errors import BankError
from redinstruct.files import limits
from redinstruct.files.opening import unreadable
from redinstruct.files.words import Malformed

MARK = b"PK\x03\x04"
_DEFLATED, _ZSTD = zipfile.ZIP_DEFLATED, 93
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL = struct.Struct("<4s22xHH")
_LONGEST_COMMENT = 2**16
_CHUNK = 2**16
_MAX_DIRECTORY = 16 * 2**20
_MAX_PART = 256 * 2**20


class _Unpacker(Protocol):
    """What unpacks a stream in pieces, as zlib's objects and zstd's do."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class ZipParts:
    """The parts of an open archive."""

    def __init__(self, file: BinaryIO, size: int, directory: dict[str, zipfile.ZipInfo]) -> None:
        self._file, self._size, self._directory = file, size, directory
        self._unpacked = 0
        self.names = tuple(directory)
        """In the archive's order; of two parts of one name the later one stands, as the tools that write them mean."""

    def read(self, name: str) -> bytes:
        """One part, unpacked.

        Raises:
            Malformed: the part is damaged, too large, encrypted, or packed by a method that is not known here.
            BankError: all that was read so far is more than an archive of this size holds, or zstd is missing.
        """
        about = self._directory[name]
        if about.flag_bits & 1:
            raise Malformed("is encrypted")
        whole, read = bytearray(), 0
        for piece in self._unpack(about):
            read += len(piece)
            self._unpacked += len(piece)
            if read > _MAX_PART:
                raise Malformed(f"unpacks to more than {_MAX_PART:,} bytes")
            limits.check_unpacked(self._size, self._unpacked, whole=False)
            whole += piece
        if zlib.crc32(whole) != about.CRC:
            raise Malformed("is damaged: its checksum differs")
        return bytes(whole)

    def _packed(self, about: zipfile.ZipInfo) -> Iterator[bytes]:
        self._file.seek(about.header_offset)
        head = self._file.read(_LOCAL.size)
        if len(head) < _LOCAL.size:
            raise Malformed("lies beyond the end of the archive")
        mark, name, extra = _LOCAL.unpack(head)
        if mark != MARK:
            raise Malformed("is not where the archive says")
        self._file.seek(name + extra, 1)
        left = about.compress_size
        while left > 0:
            chunk = self._file.read(min(_CHUNK, left))
            if not chunk:
                raise Malformed("is cut short")
            left -= len(chunk)
            yield chunk

    def _unpack(self, about: zipfile.ZipInfo) -> Iterator[bytes]:
        packed = self._packed(about)
        if about.compress_type == zipfile.ZIP_STORED:
            yield from packed
        elif about.compress_type == _DEFLATED:
            yield from _deflated(packed)
        elif about.compress_type == _ZSTD:
            yield from _frames(packed)
        else:
            raise Malformed(f"is packed by method {about.compress_type}, which is not read")


def _deflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in packed:
            yield unpacker.decompress(chunk, _CHUNK)
            while unpacker.unconsumed_tail:
                yield unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)
        while piece := unpacker.decompress(b"", _CHUNK):
            yield piece
    except zlib.error:
        raise Malformed("is damaged") from None
    if not unpacker.eof:
        raise Malformed("is cut short")


def _frames(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Zstandard: one frame after another; Inspect begins a new one every 200 MiB."""
    make, broken = zstd()
    unpacker, fed = make(), False
    try:
        for chunk in packed:
            while chunk:
                if unpacker.eof:
                    unpacker, fed = make(), False
                yield unpacker.decompress(chunk, _CHUNK)
                fed = True
                while not unpacker.eof and not unpacker.needs_input:  # type: ignore[attr-defined]
                    yield unpacker.decompress(b"", _CHUNK)
                chunk = unpacker.unused_data if unpacker.eof else b""  # type: ignore[attr-defined]
    except broken:
        raise Malformed("is damaged") from None
    if fed and not unpacker.eof:
        raise Malformed("is cut short")


def zstd() -> tuple[Callable[[], _Unpacker], type[Exception]]:
    """What makes an unpacker of zstd, and the error that it raises.

    Raises:
        BankError: this Python has none (before 3.14) and its backport is not installed.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module.ZstdDecompressor, module.ZstdError
    raise BankError("is packed by zstd: pip install backports.zstd, or write it anew: inspect log convert --to json")


@contextmanager
def opened_zip(path: Path) -> Iterator[ZipParts]:
    """An archive, open.

    Raises:
        BankError: it cannot be read, is none, or its directory is larger than is read.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise unreadable(error) from None
    with file:
        size = path.stat().st_size
        try:
            _check_directory(file, size)
            with zipfile.ZipFile(file) as archive:
                yield ZipParts(file, size, {about.filename: about for about in archive.infolist()})
        except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError):
            raise BankError("is a zip archive, and damaged or cut short") from None
        except OSError as error:
            raise unreadable(error) from None


def is_zip(path: Path) -> bool:
    """Whether a regular file begins as a zip archive does; False for one that cannot be read."""
    return begins_with(path, MARK)


def begins_with(path: Path, mark: bytes) -> bool:
    """Whether a regular file begins with these bytes; False for one that cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except (OSError, ValueError):
        return False


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file as it lies there. Raises ``BankError``."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error) from None


def _check_directory(file: BinaryIO, size: int) -> None:
    """Python's reader holds the whole directory, by the size that the archive's end gives: that is looked at first."""
    start = max(0, size - _LONGEST_COMMENT - 22)
    file.seek(start)
    tail = file.read(_LONGEST_COMMENT + 22)
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile
    (directory,) = struct.unpack_from("<L", tail, at + 12)
    locator = at - 20
    if locator >= 0 and tail.startswith(_LOCATOR_64, locator):
        (place,) = struct.unpack_from("<Q", tail, locator + 8)
        file.seek(min(place, size))
        end = file.read(56)
        if end.startswith(_END_64) and len(end) == 56:
            (directory,) = struct.unpack_from("<Q", end, 40)
    if directory > _MAX_DIRECTORY:
        raise BankError(f"its directory has {directory:,} bytes, more than the {_MAX_DIRECTORY:,} that are read")
    file.seek(0)
