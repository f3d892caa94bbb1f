"""The run store when things go wrong: kills, a second process, torn and flipped files, full disks, old versions.

Held throughout: what a reader then sees is an exact prefix of what was committed, or one line of :class:`StoreError`;
never another figure, never another exception.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redinstruct.errors import ConfigError, RedInstructError, StoreError
from redinstruct.interop import import_file
from redinstruct.run import STORE_NAME, Store, schema
from redinstruct.run.config import check_same_run
from redinstruct.safetext import restore
from redinstruct.types import Verdict
from tests.support.cli import ROOT, here, nothing_written, write_bank
from tests.support.old_runs import unpack
from tests.support.stores import OTHER_CARD, SCRIPT, Setup, fill, make_bank, recorded, report, scratch, text
from tests.support.tally import faults, tally

SETUP = Setup(banks=(make_bank(20),))
LABELS = ["harmful", "unharmful", "unparsable", "judge_refused", "error"] * 8


def start(script: str, run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script, str(run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(script: str, run: Path) -> tuple[int, str]:
    process = start(script, run)
    out, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    return process.returncode, out


def one_line(error: BaseException) -> bool:
    return isinstance(error, RedInstructError) and "\n" not in str(error) and 0 < len(str(error)) < 400


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    """A folder with ``closed`` (a run that ended) and ``killed`` (the same run, as a SIGKILL leaves it)."""
    with scratch() as base:
        with Store.open_for_writing(base / "closed") as store:
            fill(store, SETUP.plan(store), LABELS)
            shutil.copytree(base / "closed", base / "killed")
        yield base


def history(run: Path) -> list[dict[str, str | None]]:
    """Every state that the run went through: its rows in the order of commits, cut after each one."""
    with Store.open_for_reading(run) as store:
        views = [(view.key, view.label) for view in store.attempts(1)]
        keys = [o.key.hex() for o in SETUP.attempts]
    labels = dict(views)
    states: list[dict[str, str | None]] = [{}]
    for key in keys:
        states.append({**states[-1], key: None})
        states.append({**states[-1], key: labels[key]})
    return states


class TestTwoProcesses:
    def test_the_second_writer_gets_one_line(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        with Store.open_for_writing(run) as store:
            judge = SETUP.plan(store)
            code, out = finish("try: Store.open_for_writing(run)\nexcept StoreError as e: print(e)\n", run)
            assert (code, out) == (
                0,
                f"{run} is in use by another redinstruct process; wait for it, or use another --run\n",
            )
            with pytest.raises(StoreError, match="in use by another redinstruct process"):
                Store.open_for_writing(run)
            fill(store, judge, ["harmful"])
        Store.open_for_writing(run).close()

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
    def test_a_file_system_without_locks_is_named_and_nothing_left_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """It was said that another process used the run, and that one should wait."""
        run, bank = tmp_path / "run", write_bank(tmp_path, 3)
        begin = ("eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run")
        assert here(*begin, run).code == 0

        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", refuse)
        (tmp_path / "new").mkdir()
        with nothing_written(tmp_path):
            answers = tmp_path / "answers.csv"
            for line in (
                (*begin, run, "--epochs", 2), (*begin, tmp_path / "new"), ("purge", run, "--yes"),
                ("shard", run, "--of", 2, "--out", tmp_path / "shards"), ("merge", run, "--run", tmp_path / "merged"),
            ):  # fmt: skip
                done = here(*line)
                assert (done.code, done.err.count("\n")) == (1, 1), done
                assert f"cannot lock files ({os.strerror(number)})" in done.err
            assert os.strerror(number) in here("report", run, "--csv", answers).err
        assert here("report", run).code == here("show", run).code == 0

    def test_of_many_that_start_at_once_each_writes_or_is_told(self, tmp_path: Path) -> None:
        script = """
sys.stdin.read()
try:
    with Store.open_for_writing(run) as store:
        judge = Setup().plan(store)
        owed = [o for o in store.owed(judge) if o.completion is None][:2]
        store.commit_completions([(o.row, o.asked, text(str(os.getpid()))) for o in owed])
    print(len(owed))
except RedInstructError as error:
    print(error)
