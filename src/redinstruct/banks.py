"""Known question banks and the authors' templates: by reference, never by text.

The package ships no harmful question. It ships where each public bank lies, pinned to a commit, and the sha256 of its
bytes; a person asks for it by name, and it lands in a cache. Promised: what is used from the cache has the pinned
hash, each time anew; nothing goes over the network but in :func:`fetch`, which talks to the one host that it was
given. Not promised: that the host still has the file (a copy from elsewhere does as well: the hash decides).
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from redinstruct.errors import BankError, RedInstructError, UsageError
from redinstruct.questions import read_bank
from redinstruct.safetext import terminal
from redinstruct.types import Bank

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from urllib.request import OpenerDirector

MAX_DOWNLOAD = 64 * 2**20
_CHUNK = 2**16

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the size that the server stated, if it did."""


class KnownBank(msgspec.Struct, frozen=True):
    """A public file by reference. ``questions`` is the number of its rows, None for a template.

    ``label`` is what all of its questions are, where it is one half of a published pair that has no label column.
    """

    name: str
    kind: Literal["bank", "template"]
    description: str
    url: str
    sha256: str
    questions: int | None
    licence: str
    source: str
    label: Literal["safe", "unsafe"] | None = None

    @property
    def file_name(self) -> str:
        """Its name in the cache: the stem is the known name, so that outputs show that."""
        return self.name + PurePosixPath(self.url).suffix


_RED_INSTRUCT = "https://raw.githubusercontent.com/declare-lab/red-instruct/73c759c93d2f6b1d8c7b058ab7bcec5fb0c28fa2"
_XSTEST = "https://raw.githubusercontent.com/paul-rottger/xstest/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_PAPER = "Bhardwaj & Poria 2023, Red-Teaming Large Language Models using Chain of Utterances, arXiv 2308.09662"
_ADVBENCH = "Zou et al. 2023, Universal and Transferable Adversarial Attacks on Aligned LLMs, arXiv 2307.15043"
_OR_BENCH = "https://huggingface.co/datasets/bench-llm/or-bench/resolve/e36d8b80e81837c8a8f264bbb2a49f1b32c7e272"
_JBB = (
    "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors/resolve/886acc352a31533ffbcf4ef22c744658688086fc/data"
)
_OVER_REFUSAL = "Cui et al. 2024, OR-Bench: An Over-Refusal Benchmark for Large Language Models, arXiv 2405.20947"
_JAILBREAKBENCH = "Chao et al. 2024, JailbreakBench, NeurIPS 2024, arXiv 2404.01318"
_GITHUB = "https://raw.githubusercontent.com"
_RESTA = "Bhardwaj, Do & Poria 2024, Language Models are Homer Simpson!, arXiv 2402.11746"


def _published(
    name: str, description: str, sha256: str, questions: int, source: str, licence: str = "Apache-2.0"
) -> KnownBank:
    url = f"{_RED_INSTRUCT}/harmful_questions/{name}.json"
    return KnownBank(name, "bank", description, url, sha256, questions, licence, source)


def _template(name: str, sha256: str) -> KnownBank:
    description, url = f"the authors' own `{name}` prompt", f"{_RED_INSTRUCT}/red_prompts/{name}.txt"
    return KnownBank(f"{name}-2023", "template", description, url, sha256, None, "Apache-2.0", _PAPER)


