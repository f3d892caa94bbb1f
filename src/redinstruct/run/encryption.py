"""A run's texts, encrypted on the disk: questions, answers, thoughts, judges' replies, conversations.

Promised: in a sealed run each of these columns is AES-256-GCM under a key of this run alone, which stands in the store
wrapped by the user's (scrypt, AES-256-GCM). Each value is bound to its place (column and row): one that was moved,
changed or cut does not read. Labels, counts, hashes of banks, topics and prompts stay readable, so that figures need no
key; of a text its length, whether it runs in circles and two keyed fingerprints (of an answer's opening, of a question)
are kept beside it for them. Not promised: that a known bank can not be told by its hash, or an answer's length hides.

The seam is the connection: what is read passes views of the same names that decrypt, what is written passes ``seal()``
in its own INSERT. A statement that forgets it does not leak: a view takes no rows.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import msgspec

from redinstruct.errors import ConfigError, DamagedStore, UsageError
from redinstruct.questions import same_text
from redinstruct.run.looks import is_looping, opening
from redinstruct.safetext import Secret, restore

KEY_NAME, FILE_NAME = "REDINSTRUCT_SEAL_KEY", "REDINSTRUCT_SEAL_KEY_FILE"
NEW_NAME, NEW_FILE_NAME = "REDINSTRUCT_SEAL_KEY_NEW", "REDINSTRUCT_SEAL_KEY_NEW_FILE"
NEEDED = f"set {KEY_NAME}, or {FILE_NAME} to a file that holds it"
_SHORTEST, _MOST_FILE = 16, 4096
_N, _R, _P = 2**15, 8, 1  # scrypt: 32 MiB and a tenth of a second, once a process
_NONCE, _TAG, _HEADER = 12, 16, 14
_FORMAT = 1

_MAY_SEAL: ContextVar[bool] = ContextVar("redinstruct_seals_new_runs", default=False)
_USES_NEW_KEY: ContextVar[bool] = ContextVar("redinstruct_uses_the_new_key", default=False)
_Value = str | bytes | int | float | None
_failed = threading.local()
"""Why a function called by SQLite failed in this thread: SQLite only says that one did."""

_VIEWS = (
    "CREATE TEMP VIEW questions AS SELECT id, bank, row, unseal('questions.text', text, bank, row) AS text, topic,"
    " subtopic, language, label, unseal('questions.earlier', earlier, bank, row) AS earlier FROM main.questions",
    "CREATE TEMP VIEW completions AS SELECT id, attempt, asked, outcome, reason, note,"
    " unseal('completions.raw', raw, attempt, asked) AS raw,"
    " unseal('completions.judged', judged, attempt, asked) AS judged, finish_reason, tokens_in, tokens_out, truncated,"
    " flags, tries, seconds, unseal('completions.thought', thought, attempt, asked) AS thought FROM main.completions",
    "CREATE TEMP VIEW verdicts AS SELECT attempt, asked, judge, judged_no, label, detail, reason,"
    " unseal('verdicts.raw', raw, attempt, asked, judge, judged_no) AS raw, tokens_in, tokens_out, tries, score,"
    " probability, note FROM main.verdicts",
    "CREATE TEMP VIEW calls AS SELECT id, key, asked, step, role, request, request_bytes, outcome, reason, note,"
    " unseal('calls.reply', reply, key, asked) AS reply, finish_reason, tokens_in, tokens_out, tries, seconds"
    " FROM main.calls",
)
SEALED_COLUMNS = {
    # Sealed columns, and by which of a text's properties figures know them without a key.
    "questions.text": "same",
    "questions.earlier": "whole",
    "completions.raw": "look",
    "completions.judged": "look",
    "completions.thought": "",
    "verdicts.raw": "",
    "calls.reply": "",
}


class _Aead(Protocol):
    """Authenticated encryption, as ``cryptography`` has it: nonce, data, what is bound to it."""

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, bound: bytes, /) -> bytes: ...


class _Wrapped(msgspec.Struct, frozen=True):
    """A run's own key as it stands in its store: base64."""

    salt: str
    nonce: str
    key: str
    format: int = _FORMAT


class Outside(msgspec.Struct, frozen=True):
    """What is known of a sealed text without a key. ``mark`` is a keyed fingerprint, 0 for none."""

    looping: bool
    length: int
    mark: int


