"""What vouches for the file of a killed run: the digest that its writer kept, and the log that goes with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from redinstruct.errors import DamagedStore
from redinstruct.run import STORE_NAME, Store, connection, opened, seals
from redinstruct.run.folder import LOG_NAME
from tests.support.stores import Setup, fill, make_bank, recorded

SETUP = Setup(banks=(make_bank(60),))
LABELS = ["harmful", "unharmful"] * 30


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each opening whether its file was vouched for, and so not looked through."""
    found: list[bool] = []
    check = connection.check

    def noted(connection: object, folder: Path, *, sealed: bool) -> None:
        found.append(sealed)
        check(connection, folder, sealed=sealed)  # type: ignore[arg-type]

    monkeypatch.setattr(opened, "check", noted)
    return found


def killed(tmp_path: Path, between: Callable[[Store], object] = lambda _: None) -> Path:
    """A run as a SIGKILL leaves it, whose log was folded in several times: its file holds most of it."""
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, SETUP.plan(store), LABELS)
        between(store)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
    return tmp_path / "killed"


@pytest.fixture(autouse=True)
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "_FEWEST", 8)


def test_a_run_that_was_killed_is_not_looked_through(tmp_path: Path, looked: list[bool]) -> None:
    run = killed(tmp_path)
    assert (run / STORE_NAME).stat().st_size > 10 * 4096, "the log was folded in meanwhile"
    assert (run / LOG_NAME).stat().st_size > 0
    looked.clear()
    assert len(recorded(run)) == 60
    with Store.open_for_writing(run) as store:
        assert store.recorded() == 60
    assert looked == [True, True]
    assert len(recorded(run)) == 60


def test_a_run_that_was_killed_as_it_was_resumed_neither(tmp_path: Path, looked: list[bool]) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        SETUP.plan(store)
    with Store.open_for_writing(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "before a commit")
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, 1, LABELS[:3])
        shutil.copytree(tmp_path / "run", tmp_path / "after some")
    looked.clear()
    assert [len(recorded(tmp_path / name)) for name in ("before a commit", "after some")] == [0, 3]
    assert looked == [True, True]


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_bit_that_changed_in_its_file_is_noticed(tmp_path: Path, part: float) -> None:
    """In a row's text too, which SQLite's own checks pass."""
    run = killed(tmp_path)
    content = bytearray((run / STORE_NAME).read_bytes())
    content[int(part * len(content))] ^= 4
    (run / STORE_NAME).write_bytes(content)
    for door in (Store.open_for_reading, Store.open_for_writing):
        with pytest.raises(DamagedStore, match="damaged, or was changed by another program"):
            door(run)


def test_a_file_under_another_log_is_looked_through(tmp_path: Path, looked: list[bool]) -> None:
    run = killed(tmp_path)
    log = bytearray((run / LOG_NAME).read_bytes())
    log[16] ^= 1
    (run / LOG_NAME).write_bytes(log)
    looked.clear()
    assert set(recorded(run)) <= {attempt.key.hex() for attempt in SETUP.attempts}
    assert looked == [False]


def test_one_that_another_program_folded_is_looked_through(tmp_path: Path, looked: list[bool]) -> None:
    import sqlite3

    run = killed(tmp_path)
    other = sqlite3.connect(run / STORE_NAME)
    other.execute("SELECT count(*) FROM attempts").fetchone()
    other.close()
    assert not (run / LOG_NAME).exists()
    looked.clear()
    assert len(recorded(run)) == 60
    assert looked == [False]


def test_one_that_was_killed_in_the_middle_of_folding_is_looked_through(
    tmp_path: Path, looked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Path] = []
    digest = seals._digest

    def copied(file: int) -> str:
        if len(copies) < 3:  # the line is broken, the file changed
            copies.append(tmp_path / f"copy {len(copies)}")
            shutil.copytree(tmp_path / "run", copies[-1])
        return digest(file)

    with Store.open_for_writing(tmp_path / "run") as store:
        judge = SETUP.plan(store)
        monkeypatch.setattr(seals, "_digest", copied)
        fill(store, judge, LABELS)
    monkeypatch.setattr(seals, "_digest", digest)
    assert len(copies) == 3
    looked.clear()
    counts = [len(recorded(copy)) for copy in copies]
    assert counts == sorted(counts)
    assert counts[-1] > 0
    assert looked == [False] * 3


def test_a_reader_in_the_way_lets_the_log_grow_and_the_file_is_vouched_for(tmp_path: Path, looked: list[bool]) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = SETUP.plan(store)
        with Store.open_for_reading(tmp_path / "run") as reader:
            reader.db.execute("BEGIN")
            assert reader.recorded() == 0
            fill(store, judge, LABELS)
            assert reader.recorded() == 0
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
    looked.clear()
    assert len(recorded(tmp_path / "copy")) == 60
    assert looked == [True]


def test_whoever_reads_in_the_writers_own_process_leaves_sqlites_locks_alone(tmp_path: Path) -> None:
    """Closing a file lets go of all locks that the process holds on it: with SQLite's own on the store's file gone,
    another process that closes it takes itself for the last one, and removes the log under the writer."""
    import subprocess
    import sys

    other = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM meta'); db.close()"
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, SETUP.plan(store), LABELS[:5])
        assert len(recorded(tmp_path / "run")) == 5
        subprocess.run([sys.executable, "-c", other, str(tmp_path / "run" / STORE_NAME)], check=True)
        assert (tmp_path / "run" / LOG_NAME).exists()
        fill(store, 1, LABELS[5:], first=6)
    assert len(recorded(tmp_path / "run")) == 60
