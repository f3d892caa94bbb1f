"""A newcomer's path: the tutorial's blocks, typed one by one into an environment that was made for it.

``make newcomer`` makes a virtual environment from nothing, types the page's installation into it (in this checkout),
and every further block in an empty folder, as a reader of the site would. The first block that fails ends it, with what
it printed. Unlike the tests it needs a package index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from tests.support.fences import ROOT, Block, blocks

PAGE = ROOT / "docs" / "tutorial.md"
_BEFORE = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "REDINSTRUCT_CACHE", "REDINSTRUCT_STATE")


def main() -> int:
    """Walk the path; gives the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="newcomer-"))
    try:
        venv.EnvBuilder(with_pip=True).create(folder / "venv")
        (folder / "work").mkdir()
        steps = [block for block in blocks(PAGE) if block.language in ("console", "sh", "python")]
        for number, block in enumerate(steps, 1):
            began = time.monotonic()
            done = typed(block, folder)
            took = time.monotonic() - began
            said = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
            say(f"{number}/{len(steps)} {block.page}:{block.line} {said} {took:.0f} s")
            if done.returncode:
                say(f"{done.stdout}\n{done.stderr}")
                return 1
        say(f"all {len(steps)} blocks of {PAGE.relative_to(ROOT)} succeeded in a fresh environment")
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def typed(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """One block, carried out: what installs (``console``) in the checkout, the rest in the reader's folder."""
    bin_ = folder / "venv" / "bin"
    environment = {name: value for name, value in os.environ.items() if name not in _BEFORE}
    environment |= {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    shell = ["python", "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    return subprocess.run(
        [*shell, block.text],
        cwd=ROOT if block.language == "console" else folder / "work",
        env=environment,
        capture_output=True,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main())