class Seal:
    """How a store's texts are kept: in clear, sealed and open, or sealed and locked (there is no key)."""

    def __init__(self, sealed: bool, key: bytes | None) -> None:
        self.sealed = sealed
        self.locked = sealed and key is None
        self._aead: _Aead | None = None
        self._marks = b""
        if key is not None:
            self._aead = _aead(hashlib.sha256(b"texts" + key).digest())
            self._marks = hashlib.sha256(b"marks" + key).digest()

    def seal(self, column: str, text: _Value, *place: _Value) -> _Value:
        """A column's value as it is written: the text itself where the run is not sealed."""
        if text is None or not self.sealed:
            return text
        assert isinstance(text, str)
        aead = self._aead
        assert aead is not None, "a writer has the key"
        header = self._header(column, text)
        nonce = secrets.token_bytes(_NONCE)
        return header + nonce + aead.encrypt(nonce, text.encode(), header + _place(column, place))

    def unseal(self, column: str, value: _Value, *place: _Value) -> str | None:
        """The text of a column's value. A failure is told by :func:`failure`, since SQLite can not."""
        if value is None:
            return None
        if self._aead is None:
            raise _failure(ConfigError(f"the run is sealed, and this reads its texts: {NEEDED}"))
        if not isinstance(value, bytes) or len(value) < _HEADER + _NONCE + _TAG:
            raise _failure(DamagedStore("the run store is damaged: a text in a sealed run is not sealed"))
        header, nonce, text = value[:_HEADER], value[_HEADER : _HEADER + _NONCE], value[_HEADER + _NONCE :]
        try:
            return self._aead.decrypt(nonce, text, header + _place(column, place)).decode()
        except Exception as error:  # InvalidTag is no ValueError
            raise _failure(
                DamagedStore(f"the run store is damaged: a sealed text was changed, or moved ({column})")
            ) from error

    def _header(self, column: str, text: str) -> bytes:
        kind, words = SEALED_COLUMNS[column], restore(text)
        looping, what = False, ""
        if kind == "look":
            looping, what = is_looping(words), opening(words) or ""
        elif kind == "same":
            what = same_text(words)
        elif kind == "whole":
            what = words
        mark = hmac.digest(self._marks, what.encode("utf-8", "surrogatepass"), "sha256")[:8] if what else bytes(8)
        return bytes((_FORMAT, looping)) + min(len(words), 2**32 - 1).to_bytes(4, "big") + mark


def outside(value: object) -> Outside:
    """What is known of a sealed value without its key.

    Raises:
        ValueError: it is no sealed value.
    """
    if not isinstance(value, bytes) or len(value) < _HEADER or value[0] != _FORMAT:
        raise ValueError("not a sealed text")
    return Outside(bool(value[1]), int.from_bytes(value[2:6], "big"), int.from_bytes(value[6:_HEADER], "big"))


def failure() -> Exception | None:
    """Why the last function that SQLite called failed in this thread, once."""
    error: Exception | None = getattr(_failed, "error", None)
    _failed.error = None
    return error


def _failure(error: Exception) -> Exception:
    _failed.error = error
    return error


def _place(column: str, place: tuple[object, ...]) -> bytes:
    told = (value.hex() if isinstance(value, bytes) else str(value) for value in place)
    return "|".join((column, *told)).encode()


# ---- which runs are sealed -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sealing(on: bool = True) -> Iterator[None]:
    """Runs that are begun meanwhile are sealed, where ``on``."""
    token = _MAY_SEAL.set(on or _MAY_SEAL.get())
    try:
        yield
    finally:
        _MAY_SEAL.reset(token)


def check_sealing() -> None:
    """Pass where new runs are not to be sealed, or can be: before anything is asked or written.

    Raises:
        ConfigError: there is no key.
        UsageError: it is too short, or the library is missing.
    """
    if _MAY_SEAL.get():
        _aead(_derived(_key_to_seal_by(), b"is there all that it takes?"))


@contextlib.contextmanager
def by_the_new_key() -> Iterator[None]:
    """Runs that are begun meanwhile are sealed by the new key of a rotation."""
    token = _USES_NEW_KEY.set(True)
    try:
        with sealing():
            yield
    finally:
        _USES_NEW_KEY.reset(token)


def attach(db: sqlite3.Connection, folder: Path, *, writes: bool, blank: bool = False) -> Seal:
    """Make a connection read and write as its store is sealed; a blank one becomes sealed under :func:`sealing`.

    Raises:
        ConfigError: the key is not the one by which the run is sealed, or a writer has none.
        UsageError: the key is none.
    """
    row = _seal_of(db)
    if row is None and blank and _MAY_SEAL.get():
        own = secrets.token_bytes(32)
        db.execute("INSERT INTO main.meta (key, value) VALUES ('seal', ?)", (_wrapped(own),))
        seal = Seal(True, own)
    elif row is None:
        seal = Seal(False, None)
    else:
        key = user_key()
        if key is None and writes:
            raise ConfigError(f"{folder} is sealed: {NEEDED}")
        seal = Seal(True, None if key is None else _unwrapped(row[0], key, folder))
    db.create_function("seal", -1, seal.seal)
    if seal.sealed:
        db.create_function("unseal", -1, seal.unseal, deterministic=True)
        for view in _VIEWS:
            db.execute(view)
    return seal


