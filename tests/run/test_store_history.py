"""Any history of a run against a dict: recorded, asked again, killed, sealed, rotated, dealt out, merged, purged."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from redinstruct.errors import ConfigError, StoreError
from redinstruct.files.atomic import sync_folder
from redinstruct.progress import OnProgress, unheard
from redinstruct.run import Store, encryption, is_run, merge, purge, purging, shard, whole
from redinstruct.run.encryption import KEY_NAME, NEW_NAME, sealing
from redinstruct.run.folder import overwrite_and_remove
from redinstruct.run.resealing import reseal
from redinstruct.types import Completion, Verdict
from tests.support.stores import OTHER_CARD, Setup, make_bank, scratch, text
from tests.support.tally import faults, tally

pytest.importorskip("cryptography", reason="sealing needs the package cryptography")

FAILED = Completion("error", reason="timeout", tries=6)
WITHHELD = Completion("no_response", reason="provider_filter")
IN_CLEAR = (b"inert answer", b"What is item")
OTHERS_KEY = "a key of somebody else's"
answers = st.sampled_from([text(), FAILED, WITHHELD])
labels = st.sampled_from(["harmful", "unharmful", "unparsable", "error"])


class StoreAgainstDict(RuleBasedStateMachine):
    """``kills`` counts those in the middle of a sealing, a rotation, a merge or a purge."""

    kills = 0

    def __init__(self) -> None:
        super().__init__()
        self.scratch = contextlib.ExitStack()
        self.base = self.scratch.enter_context(scratch())
        self.patched = self.scratch.enter_context(pytest.MonkeyPatch.context())
        self.patched.setattr(encryption, "_N", 2**4)  # what a key costs who guesses it is no affair of this test
        self.generation = self.keys = 0
        self.sealed = False
        self.tell: OnProgress = unheard
        self.run = self.base / "0" / "run"
        self.run.parent.mkdir()
        self.store = Store.open_for_writing(self.run)
        self.setup = Setup(banks=(make_bank(3, topics=("t", None)),), limit=2)
        # (row) -> the answers in order, each with the verdicts per judge in order
        self.rows: dict[int, list[tuple[Completion, dict[int, list[Verdict]]]]] = {}

    @initialize()
    def begin(self) -> None:
        self.set_key(0)
        self.judges = self.planned()

    def planned(self) -> list[int]:
        return [self.setup.plan(self.store), self.store.add_judge(OTHER_CARD)]

    def teardown(self) -> None:
        self.store.close()
        self.scratch.close()

    def set_key(self, number: int) -> None:
        """The user's keys have numbers; the next one is there for a rotation."""
        self.keys = number
        self.patched.setenv(KEY_NAME, f"the user's key number {number}")
        self.patched.setenv(NEW_NAME, f"the user's key number {number + 1}")

    def open(self) -> None:
        self.store = Store.open_for_writing(self.run)

    def label(self, row: int, judge: int) -> str | None:
        if row not in self.rows:
            return None
        completion, said = self.rows[row][-1]
        if completion.outcome != "text":
            return completion.outcome
        return said[judge][-1].label if judge in said else None

    # ---- what is recorded -------------------------------------------------------------------------------------------

    @rule(extend=st.sampled_from([{"limit": None}, {"epochs": 2}, {}]))
    def plan(self, extend: dict[str, int | None]) -> None:
        self.setup = msgspec.structs.replace(self.setup, **extend)
        assert self.planned() == self.judges

    @rule(data=st.data(), group=st.integers(1, 4), retry=st.booleans())
    def ask(self, data: st.DataObject, group: int, retry: bool) -> None:
        self.ask_in(self.store, data, group, retry)

    def ask_in(self, store: Store, data: st.DataObject, group: int, retry: bool) -> None:
        owed = [o for o in store.owed(self.judges[0], retry_errors=retry) if o.completion is None][:group]
        said = [data.draw(answers) for _ in owed]
        store.commit_completions([(o.row, o.asked, a) for o, a in zip(owed, said, strict=True)])
        for o, answer in zip(owed, said, strict=True):
            assert o.asked == len(self.rows.get(o.row, ()))
            self.rows.setdefault(o.row, []).append((answer, {}))

    @rule(which=st.integers(0, 1), group=st.integers(1, 4), retry=st.booleans(), data=st.data())
    def judge(self, which: int, group: int, retry: bool, data: st.DataObject) -> None:
        judge = self.judges[which]
        owed = self.store.owed(judge, sample=False, retry_errors=retry)[:group]
        said = [Verdict(data.draw(labels)) for _ in owed]
        self.store.commit_verdicts([(o.row, o.asked, judge, o.judged_no, v) for o, v in zip(owed, said, strict=True)])
        for o, verdict in zip(owed, said, strict=True):
            assert o.completion == self.rows[o.row][-1][0]
            verdicts_so_far = self.rows[o.row][-1][1].setdefault(judge, [])
            assert o.judged_no == len(verdicts_so_far)
            verdicts_so_far.append(verdict)

    @precondition(lambda self: self.rows)
    @rule()
    def double(self) -> None:
        row = next(iter(self.rows))
        with pytest.raises(StoreError):
            self.store.commit_completions([(row, len(self.rows[row]) - 1, text("again"))])

    # ---- what is done with the folder -------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule(keep_shm=st.booleans())
    def crash(self, keep_shm: bool) -> None:
        """What a SIGKILL leaves: the files as they are, the log not folded in."""
        left = self.as_left(without="" if keep_shm else "*-shm")
        self.store.close()
        self.go_on_in(left)
        self.open()

    def as_left(self, without: str = "") -> Path:
        """All files beside the run, as they are now; the folder that holds the run there."""
        self.generation += 1
        left = self.base / str(self.generation)
        shutil.copytree(self.run.parent, left, ignore=shutil.ignore_patterns(without))
        return left

    def go_on_in(self, left: Path) -> None:
        shutil.rmtree(self.run.parent)
        self.run = left / "run"

    @contextlib.contextmanager
    def killed_at(self, moment: int) -> Iterator[list[str]]:
        """Go on with the files as they are at the so-manieth moment of what is done here; yields the moments.

        A moment is a table or a row that was written, a new store that took its place, or a file that is removed next.
        """
        seen: list[str] = []
        left: list[Path] = []

        def look(what: str) -> None:
            if len(seen) == moment:
                left.append(self.as_left())
            seen.append(what)

        def looking(what: str, function: Callable[[Path], None]) -> Callable[[Path], None]:
            def work(path: Path) -> None:
                look(what)
                function(path)

            return work

        self.tell = lambda progress: look(f"{progress.done} written")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(purging, "overwrite_and_remove", looking("removal", overwrite_and_remove))
            patch.setattr(whole, "sync_folder", looking("in its place", sync_folder))
            yield seen
        if left:
            type(self).kills += 1
            del seen[moment + 1 :]
            self.go_on_in(left[0])

    @rule(moment=st.integers(0, 40))
    def seal_or_rotate(self, moment: int) -> None:
        """Killed or not: the same command again, and every text is under the one key, and under no other."""
        self.store.close()
        rotate = self.sealed
        with self.killed_at(moment) as seen:
            reseal(self.run, rotate=rotate, on_progress=self.tell)
        if "in its place" in seen:
            self.sealed = True
            with contextlib.suppress(ConfigError):  # that it is done: another key is in use by now
                reseal(self.run, rotate=rotate)
        else:
            reseal(self.run, rotate=rotate)
            self.sealed = True
        if rotate:
            self.set_key(self.keys + 1)
        self.nothing_else_is_left()
        self.open()

    def nothing_else_is_left(self) -> None:
        assert [path.name for path in self.run.parent.iterdir()] == ["run"]

    @precondition(lambda self: self.sealed)
    @rule(old=st.booleans())
    def wrong_key(self, old: bool) -> None:
        """Nobody reads or writes by it, and nothing changes."""
        self.store.close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEY_NAME, f"the user's key number {self.keys - 1}" if old else OTHERS_KEY)
            for door in (Store.open_for_reading, Store.open_for_writing):
                with pytest.raises(ConfigError, match="sealed by another key") as caught:
                    door(self.run)
                assert "\n" not in str(caught.value)
            with pytest.raises(ConfigError, match="sealed by another key"):
                reseal(self.run, rotate=True)
            patch.delenv(KEY_NAME)
            with pytest.raises(ConfigError, match=f"is sealed: set {KEY_NAME}"):
                Store.open_for_writing(self.run)
        self.open()

    @precondition(lambda self: len(self.setup.attempts) - len(self.rows) > 1)
    @rule(data=st.data(), group=st.integers(1, 3), moment=st.integers(0, 40))
    def deal_out_and_merge(self, data: st.DataObject, group: int, moment: int) -> None:
        """Into the run that was dealt out; killed, then the same again."""
        self.store.close()
        out = self.run.parent / "shards"
        for folder in shard(self.run, 2, out).folders:
            with Store.open_for_writing(folder) as part:
                assert part.sealed == self.sealed
                self.ask_in(part, data, group, retry=False)
        with self.killed_at(moment):
            merge([out / "1", out / "2"], self.run, self.tell)
        out = self.run.parent / "shards"
        merge([out / "1", out / "2"], self.run)
        for number in ("1", "2"):
            purge(out / number)
        out.rmdir()
        self.nothing_else_is_left()
        self.open()
        assert self.planned() == self.judges

    @rule(moment=st.integers(0, 8), sealed=st.booleans())
    def purge(self, moment: int, sealed: bool) -> None:
        """Killed or not, the same again: nothing is left; then another run is begun there."""
        self.store.close()
        with self.killed_at(moment):
            purge(self.run)
        with contextlib.suppress(ConfigError):  # that there is no run any more
            purge(self.run)
        assert not is_run(self.run)
        assert list(self.run.parent.iterdir()) == []
        self.rows = {}
        self.sealed = sealed
        with sealing(sealed):
            self.open()
            self.judges = self.planned()

    # ---- what then holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_dict_says(self) -> None:
        if not hasattr(self, "judges"):
            return
        with Store.open_for_reading(self.run) as reader:
            assert reader.sealed == self.sealed
            planned = len(self.setup.attempts)
            for judge in self.judges:
                expected = [self.label(row, judge) for row in range(1, planned + 1)]
                counts = reader.counts(judge)
                assert sum(c.count for c in counts) == planned
                assert sorted(str(c.label) for c in counts for _ in range(c.count)) == sorted(map(str, expected))
                owed = {
                    row
                    for row in range(1, planned + 1)
                    if row not in self.rows or (self.rows[row][-1][0].outcome == "text" and expected[row - 1] is None)
                }
                assert {o.row for o in reader.owed(judge)} == owed

    @precondition(lambda self: self.sealed)
    @invariant()
    def of_a_sealed_run_the_figures_need_no_key_and_no_text_is_in_clear(self) -> None:
        with pytest.MonkeyPatch.context() as patch, Store.open_for_reading(self.run) as reader:
            patch.delenv(KEY_NAME)
            with Store.open_for_reading(self.run) as locked:
                assert locked.locked
                assert [locked.counts(judge) for judge in self.judges] == [reader.counts(j) for j in self.judges]
        held = b"".join(path.read_bytes() for path in self.run.iterdir())
        assert [words for words in IN_CLEAR if words in held] == []


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


@faults
def test_the_store_against_a_dict_at_length() -> None:
    StoreAgainstDict.kills = 0
    run_state_machine_as_test(
        StoreAgainstDict, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )
    tally("histories of a run of up to 50 steps, sealed, merged and purged too: another state than the dict's", 200, 0,
          f"{StoreAgainstDict.kills:,} kills inside a sealing, rotation, merge or purge")  # fmt: skip
