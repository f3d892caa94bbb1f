"""Known question banks and the authors' templates: by reference, never by text.

The package ships no harmful question. It ships where each public bank lies, pinned to a commit, and the sha256 of its
bytes; a person asks for it by name, and it lands in a cache. Promised: what is used from the cache has the pinned
hash, each time anew; nothing goes over the network but in :func:`fetch`, which talks to the one host that it was
given. Not promised: that the host still has the file (a copy from elsewhere does as well: the hash decides).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from redinstruct.banks.known import GATED, KNOWN, GatedBank, KnownBank
from redinstruct.errors import BankError, RedInstructError, UsageError, did_you_mean
from redinstruct.files.atomic import whole_file
from redinstruct.progress import OnProgress, Progress
from redinstruct.questions import read_bank
from redinstruct.questions.packed import Questions
from redinstruct.safetext import terminal
from redinstruct.types import Bank

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from urllib.request import OpenerDirector

__all__ = [
    "GATED",
    "KNOWN",
    "GatedBank",
    "KnownBank",
    "cache_dir",
    "cached_path",
    "fetch",
    "resolve_bank",
    "resolve_template_path",
]

MAX_DOWNLOAD = 64 * 2**20
_CHUNK = 2**16


# ---- by name ----


def resolve_bank(spec: str, columns: Mapping[str, str] | None = None) -> Bank:
    """Read the bank that a file name or a known name means; a file of that name goes first.

    ``columns`` names columns of its own: purpose -> column.

    Raises:
        BankError: neither is there, the known bank was not fetched yet, or the file is no bank.
    """
    path, known = Path(spec), KNOWN.get(spec)
    # A folder named like a known bank does not hide it: nobody means a folder.
    if os.path.isfile(path) or (known is None and spec and os.path.exists(path)):  # noqa: PTH110, PTH113 (Path's raise)
        return _labelled(read_bank(path, columns=columns))
    if known is None and spec in GATED:
        raise BankError(GATED[spec].how)
    if known is None:
        banks = [known.name for known in KNOWN.values() if known.kind == "bank"]
        hint = did_you_mean(spec, banks) or "; `redinstruct banks` lists them"
        raise BankError(f"{terminal(spec) or '(nothing)'}: no such file, and no known bank has this name{hint}")
    if known.kind != "bank":
        raise BankError(f"{spec} is a prompt template, not a question bank: give it to --prompt")
    bank = read_bank(_fetched(known), known.name, dict(known.columns) | dict(columns or {}))
    if bank.sha256 != known.sha256:  # changed since the line before
        raise _not_as_pinned(known, bank.sha256)
    return _labelled(bank)


def _labelled(bank: Bank) -> Bank:
    """The bank with the label of all its questions, where its bytes are one half of a known pair."""
    label = next((known.label for known in KNOWN.values() if known.sha256 == bank.sha256), None)
    if label is None:
        return bank
    assert isinstance(bank.questions, Questions)
    return msgspec.structs.replace(bank, questions=bank.questions.labelled(label))


def resolve_template_path(name: str) -> Path | None:
    """The cached file of one of the authors' templates (``cou-2023``), None if the name is no such template's.

    Raises:
        BankError: it was not fetched yet, or its bytes are not the pinned ones.
    """
    known = KNOWN.get(name)
    return _fetched(known) if known is not None and known.kind == "template" else None


def _fetched(known: KnownBank) -> Path:
    path = cached_path(known)
    if path is None:
        raise BankError(f"{known.name} is not on this machine: run `redinstruct banks fetch {known.name}`")
    return path


# ---- the cache ----


def cache_dir() -> Path:
    """``$REDINSTRUCT_CACHE``, else ``$XDG_CACHE_HOME/redinstruct``, else ``~/.cache/redinstruct``. Makes nothing.

    Raises:
        UsageError: none of them is set and this user has no home folder.
    """
    try:
        if own := os.environ.get("REDINSTRUCT_CACHE"):
            return Path(own).expanduser()
        shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
        # The XDG specification has a relative path ignored.
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "redinstruct"
    except RuntimeError:
        raise UsageError("this user has no home folder: set REDINSTRUCT_CACHE to a folder for fetched banks") from None


def cached_path(known: KnownBank) -> Path | None:
    """Where the cache holds the file, its hash checked now; None where it does not.

    Raises:
        BankError: the cached bytes are not the pinned ones, or cannot be read.
    """
    path = _place(known)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BankError(f"{terminal(str(path))}: cannot be read: {error.strerror}") from None
    if digest != known.sha256:
        raise _not_as_pinned(known, digest)
    return path


def _place(known: KnownBank) -> Path:
    return cache_dir() / "banks" / known.file_name


def _not_as_pinned(known: KnownBank, digest: str) -> BankError:
    got = f"expected sha256 {known.sha256[:12]}, got {digest[:12]}"
    return BankError(f"the cached {known.name} was changed ({got}): run `redinstruct banks fetch {known.name}` again")


# ---- over the network ----


def fetch(
    known: KnownBank, *, url: str | None = None, on_progress: OnProgress | None = None, timeout: float = 60
) -> Path:
    """Put the file into the cache, from its pinned address or another; no network if it is there and right.

    The file appears whole and with the pinned hash, or not at all. ``on_progress`` hears of
    bytes, in all where the server stated it; ``timeout`` is for each wait, in seconds.

    Raises:
        UsageError: the address is neither https, nor http on this machine.
        BankError: what came is not the pinned file.
        RedInstructError: the host did not give it, sent us to another host, sent too much, or the disk refused.
    """
    address = _checked(url or known.url)
    try:
        held = cached_path(known)
    except BankError:
        held = None  # damaged: this is how it is mended
    if held is not None:
        return held
    place = _place(known)
    digest = hashlib.sha256()
    try:
        for folder in (cache_dir(), place.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(place) as file:
            with closing(_download(known.name, address, on_progress, timeout)) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != known.sha256:
                got = f"expected sha256 {known.sha256[:12]}, got {digest.hexdigest()[:12]}"
                raise BankError(f"what {address.hostname} sent is not {known.name} ({got}); nothing was kept")
    except OSError as error:  # the disk's: the network's have become a RedInstructError
        raise RedInstructError(f"cannot write {known.name} into the cache: {error.strerror}") from None
    return place


def _checked(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        host, _ = address.hostname or "", address.port
    except ValueError:
        raise UsageError("the address to fetch from cannot be read, expected https://...") from None
    if address.username is not None:
        raise UsageError("the address to fetch from holds a user name, and this tool logs in nowhere")
    if not host or not (address.scheme == "https" or (address.scheme == "http" and _is_this_machine(host))):
        raise UsageError("the address to fetch from must be https://... (http:// only on this machine)")
    return address


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _download(
    name: str, address: SplitResult, on_progress: OnProgress | None, timeout: float
) -> Generator[bytes, None, None]:
    from urllib.request import Request

    host = address.hostname or ""
    request = Request(address.geturl(), headers={"User-Agent": "redinstruct"})  # noqa: S310 (_checked the scheme)
    with _network(name, host), _opener(name, address).open(request, timeout=timeout) as response:
        total: int | None = response.length
        received = 0
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if max(received, total or 0) > MAX_DOWNLOAD:
                raise RedInstructError(f"could not fetch {name}: {host} sends more than {MAX_DOWNLOAD} bytes")
            if on_progress is not None:
                on_progress(Progress(received, total))
            yield chunk
        if total is not None and received < total:
            raise RedInstructError(f"could not fetch {name}: cut after {received} of {total} bytes")


def _opener(name: str, address: SplitResult) -> OpenerDirector:
    # Imported here: it takes longer than the rest of this module, and only a fetch needs it.
    from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

    def origin(url: SplitResult) -> tuple[str, str | None, int | None]:
        return url.scheme, url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)

    class SameHost(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
        ) -> Request | None:
            fp.close()  # or its body would be read, however long
            if origin(urlsplit(newurl)) != origin(address):
                raise RedInstructError(
                    f"could not fetch {name}: {address.hostname} redirects to another host; "
                    "download the file yourself and give its path instead"
                )
            return super().redirect_request(req, fp, code, msg, headers, newurl)

        def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> Any:
            with closing(fp):  # urllib leaves it open where the new address cannot be read
                return super().http_error_302(req, fp, code, msg, headers)

        http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    # A proxy could not reach this machine's own addresses.
    proxies = [ProxyHandler({})] if _is_this_machine(address.hostname or "") else []
    return build_opener(SameHost, *proxies)


@contextmanager
def _network(name: str, host: str) -> Iterator[None]:
    """Whatever the network does wrong as one line, without the address: its query may hold a token."""
    from http.client import HTTPException, IncompleteRead
    from urllib.error import HTTPError

    try:
        yield
    except HTTPError as error:
        error.close()
        why = f"{host} answered {error.code}"
    except IncompleteRead:
        why = f"{host} cut the connection"
    except OSError as error:
        reason = getattr(error, "reason", error)
        said = (reason.strerror or str(reason)) if isinstance(reason, OSError) else "unreachable"
        why = f"{host}: {terminal(said)[:160]}"
    except (HTTPException, ValueError) as error:  # their texts may quote the address
        why = f"{host} does not answer as a web server ({type(error).__name__})"
    else:
        return
    raise RedInstructError(f"could not fetch {name}: {why}")
