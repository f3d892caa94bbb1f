"""Progress: a bar on a terminal, a line now and then elsewhere, nothing of it on standard output."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from redinstruct.cli import console
from tests.support.cli import InProcess, on_terminal
from tests.support.endpoint import Endpoint


def evaluate(folder: Path, size: int, *more: object) -> list[object]:
    bank = folder / "inert.json"
    bank.write_text(json.dumps([f"inert {i}?" for i in range(size)]))
    return ["eval", "--model", "openai-api/stub/m", "--bank", bank, "--judge", "refusal", "--run", folder / "run",
            "--prompt", "standard", "--concurrency", 2, *more]  # fmt: skip


def test_a_terminal_shows_a_bar_that_leaves_no_trace(tmp_path: Path) -> None:
    with Endpoint(latency=0.02) as stub:
        code, shown = on_terminal(*evaluate(tmp_path, 60), env=stub.env(), columns=100)
    assert code == 0
    bars = [frame for frame in re.split(r"\r|\x1b\[2K", shown) if "━" in frame and "/60" in frame]
    assert bars
    assert any("harmful" in frame for frame in bars)
    after = shown[shown.rindex("\x1b[2K") :]
    assert "attack success" in after
    assert "━" not in after


def test_without_a_terminal_a_line_is_printed_now_and_then(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN_PROGRESS_SECONDS", 0.75)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=itertools.count(0, 0.125).__next__))
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        result = cli(*evaluate(tmp_path, 30, "--json"))
    lines = result.err.splitlines()
    assert len(lines) == 5, "30 looks at a clock that needs 6 for a line"
    for line in lines:
        assert re.fullmatch(r"openai-api/stub/m: \d+ of 30 \([a-z_]+ \d+(, [a-z_]+ \d+)*\)", line), line
    done = [int(line.split()[1]) for line in lines]
    assert done == sorted(set(done))
    json.loads(result.out)


def test_a_short_run_without_a_terminal_prints_no_progress(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert console.PLAIN_PROGRESS_SECONDS == 10
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        assert cli(*evaluate(tmp_path, 10, "--json")).err == ""


def test_progress_that_nobody_reads_any_more_does_not_stop_the_run(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return False

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(console, "PLAIN_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", Gone())
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        result = cli(*evaluate(tmp_path, 10, "--json"))
    assert result.code == 0
    assert result.json["results"][0]["counts"]["total"] == 10


def test_a_resumed_run_counts_from_where_it_stood(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN_PROGRESS_SECONDS", 0.0)
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        cli(*evaluate(tmp_path, 10, "--limit", 8))
        result = cli(*evaluate(tmp_path, 10))
    counted = [line.split(" (")[0] for line in result.err.splitlines()]
    assert counted[:2] == ["openai-api/stub/m: 9 of 10", "openai-api/stub/m: 10 of 10"]