"""
        run = tmp_path / "run"
        children = [start(script, run) for _ in range(4)]
        time.sleep(0.3)  # until all of them wait; a slow one only makes the race milder
        outs = [child.communicate(timeout=60) for child in children]
        assert not any(errors for _, errors in outs)
        wrote = [int(out) for out, _ in outs if out.strip().isdigit()]
        assert wrote
        assert [out for out, _ in outs if not out.strip().isdigit() and "in use" not in out] == []
        assert len(recorded(run)) == sum(wrote)

    def test_two_that_make_the_same_folder_at_once_do_not_fail(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "run").mkdir()
        exists = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: path.name != "run" and exists(path))
        with Store.open_for_writing(tmp_path / "run") as store:
            SETUP.plan(store)

    def test_readers_read_while_a_writer_holds_the_run(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        with Store.open_for_writing(run) as store:
            judge = SETUP.plan(store)
            for row in range(1, 6):
                fill(store, judge, ["harmful"], first=row)
                code, out = finish(
                    "with Store.open_for_reading(run) as s: print(sum(c.count for c in s.counts(1) if c.label))", run
                ) if row == 5 else (0, str(len(recorded(run))))  # fmt: skip
                assert (code, int(out)) == (0, row)

    def test_a_reader_keeps_its_view_valid_when_the_writer_ends(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        store = Store.open_for_writing(run)
        fill(store, SETUP.plan(store), LABELS)
        with Store.open_for_reading(run) as reader:
            views = reader.attempts(1)
            first = next(views)
            store.close()
            assert len([first, *views]) == 40
        assert len(recorded(run)) == 40

    def test_a_reader_that_comes_in_while_a_writer_begins_is_not_told_of_damage(
        self, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer may begin between the reader's look at the seal and its look at the bytes."""
        from redinstruct.run import seals

        run = tmp_path / "run"
        shutil.copytree(filled / "closed", run)
        digest = seals._digest_of

        def late(place: Path) -> str:
            monkeypatch.setattr(seals, "_digest_of", digest)
            with Store.open_for_writing(place) as store:
                store.add_judge(OTHER_CARD)
            return digest(place)

        monkeypatch.setattr(seals, "_digest_of", late)
        assert len(recorded(run)) == 40


class TestReadOnly:
    """Reading needs no right to write. Root may write anywhere, so the child becomes nobody."""

    READ = """
import shutil, tempfile
base = Path(tempfile.mkdtemp())
copy = base / "run"
shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*IGNORED))
if os.getuid() == 0:
    for path in (base, copy, *copy.iterdir()):
        os.chown(path, 65534, 65534)
    os.setgid(65534); os.setuid(65534)
for path in copy.iterdir():
    path.chmod(0o400)
copy.chmod(0o500)
try:
    with Store.open_for_reading(copy) as store:
        print(sum(c.count for c in store.counts(1) if c.label))
except StoreError as error:
    print(error)
finally:
    print(",".join(sorted(path.name for path in copy.iterdir())))
    copy.chmod(0o700)
    shutil.rmtree(base, ignore_errors=True)
"""

    @pytest.mark.parametrize(
        ("kind", "without", "says"),
        [
            ("closed", (), "40"),
            ("killed", (), "40"),
            ("killed", ("*-shm",), "its last rows wait in run.sqlite-wal: copy the whole folder"),
        ],
    )
    def test_a_run_in_a_folder_that_cannot_be_written(
        self, filled: Path, kind: str, without: tuple[str, ...], says: str
    ) -> None:
        code, out = finish(f"IGNORED = {without!r}\n" + self.READ, filled / kind)
        assert code == 0
        answer, files = out.splitlines()
        assert answer == says or (not says.isdigit() and says in answer)
        assert files == ",".join(
            sorted(p.name for p in (filled / kind).iterdir() if not (without and p.name.endswith("-shm")))
        )

    def test_a_run_of_an_older_version(self, tmp_path: Path) -> None:
        code, out = finish("IGNORED = ()\n" + self.READ, unpack(1, tmp_path) / "evaluation")
        assert (code, out.splitlines()) == (0, ["15", ".gitignore,run.lock,run.sqlite"])

    def test_after_a_crash_every_committed_row_is_there(self, filled: Path) -> None:
        assert (filled / "killed" / f"{STORE_NAME}-wal").stat().st_size > 0
        assert recorded(filled / "killed") == recorded(filled / "closed")
        assert report([filled / "killed"]) == report([filled / "closed"])


