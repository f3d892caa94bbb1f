"""``report --open``: the page in a browser, and where it lies."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from redinstruct.run import Store
from tests.support.cli import InProcess
from tests.support.stores import Setup, fill


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, Setup().plan(store), ["harmful", "unharmful"])
    return tmp_path / "run"


def opened(monkeypatch: pytest.MonkeyPatch, found: Any) -> list[str]:
    seen: list[str] = []

    def show(address: str) -> bool:
        seen.append(address)
        if isinstance(found, Exception):
            raise found
        return bool(found)

    monkeypatch.setattr(webbrowser, "open", show)
    return seen


def test_it_opens_the_page_that_it_wrote(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = opened(monkeypatch, True)
    page = tmp_path / "a page.html"
    assert InProcess(capsys)("report", run, "--out", page, "--open").code == 0
    assert seen == [page.as_uri()]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("found", [True, False, webbrowser.Error("none")])
def test_without_a_place_it_is_a_file_of_ones_own_in_the_temporary_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    seen = opened(monkeypatch, found)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = (run / "run.sqlite").read_bytes()
    result = InProcess(capsys)("report", run, "--open", "--json")
    assert result.code == 0
    page = Path(unquote(urlparse(seen[0]).path))
    assert str(page) in result.err
    assert ("no browser" in result.err) is (found is not True)
    assert page.stat().st_mode & 0o077 == 0
    assert page.parent.stat().st_mode & 0o077 == 0
    assert result.out.startswith("{")
    assert (run / "run.sqlite").read_bytes() == before


def test_nothing_opens_where_there_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = opened(monkeypatch, True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert InProcess(capsys)("report", tmp_path / "none", "--open").code == 2
    assert seen == []
    assert list(tmp_path.iterdir()) == []
