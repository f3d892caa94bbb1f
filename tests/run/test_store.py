"""The run store: what goes in comes out, nothing is lost, doubled or changed, and nobody else can read it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redinstruct.errors import ConfigError, StoreError
from redinstruct.prompts import parse_template
from redinstruct.run import STORE_NAME, OwedAttempt, Store, check_run_folder, is_run, purge
from redinstruct.run.config import RunConfig
from redinstruct.run.rows import from_json, to_json
from redinstruct.types import Annotation, Attempt, Bank, Completion, Conversation, JudgeCard, Message, Question, Verdict
from tests.support.cli import ROOT
from tests.support.stores import (
    CARD,
    OTHER_CARD,
    SCRIPT,
    Setup,
    any_text,
    completions,
    configs,
    fill,
    make_bank,
    maybe,
    recorded,
    scratch,
    text,
    texts,
    verdicts,
)

SETUP = Setup()
FAILED = Completion("error", reason="timeout", tries=6)
WITHHELD = Completion("no_response", reason="provider_filter")
QUICK = settings(max_examples=100, deadline=None)
# Each of these examples makes a store; the store against a dict at length is in the slow suite.
SOME = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(run: Path) -> Iterator[Store]:
    with Store.open_for_writing(run) as store:
        yield store


@pytest.fixture
def judge(store: Store) -> int:
    return SETUP.plan(store)


def raw(run: Path) -> sqlite3.Connection:
    """The file itself, past the store's manners."""
    return sqlite3.connect(run / STORE_NAME, isolation_level=None)


def shape(owed: list[OwedAttempt]) -> list[tuple[int, int, int, bool]]:
    """Row, asked, judged_no and whether the answer is there already."""
    return [(o.row, o.asked, o.judged_no, o.completion is not None) for o in owed]