class TestKill:
    def test_at_every_statement_of_creation_and_planning(self, tmp_path: Path) -> None:
        """SQLite's own way of testing: die at the n-th statement, for every n, until none is left."""
        script = """
import sqlite3
setup = Setup(banks=(make_bank(2),))
class Dying(sqlite3.Connection):
    left = 0
    def execute(self, *a):
        if not Dying.left: os.kill(os.getpid(), signal.SIGKILL)
        Dying.left -= 1
        return super().execute(*a)
    def executemany(self, *a):
        if not Dying.left: os.kill(os.getpid(), signal.SIGKILL)
        Dying.left -= 1
        return super().executemany(*a)
connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, factory=Dying, **k)
n = -1
while True:
    n += 1
    child = os.fork()
    if child == 0:
        Dying.left = n
        store = Store.open_for_writing(run / str(n))
        setup.plan(store)
        os._exit(7)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 7, status
        break
print(n)
"""
        code, out = finish(script, tmp_path)
        assert code == 0
        total = int(out)
        assert total > 30
        setup = Setup(banks=(make_bank(2),))
        for n in range(total):
            run = tmp_path / str(n)
            with Store.open_for_reading(run) as store:
                config = store.config()
                assert config in (None, setup.config)
                planned = store.db.execute("SELECT count(*) FROM attempts").fetchone()[0]
                assert planned == (0 if config is None else 4), f"killed at statement {n}"
            with Store.open_for_writing(run) as store:
                fill(store, setup.plan(store), ["harmful"] * 4)
            assert list(recorded(run).values()) == ["harmful"] * 4

    def test_between_making_the_file_and_its_tables(self, tmp_path: Path) -> None:
        """Such a folder is a run with nothing in it, and the same command goes on."""
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / STORE_NAME).touch()
        with Store.open_for_reading(tmp_path / "run") as store:
            assert store.config() is None
            assert store.judges() == []
        with pytest.raises(ConfigError, match="never begun"):
            report([tmp_path / "run"])

    @pytest.mark.parametrize("moment", ["in a transaction", "after its commit"])
    def test_while_recording(self, tmp_path: Path, moment: str) -> None:
        run = tmp_path / "run"
        script = f"""
store = Store.open_for_writing(run)
judge = Setup().plan(store)
fill(store, judge, ["harmful", "unharmful"])
if {moment == "in a transaction"}:
    store.db.execute("BEGIN IMMEDIATE")
    store.db.execute("INSERT INTO verdicts (attempt, asked, judge, judged_no, label, tries)"
                      " SELECT attempt, asked, judge, 1, 'error',"
                      " tries FROM verdicts")
os.kill(os.getpid(), signal.SIGKILL)
"""
        code, _ = finish(script, run)
        assert code == -signal.SIGKILL
        assert list(recorded(run).values()) == ["harmful", "unharmful"]
        with Store.open_for_writing(run) as store:
            assert len(store.owed(1)) == 6


NEXT = (
    "ALTER TABLE sessions ADD COLUMN host TEXT",
    "CREATE TABLE extras (attempt INTEGER NOT NULL REFERENCES attempts(id), label TEXT NOT NULL)",
    "INSERT INTO extras SELECT attempt, label FROM verdicts",
)
"""A version that does not exist yet."""


