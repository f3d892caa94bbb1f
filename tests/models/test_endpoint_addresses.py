"""How an endpoint is reached: several servers, proxies, headers, a file of variables; and what of it nobody sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from redinstruct.cli.env_file import read_env_file
from redinstruct.errors import ModelSpecError, UsageError
from redinstruct.models import ModelError, Request, make_model
from redinstruct.models.addresses import read_addresses
from redinstruct.models.proxies import proxy_for
from redinstruct.safetext import redact
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.cli import InProcess, run, write_bank
from tests.support.endpoint import Endpoint

REQUEST = Request((Message("user", "What is blue?"),), Sampling(max_tokens=10))


def ask(spec: str, environ: dict[str, str]) -> str | None:
    async def main() -> str | None:
        model = make_model(spec, environ=environ)
        try:
            return (await model.generate([REQUEST]))[0].text
        finally:
            await model.aclose()

    return asyncio.run(main())


# --- Several servers -----------------------------------------------------------------------------------------------


def test_addresses_with_commas_between_them_are_servers_of_one_model() -> None:
    found = read_addresses("X", {"X_BASE_URL": " http://a/v1 ,http://b/v1,, http://a/v1", "X_API_KEY": "k" * 20}, "m")
    assert [str(one.url) for one in found] == ["http://a/v1/chat/completions", "http://b/v1/chat/completions"]
    with pytest.raises(ModelSpecError, match="X_BASE_URL is not"):
        read_addresses("X", {"X_BASE_URL": "http://a/v1,nowhere"}, "m")


def test_two_servers_share_a_run_and_one_that_is_not_there_loses_nothing(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    with Endpoint(latency=0.01) as one, Endpoint(latency=0.01) as two:
        monkeypatch.setenv("STUB_BASE_URL", f"{one.url},http://127.0.0.1:{free_port}/v1,{two.url}")
        done = cli("eval", "--model", "openai-api/stub/m", "--bank", write_bank(tmp_path, 60), "--judge", "refusal",
                   "--run", tmp_path / "run", "--concurrency", 8, "--prompt", "standard", "--json")  # fmt: skip
        assert done.code == 0, done.err
        assert done.json["results"][0]["counts"]["error"] == 0
        assert one.requests + two.requests == 60
        assert min(one.requests, two.requests) >= 20


# --- Proxies -------------------------------------------------------------------------------------------------------


class ForwardProxy:
    """A proxy on loopback: it carries each request, or each tunnel, to ``to``, and notes its head and what passes."""

    def __init__(self, to: int) -> None:
        self.heads: list[str] = []
        self.passed = b""
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0
        self._to = to

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._carrying.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            if head.startswith(b"CONNECT "):
                await self._tunnel(reader, writer)
                return
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            back, forth = await asyncio.open_connection("127.0.0.1", self._to)
            forth.write(re.sub(rb"^(\S+) http://[^/]+", rb"\1 ", head) + body)
            writer.write(await back.read(1 << 16))
            await writer.drain()
            forth.close()
        writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._to)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while piece := await source.read(1 << 16):
                    self.passed += piece
                    sink.write(piece)
                    await sink.drain()
            sink.close()

        await asyncio.gather(carry(reader, forth), carry(back, writer))

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        if self._carrying:  # its callers are gone: what they left behind ends with them
            await asyncio.wait(self._carrying, timeout=5)

    def __enter__(self) -> ForwardProxy:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def through() -> Iterator[tuple[Endpoint, ForwardProxy]]:
    with Endpoint() as stub, ForwardProxy(stub.port) as proxy:
        yield stub, proxy


def test_a_request_goes_through_the_proxy_that_the_environment_names(
    through: tuple[Endpoint, ForwardProxy],
) -> None:
    _, proxy = through
    environ = {
        "STUB_BASE_URL": "http://models.test/v1",
        "STUB_API_KEY": "sk-a-key-for-the-endpoint",
        "HTTP_PROXY": f"http://person:a-long-password@127.0.0.1:{proxy.port}",
    }
    assert ask("openai-api/stub/m", environ)
    (head,) = proxy.heads
    assert head.startswith("POST http://models.test/v1/chat/completions HTTP/1.1")
    assert "Proxy-Authorization: Basic cGVyc29uOmEtbG9uZy1wYXNzd29yZA==" in head
    assert "\nAuthorization: Bearer sk-a-key-for-the-endpoint" in head
    assert "a-long-password" not in redact(f"{head} a-long-password")
    assert "cGVyc29u" not in redact(head)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of models.test that nobody has signed but itself, with its key, made now."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("the program openssl makes the certificate, and is not here")
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=models.test", "-addext", "subjectAltName=DNS:models.test", "-keyout", path.with_suffix(".key"),
         "-out", path], check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture
def tunnel(certificate: Path) -> Iterator[tuple[Endpoint, ForwardProxy, dict[str, str]]]:
    """An HTTPS endpoint, a proxy before it, and the variables that name both."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with Endpoint(tls=tls) as stub, ForwardProxy(stub.port) as proxy:
        stub.keep = True
        yield stub, proxy, {
            "STUB_BASE_URL": "https://models.test:8443/v1",
            "STUB_API_KEY": "sk-a-key-for-the-endpoint",
            "STUB_HEADERS": '{"X-Team": "a-team-of-ours"}',
            "HTTPS_PROXY": f"http://person:a-long-password@127.0.0.1:{proxy.port}",
        }  # fmt: skip


