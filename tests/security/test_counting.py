"""What the suites print is counted as it was tried: the audit's findings by their number, the rest by their promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tally import FINDINGS, keep, page, reproductions


def test_a_finding_is_the_sum_of_its_reproductions_and_one_without_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, failed in zip(files, (0, 1), strict=True):
        monkeypatch.setenv("REDINSTRUCT_TALLY", str(file))
        keep(f"finding 10: {FINDINGS[9]}", 1, failed)
        keep("another promise", 40, failed, "with a note")
    lines = reproductions(files)
    assert lines[9] == f"finding 10: {FINDINGS[9]}: tried 2, failed 1"
    assert lines[0].endswith(": not tried")
    assert lines[-1] == "eleven reproductions: 2 tried, 1 failed"
    written = page(files)
    assert "| another promise | 80 | 1 | with a note |\n| all together | 80 | 1 | |\n" in written
    assert all(f"- {line}\n" in written for line in lines)