def is_sealed(db: sqlite3.Connection) -> bool:
    """Whether a store's texts are sealed."""
    return _seal_of(db) is not None


def is_sealed_by_the_new_key(db: sqlite3.Connection, folder: Path) -> bool:
    """Whether a store is sealed by the new key of a rotation already."""
    row, key = _seal_of(db), user_key(new=True)
    if row is None or key is None:
        return False
    try:
        return bool(_unwrapped(row[0], key, folder))
    except ConfigError:
        return False


def _seal_of(db: sqlite3.Connection) -> tuple[object] | None:
    found: tuple[object] | None = db.execute("SELECT value FROM main.meta WHERE key = 'seal'").fetchone()
    return found


def user_key(*, new: bool = False) -> str | None:
    """The user's key, from the environment or the file that it names; None where neither is set.

    Raises:
        UsageError: it is too short, or its file can not be read.
    """
    name, file = (NEW_NAME, NEW_FILE_NAME) if new else (KEY_NAME, FILE_NAME)
    given, source = os.environ.get(name), name
    if not given and (path := os.environ.get(file)):
        source = file
        try:
            with Path(path).open("rb") as held:
                given = held.read(_MOST_FILE + 1).decode().strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: the file can not be read ({type(error).__name__})") from None
        if len(given) > _MOST_FILE:
            raise UsageError(f"{file}: the file is longer than a key ({_MOST_FILE:,} bytes)")
    if not given:
        return None
    Secret(given)
    if len(given) < _SHORTEST:
        raise UsageError(f"{source}: a key has at least {_SHORTEST} characters (`openssl rand -hex 32` makes one)")
    return given


def require_key(db: sqlite3.Connection, folder: Path, *, blank: bool) -> None:
    """Pass a store that is not sealed and need not be, or whose key is there. Changes nothing.

    Raises:
        ConfigError: there is no key, or another one; or what was begun in clear is to be sealed.
    """
    row = _seal_of(db)
    if row is not None:
        key = user_key()
        if key is None:
            raise ConfigError(f"{folder} is sealed: {NEEDED}")
        _unwrapped(row[0], key, folder)
    elif _MAY_SEAL.get() and not blank:
        raise ConfigError(f"{folder} was begun without --seal: `redinstruct seal {folder}` seals what it holds")


def _key_to_seal_by() -> str:
    new = _USES_NEW_KEY.get()
    key = user_key(new=new)
    if key is None:
        names = f"{NEW_NAME}, or {NEW_FILE_NAME}" if new else f"{KEY_NAME}, or {FILE_NAME}"
        how = f"set {names} to a file that holds it (`openssl rand -hex 32` makes one)"
        raise ConfigError(f"a run that is to be sealed needs a key: {how}")
    return key


def _wrapped(own: bytes) -> bytes:
    key = _key_to_seal_by()
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(_NONCE)
    held = _aead(_derived(key, salt)).encrypt(nonce, own, b"redinstruct seal")
    told = [base64.b64encode(part).decode() for part in (salt, nonce, held)]
    return msgspec.json.encode(_Wrapped(told[0], told[1], told[2]))


def _unwrapped(row: object, key: str, folder: Path) -> bytes:
    try:
        assert isinstance(row, bytes)
        held = msgspec.json.decode(row, type=_Wrapped)
        salt, nonce, own = (base64.b64decode(part, validate=True) for part in (held.salt, held.nonce, held.key))
        if (held.format, len(salt), len(nonce), len(own)) != (_FORMAT, 16, _NONCE, 32 + _TAG):
            raise ValueError
    except (ValueError, AssertionError):
        raise DamagedStore(f"{folder}: the run store is damaged (how it is sealed does not read)") from None
    try:
        return _aead(_derived(key, salt)).decrypt(nonce, own, b"redinstruct seal")
    except Exception as error:  # InvalidTag is no ValueError
        if isinstance(error, UsageError):
            raise
        raise ConfigError(f"{folder} is sealed by another key than the one that is set ({KEY_NAME})") from None


@functools.lru_cache(maxsize=64)
def _derived(key: str, salt: bytes) -> bytes:
    return hashlib.scrypt(key.encode("utf-8", "surrogateescape"), salt=salt, n=_N, r=_R, p=_P, maxmem=2**27, dklen=32)


def _aead(key: bytes) -> _Aead:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise UsageError("a sealed run needs the package cryptography: pip install 'redinstruct[seal]'") from None
    made: _Aead = AESGCM(key)
    return made