def test_https_goes_through_a_tunnel_and_each_end_sees_its_own_secret_alone(
    tunnel: tuple[Endpoint, ForwardProxy, dict[str, str]], certificate: Path, tmp_path: Path
) -> None:
    stub, proxy, variables = tunnel
    done = run("eval", "--model", "openai-api/stub/m", "--bank", write_bank(tmp_path, 3), "--judge", "refusal",
               "--prompt", "standard", "--run", tmp_path / "run",
               env={**variables, "SSL_CERT_FILE": str(certificate)})  # fmt: skip
    assert done.code == 0, done.err
    assert stub.requests == 3
    for head in proxy.heads:
        assert head.startswith("CONNECT models.test:8443 HTTP/1.1")
        assert "Proxy-Authorization: Basic cGVyc29uOmEtbG9uZy1wYXNzd29yZA==" in head
        assert "sk-a-key" not in head
        assert "a-team" not in head
    assert b"sk-a-key" not in proxy.passed
    assert b"inert" not in proxy.passed.lower()
    for head in stub.heads:
        assert "Authorization: Bearer sk-a-key-for-the-endpoint" in head
        assert "X-Team: a-team-of-ours" in head
        assert "Proxy-Authorization" not in head


def test_a_certificate_that_nobody_vouches_for_is_refused_and_sends_nothing(
    tunnel: tuple[Endpoint, ForwardProxy, dict[str, str]],
) -> None:
    stub, proxy, variables = tunnel
    with pytest.raises(ModelError) as refused:
        ask("openai-api/stub/m", variables)
    assert refused.value.reason is FailureReason.UNREACHABLE
    assert "its certificate" in str(refused.value.note)
    assert len(proxy.heads) == 1
    assert stub.requests == 0


