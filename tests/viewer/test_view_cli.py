"""``redinstruct view``: the address, Ctrl-C, and what it says where there is nothing to show."""

from __future__ import annotations

import signal
import sys
import webbrowser
from pathlib import Path
from typing import Any

import pytest

from redinstruct.run import Store
from tests.support.cli import InProcess
from tests.support.labelling_server import served
from tests.support.stores import Setup, fill


def make(folder: Path) -> Path:
    with Store.open_for_writing(folder) as store:
        fill(store, Setup().plan(store), ["harmful", "unharmful"])
    return folder


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, signal_: signal.Signals) -> None:
    pytest.importorskip("uvicorn")
    make(tmp_path / "runs" / "one")
    with served(tmp_path / "runs", verb="view") as server:
        found = server.post("runs", {})
        assert [run["place"] for run in found["runs"]] == ["one"]
        code, out, err = server.end(signal_)
    assert code == 0
    assert out.count(server.token) == 1
    assert "Traceback" not in err


def test_a_folder_that_is_none_is_one_line(cli: InProcess, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    assert "there is no such folder" in cli("view", tmp_path / "none").error_line
    (tmp_path / "file").write_text("x")
    assert "there is no such folder" in cli("view", tmp_path / "file").error_line


@pytest.mark.parametrize("there", [True, False])
def test_the_default_is_runs_or_this_folder(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.chdir(tmp_path)
    if there:
        (tmp_path / "runs").mkdir()
    seen: list[Path] = []
    opened: list[str] = []

    def serve(folder: Path, port: int, ready: Any) -> None:
        seen.append(folder)
        ready("http://127.0.0.1:1/#word")

    def browser(address: str) -> bool:
        opened.append(address)
        return False

    monkeypatch.setattr("redinstruct.viewer.server.serve", serve)
    monkeypatch.setattr(webbrowser, "open", browser)
    result = cli("view", "--open")
    assert result.code == 0
    assert seen == [tmp_path / "runs" if there else tmp_path]
    assert opened == ["http://127.0.0.1:1/#word"]
    assert "no browser was found" in result.err


def test_without_the_extra_one_line_says_what_to_install(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn", "redinstruct.viewer.server"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'redinstruct[ui]'" in cli("view", tmp_path).error_line
