"""A secret of this machine and user, which no run folder holds.

Judges bind their verdicts to nonces that are keyed by it (design 8): whoever made a run folder, or was given one, knows
nothing about them, and asking again is the same call. On another machine the nonces are others; a run that was moved
there goes on all the same, since what is recorded does not depend on them.
"""

from __future__ import annotations

import errno
import functools
import os
import secrets
import stat
import time
from pathlib import Path

from redinstruct.errors import UsageError
from redinstruct.files.atomic import open_plain, whole_file

SECRET_BYTES = 32


def state_dir() -> Path | None:
    """``$REDINSTRUCT_STATE``, else ``redinstruct`` in ``$XDG_STATE_HOME`` or ``~/.local/state``; None: no home."""
    try:
        if own := os.environ.get("REDINSTRUCT_STATE"):
            return Path(own).expanduser()
        shared = Path(os.environ.get("XDG_STATE_HOME") or "")
        # The XDG specification has a relative path ignored.
        return (shared if shared.is_absolute() else Path.home() / ".local" / "state") / "redinstruct"
    except RuntimeError:
        return None


def machine_secret() -> bytes:
    """32 random bytes, made once and kept in :func:`state_dir`, its owner's alone.

    Where nothing can be kept (no home folder, a read-only one), it is a secret of this process.

    Raises:
        UsageError: what stands there is not such a secret, or others can read it.
    """
    folder = state_dir()
    if folder is None:
        return _of_this_process()
    path = folder / "secret"
    for _ in range(500):
        try:
            return _read(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if not os.access(folder, os.X_OK) or not folder.is_dir():
                return _of_this_process()
            raise UsageError(f"{path} cannot be read ({error.strerror}); remove it, a new one is made") from None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                return _of_this_process()
            time.sleep(0.01)  # another process makes it right now
    return _of_this_process()


@functools.cache
def _of_this_process() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def _read(path: Path) -> bytes:
    handle = open_plain(path)
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(handle)
        if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise UsageError(f"{path} is not yours alone: remove it, a new one is made")
        found = file.read(SECRET_BYTES + 1)
    if len(found) != SECRET_BYTES:
        raise UsageError(f"{path} is not {SECRET_BYTES} bytes long: remove it, a new one is made")
    return found


class _MadeMeanwhile(Exception):
    pass


def _make(path: Path) -> None:
    try:
        with whole_file(path) as file:  # one process at a time comes as far as this
            if path.exists():
                raise _MadeMeanwhile
            file.write(secrets.token_bytes(SECRET_BYTES))
    except _MadeMeanwhile:
        pass
