"""The tutorial, copied line by line into an empty folder, with this checkout's ``redinstruct``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fences import ROOT, blocks, shell

pytestmark = [pytest.mark.local, pytest.mark.slow]


def test_the_tutorial_succeeds_from_top_to_bottom(tmp_path: Path, toy: Path, shared: Path) -> None:
    assert toy.is_dir(), "trained once for all tests; the tutorial's first step finds it in the cache"
    (tmp_path / "bin").mkdir()
    environment = shell(tmp_path / "bin", {"REDINSTRUCT_CACHE": str(shared / "cache")})
    steps = [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.language in ("sh", "python")]
    shown = ""
    for step in steps:
        interpreter = ["bash", "-euo", "pipefail", "-c"] if step.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*interpreter, step.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{step.page}:{step.line}\n{done.stdout}\n{done.stderr}"
        shown += done.stdout
    assert "exit code 10" in shown
    assert len(json.loads((tmp_path / "report.json").read_text())["results"]) == 6
    assert "corrected by people's labels" in shown
    # Safer step by step, and useless: the two lessons of the page.
    assert any(line.startswith("better") and " cot " in line for line in shown.splitlines())
    assert any(line.startswith("worse") and "toy_how_to " in line for line in shown.splitlines())
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "base", "imported", "safer", "toy-useful", "safer-useful",
    }  # fmt: skip
