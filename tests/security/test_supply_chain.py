"""What ships and what is installed: the same bytes from the same sources, nothing beside them, locks with hashes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.tally import security

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "src" / "redinstruct").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if path.name != "torch.txt")
# Text of every kind that the rooms hold; a suffix that is not here is looked at before it ships.
SHIPPED = {
    ".py",
    ".typed",
    ".txt",
    ".md",
    ".html",
    ".css",
    ".js",
    ".json",
    ".j2",
    ".jinja",
    ".svg",
    ".toml",
    ".jsonl",
    ".yaml",
}
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")


def build(tree: Path, day: int) -> dict[str, bytes]:
    """Wheel and source archive of a copy of the sources, whose files were all last changed on another day."""
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in NEEDED:
        shutil.copy(ROOT / name, tree / name)
    for path in tree.rglob("*"):
        os.utime(path, (day * 86400, day * 86400))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build"], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return {path.name: path.read_bytes() for path in (tree / "dist").iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build(tmp_path_factory.mktemp("one"), 20000)


def members(built: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    (name,) = (name for name in built if name.endswith(".whl"))
    (tmp_path / name).write_bytes(built[name])
    with zipfile.ZipFile(tmp_path / name) as wheel:
        return {member: wheel.read(member) for member in wheel.namelist()}


@security
def test_the_same_sources_give_the_same_bytes_wherever_and_whenever_they_are_built(
    built: dict[str, bytes], tmp_path: Path
) -> None:
    again = build(tmp_path, 20321)
    assert {name: hashlib.sha256(content).hexdigest() for name, content in again.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in built.items()
    }
    assert {Path(name).suffix for name in again} == {".whl", ".gz"}


def test_the_wheel_holds_the_package_s_files_unchanged_its_licences_and_nothing_else(
    built: dict[str, bytes], tmp_path: Path
) -> None:
    held = members(built, tmp_path)
    package = {name: content for name, content in held.items() if ".dist-info/" not in name}
    assert package == {str(path.relative_to("src")): (ROOT / path).read_bytes() for path in SOURCES}
    assert {Path(name).suffix for name in package} <= SHIPPED
    metadata = {name.split(".dist-info/")[1] for name in held if ".dist-info/" in name}
    assert metadata == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
    assert sum(map(len, held.values())) < 4 << 20


def test_the_source_archive_holds_no_file_that_the_repository_lacks(built: dict[str, bytes], tmp_path: Path) -> None:
    (name,) = (name for name in built if name.endswith(".tar.gz"))
    (tmp_path / name).write_bytes(built[name])
    with tarfile.open(tmp_path / name) as archive:
        held = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert held - {"PKG-INFO", ".gitignore"} == {str(path) for path in SOURCES} | set(NEEDED)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_is_one_version_with_its_hashes(lock: Path) -> None:
    joined = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._\[\]-]+==[^ ;]+", line), line
        assert "--hash=sha256:" in line, line


def test_what_the_package_asks_for_at_run_time_is_in_the_core_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.sub(r"[._]+", "-", re.split(r"[>=<;\[ ]", line)[0].lower()) for line in project["dependencies"]}
    locked = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / "core.txt").read_text(), re.MULTILINE)
    assert asked <= set(locked)
