"""Runs of older versions go on: they are read without a byte of them changing, and upgraded when they are resumed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from redinstruct.errors import DamagedStore
from redinstruct.run import STORE_NAME, Store
from redinstruct.run.schema import MIGRATIONS, SCHEMA_VERSION, migrate
from redinstruct.types import Completion
from tests.support.cli import InProcess
from tests.support.old_runs import unpack
from tests.support.stores import Setup, text
from tests.support.tally import finding

OLDER = range(1, SCHEMA_VERSION)


@pytest.fixture(params=OLDER, ids="version {}".format)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpack(request.param, tmp_path)


def version(run: Path) -> int:
    db = sqlite3.connect(run / STORE_NAME)
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


class TestAnOlderRun:
    def test_is_read_and_stays_as_it_is(self, old: Path, cli: InProcess) -> None:
        run = old / "evaluation"
        before = {p.name: p.read_bytes() for p in run.iterdir()}
        report = cli("report", run, "--json")
        assert report.code == 0
        found = {(r["judge"], r["prompt"]): r["counts"] for r in report.json["results"]}
        assert [found[judge, prompt]["total"] for judge in ("refusal", "paper") for prompt in ("standard", "cot")] == [
            12, 3, 12, 3,
        ]  # fmt: skip
        assert [found["refusal", prompt]["harmful"] for prompt in ("standard", "cot")] == [1, 0]
        assert report.json["results"][0]["human"]["labels"] == 8
        for verb in (["show", run], ["gate", run, "--max-rate", 0.9], ["labels", run], ["compare", run, run]):
            assert cli(*verb).code in (0, 10, 11), verb
        assert cli("show", old / "collection").code == 0
        for name, content in before.items():
            assert (run / name).read_bytes() == content, name

    def test_is_resumed_by_the_ordinary_command_and_is_then_of_the_newest_version(
        self, old: Path, cli: InProcess
    ) -> None:
        run = old / "evaluation"
        ask = ["eval", "--model", "scripted/weak", "--bank", old / "bank.jsonl", "--prompt", "standard", "--prompt",
               "cot", "--judge", "refusal", "--json"]  # fmt: skip
        resumed = cli(*ask, "--run", run)
        assert resumed.code == 0, resumed.err
        assert version(run) == SCHEMA_VERSION
        fresh = cli(*ask, "--run", old / "fresh")
        for a, b in zip(resumed.json["results"], fresh.json["results"], strict=False):
            assert a["counts"] == b["counts"]
        assert cli("report", run, "--json").json["results"][0]["human"]["labels"] == 8

    def test_a_collection_goes_on_and_asks_nothing_twice(self, old: Path, cli: InProcess) -> None:
        run = old / "collection"
        done = cli("collect", "--teacher", "scripted/red-teacher", "--answerer", "scripted/weak", "--judge", "refusal",
                   "--topics", old / "topics.json", "--per-subtopic", 2, "--blue", 1, "--run", run)  # fmt: skip
        assert done.code == 0, done.err
        assert version(run) == SCHEMA_VERSION
        db = sqlite3.connect(run / STORE_NAME)
        calls, distinct = db.execute("SELECT count(*), count(DISTINCT key) FROM calls WHERE role <> 'judge'").fetchone()
        db.close()
        assert calls == distinct > 8

    def test_shows_a_reader_every_column_of_the_newest(self, old: Path) -> None:
        newest = sqlite3.connect(":memory:", isolation_level=None)
        migrate(newest)
        tables = [name for (name,) in newest.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables
        with Store.open_for_reading(old / "evaluation") as store:
            for table in tables:
                columns = [newest.execute(f"SELECT * FROM {table}").description]
                assert [store.db.execute(f"SELECT * FROM {table}").description] == columns, table
        newest.close()

    def test_a_kill_anywhere_in_the_upgrade_leaves_it_readable_and_resumable(self, old: Path) -> None:
        before = version(old / "evaluation")
        missing = [statement for statements in MIGRATIONS[before:] for statement in statements]
        statements = [*missing, "application_id", "user_version", "COMMIT"]
        for dies_at in range(len(statements)):
            run = old / f"copy{dies_at}"
            shutil.copytree(old / "evaluation", run)
            db = sqlite3.connect(run / STORE_NAME, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            left = [dies_at]

            def cut(event: str, left: list[int] = left, db: sqlite3.Connection = db) -> None:
                if not event.startswith(("BEGIN", "PRAGMA foreign_keys")):
                    left[0] -= 1
                    if left[0] < 0:
                        db.interrupt()

            db.set_trace_callback(cut)
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                migrate(db)
            db.close()
            (run / "run.lock").write_bytes(b"")  # a writer broke the seal before it began
            assert version(run) == before
            with Store.open_for_reading(run) as store:
                assert len(list(store.attempts(1))) == 15
            with Store.open_for_writing(run) as store:
                assert len(list(store.attempts(1))) == 15


def test_a_thought_is_kept_beside_the_answer(tmp_path: Path) -> None:
    setup = Setup()
    answer = Completion("text", raw="blue", judged="blue", thought="which colour\ud800?")
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        store.commit_completions([(1, 0, answer), (2, 0, text())])
        assert [owed.completion for owed in store.owed(judge)][:2] == [answer, text()]


FOREIGN = {
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON verdicts BEGIN SELECT RAISE(IGNORE); END",
    "a trigger on a plan": "CREATE TRIGGER t AFTER INSERT ON sessions BEGIN DELETE FROM configs; END",
    "a view": "CREATE VIEW v AS SELECT 1",
    "a table": "CREATE TABLE more (x)",
    "a virtual table": "CREATE VIRTUAL TABLE f USING fts5(x)",
    "an index": "CREATE INDEX i ON verdicts (label)",
    "a column": "ALTER TABLE verdicts ADD COLUMN x",
    "a renamed column": "ALTER TABLE verdicts RENAME COLUMN detail TO details",
    "a removed trigger": "DROP TRIGGER verdicts_stay",
    "a removed index": "DROP INDEX annotations_of",
    "statistics": "ANALYZE",
}


@finding(3)
class TestAForeignSchema:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        with Store.open_for_writing(tmp_path / "own") as store:
            Setup().plan(store)
        return tmp_path / "own"

    @pytest.mark.parametrize("statement", FOREIGN.values(), ids=FOREIGN)
    def test_is_refused_before_a_row_is_read_or_a_byte_changed(self, run: Path, tmp_path: Path, statement: str) -> None:
        place = tmp_path / "run"
        shutil.copytree(run, place)
        db = sqlite3.connect(place / STORE_NAME, isolation_level=None)
        db.execute(statement)
        db.close()
        (place / "run.lock").write_bytes(b"")
        before = (place / STORE_NAME).read_bytes()
        for door in (Store.open_for_reading, Store.open_for_writing):
            with pytest.raises(DamagedStore, match="not as redinstruct makes it") as caught:
                door(place)
            assert caught.value.exit_code == 2
            assert str(place) in str(caught.value)
        assert (place / STORE_NAME).read_bytes() == before

    def test_of_an_older_version_is_refused_too(self, tmp_path: Path) -> None:
        run = unpack(1, tmp_path) / "evaluation"
        db = sqlite3.connect(run / STORE_NAME, isolation_level=None)
        db.execute("ALTER TABLE completions ADD COLUMN thought TEXT")
        db.close()
        (run / "run.lock").write_bytes(b"")
        with pytest.raises(DamagedStore, match="not as redinstruct makes it"):
            Store.open_for_reading(run)

    @pytest.mark.parametrize("value", [b"", b"x", 7, 2**60, "text", 1.5])
    def test_a_secret_that_is_none_is_damage(self, run: Path, tmp_path: Path, value: object) -> None:
        shutil.copytree(run, tmp_path / "run")
        db = sqlite3.connect(tmp_path / "run" / STORE_NAME, isolation_level=None)
        db.execute("UPDATE meta SET value = ? WHERE key = 'secret'", (value,))
        db.close()
        (tmp_path / "run" / "run.lock").write_bytes(b"")
        for door in (Store.open_for_reading, Store.open_for_writing):
            with pytest.raises(DamagedStore, match="damaged") as caught:
                door(tmp_path / "run")
            assert caught.value.exit_code == 2
