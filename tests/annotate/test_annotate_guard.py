"""Which requests the labelling page answers: an oracle in ten lines, a matrix, and noise."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn

from redinstruct.annotate.guard import HOST, MOST_BYTES, SAFE_HEADERS, new_token, refusal
from redinstruct.annotate.server import application
from redinstruct.annotate.serving import listen
from redinstruct.annotate.session import PATHS, Session
from redinstruct.run import AnnotationStore, Store
from tests.support.labelling import Client, Page, make_run, page_headers
from tests.support.stores import scratch

PORT, TOKEN = Page.PORT, Page.TOKEN
HOSTS = [
    f"127.0.0.1:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"localhost:{PORT}", f"[::1]:{PORT}", f"0.0.0.0:{PORT}",
    f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", f"127.0.0.1:{PORT}.", None,
]  # fmt: skip
ORIGINS = [
    f"http://127.0.0.1:{PORT}", None, "null", f"https://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT + 1}",
    f"http://localhost:{PORT}", "http://127.0.0.1", f"http://127.0.0.1:{PORT}/", f"http://evil.example:{PORT}",
    f"http://127.0.0.1:{PORT}.evil.example",
]  # fmt: skip
SITES = ["same-origin", "none", "same-site", "cross-site", None]
METHODS = ["GET", "HEAD", "POST", "PUT", "OPTIONS"]
TYPES = ["application/json", "application/json; charset=utf-8", "text/plain", None]
TOKENS = [f"Bearer {TOKEN}", f"Bearer {TOKEN[:-1]}x", None]
MATRIX = list(itertools.product(HOSTS, ORIGINS, SITES, METHODS, TYPES, TOKENS))


def oracle(host: Any, origin: Any, site: Any, method: str, kind: Any, token: Any) -> bool:
    """Whether a request may do anything at all."""
    here = host == f"127.0.0.1:{PORT}" and site in ("same-origin", "none")
    if method == "POST":
        return here and origin == f"http://{host}" and kind == "application/json" and token == f"Bearer {TOKEN}"
    return here and method in ("GET", "HEAD") and origin in (None, f"http://{host}")


def named(host: Any, origin: Any, site: Any, kind: Any, token: Any) -> list[tuple[bytes, bytes]]:
    pairs = (
        ("host", host),
        ("origin", origin),
        ("sec-fetch-site", site),
        ("content-type", kind),
        ("authorization", token),
    )
    return [(name.encode(), value.encode()) for name, value in pairs if value is not None]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    make_run(tmp_path / "run", [["harmful"] * 6 + ["unharmful"] * 6])
    with Store.open_for_writing(tmp_path / "run") as store:
        yield Session(store, "ann", sample=12)


def rows(session: Session) -> int:
    """How many acts were ever recorded."""
    count: int = session.store.db.execute("SELECT count(*) FROM annotations").fetchone()[0]
    return count


def test_there_are_thirty_thousand_requests_and_the_rule_agrees_with_the_oracle_on_each() -> None:
    assert len(MATRIX) == 30_000
    allowed = 0
    for host, origin, site, method, kind, token in MATRIX:
        headers = [*named(host, origin, site, kind, token), (b"content-length", b"2")]
        passed = refusal(method, headers, PORT, TOKEN) is None
        assert passed == oracle(host, origin, site, method, kind, token), (host, origin, site, method, kind, token)
        allowed += passed
    assert allowed == 2 * (2 * 2 * 4 * 3) + 2


def check_matrix(session: Session, cases: list[tuple[Any, ...]]) -> None:
    """Each case through the whole application: what the oracle forbids does nothing and says nothing."""
    page = Page(session)

    async def all_of_them() -> None:
        body = b"{}"
        for host, origin, site, method, kind, token in cases:
            path = "/" if method in ("GET", "HEAD") else "/api/state"
            headers = named(host, origin, site, kind, token)
            if method in ("POST", "PUT"):
                headers.append((b"content-length", b"2"))
            status, answered, reply = await page.answer(
                method, path, headers, body if method in ("POST", "PUT") else b""
            )
            allowed = oracle(host, origin, site, method, kind, token)
            assert (status == 200) == allowed, (status, host, origin, site, method, kind, token)
            assert status < 500
            assert all(answered[name] == value for name, value in SAFE_HEADERS)
            assert not any(name.startswith(b"access-control") for name in answered)
            if not allowed:
                assert b"total" not in reply
                assert reply == b"" or set(msgspec.json.decode(reply)) == {"error"}

    asyncio.run(all_of_them())
    assert rows(session) == 0


def test_the_whole_matrix_through_the_application(session: Session) -> None:
    check_matrix(session, MATRIX)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"host", b"127.0.0.1:4321"), 400),
        ((b"origin", b"http://127.0.0.1:4321"), 400),
        ((b"sec-fetch-site", b"same-origin"), 400),
        ((b"authorization", b"Bearer x"), 400),
        ((b"content-type", b"application/json"), 400),
        ((b"content-length", b"2"), 400),
        ((b"transfer-encoding", b"chunked"), 411),
    ],
)
def test_a_doubled_header_is_refused(session: Session, change: tuple[bytes, bytes], status: int) -> None:
    headers = [*page_headers(PORT, TOKEN), (b"content-length", b"2"), change]
    assert Page(session).ask("POST", "/api/state", headers, b"{}")[0] == status


@pytest.mark.parametrize("length", [b"", b"-1", b"+2", b"2 ", b"0x2", b"1" * 5000, "²".encode(), b"65537"])
def test_a_length_that_is_none_or_too_much(session: Session, length: bytes) -> None:
    headers = [*page_headers(PORT, TOKEN), (b"content-length", length)]
    assert Page(session).ask("POST", "/api/state", headers, b"{}")[0] in (411, 413)


def test_a_body_that_is_longer_than_it_said_is_cut_off(session: Session) -> None:
    headers = [*page_headers(PORT, TOKEN), (b"content-length", b"2")]
    long = b'{"skipped":' + b" " * MOST_BYTES + b"false}"
    assert Page(session).ask("POST", "/api/state", headers, long)[0] == 413


def test_reading_changes_nothing_and_there_is_nothing_else_to_read(session: Session) -> None:
    page = Page(session)
    headers = page_headers(PORT, TOKEN)
    for path in ("/", "/own.js", "/page.js", "/page.css"):
        status, answered, body = page.ask("GET", path, headers)
        assert (status, len(body) > 500) == (200, True)
        assert answered[b"content-type"].startswith(b"text/")
        assert b"inert answer" not in body
        assert page.ask("GET", path, headers, query=b"a=b")[0] == 404
    for path in (
        *PATHS,
        "/x",
        "/page",
        "//",
        "/../server.py",
        "/page.js/",
        "/%2e%2e/guard.py",
        "/docs",
        "/openapi.json",
    ):
        assert page.ask("GET", path, headers)[0] in (404, 405), path
    assert page.ask("POST", "/", [*headers, (b"content-length", b"2")], b"{}")[0] == 405
    assert rows(session) == 0


def test_the_page_holds_nothing_that_its_policy_forbids() -> None:
    """No inline script or style, no handler, no address of another machine, no markup made from text."""
    folder = Path(__file__).parents[2] / "src" / "redinstruct" / "annotate" / "page"
    html, own, script, style = (
        folder.joinpath(name).read_text() for name in ("index.html", "own.js", "page.js", "page.css")
    )
    assert not re.search(r"\son\w+=|<style|style=|javascript:|<script(?! src=\"/(?:own|page).js\" defer>)", html)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|\.style\b|srcdoc|import\(", own + script
    )
    for text in (html, own, script, style):
        # The one address is SVG's name space, which nobody fetches.
        assert set(re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"^\s*//.*$|  //.*$", "", text, flags=re.M))) <= {
            "http://www.w3.org"
        }
    assert "@import" not in style
    assert "url(" not in style


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_can_be_read_on_its_ground_in_light_and_dark() -> None:
    style = (Path(__file__).parents[2] / "src" / "redinstruct" / "annotate" / "page" / "page.css").read_text()
    schemes = re.findall(r":root \{([^}]*--paper[^}]*)\}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
        pairs = [(ink, ground) for ink in ("ink", "quiet", "accent", "bad") for ground in ("paper", "card")]
        for ink, ground in (*pairs, ("on-accent", "accent"), ("ink", "warn")):
            light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_a_token_is_long_random_and_never_the_same() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert all(len(new_token()) >= 43 for _ in range(10))


def test_a_websocket_is_closed(session: Session) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    app = Page(session).app
    asyncio.run(app({"type": "websocket", "path": "/", "headers": page_headers(PORT, TOKEN)}, receive, send))
    assert [m["type"] for m in sent] == ["websocket.close"]


# ---- noise ----


def noise(generator: random.Random, items: list[str]) -> tuple[str, str, bytes]:
    """Method, path and body of a request that has the right headers and nothing else right, except by chance."""
    values: list[Any] = [
        None, True, 0, -1, 1e300, "", "x", "label", "harmful", "skip\x00", "\ud800", [], {}, [[]], {"a": {}}, "A" * 999,
        *items[:2], items[0].upper(), items[0][:-1], items[0] + " ", "0" * 64, "g" * 64, "é" * 64,
    ]  # fmt: skip
    pick = generator.choice
    shape = generator.randrange(5)
    if shape == 0:
        body = bytes(generator.randrange(256) for _ in range(generator.randrange(80)))
    elif shape == 1:
        body = b"[" * generator.choice([1, 10, 5000, 20000])
    else:
        fields = ["item", "act", "choice", "skipped", "__proto__", "x"]
        # No act that could be meant: whoever has the token may label.
        document = {pick(fields): pick(values) for _ in range(generator.randrange(5))}
        if document.get("act") in ("label", "unsure", "skip"):
            document["act"] = "delete"
        import json

        body = json.dumps(document).encode()
        if shape == 2 and body:
            cut = generator.randrange(len(body))
            body = body[:cut] + bytes([generator.randrange(256)]) + body[cut + 1 :]
    path = pick([*PATHS, *PATHS, "/", "/api", "/api/", "/api/state/", "/api/../state", "/" + "a" * 2000, "/api/\udcff"])
    return pick(["POST", "POST", "POST", "GET", "DELETE", "PATCH", "TRACE", "post", "", "\x00"]), path, body


def check_noise(session: Session, count: int, seed: int) -> None:
    page, generator = Page(session), random.Random(seed)
    items = [key.hex() for key in session.drawn.keys]
    before = session.state()

    async def all_of_them() -> None:
        for _ in range(count):
            method, path, body = noise(generator, items)
            headers = page_headers(PORT, TOKEN)
            headers.append((b"content-length", str(len(body)).encode()))
            if generator.random() < 0.1:
                headers[generator.randrange(len(headers))] = (b"x-" + generator.randbytes(3), generator.randbytes(9))
            status, _, reply = await page.answer(method, path, headers, body)
            assert status < 500, (method, path, body, reply)

    asyncio.run(all_of_them())
    assert page.failures == []
    assert rows(session) == 0
    assert session.state() == before


def test_ten_thousand_noisy_requests_change_nothing(session: Session) -> None:
    check_noise(session, 10_000, 4)


# ---- over a real socket ----


class Served:
    """A page on a real port, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.listener = listen(0)
        self.port: int = self.listener.getsockname()[1]
        self.folder, self.ready = folder, threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # The store belongs to the thread that serves.
        with Store.open_for_writing(self.folder) as store:
            session = Session(store, "ann", sample=12)
            app = application(session, self.port, TOKEN, lambda error: None)
            config = uvicorn.Config(
                app, log_config=None, access_log=False, http="h11", ws="none", lifespan="off", server_header=False
            )
            self.server = uvicorn.Server(config)
            self.ready.set()
            self.server.run(sockets=[self.listener])

    def __enter__(self) -> Served:
        self.thread.start()
        assert self.ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(120)
        assert not self.thread.is_alive()
        self.listener.close()


