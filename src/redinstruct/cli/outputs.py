"""The files that a verb writes: their places checked before the first is replaced, each replaced as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from redinstruct.cli import console
from redinstruct.errors import UsageError
from redinstruct.figures.parquet import write_parquet
from redinstruct.files.atomic import whole_file, write_file
from redinstruct.run import is_own_file
from redinstruct.run.folder import ATTACKS
from redinstruct.run.stress import is_stress


def check_files(files: Mapping[str, Path | None]) -> None:
    """No output may take another's place, nor that of a run's own rows, nor fail after another was replaced.

    Raises:
        UsageError: it would.
    """
    import os

    taken: dict[Path, str] = {}
    for flag, file in files.items():
        if file is None:
            continue
        if str(file) == "-":
            raise UsageError(f"{flag} -: name a file (/dev/stdout is standard output); nothing was written")
        if _is_loop(file):
            raise UsageError(f"{flag} {file}: is a loop of symbolic links")
        place = file.resolve()
        if file.is_dir():
            raise UsageError(f"{flag} {file}: is a folder, expected a file")
        if file.exists() and not file.is_file():
            continue  # a device or a pipe (/dev/stdout) is written to; its folder is nobody's
        if place in taken:
            raise UsageError(f"{taken[place]} and {flag} name the same file, {file}")
        taken[place] = flag
        if not os.access(place.parent, os.W_OK | os.X_OK):
            raise UsageError(f"{flag} {file}: there is no such folder, or it cannot be written")
        if is_own_file(place):
            raise UsageError(f"{flag} {file}: this file is the run's own; name another")


def note_attacks(run: Path, where: str) -> None:
    """Say of a stress run where its attacks are, for a verb that knows the undisturbed model's evaluation alone."""
    if is_stress(run):
        console.note(f"{run} is a stress run: its attacks ({run / ATTACKS}) {where}")


def _is_loop(path: Path) -> bool:
    """Whether it is a symbolic link that leads back to itself. Python 3.13 tells so in another way than before."""
    import errno

    try:
        path.resolve(strict=True)
    except RuntimeError:
        return True
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


@contextlib.contextmanager
def to_place(path: Path) -> Iterator[None]:
    """Around the writing of a file.

    Raises:
        UsageError: the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_whole(path: Path, content: bytes | str | Iterable[str]) -> None:
    """Replace a file by a whole new one, or leave the old one as it was. The new one is its owner's alone.

    Raises:
        UsageError: the place cannot be written.
    """
    with to_place(path):
        write_file(path, content)


def write_attempts(path: Path, runs: Sequence[Path], content: bool) -> None:
    """Replace a file by the runs' attempts as Parquet, or leave the old one as it was.

    Raises:
        UsageError: the place cannot be written.
    """
    with to_place(path), whole_file(path) as file:
        write_parquet(file, runs, content)