def child(script: str, run: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + script, str(run), *map(str, more)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestOwnerOnly:
    UMASKS = (0o000, 0o002, 0o007, 0o022, 0o027, 0o077, 0o177, 0o777)

    def test_the_folder_is_0700_and_every_file_0600_under_any_umask(self, tmp_path: Path) -> None:
        # One child for all eight: a umask belongs to the whole process.
        done = child(
            """
for umask in map(lambda word: int(word, 8), sys.argv[2:]):
    os.umask(umask)
    with Store.open_for_writing(run / f"{umask:03o}" / "run") as store:
        fill(store, Setup().plan(store), ["harmful"])
        for path in sorted((run / f"{umask:03o}").rglob("*")):
            print(f"{umask:03o} {path.name} {path.stat().st_mode & 0o7777:04o}")
            """,
            tmp_path,
            *(f"{umask:03o}" for umask in self.UMASKS),
        )
        assert done.returncode == 0, done.stderr
        names = [".gitignore", "run.lock", "run.sqlite", "run.sqlite-shm", "run.sqlite-wal"]
        assert done.stdout.split("\n")[:-1] == [
            f"{umask:03o} {name} {mode}"
            for umask in self.UMASKS
            for name, mode in (("run", "0700"), *((name, "0600") for name in names))
        ]

    def test_missing_parents_are_made_0700_and_standing_ones_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "stands").mkdir(mode=0o755)
        Store.open_for_writing(tmp_path / "stands" / "new" / "run").close()
        modes = [stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("stands", "stands/new", "stands/new/run")]
        assert modes == [0o755, 0o700, 0o700]

    def test_files_that_became_readable_are_tightened_at_the_next_writing(self, run: Path) -> None:
        Store.open_for_writing(run).close()
        for path in (run, *run.iterdir()):
            path.chmod(0o755)
        with Store.open_for_writing(run) as store:
            SETUP.plan(store)
            assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o600}
        assert stat.S_IMODE(run.stat().st_mode) == 0o700

    def test_git_adds_nothing_of_a_run_even_if_a_kill_left_its_ignore_file_empty(self, run: Path) -> None:
        run.mkdir()
        (run / ".gitignore").touch()
        Store.open_for_writing(run).close()
        assert (run / ".gitignore").read_text() == "*\n"

    @pytest.mark.parametrize("name", [STORE_NAME, "run.lock", ".gitignore"])
    def test_a_symbolic_link_among_its_own_files_is_refused(self, run: Path, tmp_path: Path, name: str) -> None:
        run.mkdir()
        (tmp_path / "elsewhere").touch(0o644)
        (run / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises((ConfigError, StoreError), match="run"):
            Store.open_for_writing(run)
        assert (tmp_path / "elsewhere").read_bytes() == b""
        assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o644


class TestTheFolder:
    def test_what_can_become_a_run(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for folder in (tmp_path / "new", tmp_path / "a" / "b" / "c", tmp_path / "empty"):
            check_run_folder(folder)
            Store.open_for_writing(folder).close()
            assert is_run(folder)
            check_run_folder(folder)

    def test_what_cannot_is_named_in_one_line_and_left_as_it_was(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("a")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("b")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        places = ["file", "full", "dangling", "file/below", "x" * 300, "nul\0"]
        for place in places:
            with pytest.raises((ConfigError, StoreError)) as caught:
                Store.open_for_writing(tmp_path / place)
            assert "\n" not in str(caught.value)
            assert not is_run(tmp_path / place)
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["dangling", "file", "full", "thesis.txt"]

    def test_reading_what_is_no_run_makes_nothing(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "absent"):
            with pytest.raises(ConfigError, match=r"no run in this folder|is an empty folder|holds other files"):
                Store.open_for_reading(place)
        assert list(tmp_path.iterdir()) == []

    def test_made_says_which_folders_are_new(self, tmp_path: Path) -> None:
        run = tmp_path / "a" / "run"
        for made in ([run, run.parent], []):
            with Store.open_for_writing(run) as store:
                assert store.made == made

    def test_a_run_that_cannot_be_begun_leaves_no_folder(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("redinstruct.run.opened.migrate", Mock(side_effect=StoreError("the disk is full")))
            with pytest.raises(StoreError, match="full"):
                Store.open_for_writing(run / "inner")
            assert not run.exists()
            run.mkdir()
            with pytest.raises(StoreError, match="full"):
                Store.open_for_writing(run)
        assert run.exists()


class TestAppendOnly:
    @pytest.mark.parametrize("table", ["completions", "verdicts"])
    @pytest.mark.parametrize(
        "statement", ["UPDATE {} SET tries = 9", "DELETE FROM {}", "REPLACE INTO {} SELECT * FROM {}"]
    )
    def test_no_row_is_changed_removed_or_replaced(self, store: Store, judge: int, table: str, statement: str) -> None:
        fill(store, judge, ["harmful"])
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.db.execute(statement.format(table, table))
        assert next(iter(store.attempts(judge))).label == "harmful"

    def test_a_row_is_never_doubled_and_its_whole_group_is_taken_back(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful"])
        before = store.counts(judge)
        with pytest.raises(StoreError, match="was refused"):
            store.commit_completions([(2, 0, text()), (1, 0, text())])
        with pytest.raises(StoreError, match="was refused"):
            store.commit_verdicts([(1, 0, judge, no, Verdict("error")) for no in (1, 0)])
        assert store.counts(judge) == before

    def test_an_answer_must_stand_before_its_verdict(self, store: Store, judge: int) -> None:
        for verdict in ((1, 0, judge, 0, Verdict("harmful")), (99, 0, judge, 0, Verdict("harmful"))):
            with pytest.raises(StoreError, match="was refused"):
                store.commit_verdicts([verdict])
        store.commit_completions([(1, 0, text())])
        for verdict in ((1, 1, judge, 0, Verdict("harmful")), (1, 0, 99, 0, Verdict("harmful"))):
            with pytest.raises(StoreError, match="was refused"):
                store.commit_verdicts([verdict])
        with pytest.raises(StoreError, match="was refused"):
            store.commit_completions([(99, 0, text())])

    def test_the_readers_door_does_not_write(self, run: Path, store: Store, judge: int) -> None:
        with Store.open_for_reading(run) as reader, pytest.raises(StoreError, match="cannot be written"):
            reader.commit_completions([(1, 0, text())])


class TestOwed:
    def test_at_first_every_attempt_in_planned_order(self, store: Store, judge: int) -> None:
        owed = store.owed(judge)
        assert [o.attempt for o in owed] == SETUP.attempts
        assert shape(owed) == [(row, 0, 0, False) for row in range(1, 9)]

    def test_then_what_lacks_its_answer_or_its_verdict(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful", "error"])
        store.commit_completions([(3, 0, FAILED), (4, 0, WITHHELD), (5, 0, text("five"))])
        owed = store.owed(judge)
        assert shape(owed) == [(5, 0, 0, True), (6, 0, 0, False), (7, 0, 0, False), (8, 0, 0, False)]
        assert owed[0].completion == text("five")

    def test_errors_are_owed_again_when_asked_for(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful", "error"])
        store.commit_completions([(row, 0, c) for row, c in ((3, FAILED), (4, WITHHELD), (5, text()))])
        assert shape(store.owed(judge, retry_errors=True))[:3] == [(2, 0, 1, True), (3, 1, 0, False), (5, 0, 0, True)]

    def test_judging_again_never_samples(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful", "error"])
        store.commit_completions([(3, 0, FAILED), (4, 0, WITHHELD), (5, 0, text())])
        assert shape(store.owed(judge, sample=False, retry_errors=True)) == [(2, 0, 1, True), (5, 0, 0, True)]
        other = store.add_judge(OTHER_CARD)
        assert shape(store.owed(other, sample=False)) == [(1, 0, 0, True), (2, 0, 0, True), (5, 0, 0, True)]

    def test_the_newest_row_counts(self, store: Store, judge: int) -> None:
        def label() -> str | None:
            return next(iter(store.attempts(judge))).label

        store.commit_completions([(1, 0, FAILED)])
        assert label() == "error"
        store.commit_completions([(1, 1, text())])
        assert label() is None
        store.commit_verdicts([(1, 1, judge, 0, Verdict("error"))])
        store.commit_verdicts([(1, 1, judge, 1, Verdict("unharmful"))])
        assert label() == "unharmful"
        assert sum(c.count for c in store.counts(judge)) == 8
        # A later answer makes the verdicts on the earlier ones history.
        store.commit_completions([(1, 2, WITHHELD)])
        assert label() == "no_response"

    def test_each_judge_has_verdicts_of_its_own(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful"])
        other = store.add_judge(OTHER_CARD)
        store.commit_verdicts([(1, 0, other, 0, Verdict("unharmful"))])
        assert [view.label for row in (judge, other) for view in store.attempts(row)] == ["harmful", "unharmful"]
        assert store.judges() == [(judge, CARD), (other, OTHER_CARD)]
        assert store.add_judge(OTHER_CARD) == other


class TestPlanning:
    def test_twice_is_once(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful"])
        counts, secret = store.counts(judge), store.secret()
        assert SETUP.plan(store) == judge
        assert (store.counts(judge), store.secret(), store.config()) == (counts, secret, SETUP.config)
        assert len(store.owed(judge)) == 7
        assert store.db.execute("SELECT count(*) FROM configs").fetchone() == (1,)

    @pytest.mark.parametrize(
        ("small", "large"),
        [(Setup(limit=2), Setup(limit=3)), (Setup(limit=2), Setup()), (Setup(epochs=1), Setup(epochs=3))],
        ids=["limit", "no limit", "epochs"],
    )
    def test_a_larger_limit_or_more_epochs_extend_the_run(self, store: Store, small: Setup, large: Setup) -> None:
        judge = small.plan(store)
        fill(store, judge, ["harmful"] * len(small.attempts))
        assert store.owed(judge) == []
        assert large.plan(store) == judge
        asked = {attempt.key for attempt in small.attempts}
        assert [o.attempt for o in store.owed(judge)] == [a for a in large.attempts if a.key not in asked]
        assert store.config() == large.config
        assert [view.label for view in store.attempts(judge)].count("harmful") == len(asked)

    @pytest.mark.parametrize("sorted_at_once", [0, 5, 1_000])
    def test_a_plan_is_the_same_however_it_is_written(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, sorted_at_once: int
    ) -> None:
        """Line by line of questions that follow one another, indexed before, meanwhile or after; it extends alike."""
        monkeypatch.setattr("redinstruct.run.plans.LOT", 3)
        monkeypatch.setattr("redinstruct.run.plans._MOST_SORTED", sorted_at_once)
        whole = Setup(banks=(make_bank(7), make_bank(5, "other")), epochs=2)
        for setup in (msgspec.structs.replace(whole, limit=4, epochs=1), whole):
            with Store.open_for_writing(run) as store:
                judge = setup.plan(store)
        with Store.open_for_writing(run) as store:  # which looks at every table and index
            owed = store.owed(judge)
        assert {one.attempt.key for one in owed} == {one.key for one in whole.attempts}
        assert len(owed) == len(whole.attempts) == 48
        by_key = {one.key: one for one in whole.attempts}
        assert all(one.attempt == by_key[one.attempt.key] for one in owed)
        assert [one.row for one in owed] == list(range(1, 49))

    def test_a_failure_in_the_middle_leaves_the_run_as_it_was(self, store: Store) -> None:
        def attempts() -> Iterator[Attempt]:
            yield SETUP.attempts[0]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.plan(SETUP.config, SETUP.banks, SETUP.templates, attempts(), CARD)
        assert store.config() is None
        assert store.db.execute("SELECT count(*) FROM questions").fetchone() == (0,)
        assert len(store.owed(SETUP.plan(store))) == 8

    def test_a_run_that_was_never_begun_says_so(self, run: Path, store: Store) -> None:
        assert store.config() is None
        assert store.is_blank()
        with pytest.raises(StoreError, match="never begun"):
            store.secret()

    def test_blank_until_the_first_answer(self, store: Store, judge: int) -> None:
        assert store.is_blank()
        store.commit_completions([(1, 0, FAILED)])
        assert not store.is_blank()

    def test_tokens_are_summed_over_all_that_was_asked(self, store: Store, judge: int) -> None:
        answers = [msgspec.structs.replace(text(), tokens_in=2, tokens_out=30), text()]
        store.commit_completions([(1, asked, answer) for asked, answer in enumerate(answers)])
        store.commit_verdicts([(1, 0, judge, no, Verdict("error", tokens_in=400, tokens_out=5000)) for no in (0, 1)])
        attempt = SETUP.attempts[0]
        # The second answer came without counts: each of its bytes, and of its prompt's, is taken for a token.
        prompt = len((attempt.template.text + attempt.question.text).encode())
        said = len((answers[1].raw or "").encode())
        assert store.tokens() == (2 + prompt, 30 + said, 800, 10000)
        # So did this verdict, after two requests; a keyword judge makes none.
        store.commit_verdicts([(1, 1, judge, 0, Verdict("harmful", raw="[[B]]", tries=2))])
        judged = 2 * (2048 + len(attempt.question.text.encode()) + said)
        assert store.tokens() == (2 + prompt, 30 + said, 800 + judged, 10000 + 2 * len("[[B]]"))
        store.commit_verdicts([(1, 1, judge, 1, Verdict("harmful"))])
        assert store.tokens()[2:] == (800 + judged, 10000 + 10)

    def test_attempts_are_listed_in_the_banks_order_and_found_by_label_and_key(self, store: Store, judge: int) -> None:
        fill(store, judge, ["harmful", "unharmful"] * 4)
        keys = {(a.template.name, a.question.row): a.key.hex() for a in SETUP.attempts}
        views = list(store.attempts(judge))
        assert [(v.prompt, v.question.row, v.key) for v in views] == [(p, r, keys[p, r]) for p, r in keys]
        assert [v.question.row for v in store.attempts(judge, label="harmful")] == [0, 2, 0, 2]
        assert [v.key for v in store.named(judge, views[3].key[:8])] == [views[3].key]
        assert [v.key for v in store.named(judge, views[3].key)] == [views[3].key]
        for wild in ("", "%", "_", views[3].key[:7] + "_", views[3].key + "0"):
            assert list(store.named(judge, wild)) == []


class TestRoundTrip:
    """Whatever strangers write, the store gives back."""

    @SOME
    @given(
        answers=st.lists(completions | texts, min_size=1, max_size=8), said=st.lists(verdicts, min_size=8, max_size=8)
    )
    @example(answers=[text("\x00\ud800\u202e\U0010f8d8\U0010f8d8d800")], said=[Verdict("error", raw="\udfff")] * 8)
    def test_answers_and_verdicts(self, answers: list[Completion], said: list[Verdict]) -> None:
        with scratch() as folder:
            with Store.open_for_writing(folder / "run") as store:
                judge = SETUP.plan(store)
                store.commit_completions([(row, 0, answer) for row, answer in enumerate(answers, 1)])
                assert [o.completion for o in store.owed(judge) if o.completion] == [
                    a for a in answers if a.outcome == "text"
                ]
                store.commit_verdicts([(row, 0, judge, 0, said[row - 1]) for row in range(1, len(answers) + 1)])
            with Store.open_for_reading(folder / "run") as store:
                views = list(store.attempts(judge))
                assert [view.completion for view in views] == answers
                assert [view.judge_reply for view in views] == [said[row].raw for row in range(len(answers))]
                for view, answer, verdict in zip(views, answers, said, strict=False):
                    if answer.outcome == "text":
                        assert (view.label, view.detail, view.reason) == (verdict.label, verdict.detail, verdict.reason)
                    else:
                        assert (view.label, view.reason) == (answer.outcome, answer.reason)
                assert sum(c.count for c in store.counts(judge) if c.label) == len(answers)

    @FEW
    @given(words=any_text, name=any_text, path=st.tuples(maybe, maybe, maybe, maybe), of=maybe, prefix=any_text)
    def test_questions_templates_and_banks(
        self, words: str, name: str, path: tuple[str | None, ...], of: str | None, prefix: str
    ) -> None:
        sha = "c0" * 32
        topic, subtopic, language, label = path
        question = Question(f"{sha}:7", words, 7, topic, subtopic, language, label)
        template = parse_template(name, f"{prefix}<question>", translation_of=of)
        setup = Setup(banks=(Bank(name, sha, (question,)),), templates=(template,))
        with scratch() as folder, Store.open_for_writing(folder / "run") as store:
            judge = setup.plan(store)
            assert [o.attempt for o in store.owed(judge)] == setup.attempts
            assert store.config() == setup.config
            fill(store, judge, ["harmful"])
            (view,) = store.attempts(judge)
            assert (view.bank, view.prompt, view.question) == (name, name, question)
            (row,) = store.counts(judge)
            assert (row.bank, row.prompt, row.topic) == (name, name, topic)

    @QUICK
    @given(config=configs)
    def test_configurations(self, config: RunConfig) -> None:
        again = from_json(to_json(config), RunConfig)
        assert again == config
        assert again.digest == config.digest

    @QUICK
    @given(
        value=st.one_of(
            st.builds(Annotation, any_text, st.just("label"), any_text, maybe),
            st.builds(Message, st.sampled_from(["system", "user", "assistant"]), any_text),
            st.builds(JudgeCard, any_text, any_text, maybe, maybe, notes=st.lists(any_text, max_size=2).map(tuple)),
            verdicts,
            completions,
        )
    )
    def test_every_noun_through_json(self, value: msgspec.Struct) -> None:
        assert from_json(to_json(value), type(value)) == value

    def test_a_conversation_through_json(self) -> None:
        talk: Conversation = (Message("user", "a\ud800"), Message("assistant", "\0"))
        assert tuple(from_json(to_json(message), Message) for message in talk) == talk


class TestPurge:
    CANARY = b"canary-5f1c"

    def test_overwrites_every_byte_before_it_unlinks(self, run: Path) -> None:
        with Store.open_for_writing(run) as store:
            judge = SETUP.plan(store)
            for row in range(1, 9):
                words = self.CANARY.decode() * 20_000
                store.commit_completions([(row, 0, text(words))])
                store.commit_verdicts([(row, 0, judge, 0, Verdict("harmful", raw=words))])
            crashed = run.parent / "crashed"
            shutil.copytree(run, crashed)  # with its log, as a kill leaves it
        (crashed / "below").mkdir()
        (crashed / "below" / "report.html").write_bytes(self.CANARY)
        (crashed / "below" / "report.html").chmod(0o400)
        files = [path for path in crashed.rglob("*") if path.is_file()]
        handles = {path.name: os.open(path, os.O_RDONLY) for path in files}
        full = [name for name, h in handles.items() if self.CANARY in os.pread(h, 1 << 30, 0)]
        assert {"run.sqlite-wal", "report.html"} <= set(full)
        assert purge(crashed) == len(files)
        assert not crashed.exists()
        for name, handle in handles.items():
            left = os.pread(handle, 1 << 30, 0)
            os.close(handle)
            assert name == "run.lock" or not left.strip(b"\0"), name
        assert recorded(run), "the other run stands"

    def test_leaves_the_users_own_other_name_of_a_file_alone(self, run: Path, tmp_path: Path) -> None:
        Store.open_for_writing(run).close()
        (tmp_path / "mine.txt").write_text("mine")
        (run / "link.txt").hardlink_to(tmp_path / "mine.txt")
        (run / "soft.txt").symlink_to(tmp_path / "mine.txt")
        (tmp_path / "folder").mkdir()
        (run / "soft").symlink_to(tmp_path / "folder")
        purge(run)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "mine.txt"]
        assert (tmp_path / "mine.txt").read_text() == "mine"

    def test_refuses_what_is_no_run(self, run: Path, tmp_path: Path) -> None:
        Store.open_for_writing(run).close()
        (tmp_path / "link").symlink_to(run)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.txt").write_text("a")
        (tmp_path / "others").mkdir()
        (tmp_path / "others" / STORE_NAME).write_bytes(b"another program's database of the same name")
        before = sorted(tmp_path.rglob("*"))
        for place in ("link", "folder", "others", "absent"):
            with pytest.raises(ConfigError):
                purge(tmp_path / place)
        assert sorted(tmp_path.rglob("*")) == before

    def test_refuses_a_run_that_is_under_way(self, run: Path) -> None:
        with Store.open_for_writing(run) as store:
            judge = SETUP.plan(store)
            with pytest.raises(StoreError, match="in use"):
                purge(run)
            fill(store, judge, ["harmful"])
        assert list(recorded(run).values()) == ["harmful"]

    def test_can_be_run_again_when_it_could_not_finish(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Store.open_for_writing(run).close()
        for name in ("a.txt", "b.txt"):
            (run / name).write_text("x")
        unlink = Path.unlink
        failed: list[Path] = []

        def stubborn(path: Path, missing_ok: bool = False) -> None:
            if not failed and path.suffix == ".txt":
                failed.append(path)
                raise PermissionError(13, "Permission denied")
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", stubborn)
        with pytest.raises(StoreError, match="run purge again"):
            purge(run)
        assert is_run(run)
        purge(run)
        assert not run.exists()

    def test_a_damaged_store_can_still_be_purged(self, run: Path) -> None:
        Store.open_for_writing(run).close()
        (run / STORE_NAME).write_bytes(b"no database")
        purge(run)
        assert not run.exists()
