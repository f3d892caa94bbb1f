"""Files and folders appear whole or not at all, a kill leaves one name at most, and nobody else's thing is touched."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redinstruct.files import atomic
from redinstruct.files.atomic import leftovers, temporary, whole_file, whole_folder, write_file
from tests.support.kills import run_script
from tests.support.tally import faults, finding, tally


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(target: Path, content: str = "new") -> None:
    with whole_folder(target) as fresh:
        (fresh / "a").write_text(content)
        (fresh / "below").mkdir()
        (fresh / "below" / "b").write_text(content)


WRITERS = {"file": lambda target: write_file(target, "new"), "folder": put}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
Write = Callable[[Path], None]


class TestWhole:
    @writers
    def test_takes_its_place_and_leaves_nothing_beside_it(self, tmp_path: Path, write: Write) -> None:
        for _ in range(2):
            write(tmp_path / "x")
            assert names(tmp_path) == ["x"]

    def test_is_the_owners_alone_or_what_the_umask_says(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write_file(tmp_path / "x", "a")
            assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
            write_file(tmp_path / "x", ["a", "b"], public=True)
            assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
            assert (tmp_path / "x").read_text() == "ab"
        finally:
            os.umask(before)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
    def test_an_error_leaves_what_was_there(self, tmp_path: Path, error: type[BaseException]) -> None:
        write_file(tmp_path / "x", "old")
        put(tmp_path / "d", "old")

        def file() -> None:
            with whole_file(tmp_path / "x") as part:
                part.write(b"new")
                raise error

        def folder() -> None:
            with whole_folder(tmp_path / "d") as part:
                (part / "a").write_text("new")
                raise error

        for work in (file, folder):
            with pytest.raises(error):
                work()
        assert names(tmp_path) == ["d", "x"]
        assert (tmp_path / "x").read_text() == (tmp_path / "d" / "a").read_text() == "old"

    def test_a_link_is_replaced_and_what_it_points_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "x").symlink_to("mine")
        write_file(tmp_path / "x", "new")
        assert (tmp_path / "mine").read_text() == "mine"
        assert not (tmp_path / "x").is_symlink()

    def test_a_pipe_is_written_to(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        reader = threading.Thread(target=lambda: said.append((tmp_path / "pipe").read_text()))
        said: list[str] = []
        reader.start()
        write_file(tmp_path / "pipe", "new")
        reader.join()
        assert said == ["new"]
        assert names(tmp_path) == ["pipe"]

    @pytest.mark.parametrize("kind", ["file", "link to a folder", "dangling link"])
    def test_a_folder_replaces_nothing_but_a_folder(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a").write_text("mine")
        if kind == "file":
            (tmp_path / "x").write_text("mine")
        else:
            (tmp_path / "x").symlink_to("mine" if kind == "link to a folder" else "nowhere")
        before = names(tmp_path)
        with pytest.raises(NotADirectoryError):
            put(tmp_path / "x")
        assert names(tmp_path) == before
        assert (tmp_path / "mine" / "a").read_text() == "mine"

    @writers
    @pytest.mark.parametrize("name", ["y" * 255, "é" * 120, "a\nb", "*[x]?", "-r"])
    def test_any_name_will_do(self, tmp_path: Path, write: Write, name: str) -> None:
        write(tmp_path / name)
        assert names(tmp_path) == [name]

    @writers
    @pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "z" * 256])
    def test_what_can_be_no_name_is_an_oserror(self, tmp_path: Path, write: Write, name: str) -> None:
        with pytest.raises(OSError, match="name"):
            write(tmp_path / name)
        assert names(tmp_path) == []


class TestLeftovers:
    @finding(6)
    @writers
    def test_of_a_kill_are_one_name_which_the_next_writer_takes_over(self, tmp_path: Path, write: Write) -> None:
        part = temporary(tmp_path / "x")
        for _ in range(3):
            if write is put:
                (part / "deep").mkdir(parents=True)
                (part / "deep" / "c").write_text("half")
            else:
                part.write_text("half")
            assert leftovers(tmp_path) == [part]
            write(tmp_path / "x")
            assert names(tmp_path) == ["x"]

    @writers
    def test_are_told_from_the_work_of_somebody_alive(self, tmp_path: Path, write: Write) -> None:
        for whole in (whole_file, whole_folder):
            with whole(tmp_path / "x"):
                assert leftovers(tmp_path) == []
                with pytest.raises(OSError, match="another process is writing it") as caught:
                    write(tmp_path / "x")
                assert caught.value.errno == errno.EBUSY
                assert leftovers(tmp_path) == []
            write_file(tmp_path / "y", "")
            for path in (tmp_path / "x", tmp_path / "y"):
                path.rmdir() if path.is_dir() else path.unlink()

    @finding(8)
    @writers
    @pytest.mark.parametrize("kind", ["link", "link to a folder", "dangling link", "pipe"])
    def test_that_are_none_are_left_alone(self, tmp_path: Path, write: Write, kind: str) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a").write_text("mine")
        part = temporary(tmp_path / "x")
        if kind == "pipe":
            os.mkfifo(part)
        else:
            part.symlink_to({"link": "mine/a", "link to a folder": "mine", "dangling link": "nowhere"}[kind])
        before = names(tmp_path)
        with pytest.raises(OSError):
            write(tmp_path / "x")
        assert names(tmp_path) == before
        assert leftovers(tmp_path) == []
        assert (tmp_path / "mine" / "a").read_text() == "mine"


class TestReplacingAFolder:
    def test_is_one_step_where_the_system_knows_an_exchange(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path / "x", "old")
        monkeypatch.setattr(Path, "replace", None)  # not called
        put(tmp_path / "x")
        assert (tmp_path / "x" / "a").read_text() == "new"

    @pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
    def test_is_two_and_a_way_back_where_it_does_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def unknown(one: Path, other: Path) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(atomic, "_exchange", unknown)
        put(tmp_path / "x", "old")
        put(tmp_path / "x")
        assert (names(tmp_path), (tmp_path / "x" / "a").read_text()) == (["x"], "new")
        replace, calls = Path.replace, 0

        def interrupted(self: Path, other: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            return replace(self, other)

        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path / "x", "newer")
        assert (names(tmp_path), (tmp_path / "x" / "a").read_text()) == (["x"], "new")

    def test_a_kill_between_the_two_is_put_right_by_the_next_writer(self, tmp_path: Path) -> None:
        put(tmp_path / "x", "old")
        (tmp_path / "x").rename(tmp_path / ".x.redinstruct-old")
        with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "x"):
            raise KeyboardInterrupt
        assert (names(tmp_path), (tmp_path / "x" / "a").read_text()) == (["x"], "old")


EVERY = """
import sys; from pathlib import Path
from redinstruct.files.atomic import leftovers, whole_folder, write_file
from tests.support.kills import at_every_operation
place = Path(sys.argv[1])
import shutil
def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "x").mkdir()
    for n in range(3): (place / "x" / str(n)).write_text("old")
    (place / "f").write_text("old")
