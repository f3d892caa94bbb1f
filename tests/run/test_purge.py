"""Removed for good: no byte of a run stays, whatever was killed when; and nothing is removed that is not ours."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from redinstruct.errors import ConfigError, RedInstructError, StoreError
from redinstruct.files.atomic import open_plain
from redinstruct.run import STORE_NAME, Store, folder, purge
from redinstruct.run.folder import LOCK_NAME, LOG_NAME, OWN_NAMES
from redinstruct.types import Verdict
from tests.support.cli import InProcess, start, tree, write_bank
from tests.support.endpoint import Endpoint
from tests.support.kills import run_script
from tests.support.stores import Setup, make_bank, recorded, scratch, text
from tests.support.tally import faults, finding, tally

SETUP = Setup(banks=(make_bank(8),))
MODEL = "openai-api/stub/m"
CANARY = b"canary-5f1c"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as place:
        yield place


def fill(run: Path, rows: int = 8) -> None:
    with Store.open_for_writing(run) as store:
        judge = SETUP.plan(store)
        for row in range(1, rows + 1):
            store.commit_completions([(row, 0, text(CANARY.decode() * 500))])
            store.commit_verdicts([(row, 0, judge, 0, Verdict("harmful"))])


def held(place: Path) -> dict[str, int]:
    """Open handles to every file below a folder: their bytes can be looked at when their names are gone."""
    return {str(path): os.open(path, os.O_RDONLY) for path in place.rglob("*") if path.is_file()}


def canaries(handles: dict[str, int]) -> list[str]:
    found = [name for name, handle in handles.items() if CANARY in os.pread(handle, 1 << 30, 0)]
    for handle in handles.values():
        os.close(handle)
    return found


@finding(1)
class TestTheLog:
    """SQLite unlinks it when the last writer closes; its bytes are overwritten before."""

    def test_is_blank_when_a_writer_has_closed(self, tmp_path: Path) -> None:
        store = Store.open_for_writing(tmp_path / "run")
        with store:
            SETUP.plan(store)
            store.commit_completions([(1, 0, text(CANARY.decode()))])
            handles = {"log": os.open(tmp_path / "run" / LOG_NAME, os.O_RDONLY)}
            assert CANARY in os.pread(handles["log"], 1 << 30, 0)
        assert canaries(handles) == []
        assert not (tmp_path / "run" / LOG_NAME).exists()
        assert len(recorded(tmp_path / "run")) == 1

    def test_is_left_to_the_next_writer_while_somebody_reads(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        store = Store.open_for_writing(run)
        SETUP.plan(store)
        with Store.open_for_reading(run) as reader:
            views = reader.attempts(1)
            store.commit_completions([(1, 0, text())])
            first = next(views, None)
            rest = reader.db.execute("SELECT id FROM attempts")
            rest.fetchone()  # its snapshot is older than the log's end
            store.commit_completions([(2, 0, text(CANARY.decode()))])
            store.close()
            assert first is not None
            rest.close()
            views.close()  # type: ignore[attr-defined]
        assert len(recorded(run)) == 2
        handles = {"log": os.open(run / LOG_NAME, os.O_RDONLY)}
        Store.open_for_writing(run).close()
        assert canaries(handles) == []
        assert len(recorded(run)) == 2

    def test_can_lose_power_at_any_moment_of_the_overwriting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two syncs any part of what was written may be on the disk, in any order."""
        run = tmp_path / "run"
        steps: list[tuple[bytes, list[tuple[int, int]]]] = []  # what is safe on the disk, and what may be
        writes: list[tuple[int, int]] = []
        pwrite, fsync = os.pwrite, os.fsync

        def noted(handle: int, data: bytes, at: int) -> int:
            if os.path.samestat(os.fstat(handle), log.stat()):
                writes.append((at, len(data)))
            return pwrite(handle, data, at)

        def synced(handle: int) -> None:
            if writes and log.exists() and os.path.samestat(os.fstat(handle), log.stat()):
                steps.append((before[-1], list(writes)))
                before.append(log.read_bytes())
                writes.clear()
            fsync(handle)

        with Store.open_for_writing(run) as store:
            judge = SETUP.plan(store)
            for row in range(1, 17):
                store.commit_completions([(row, 0, text("x" * 3000))])
                store.commit_verdicts([(row, 0, judge, 0, Verdict("harmful"))])
            store.db.execute("PRAGMA wal_checkpoint(RESTART)")
            log = run / LOG_NAME
            before = [log.read_bytes()]
            shutil.copytree(run, tmp_path / "image", ignore=shutil.ignore_patterns("*-shm"))
            (tmp_path / "image" / LOCK_NAME).write_bytes(b"")  # the writer vouches for nothing before it folds
            monkeypatch.setattr(os, "pwrite", noted)
            monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.undo()
        assert len(steps) == 2
        assert before[-1].strip(b"\0") == b""
        chance = random.Random(5)
        wrong = tried = 0
        for safe, parts in steps:
            sectors = [s for at, size in parts for s in range(at, at + size, 512)]
            for _ in range(20):
                found = bytearray(safe)
                for at in chance.sample(sectors, chance.randrange(len(sectors) + 1)):
                    found[at : at + 512] = bytes(512)
                place = tmp_path / "crashed"
                shutil.copytree(tmp_path / "image", place)
                (place / LOG_NAME).write_bytes(found)
                tried += 1
                wrong += len(recorded(place)) != 16
                shutil.rmtree(place)
        tally("power lost while a log is overwritten: rows lost", tried, wrong)

    def test_keeps_what_a_sort_would_spill_in_memory(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        with Store.open_for_reading(tmp_path / "run") as store:
            assert store.db.execute("PRAGMA temp_store").fetchone() == (2,)


class TestPurge:
    @finding(6)
    def test_takes_what_a_killed_import_report_or_purge_left(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        for name in (".run.importing", ".run.purging", "other", ".other.importing"):
            shutil.copytree(tmp_path / "run", tmp_path / name)
        (tmp_path / ".run.purging" / LOCK_NAME).unlink()
        for left in (".report.html.redinstruct-part", "run/.a.jsonl.redinstruct-part"):
            (tmp_path / left).write_bytes(CANARY)
        (tmp_path / "mine.html").write_bytes(b"mine")
        kept = {n: v for n, v in tree(tmp_path).items() if n.startswith(("other", ".other", "mine"))}
        handles = {n: h for n, h in held(tmp_path).items() if not n.startswith(tuple(str(tmp_path / k) for k in kept))}
        purge(tmp_path / "run")
        assert tree(tmp_path) == kept
        assert canaries(handles) == []

    @finding(6)
    @pytest.mark.parametrize("left", [".run.importing", ".run.purging"])
    def test_finds_what_was_left_without_a_run(self, tmp_path: Path, left: str) -> None:
        fill(tmp_path / left)
        purge(tmp_path / "run")
        assert list(tmp_path.iterdir()) == []

    @finding(9)
    @pytest.mark.parametrize("names", [{LOCK_NAME}, {LOCK_NAME, ".gitignore"}, {LOCK_NAME, f"{STORE_NAME}-journal"}])
    def test_takes_a_run_that_a_kill_left_half_made(self, tmp_path: Path, names: set[str]) -> None:
        (tmp_path / "run").mkdir()
        for name in names:
            (tmp_path / "run" / name).touch()
        purge(tmp_path / "run")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("others", ["a file", "nothing of ours", "a link to a run", "another's importing"])
    def test_refuses_what_is_not_ours(self, tmp_path: Path, others: str) -> None:
        place = tmp_path / "run"
        if others == "a link to a run":
            fill(tmp_path / "real")
            place.symlink_to("real")
        elif others == "another's importing":
            (tmp_path / ".run.importing").mkdir()
            (tmp_path / ".run.importing" / "thesis.txt").touch()
        else:
            place.mkdir()
            if others == "a file":
                (place / LOCK_NAME).touch()
            (place / "thesis.txt").touch()
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match="nothing was removed"):
            purge(place)
        assert tree(tmp_path) == before

    def test_waits_for_nobody_and_removes_nothing_while_an_import_is_under_way(self, tmp_path: Path) -> None:
        fill(tmp_path / "run")
        with Store.open_for_writing(tmp_path / ".run.importing"), pytest.raises(StoreError, match="in use"):
            purge(tmp_path / "run")
        assert len(recorded(tmp_path / "run")) == 8

    @pytest.mark.parametrize("name", [".", "below/..", "../x/run"])
    def test_knows_a_folder_by_any_of_its_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        run = tmp_path / "x" / "run"
        run.mkdir(parents=True)
        fill(run)
        (run / "below").mkdir()
        monkeypatch.chdir(run if name != "../x/run" else tmp_path / "x")
        purge(Path(name))
        assert list((tmp_path / "x").iterdir()) == []

    def test_puts_a_run_that_it_can_not_remove_back_in_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(tmp_path / "run")
        (tmp_path / "run" / "a.txt").touch()

        def stubborn(path: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("redinstruct.run.purging.overwrite_and_remove", stubborn)
        with pytest.raises(StoreError, match="run purge again"):
            purge(tmp_path / "run")
        monkeypatch.undo()
        assert len(recorded(tmp_path / "run")) == 8
        purge(tmp_path / "run")


EVERY_KILL = """
import os, shutil, sys
from pathlib import Path
from redinstruct.run import Store, purge
from redinstruct.types import Verdict
from tests.support.kills import at_every_operation
from tests.support.stores import *
place, what = Path(sys.argv[1]), sys.argv[2]
run = place / "run"
MODEL = "openai-api/stub/m"
CANARY = b"canary-5f1c"
handles = []
setup = Setup(banks=(make_bank(2),))
with Store.open_for_writing(place.parent / "full") as store:
    judge = setup.plan(store)
    store.commit_completions([(1, 0, text("canary-5f1c"))])
    shutil.copytree(place.parent / "full", place.parent / "killed")
def prepare():
    shutil.rmtree(place, ignore_errors=True)
    while handles: os.close(handles.pop())
    shutil.copytree(place.parent / ("full" if what == "purge" else "killed"), run)
    if what == "purge":
        (run / "below").mkdir(); (run / "below" / "r.html").write_bytes(CANARY)
        shutil.copytree(place.parent / "killed", place / ".run.importing")
    handles.extend(os.open(p, os.O_RDONLY) for p in place.rglob("*") if p.is_file())
def work():
    if what == "purge": return purge(run)
    with Store.open_for_writing(run) as store:
        store.commit_completions([(2, 0, text())])
        store.commit_verdicts([(1, 0, 1, 0, Verdict("harmful"))])
def left():
    return sum(CANARY in os.pread(h, 1 << 30, 0) for h in handles)
def check():
    if what == "purge":
        try: purge(run)
        except Exception as error:
            if not str(error).endswith("nothing was removed"): return repr(error)
        if list(place.iterdir()): return f"left {sorted(p.name for p in place.iterdir())}"
        return f"{left()} files hold it" if left() else None
    found = recorded(run)
    if len(found) not in (1, 2): return f"{len(found)} rows"
    with Store.open_for_writing(run) as store:
        if len(found) == 1: store.commit_completions([(2, 0, text())])
    if len(recorded(run)) != 2: return "a row is lost"
    purge(run)
    return f"{left()} files hold it" if left() else None
kills, said = at_every_operation(prepare, work, check)
print(kills, len(said), *said[:3], sep="\\n")
"""


@finding(9)
@faults
@pytest.mark.parametrize("what", ["purge", "recording"])
def test_a_kill_at_every_operation_loses_no_row_and_keeps_no_byte(tmp_path: Path, what: str) -> None:
    kills, wrong, *said = run_script(EVERY_KILL, tmp_path / "place", what).splitlines()
    assert (int(wrong), said) == (0, [])
    tally(f"SIGKILL at every operation of {what}: a row lost, or a byte left after purge", int(kills), int(wrong))
    assert int(kills) > 25


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[tuple[Path, Path]]:
    """An ext4 image on a loop device, where this machine lets us; its file, and where it is mounted."""
    image, mount = place / "image", place / "mount"
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount, and mkfs.ext4 is needed")
    with image.open("wb") as file:
        file.truncate(120 << 20)
    subprocess.run(["mkfs.ext4", "-q", *options, "-F", str(image)], check=True)
    mount.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield image, mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@finding(1)
@faults
@pytest.mark.parametrize("options", [(), ("-O", "^has_journal")], ids=["ext4", "ext4 without a journal"])
@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_no_question_is_on_the_disk_after_purge(
    tmp_path_factory: pytest.TempPathFactory, cli: InProcess, options: tuple[str, ...], killed: bool
) -> None:
    place = tmp_path_factory.mktemp("disk")
    bank = place / "bank.json"
    bank.write_bytes(msgspec.json.encode([f"CANARYQ{i:05d}Z what is item {i}?" for i in range(3000)]))
    with mounted(place, *options) as (image, mount):
        run = mount / "run"
        ask = ["eval", "--model", "scripted/echo", "--bank", bank, "--judge", "refusal", "--prompt", "standard",
               "--run", run]  # fmt: skip
        if killed:
            for rows in (700, 1500):
                process = start(*ask)
                while not _rows(run) > rows and process.poll() is None:
                    time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                process.communicate()
        else:
            assert cli(*ask).code == 0
            assert cli("report", run, "--out", run / "a.html", "--jsonl", run / "a.jsonl", "--show-content").code == 0
        subprocess.run(["sync"], check=True)
        assert b"CANARYQ00001Z" in image.read_bytes()
        if killed:
            process = start("purge", run, "--yes")
            while run.exists():
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            cli("purge", run, "--yes")
        else:
            assert cli("purge", run, "--yes").code == 0
        assert sorted(p.name for p in mount.iterdir()) == ["lost+found"]
    left = set(re.findall(rb"CANARYQ\d{5}Z", image.read_bytes()))
    name = f"canaries of 3,000 on {'ext4' if not options else 'ext4 without a journal'} after purge"
    tally(f"{name}, {'killed twice, purge killed' if killed else 'ended'}", 3000, len(left))


def _rows(run: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{run / STORE_NAME}?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])
    return 0


class TestOnlyOurOwn:
    @finding(2)
    def test_a_denied_resume_removes_the_run_and_keeps_the_users_files(
        self, tmp_path: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = write_bank(tmp_path, 4)
        with Endpoint() as stub:
            for name, value in stub.env().items():
                monkeypatch.setenv(name, value)
            for rule in ("fault:404", "fault:401"):
                bank.write_bytes(msgspec.json.encode([f"{rule} item {i}?" for i in range(25)]))
                run = tmp_path / "new" / "run"
                with Store.open_for_writing(run):
                    pass
                (run / "notes.md").write_text("mine")
                (run / "figs").mkdir()
                (run / "figs" / "x.png").write_text("mine")
                ask = ("eval", "--model", MODEL, "--bank", bank, "--judge", "refusal", "--prompt", "standard")
                denied = cli(*ask, "--run", run)
                assert denied.code == 2, denied
                assert sorted(p.name for p in run.rglob("*")) == ["figs", "notes.md", "x.png"]
                shutil.rmtree(tmp_path / "new")

    @finding(2)
    def test_a_denied_run_leaves_no_folder_that_it_made(
        self, tmp_path: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = tmp_path / "bank.json"
        bank.write_bytes(msgspec.json.encode([f"fault:404 item {i}?" for i in range(25)]))
        with Endpoint() as stub:
            for name, value in stub.env().items():
                monkeypatch.setenv(name, value)
            assert cli("eval", "--model", MODEL, "--bank", bank, "--judge", "refusal", "--prompt", "standard",
                       "--run", tmp_path / "a" / "b" / "run").code == 2  # fmt: skip
        assert not (tmp_path / "a").exists()

    def test_who_waits_for_a_run_that_is_then_removed_does_not_write_beside_its_successor(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        store = Store.open_for_writing(run)
        waiting = os.open(run / LOCK_NAME, os.O_RDWR)
        store.discard()
        assert not run.exists()
        with Store.open_for_writing(run):
            os.close(waiting)
            with pytest.raises(StoreError, match="in use"):
                Store.open_for_writing(run)

    def test_a_lock_whose_file_is_gone_locks_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = tmp_path / "run"
        Store.open_for_writing(run).close()
        opened = open_plain

        def late(path: Path, flags: int = os.O_RDONLY) -> int:
            handle = opened(path, flags)
            (run / LOCK_NAME).unlink(missing_ok=True)
            return handle

        monkeypatch.setattr(folder, "open_plain", late)
        with pytest.raises(StoreError, match="in use"):
            folder.lock_folder(run)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent.parent / "victim").write_bytes(b"mine")
    path.symlink_to(path.parent.parent / "victim")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(here)


def _folder(path: Path) -> None:
    path.mkdir()


class TestNothingButPlainFilesIsOpened:
    @finding(3)
    @pytest.mark.parametrize("name", sorted(OWN_NAMES))
    @pytest.mark.parametrize("make", [_pipe, _link, _socket, _folder])
    def test_in_a_run_folder(self, tmp_path: Path, name: str, make: Callable[[Path], None], cli: InProcess) -> None:
        run = tmp_path / "run"
        fill(run, 2)
        (run / name).unlink(missing_ok=True)
        make(run / name)
        before = {p.name: p.lstat().st_mode for p in (*run.iterdir(), *tmp_path.iterdir())}
        for door in (Store.open_for_reading, Store.open_for_writing):
            with pytest.raises(RedInstructError) as caught:
                door(run)
            assert caught.value.exit_code == 2
            assert "\n" not in str(caught.value)
        assert cli("report", run).code == 2
        assert {p.name: p.lstat().st_mode for p in (*run.iterdir(), *tmp_path.iterdir())} == before
        if make is _link:
            assert (tmp_path / "victim").read_bytes() == b"mine"

    @finding(8)
    def test_where_an_import_is_made(self, tmp_path: Path, cli: InProcess) -> None:
        (tmp_path / "rows.jsonl").write_text('{"prompt": "What is blue?", "response": "a colour"}\n')
        (tmp_path / "victim").mkdir()
        (tmp_path / ".run.importing").symlink_to("victim")
        line = cli("import", tmp_path / "rows.jsonl", "--run", tmp_path / "run").error_line
        assert "link" in line
        assert list((tmp_path / "victim").iterdir()) == []
        assert not (tmp_path / "run").exists()


class TestAFolderThatIsGone:
    @finding(11)
    @pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
    def test_stops_the_writer_in_one_line(self, tmp_path: Path, how: str) -> None:
        run = tmp_path / "run"
        store = Store.open_for_writing(run)
        judge = SETUP.plan(store)
        store.commit_completions([(1, 0, text())])
        if how == "removed":
            shutil.rmtree(run)
        else:
            run.rename(tmp_path / "moved")
        if how == "replaced":
            shutil.copytree(tmp_path / "moved", run)
        with pytest.raises(StoreError, match="removed or moved") as caught:
            store.commit_verdicts([(1, 0, judge, 0, Verdict("harmful"))])
        assert caught.value.exit_code == 1
        store.close()
        if how == "moved":
            assert not run.exists()
            assert len(recorded(tmp_path / "moved")) == 1