KNOWN: Mapping[str, KnownBank] = {
    known.name: known
    for known in (
        _published(
            "harmfulqa",
            "HarmfulQA: 10 topics, 98 subtopics; 1,938 of its questions are distinct",
            "e04c1f3c48800ea84f954298e2a74f27e391069e037d60a22c2727eaa22f2cf8",
            1960,
            _PAPER,
        ),
        _published(
            "dangerousqa",
            "DangerousQA: questions from six adjectives",
            "b40b0193d063cb5d742e6d0e070dde119e0291619830c65653ca19bdc84fdd10",
            200,
            "Shaikh et al. 2022, On Second Thought, Let's Not Think Step by Step!, arXiv 2212.08061",
            "MIT",
        ),
        _published(
            "catqa_english",
            "CatQA: 11 categories, 55 subcategories; English",
            "40efd4e205e26d6e840f30e6d8540f95f2777453af052319e42e74d10bd1992a",
            550,
            _RESTA,
        ),
        _published(
            "catqa_chinese",
            "CatQA: 11 categories, 55 subcategories; Chinese",
            "d13b0d6e09a89a2a03f3d3813d4923ae5903f5362687a4f8f4e2b4dfb77706db",
            550,
            _RESTA,
        ),
        _published(
            "catqa_vietnamese",
            "CatQA: 11 categories, 55 subcategories; Vietnamese",
            "414c0f0b2897940edde808a384685359ea285de7ea5f1c0343b98c0548f9c3b4",
            550,
            _RESTA,
        ),
        _published(
            "adversarialqa",
            "AdversarialQA: AdvBench's transfer set of instructions",
            "75e9efd5ddf7bb1e653b816308c10be6edd8959c7665cf727bcab543a86a848e",
            500,
            _ADVBENCH,
        ),
        KnownBank(
            "xstest",
            "bank",
            "XSTest v2: 250 safe prompts that look unsafe, 200 unsafe contrasts",
            f"{_XSTEST}/xstest_prompts.csv",
            "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
            450,
            "CC-BY-4.0",
            "Röttger et al. 2024, XSTest, NAACL 2024, arXiv 2308.01263",
        ),
        KnownBank(
            "or-bench-hard-1k",
            "bank",
            "OR-Bench, the hard part: harmless prompts that models refuse",
            f"{_OR_BENCH}/or-bench-hard-1k.csv",
            "a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
            1319,
            "CC-BY-4.0",
            _OVER_REFUSAL,
            "safe",
        ),
        KnownBank(
            "or-bench-toxic",
            "bank",
            "OR-Bench's contrast: prompts that should be refused",
            f"{_OR_BENCH}/or-bench-toxic.csv",
            "3be45901faae3b4b2b51bf7f8a2784c1650a1cc8c631dbc8b171d5312d4e0057",
            655,
            "CC-BY-4.0",
            _OVER_REFUSAL,
            "unsafe",
        ),
        KnownBank(
            "jbb-harmful",
            "bank",
            "JailbreakBench: 100 misuse behaviours in 10 categories, asked as goals",
            f"{_JBB}/harmful-behaviors.csv",
            "4a8ec6832056b631eb092dccc60d37a61c3d441268268888b3d006288afeffa1",
            100,
            "MIT",
            _JAILBREAKBENCH,
            "unsafe",
        ),
        KnownBank(
            "jbb-benign",
            "bank",
            "JailbreakBench: 100 harmless behaviours on the same subjects",
            f"{_JBB}/benign-behaviors.csv",
            "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468",
            100,
            "MIT",
            _JAILBREAKBENCH,
            "safe",
        ),
        KnownBank(
            "advbench",
            "bank",
            "AdvBench: harmful behaviours, asked as goals",
            f"{_GITHUB}/llm-attacks/llm-attacks/098262edf85f807224e70ecd87b9d83716bf6b73/data/advbench/"
            "harmful_behaviors.csv",
            "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
            520,
            "MIT",
            _ADVBENCH,
        ),
        KnownBank(
            "harmbench",
            "bank",
            "HarmBench's text behaviours; the contexts of the contextual ones are not asked",
            f"{_GITHUB}/centerforaisafety/HarmBench/8e1604d1171fe8a48d8febecd22f600e462bdcdd/data/behavior_datasets/"
            "harmbench_behaviors_text_all.csv",
            "8d81accedd38eaaf8b760618622bb888417d1fd0c86eba65c427a16f1cbb4afc",
            400,
            "MIT",
            "Mazeika et al. 2024, HarmBench, ICML 2024, arXiv 2402.04249",
        ),
        KnownBank(
            "strongreject",
            "bank",
            "StrongREJECT: forbidden prompts in six categories",
            f"{_GITHUB}/alexandrasouly/strongreject/f7cad6c17e624e21d8df2278e918ae1dddb4cb56/strongreject_dataset/"
            "strongreject_dataset.csv",
            "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
            313,
            "MIT",
            "Souly et al. 2024, A StrongREJECT for Empty Jailbreaks, NeurIPS 2024, arXiv 2402.10260",
        ),
        _template("standard", "0b6387d8dfddaa0373995096406f797c8c488e1cb53e2f7616a0fec7547cce12"),
        _template("cot", "a709314e698800cf22db72502036849e300db58f549ce9fe1c10f4e8d696c6b7"),
        _template("cou", "e53c0cdc861222f62e083f9670bfaad81cb2ae6f1d4fae4aa3039e61116439cb"),
    )
}
"""Every known bank and template, by its name."""