def work():
    with whole_folder(place / "x") as fresh:
        for n in range(3): (fresh / str(n)).write_text("new")
    write_file(place / "f", "new")
def check():
    for where in ([place / "x" / str(n) for n in range(3)], [place / "f"]):
        found = {path.read_text() for path in where if path.exists()}
        if found not in ({"old"}, {"new"}) or not all(path.exists() for path in where):
            return f"{where[0].name}: {found}"
    left = {path.name for path in place.iterdir()} - {"x", "f"}
    if left - {path.name for path in leftovers(place)}: return f"left {left}"
    work()
    if {path.name for path in place.iterdir()} != {"x", "f"}: return "not cleaned"
kills, said = at_every_operation(prepare, work, check)
print(kills, len(said), *said[:3], sep="\\n")
"""


@finding(7)
def test_a_kill_at_every_operation_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    kills, wrong, *said = run_script(EVERY, tmp_path / "place").splitlines()
    assert (int(wrong), said) == (0, [])
    assert int(kills) > 15


LOOP = """
import sys; from pathlib import Path; from redinstruct.files.atomic import whole_folder
t = Path(sys.argv[1]); print("up", flush=True)
while True:
    with whole_folder(t) as f:
        for i in range(3): (f / str(i)).write_text("x" * 100)
"""


@finding(7)
@faults
def test_sixty_kills_of_a_replace_loop_never_find_the_folder_missing(tmp_path: Path) -> None:
    chance = random.Random(60)
    missing = torn = 0
    target = tmp_path / "t"
    for _ in range(60):
        process = subprocess.Popen([sys.executable, "-c", LOOP, str(target)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while not target.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        missing += not target.exists()
        torn += target.exists() and len(names(target)) != 3
        assert len(names(tmp_path)) <= 2
    put(target)
    assert names(tmp_path) == ["t"]
    tally("a folder that is replaced in a loop: SIGKILL, then missing or torn", 60, missing + torn)