@pytest.mark.slow
def test_a_part_of_the_matrix_over_a_real_socket() -> None:
    """3,000 requests: the 98 that may pass, and others by chance."""
    with scratch() as folder:
        make_run(folder / "run", [["harmful"] * 6 + ["unharmful"] * 6])
        allowed = [case for case in MATRIX if oracle(*case)]
        cases = [*allowed, *random.Random(2).sample(MATRIX, 3000 - len(allowed))]
        with Served(folder / "run") as served:
            connection = HTTPConnection(HOST, served.port, timeout=120)
            for host, origin, site, method, kind, token in cases:
                real = [v if v is None else v.replace(str(PORT), str(served.port)) for v in (host, origin)]
                connection.putrequest(
                    method, "/" if method != "POST" else "/api/state", skip_host=True, skip_accept_encoding=True
                )
                for name, value in named(real[0], real[1], site, kind, token):
                    connection.putheader(name.decode(), value.decode())
                body = b"{}" if method in ("POST", "PUT") else b""
                if body:
                    connection.putheader("Content-Length", "2")
                connection.endheaders(body)
                reply = connection.getresponse()
                reply.read()
                assert (reply.status == 200) == oracle(host, origin, site, method, kind, token), (
                    reply.status, host, origin, site, method, kind, token,
                )  # fmt: skip
                if reply.will_close:
                    connection.close()
            connection.close()
        with Store.open_for_reading(folder / "run") as store:
            assert AnnotationStore(store).standing() == []