# ---- by name ----


def resolve_bank(spec: str) -> Bank:
    """Read the bank that a file name or a known name means; a file of that name goes first.

    Raises:
        BankError: neither is there, the known bank was not fetched yet, or the file is no bank.
    """
    path, known = Path(spec), KNOWN.get(spec)
    # A folder named like a known bank does not hide it: nobody means a folder.
    if os.path.isfile(path) or (known is None and spec and os.path.exists(path)):  # noqa: PTH110, PTH113 (Path's raise)
        return _labelled(read_bank(path))
    if known is None:
        banks = [known.name for known in KNOWN.values() if known.kind == "bank"]
        near = difflib.get_close_matches(spec.casefold(), banks, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`redinstruct banks` lists them"
        raise BankError(f"{terminal(spec) or '(nothing)'}: no such file, and no known bank has this name; {hint}")
    if known.kind != "bank":
        raise BankError(f"{spec} is a prompt template, not a question bank: give it to --prompt")
    bank = read_bank(_fetched(known), known.name)
    if bank.sha256 != known.sha256:  # changed since the line before
        raise _not_as_pinned(known, bank.sha256)
    return _labelled(bank)


def _labelled(bank: Bank) -> Bank:
    """The bank with the label of all its questions, where its bytes are one half of a known pair."""
    label = next((known.label for known in KNOWN.values() if known.sha256 == bank.sha256), None)
    if label is None:
        return bank
    questions = tuple(msgspec.structs.replace(question, label=label) for question in bank.questions)
    return msgspec.structs.replace(bank, questions=questions)


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


def fetch(known: KnownBank, *, url: str | None = None, progress: Progress | None = None, timeout: float = 60) -> Path:
    """Put the file into the cache, from its pinned address or another; no network if it is there and right.

    The file appears whole and with the pinned hash, or not at all. ``timeout`` is for each wait, in seconds.

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
        with _part_file(place) as part:
            with part.open("wb") as file, closing(_download(known.name, address, progress, timeout)) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != known.sha256:
                got = f"expected sha256 {known.sha256[:12]}, got {digest.hexdigest()[:12]}"
                raise BankError(f"what {address.hostname} sent is not {known.name} ({got}); nothing was kept")
            part.replace(place)
    except OSError as error:  # the disk's: the network's have become a RedInstructError
        raise RedInstructError(f"cannot write {known.name} into the cache: {error.strerror}") from None
    return place


@contextmanager
def _part_file(place: Path) -> Iterator[Path]:
    """An empty file of the owner's own beside ``place``, gone in the end unless it was moved there."""
    import tempfile

    for folder in (cache_dir(), place.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


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
    name: str, address: SplitResult, progress: Progress | None, timeout: float
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
            if progress is not None:
                progress(received, total)
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