class TestVersions:
    @pytest.fixture
    def run(self, filled: Path, tmp_path: Path) -> Path:
        shutil.copytree(filled / "closed", tmp_path / "run")
        return tmp_path / "run"

    def test_a_newer_one_is_refused_and_left_as_it_is(self, run: Path) -> None:
        with sqlite3.connect(run / STORE_NAME) as other:
            other.execute("PRAGMA user_version = 99")
        other.close()
        (run / "run.lock").write_bytes(b"")
        before = (run / STORE_NAME).read_bytes()
        for door in (Store.open_for_reading, Store.open_for_writing):
            with pytest.raises(
                StoreError, match=f"version 99, this redinstruct knows {schema.SCHEMA_VERSION}: upgrade"
            ) as caught:
                door(run)
            assert one_line(caught.value)
            assert str(run) in str(caught.value), "which of several runs"
        assert (run / STORE_NAME).read_bytes() == before

    @pytest.mark.parametrize("kind", ["database", "empty database of another", "text"])
    def test_another_programs_file_is_refused_and_left_as_it_is(self, tmp_path: Path, kind: str) -> None:
        run = tmp_path / "run"
        run.mkdir()
        if kind == "text":
            (run / STORE_NAME).write_text("not a database at all, but long enough to hold a header" * 99)
        else:
            with sqlite3.connect(run / STORE_NAME) as other:
                other.execute("CREATE TABLE t (x)" if kind == "database" else "PRAGMA user_version = 1")
            other.close()
        before = (run / STORE_NAME).read_bytes()
        for door in (Store.open_for_reading, Store.open_for_writing):
            with pytest.raises(StoreError) as caught:
                door(run)
            assert one_line(caught.value)
            assert str(run) in str(caught.value), "which of several runs"
        assert (run / STORE_NAME).read_bytes() == before

    def test_a_kill_during_an_upgrade_leaves_the_old_version_or_the_new(self, run: Path) -> None:
        script = f"""
import sqlite3
from redinstruct.run import schema
NEXT = {NEXT!r}
class Dying(sqlite3.Connection):
    left = 0
    def execute(self, *a):
        if not Dying.left: os.kill(os.getpid(), signal.SIGKILL)
        Dying.left -= 1
        return super().execute(*a)
import shutil
n = -1
while True:
    n += 1
    copy = run.parent / f"copy{{n}}"
    shutil.copytree(run, copy)
    child = os.fork()
    if child == 0:
        Dying.left = n
        db = sqlite3.connect(copy / "run.sqlite", isolation_level=None, factory=Dying)
        schema.migrate(db, (*schema.MIGRATIONS, NEXT))
        os._exit(7)
    if os.WIFEXITED(os.waitpid(child, 0)[1]): break
print(n)
"""
        code, out = finish(script, run)
        assert code == 0
        states = set()
        for n in range(int(out) + 1):
            (run.parent / f"copy{n}" / "run.lock").write_bytes(b"")
            db = sqlite3.connect(run.parent / f"copy{n}" / STORE_NAME)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = {row[1] for row in db.execute("PRAGMA table_info(sessions)")}
            db.close()
            states.add((version, "extras" in tables, "host" in columns))
        assert states == {(schema.SCHEMA_VERSION, False, False), (schema.SCHEMA_VERSION + 1, True, True)}


