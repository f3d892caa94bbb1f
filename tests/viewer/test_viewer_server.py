"""The viewer over ASGI: behind the guard, only what was listed, reports under their own policy, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from redinstruct.annotate import serving
from redinstruct.annotate.guard import SAFE_HEADERS
from redinstruct.render.page import page_policy
from redinstruct.run import Store
from redinstruct.viewer.server import MOST_KEPT, MOST_TOGETHER, application
from redinstruct.viewer.shelf import Shelf
from tests.support.cli import tree
from tests.support.labelling import Client, page_headers
from tests.support.stores import Setup, fill, make_bank, scratch

P, N = "harmful", "unharmful"
PORT, TOKEN = 4321, "t" * 43
BROWSER = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"sec-fetch-site", b"none")]


class Viewer(Client):
    """The viewer of a folder as its own script sees it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(application(Shelf(folder), PORT, TOKEN))

    def post(self, path: str, document: object) -> tuple[int, Any]:
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        headers = [*page_headers(PORT, TOKEN), (b"content-length", str(len(body)).encode())]
        status, _, reply = self.ask("POST", f"/api/{path}", headers, body)
        return status, msgspec.json.decode(reply)

    def open(self, *runs: str, content: bool = False) -> str:
        status, told = self.post("open", {"runs": runs, "content": content})
        assert status == 200, told
        return str(told["address"])

    def page(self, address: str) -> str:
        status, _, body = self.ask("GET", address, BROWSER)
        assert status == 200
        return body.decode()


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as place:
        for name, labels, model in (("before", [P, P, P, N], "a/weak"), ("after", [N, N, N, P], "a/mended")):
            setup = Setup(banks=(make_bank(4),), templates=Setup().templates[:1], model=model)
            with Store.open_for_writing(place / "home" / name) as store:
                fill(store, setup.plan(store), labels)
        yield place


@pytest.fixture
def viewer(folder: Path) -> Viewer:
    return Viewer(folder / "home")


def test_it_lists_opens_and_compares(viewer: Viewer) -> None:
    status, told = viewer.post("runs", {})
    assert status == 200
    assert told["folder"] == "home"
    assert {run["place"] for run in told["runs"]} == {"before", "after"}
    page = viewer.page(viewer.open("before"))
    assert "weak gave in to 75.0" in page.replace("\u00a0", " ")
    both = viewer.page(viewer.open("before", "after"))
    assert "Before and after" in both
    assert both.index("a/weak") < both.index("a/mended")


def test_content_is_hidden_unless_it_is_asked_for(viewer: Viewer) -> None:
    viewer.post("runs", {})
    assert "What is item" not in viewer.page(viewer.open("before"))
    assert "What is item 1?" in viewer.page(viewer.open("before", content=True))


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"runs": ["../secret"]}, 422), ({"runs": ["nowhere"]}, 422), ({"runs": []}, 422),
        ({"runs": ["before"] * (MOST_TOGETHER + 1)}, 422), ({"runs": "before"}, 400),
        ({"runs": ["before"], "x": 1}, 400),
        (b"", 400), (b"{", 400), (b'{"runs": ["\xff"]}', 400), ([], 400), ({"runs": ["before"], "content": "yes"}, 400),
    ],
)  # fmt: skip
def test_what_was_not_listed_is_not_read(folder: Path, viewer: Viewer, document: object, status: int) -> None:
    with Store.open_for_writing(folder / "secret") as store:
        fill(store, Setup().plan(store), [P])
    viewer.post("runs", {})
    found, told = viewer.post("open", document)
    assert found == status
    assert "error" in told


def test_a_run_that_broke_since_is_one_sentence_without_a_path(folder: Path, viewer: Viewer) -> None:
    viewer.post("runs", {})
    (folder / "home" / "before" / "run.sqlite").write_bytes(b"gone wrong")
    status, told = viewer.post("open", {"runs": ["before"]})
    assert status == 422
    assert str(folder) not in told["error"]
    status, told = viewer.post("runs", {})
    assert {run["place"]: run["kind"] for run in told["runs"]} == {"before": "unreadable", "after": "evaluation"}
    assert str(folder) not in msgspec.json.encode(told).decode()


def test_every_answer_is_guarded(viewer: Viewer) -> None:
    viewer.post("runs", {})
    address = viewer.open("before")
    for path in ("/", "/own.js", "/view.js", "/view.css", address):
        assert viewer.ask("GET", path, BROWSER)[0] == 200
        for headers in (
            [(b"host", b"evil.example"), BROWSER[1]],
            [BROWSER[0]],
            [BROWSER[0], (b"sec-fetch-site", b"cross-site")],
            [*BROWSER, (b"origin", b"http://evil.example")],
        ):
            assert viewer.ask("GET", path, headers)[0] == 403, (path, headers)
        assert viewer.ask("GET", path, BROWSER, query=b"x=1")[0] == 404
    bare = [(name, value) for name, value in page_headers(PORT, TOKEN) if name != b"authorization"]
    for path in ("/api/runs", "/api/open"):
        assert viewer.ask("POST", path, [*bare, (b"content-length", b"2")], b"{}")[0] == 403
        assert viewer.ask("GET", path, BROWSER)[0] in (404, 405)
    for path in ("/report/", "/report/x", f"{address}x", "/before/run.sqlite", "/..%2f..%2fetc/passwd"):
        assert viewer.ask("GET", path, BROWSER)[0] == 404


def test_a_report_has_its_own_policy_and_all_the_other_headers(viewer: Viewer) -> None:
    viewer.post("runs", {})
    status, headers, _ = viewer.ask("GET", viewer.open("before"), BROWSER)
    assert status == 200
    assert headers[b"content-security-policy"].decode() == f"{page_policy()}; frame-ancestors 'none'"
    for name, value in SAFE_HEADERS[1:]:
        assert headers[name] == value
    _, listed, _ = viewer.ask("GET", "/", BROWSER)
    assert dict(SAFE_HEADERS).items() <= listed.items()


def test_the_oldest_report_gives_way(viewer: Viewer) -> None:
    viewer.post("runs", {})
    addresses = [viewer.open("before") for _ in range(MOST_KEPT + 1)]
    assert len(set(addresses)) == len(addresses)
    assert [viewer.ask("GET", address, BROWSER)[0] for address in addresses] == [404] + [200] * MOST_KEPT


def test_nothing_is_written(folder: Path, viewer: Viewer) -> None:
    viewer.post("runs", {})  # a reader of SQLite leaves its own empty log beside the file
    before = tree(folder)
    viewer.post("runs", {})
    viewer.page(viewer.open("before", "after", content=True))
    assert tree(folder) == before


def test_a_body_that_never_ends_is_refused(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_BYTES", 10)
    assert viewer.post("open", {"runs": ["before", "after"]})[0] == 413