def test_no_proxy_goes_straight(through: tuple[Endpoint, ForwardProxy]) -> None:
    stub, proxy = through
    environ = {**stub.env(), "HTTP_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "localhost,127.0.0.1"}
    assert ask("openai-api/stub/m", environ)
    assert proxy.heads == []


def test_a_proxy_that_is_not_there_is_named_by_its_variable(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr("redinstruct.engine.retry.FIRST_WAIT", 0.001)
    monkeypatch.setattr("redinstruct.engine.retry.RetryPolicy.wait", lambda *a, **k: 0.0)
    monkeypatch.setenv("STUB_BASE_URL", "http://models.test/v1")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    done = cli("eval", "--model", "openai-api/stub/m", "--bank", write_bank(tmp_path, 2), "--judge", "refusal", "--run",
               tmp_path / "run")  # fmt: skip
    assert "http_proxy" in done.error_line


@pytest.mark.parametrize(
    ("url", "listed", "direct"),
    [
        ("http://models.test/v1", "", False),
        ("http://models.test/v1", "models.test", True),
        ("http://a.models.test/v1", "models.test", True),
        ("http://a.models.test/v1", ".models.test", True),
        ("http://a.models.test/v1", "*.models.test", True),
        ("http://notmodels.test/v1", "models.test", False),
        ("http://models.test:8000/v1", "models.test:8000", True),
        ("http://models.test:8001/v1", "models.test:8000", False),
        ("http://models.test/v1", "models.test:80", True),
        ("http://models.test/v1", "*", True),
        ("http://MODELS.test./v1", " other , Models.Test ", True),
        ("http://10.1.2.3:8000/v1", "10.0.0.0/8", True),
        ("http://11.1.2.3:8000/v1", "10.0.0.0/8", False),
        ("http://127.0.0.1:8000/v1", "127.0.0.1", True),
        ("http://127.0.0.1:8000/v1", "localhost", False),
        ("http://[::1]:8000/v1", "::1", True),
        ("http://[::1]:8000/v1", "[::1]:8000", True),
        ("http://[::1]:8000/v1", "[::1]:8001", False),
    ],
)
def test_no_proxy_names_hosts_what_is_under_them_ports_addresses_and_networks(
    url: str, listed: str, direct: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert (proxy_for(URL(url), {"HTTP_PROXY": "p:3128", name: listed}) is None) is direct


def test_the_lower_case_wins_and_each_scheme_has_its_own() -> None:
    environ = {
        "http_proxy": "http://low",
        "HTTP_PROXY": "http://up",
        "HTTPS_PROXY": "http://tls",
        "ALL_PROXY": "http://all",
    }
    found = [proxy_for(URL(url), environ) for url in ("http://a/", "https://a/")]
    assert [proxy and proxy.url.host for proxy in found] == ["low", "tls"]
    only = proxy_for(URL("https://a/"), {"ALL_PROXY": "http://all"})
    assert only is not None
    assert only.url.host == "all"
    assert proxy_for(URL("https://a/"), {"http_proxy": "http://low"}) is None
    with pytest.raises(ModelSpecError, match="ALL_PROXY"):
        proxy_for(URL("https://a/"), {"ALL_PROXY": "socks5://somebody:secret@host:1"})


# --- Headers -------------------------------------------------------------------------------------------------------


def test_default_headers_go_with_every_request_and_their_values_are_secrets() -> None:
    with Endpoint() as stub:
        stub.keep = True
        environ = {"STUB_BASE_URL": stub.url, "STUB_HEADERS": '{"X-Team": "a-team-of-ours", "Authorization": "Own x"}'}
        assert ask("openai-api/stub/m", environ)
        (head,) = stub.heads
    assert "X-Team: a-team-of-ours" in head
    assert "Authorization: Own x" in head
    assert "a-team-of-ours" not in redact(head)


@pytest.mark.parametrize(
    "text", ["X-Team: red", "[1]", '{"X": 1}', '{"X Y": "a"}', '{"X": "a\\nb"}', '{"Content-Length": "1"}', '{"": "a"}']
)
def test_headers_that_cannot_be_sent_are_refused_without_their_values(text: str) -> None:
    with pytest.raises(ModelSpecError, match="X_HEADERS"):
        read_addresses("X", {"X_BASE_URL": "http://a/v1", "X_HEADERS": text}, "m")


def test_a_key_and_an_authorization_header_are_one_too_many() -> None:
    environ = {"X_BASE_URL": "http://a/v1", "X_API_KEY": "k" * 20, "X_HEADERS": '{"authorization": "Own"}'}
    with pytest.raises(ModelSpecError, match="use one of them"):
        read_addresses("X", environ, "m")


# --- The file of variables -----------------------------------------------------------------------------------------


def test_an_env_file_is_read_and_nothing_in_it_is_carried_out(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "\ufeff# a comment\n\nexport A_API_KEY=plain # why\nB_API_KEY = 'single $HOME #' # c\n"
        'C_API_KEY="double \\" \\\\ $(touch x)"\nD_BASE_URL=http://host/v1#part\nE_HEADERS=\nF_HEADERS={"a": "b"}\n',
        encoding="utf-8",
    )
    assert read_env_file(path) == {
        "A_API_KEY": "plain", "B_API_KEY": "single $HOME #", "C_API_KEY": 'double " \\ $(touch x)',
        "D_BASE_URL": "http://host/v1#part", "E_HEADERS": "", "F_HEADERS": '{"a": "b"}',
    }  # fmt: skip


@pytest.mark.parametrize("line", ["no sign", "1A=b", "A B=c", "A='open", 'A="open', "A='a' b", "=x"])
def test_a_line_that_is_something_else_is_refused_by_its_number_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"OK=1\n{line}\n")
    with pytest.raises(UsageError, match=r"line 2 is not of the form NAME=value$"):
        read_env_file(path)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_quoted_values_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    one_line = {name: "".join(v.splitlines()).replace("\x00", "") for name, v in values.items()}
    escaped = {name: v.replace("\\", "\\\\").replace('"', '\\"') for name, v in one_line.items()}
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_text("".join(f'{name}="{v}"\n' for name, v in escaped.items()), encoding="utf-8", newline="")
    assert read_env_file(path) == one_line


def test_the_flag_reaches_the_endpoint_overrides_nothing_and_leaves_nothing_behind(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    before = dict(os.environ)
    with Endpoint() as stub:
        file.write_text(f"STUB_BASE_URL={stub.url}\nPATH=/nowhere\nPYTHONPATH=/nowhere\n")
        flags = ["eval", "--model", "openai-api/stub/m", "--bank", write_bank(tmp_path, 2), "--judge", "refusal",
                 "--prompt", "standard"]  # fmt: skip
        assert cli(*flags, "--run", tmp_path / "one", "--env-file", file).code == 0
        assert stub.requests == 2
        assert dict(os.environ) == before
        monkeypatch.setenv("STUB_BASE_URL", "nowhere")
        assert "STUB_BASE_URL" in cli(*flags, "--run", tmp_path / "two", "--env-file", file).error_line
    assert "no such file" in cli(*flags, "--run", tmp_path / "two", "--env-file", tmp_path / "none").error_line
