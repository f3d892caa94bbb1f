"""Keys stay where they are: twelve canaries through every failure, looked for in all that the tool leaves behind.

The endpoint of these tests is careless on purpose: it repeats every request's headers in its errors and in its answers.
What was stored is read back as a later process would read it, without the key in its environment, so that nothing but
what was kept out of the files counts as kept.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from redinstruct.engine import RetryPolicy
from redinstruct.models.openai_api import EndpointModel
from redinstruct.safetext import forget_secrets
from tests.support.cli import InProcess, Result, run
from tests.support.endpoint import FAULTS as ANSWERS
from tests.support.endpoint import Endpoint, completion, error, http

FAULTS = ("400", "401", "403", "404", "418", "422", "429", "500", "html", "null", "truncated", "redirect", "reset",
          "shape", "error200", "nothttp", "badlength", "filter400", "surrogate")  # fmt: skip


class Canary(NamedTuple):
    """A key, and where a user put it. ``address`` is the base address with ``KEY`` and ``PORT`` in it."""

    name: str
    value: str
    address: str = "http://127.0.0.1:PORT/v1"
    in_key: bool = True
    usable: bool = True

    def env(self, port: int) -> dict[str, str]:
        """The environment that the user made."""
        address = self.address.replace("PORT", str(port)).replace("KEY", quote(self.value, safe=""))
        if self.address == "KEY":
            address = self.value
        return {"STUB_BASE_URL": address} | ({"STUB_API_KEY": self.value} if self.in_key else {})

    def needles(self) -> set[bytes]:
        """Every form in which it could be read off: raw, stripped, quoted, base64, hexadecimal."""
        forms: set[bytes] = set()
        for text in {self.value, self.value.strip(), f"user:{self.value.strip()}"}:
            raw = text.encode()
            forms |= {raw, quote(text).encode(), quote(text, safe="").encode(), raw.hex().encode()}
            forms |= {base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
            forms |= {json.dumps(text)[1:-1].encode(), repr(text)[1:-1].encode()}
        # Nor its parts, where it has lines or words.
        return forms | {part.encode() for part in self.value.split() if len(part) >= 8}


CANARIES = (
    Canary("plain", "sk-canary-plain-4f9a81c3"),
    Canary("trailing-newline", "sk-canary-newline-77ab12\n"),
    Canary("spaces-around", "  sk-canary-around-90cd34 "),
    Canary("inner-space", "sk-canary-inner space-ab56ef78", usable=False),
    Canary("inner-newline", "sk-canary-inner\nline-cd90ab12", usable=False),
    Canary("non-ascii", "sk-canary-ünïcödé-34ef56", usable=False),
    Canary("quotes", "sk-\"canary'<quoted>&-12ab34"),
    Canary("percent", "sk-canary%2Bper/cent+%25-56cd78=="),
    Canary("userinfo", "sk-canary-userinfo-90ef12", "http://user:KEY@127.0.0.1:PORT/v1", in_key=False),
    Canary("query", "sk-canary/query+34ab56", "http://127.0.0.1:PORT/v1?api-key=KEY", in_key=False),
    Canary("path", "sk-canary-path-78cd90ef", "http://127.0.0.1:PORT/KEY/v1", in_key=False),
    Canary("as-address", "sk-canary-address-12ef34", "KEY", in_key=False, usable=False),
)


@pytest.fixture(params=CANARIES, ids=lambda canary: canary.name)
def canary(request: pytest.FixtureRequest) -> Canary:
    value: Canary = request.param
    return value


@pytest.fixture
def careless() -> Iterator[Endpoint]:
    with Endpoint(echo_headers=True) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _loud_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redinstruct.engine.calls.RetryPolicy", lambda: RetryPolicy(first_wait=0.0001))
    monkeypatch.setenv("REDINSTRUCT_DEBUG", "1")


def write_bank(folder: Path, questions: list[str]) -> Path:
    path = folder / "inert.json"
    path.write_text(json.dumps(questions))
    return path


def evaluate(bank: Path, folder: Path, *more: object) -> list[object]:
    return ["eval", "--model", "openai-api/stub/m", "--bank", bank, "--run", folder, "--timeout", 5,
            "--judge", "paper", "--judge-model", "openai-api/stub/j", "--prompt", "standard", *more]  # fmt: skip


def set_environment(patch: pytest.MonkeyPatch, canary: Canary, port: int) -> None:
    for name, value in canary.env(port).items():
        patch.setenv(name, value)


def assert_kept(canary: Canary, *results: Result, folder: Path | None = None) -> None:
    texts = [part.encode("utf-8", "surrogateescape") for r in results for part in (r.out, r.err)]
    files = {} if folder is None else {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for needle in canary.needles():
        assert all(needle not in text for text in texts), (needle, results)
        assert [p for p, content in files.items() if needle in content] == [], needle


def read_back(cli: InProcess, folder: Path) -> list[Result]:
    """All that a later process, which knows no key, can get out of a run."""
    forget_secrets()
    return [
        cli("report", folder), cli("report", folder, "--json", "--csv", folder.parent / "figures.csv"),
        cli("show", folder, "--show-content", "--limit", 1000),
        cli("show", folder, "--json", "--show-content", "--limit", 1000),
    ]  # fmt: skip


def test_through_every_failure_of_a_careless_endpoint(
    cli: InProcess, canary: Canary, careless: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = write_bank(tmp_path, ["an inert question?", "another?", *(f"inert fault:{f}" for f in FAULTS)])
    with monkeypatch.context() as patch:
        set_environment(patch, canary, careless.port)
        result = cli(*evaluate(bank, tmp_path / "run"))
        shown = cli("show", tmp_path / "run", "--show-content") if canary.usable else result
    if not canary.usable:
        assert result.error_line
        assert not (tmp_path / "run").exists()
        assert_kept(canary, result)
        return
    assert result.code == 11, result
    stored = read_back(cli, tmp_path / "run")
    assert all(r.code == 0 for r in stored)
    # The endpoint did repeat what it was sent, and that is in the run.
    assert "chat/completions" in stored[2].out
    assert_kept(canary, result, shown, *stored, folder=tmp_path)


def test_when_the_run_is_denied_nobody_answers_or_a_fault_of_ours_strikes(
    cli: InProcess, canary: Canary, careless: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    bank = write_bank(tmp_path, [f"inert {i}?" for i in range(20)])
    results = []
    careless.always = "401"
    for port in (careless.port, free_port):
        with monkeypatch.context() as patch:
            set_environment(patch, canary, port)
            results.append(cli(*evaluate(bank, tmp_path / "run")))
            assert results[-1].error_line

    async def broken(self: EndpointModel, batch: object) -> None:
        raise RuntimeError(f"cannot send {vars(self)} {self._key and self._key.reveal()} {self._url}")

    careless.always = None
    with monkeypatch.context() as patch:
        set_environment(patch, canary, careless.port)
        patch.setattr(EndpointModel, "generate", broken)
        results.append(cli(*evaluate(bank, tmp_path / "run")))
        if canary.usable:
            assert results[-1].code == 1
            assert "Traceback" in results[-1].err  # asked for by REDINSTRUCT_DEBUG
    assert_kept(canary, *results, folder=tmp_path)


@pytest.mark.parametrize(
    "address",
    ["KEY", "http://KEY", "http:// KEY /v1", "ftp://KEY@127.0.0.1/v1", "http://u:KEY@[::1/v1", "http://127.0.0.1:KEY/v1",
     "//KEY", "http://127.0.0.1:99999/KEY", "https//127.0.0.1/KEY", "http://u:KEY@127.0.0.1:PORT/v1"],
)  # fmt: skip
def test_in_an_address_that_is_none_beside_a_key(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int, address: str
) -> None:
    canary = Canary("address", "sk-canary-malformed-56ab78")
    bank = write_bank(tmp_path, [f"inert {i}?" for i in range(20)])
    monkeypatch.setenv("STUB_BASE_URL", address.replace("KEY", canary.value).replace("PORT", str(free_port)))
    monkeypatch.setenv("STUB_API_KEY", "sk-another-key-of-the-user")

    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"nobody knows {canary.value}")

    if address.startswith(("http://KEY", "http:// KEY")):
        monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    result = cli(*evaluate(bank, tmp_path / "run"))
    assert result.code == 2
    assert_kept(canary, result, folder=tmp_path)


def test_in_every_other_field_that_an_endpoint_writes(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = CANARIES[0]
    monkeypatch.setitem(ANSWERS, "finish", lambda: http(200, completion("inert", f"you sent {canary.value}")))
    monkeypatch.setitem(ANSWERS, "code", lambda: error(400, canary.value, code=canary.value, type=canary.value))
    monkeypatch.setitem(ANSWERS, "header", lambda: http(503, b"", f"Retry-After: {canary.value}"))
    bank = write_bank(tmp_path, ["an inert question?", "inert fault:finish", "inert fault:code", "inert fault:header"])
    with Endpoint(respond=lambda _: "[[A]]") as stub, monkeypatch.context() as patch:
        set_environment(patch, canary, stub.port)
        result = cli(*evaluate(bank, tmp_path / "run"))
    assert result.code == 11
    assert_kept(canary, result, *read_back(cli, tmp_path / "run"), folder=tmp_path)


def test_the_host_of_an_address_is_not_told_either(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    bank = write_bank(tmp_path, [f"inert {i}?" for i in range(20)])
    monkeypatch.setenv("STUB_BASE_URL", f"http://127.0.0.1:{free_port}/v1")
    line = cli(*evaluate(bank, tmp_path / "run")).error_line
    assert str(free_port) not in line
    assert "STUB_BASE_URL" in line


@pytest.mark.parametrize(
    "name", ["trailing-newline", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plain", "userinfo"))]
)
def test_in_a_process_of_its_own_nor_in_its_command_line(tmp_path: Path, careless: Endpoint, name: str) -> None:
    canary = next(c for c in CANARIES if c.name == name)
    bank = write_bank(tmp_path, ["an inert question?", "inert fault:401", "inert fault:418"])
    env = {**canary.env(careless.port), "REDINSTRUCT_DEBUG": "1"}
    results = [run(*evaluate(bank, tmp_path / "run", "--json"), env=env)]
    assert results[0].code == 11, results
    results.append(run("show", tmp_path / "run", "--show-content"))
    assert_kept(canary, *results, folder=tmp_path)