def test_a_store_that_fails_is_told_and_nothing_is_taken_for_recorded(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redinstruct.errors import StoreError

    page = Page(session)
    item = page.post("state", {})[1]["item"]["id"]

    def full(self: object, acts: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(AnnotationStore, "record", full)
    status, reply = page.post("act", {"item": item, "act": "label", "choice": "harmful"})
    assert (status, reply) == (500, {"error": "not recorded: the disk is full"})
    assert len(page.failures) == 1
    monkeypatch.undo()
    assert page.post("state", {})[1]["item"]["id"] == item


def test_labelling_through_the_page_s_own_requests(session: Session) -> None:
    page = Page(session)
    item = page.post("state", {})[1]["item"]["id"]
    assert page.post("reveal", {"item": item})[1]["answer"].startswith("an inert answer")
    assert page.post("verdict", {"item": item})[0] == 409
    status, state = page.post("act", {"item": item, "act": "label", "choice": "harmful"})
    assert (status, state["done"], state["last"]) == (200, 1, item)
    assert page.post("act", {"item": item, "act": "label", "choice": "unharmful"})[0] == 409
    assert page.post("undo", {})[1]["item"]["id"] == item
    assert page.post("act", {"item": item, "act": "label"})[0] == 409
    assert page.post("act", {"item": item, "act": "adjudicate", "choice": "harmful"})[0] == 400
    assert page.post("act", {"item": item, "act": "label", "choice": "harmful", "annotator": "bo"})[0] == 400
    assert rows(session) == 2


def test_a_client_without_the_token_gets_nothing(session: Session) -> None:
    client = Client(application(session, PORT, new_token(), lambda error: None))
    headers = [*page_headers(PORT, TOKEN), (b"content-length", b"2")]
    assert client.ask("POST", "/api/state", headers, b"{}")[0] == 403