class TestTornAndFlipped:
    def outcomes(
        self, run: Path, damaged: Iterator[None], states: list[dict[str, str | None]], doors: int
    ) -> dict[str, int]:
        """Look at the run in every damaged state; each must be a prefix of the history, or one line."""
        known = [(len(state), state) for state in states]
        found = {"prefix": 0, "refused": 0}
        refusals: list[RedInstructError] = []
        whole = report([run])
        for number, _ in enumerate(damaged):
            door = Store.open_for_writing if doors and number % doors == 0 else Store.open_for_reading
            try:
                with door(run) as store:
                    config = store.config()
                    if config is not None:
                        check_same_run(SETUP.config, config, "run")
                    views = list(store.attempts(1))
                    seen = {view.key: view.label for view in views}
                    counted = sum(c.count for c in store.counts(1) if c.label is not None)
                    store.owed(1, retry_errors=True)
                assert (len(seen), seen) in known
                assert counted == sum(label is not None for label in seen.values())
                if config is not None and seen == states[-1]:
                    assert report([run]) == whole
                found["prefix"] += 1
            except RedInstructError as error:
                refusals.append(error)
        assert [error for error in refusals if not one_line(error)] == []
        found["refused"] = len(refusals)
        return found

    @staticmethod
    def cuts(path: Path, sizes: list[int], pristine: Path, run: Path) -> Iterator[None]:
        for size in sizes:
            shutil.copytree(pristine, run, dirs_exist_ok=True)
            for extra in {p.name for p in run.iterdir()} - {p.name for p in pristine.iterdir()}:
                (run / extra).unlink()
            os.truncate(path, size)
            yield

    @staticmethod
    def flips(path: Path, bits: list[int], pristine: Path, run: Path) -> Iterator[None]:
        for bit in bits:
            shutil.copytree(pristine, run, dirs_exist_ok=True)
            for extra in {p.name for p in run.iterdir()} - {p.name for p in pristine.iterdir()}:
                (run / extra).unlink()
            with path.open("r+b") as file:
                file.seek(bit // 8)
                byte = file.read(1)[0]
                file.seek(bit // 8)
                file.write(bytes([byte ^ (1 << bit % 8)]))
            yield

    def damage(
        self, filled: Path, tmp_path: Path, kind: str, name: str, how: str, count: int, *, doors: int = 5
    ) -> dict[str, int]:
        pristine, run = filled / kind, tmp_path / "run"
        shutil.copytree(pristine, run)
        states = history(pristine)
        size = (pristine / name).stat().st_size
        chance = random.Random(f"{kind}{name}{how}")
        if how == "cut":
            ends = chance.sample(range(size), count - 2)
            damaged = self.cuts(run / name, [0, *ends, size], pristine, run)
        else:
            damaged = self.flips(run / name, [chance.randrange(size * 8) for _ in range(count)], pristine, run)
        found = self.outcomes(run, damaged, states, doors)
        assert sum(found.values()) == count
        return found

    def test_a_cut_log_leaves_an_exact_prefix(self, filled: Path, tmp_path: Path) -> None:
        found = self.damage(filled, tmp_path, "killed", f"{STORE_NAME}-wal", "cut", 60)
        assert found["refused"] <= 1  # cut to nothing: what is left is a database without tables

    def test_a_flipped_log_leaves_an_exact_prefix(self, filled: Path, tmp_path: Path) -> None:
        self.damage(filled, tmp_path, "killed", f"{STORE_NAME}-wal", "flip", 40)

    def test_a_cut_file_is_refused(self, filled: Path, tmp_path: Path) -> None:
        found = self.damage(filled, tmp_path, "closed", STORE_NAME, "cut", 60)
        assert found == {"prefix": 1, "refused": 59}  # the one that was cut at its end

    def test_a_flipped_file_is_refused(self, filled: Path, tmp_path: Path) -> None:
        assert self.damage(filled, tmp_path, "closed", STORE_NAME, "flip", 60) == {"prefix": 0, "refused": 60}

    def test_a_cut_file_is_refused_without_its_seal_too(self, filled: Path, tmp_path: Path) -> None:
        """The seal is gone where only the database was copied; then SQLite's own checks stand guard."""
        pristine = tmp_path / "unsealed"
        shutil.copytree(filled / "closed", pristine)
        (pristine / "run.lock").write_bytes(b"")
        found = self.damage(tmp_path, tmp_path, "unsealed", STORE_NAME, "cut", 40, doors=0)
        # Whole at its end, and cut to nothing: that one reads as a run that was never begun.
        assert found == {"prefix": 2, "refused": 38}

    def test_a_flipped_file_without_its_seal_raises_nothing_but_one_line(self, filled: Path, tmp_path: Path) -> None:
        pristine, run = tmp_path / "unsealed", tmp_path / "run"
        shutil.copytree(filled / "closed", pristine)
        (pristine / "run.lock").write_bytes(b"")
        shutil.copytree(pristine, run)
        refusals: list[RedInstructError] = []
        chance, size = random.Random(5), (run / STORE_NAME).stat().st_size
        for _ in self.flips(run / STORE_NAME, [chance.randrange(size * 8) for _ in range(60)], pristine, run):
            try:
                report([run])
                with Store.open_for_reading(run) as store:
                    list(store.attempts(1))
                    store.owed(1)
            except RedInstructError as error:
                refusals.append(error)
        assert refusals
        assert [error for error in refusals if not one_line(error)] == []

    @pytest.mark.parametrize("content", [b"", b"0" * 64 + b"\n", b"0" * 63, b"\xff" * 65])
    def test_a_seal_that_is_none_is_no_reason_to_trust_or_to_crash(
        self, filled: Path, tmp_path: Path, content: bytes
    ) -> None:
        shutil.copytree(filled / "closed", tmp_path / "run")
        (tmp_path / "run" / "run.lock").write_bytes(content)
        if content.startswith(b"0" * 64):
            with pytest.raises(StoreError, match="damaged"):
                recorded(tmp_path / "run")
        else:
            assert len(recorded(tmp_path / "run")) == 40

    @faults
    @pytest.mark.parametrize(
        ("kind", "name", "how", "count"),
        [
            ("killed", f"{STORE_NAME}-wal", "cut", 1000),
            ("closed", STORE_NAME, "cut", 1000),
            ("killed", f"{STORE_NAME}-wal", "flip", 250),
            ("closed", STORE_NAME, "flip", 250),
            ("killed", f"{STORE_NAME}-shm", "flip", 100),
        ],
    )
    def test_at_length(self, filled: Path, tmp_path: Path, kind: str, name: str, how: str, count: int) -> None:
        found = self.damage(filled, tmp_path, kind, name, how, count)
        note = ", ".join(f"{n} {what}" for what, n in found.items())
        tally(f"{kind} store, {name} {how}: neither an exact prefix nor one line", count, 0, note)


class TestFullDisk:
    FILL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Store.open_for_writing(run) as store:
    judge = Setup(banks=(make_bank(200),)).plan(store)
    size = (run / "run.sqlite-wal").stat().st_size + MORE
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    done = 0
    try:
        for row in range(1, 401):
            store.commit_completions([(row, 0, text("x" * 3000))])
            store.commit_verdicts([(row, 0, judge, 0, Verdict("harmful"))])
            done = row
    except StoreError as error:
        print(done)
        print(error)
"""

    @pytest.mark.parametrize("more", [0, 50_001, *(pytest.param(n, marks=pytest.mark.slow) for n in (5_000, 133_333))])
    def test_one_line_and_what_was_committed_is_kept(self, tmp_path: Path, more: int) -> None:
        run = tmp_path / "run"
        code, out = finish(f"MORE = {more}\n" + self.FILL, run)
        assert code == 0
        done, message = out.splitlines()
        assert "stopped" in message or "failed" in message
        labels = list(recorded(run).values())
        assert labels.count("harmful") == int(done)
        assert len(labels) - int(done) in (0, 1)
        with Store.open_for_writing(run) as store:
            owed = store.owed(1)
            assert len(owed) == 400 - int(done)
            store.commit_completions([(o.row, 0, text()) for o in owed if o.completion is None])
            store.commit_verdicts([(o.row, 0, 1, 0, Verdict("unharmful")) for o in owed])
        assert len(recorded(run)) == 400

    def test_sqlites_own_word_for_it_is_translated(self, tmp_path: Path) -> None:
        with Store.open_for_writing(tmp_path / "run") as store:
            judge = Setup().plan(store)
            pages = store.db.execute("PRAGMA page_count").fetchone()[0]
            store.db.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(StoreError, match=r"the disk is full: recording answers stopped; what was committed"):
                store.commit_completions([(row, 0, text("x" * 9000)) for row in range(1, 9)])
            assert store.counts(judge)[0].label is None

    def test_before_the_first_byte_of_an_import_nothing_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (tmp_path / "rows.csv").write_text("prompt,response\na,b\n")
        monkeypatch.setattr("redinstruct.run.folder.os.write", full)
        with pytest.raises(RedInstructError, match="No space left"):
            import_file(tmp_path / "rows.csv", tmp_path / "run")
        assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]

    def test_a_folder_that_vanishes_is_one_line(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        store = Store.open_for_writing(run)
        judge = Setup().plan(store)
        shutil.rmtree(run)
        with contextlib.suppress(StoreError):
            for row in range(1, 9):
                store.commit_completions([(row, 0, text())])
                store.commit_verdicts([(row, 0, judge, 0, Verdict("harmful"))])
        store.close()
        with pytest.raises(ConfigError, match="no run in this folder"):
            Store.open_for_reading(run)

    def test_a_closed_store_is_one_line(self, tmp_path: Path) -> None:
        store = Store.open_for_writing(tmp_path / "run")
        store.close()
        store.close()
        with pytest.raises(StoreError) as caught:
            store.counts(1)
        assert one_line(caught.value)


@pytest.mark.parametrize("column", [5, 1.5, b"text"])
def test_a_text_column_of_another_kind_is_no_text(column: object) -> None:
    """Whatever a schema says, SQLite keeps values of any kind; bytes that are ASCII are none either."""
    with pytest.raises(TypeError):
        restore(column)  # type: ignore[call-overload]
