"""A run dealt out and put together again: the undivided run's report, whatever happened to its parts."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import redinstruct
from redinstruct.engine import Limits
from redinstruct.errors import ConfigError, StoreError, UsageError
from redinstruct.models import Reply, Request
from redinstruct.models.scripted import ScriptedModel
from redinstruct.redeval import Outcome, RejudgeSettings, rejudge
from redinstruct.run import AnnotationStore, Store, SummaryStore, connection, merge, purge, shard, shard_of
from redinstruct.run.joining import AnswerRows, joined
from redinstruct.run.times import times_of
from redinstruct.types import Annotation, Bank, Question
from tests.support.cli import InProcess, tree
from tests.support.stores import report, scratch

TOPICS = ("paint", "ferries", None)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as place:
        yield place


def bank_of(size: int, name: str = "bank") -> Bank:
    """Inert questions, some of them twice."""
    sha = f"{size:02x}" * 32
    texts = [f"What is the colour of item {i // 2 if i < 8 else i}?" for i in range(size)]
    return Bank(name, sha, tuple(Question(f"{sha}:{i}", text, i, TOPICS[i % 3]) for i, text in enumerate(texts)))


BANK = bank_of(30)


def evaluate(
    run: Path, *, model: str | ScriptedModel = "scripted/weak", max_calls: int | None = None, **more: Any
) -> Outcome:
    settings = {"prompts": ("standard", "cot"), "epochs": 2, **more}
    limits = Limits(max_calls=max_calls)
    return redinstruct.evaluate(model=model, bank=BANK, judge="refusal", run=run, limits=limits, **settings)


@contextlib.contextmanager
def nothing_new(place: Path) -> Iterator[None]:
    """Fails when anything was made, changed or removed."""
    before = tree(place)
    yield
    assert tree(place) == before


def dealt(place: Path, of: int = 10, first: int = 0, **more: Any) -> list[Path]:
    """Shards of a run that had asked ``first`` attempts, all asked."""
    evaluate(place / "run", max_calls=first, **more)
    shards = list(shard(place / "run", of, place / "shards").folders)
    for one in shards:
        assert evaluate(one, **more).exit_code == 0
    return shards


def bytes_of(run: Path) -> bytes:
    return msgspec.json.encode(report([run]))


def test_ten_shards_merged_are_the_undivided_run(tmp_path: Path) -> None:
    evaluate(tmp_path / "whole")
    merged = merge(dealt(tmp_path), tmp_path / "merged")
    assert (merged.planned, merged.recorded, merged.shared) == (120, 120, 0)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")
    parts = [shard_keys(one) for one in (tmp_path / "shards").iterdir()]
    assert [len(part) for part in parts] == [12] * 10
    assert len(set.union(*parts)) == 120


def shard_keys(run: Path) -> set[bytes]:
    with Store.open_for_reading(run) as store:
        return {key for (key,) in store.db.execute("SELECT key FROM attempts")}


def recorded_keys(run: Path) -> set[bytes]:
    with Store.open_for_reading(run) as store:
        rows = store.db.execute("SELECT key FROM attempts a JOIN completions c ON c.attempt = a.id")
        return {key for (key,) in rows}


def test_what_the_run_has_recorded_stays_with_it(tmp_path: Path) -> None:
    shards = dealt(tmp_path, 3, first=50)
    parts = [shard_keys(one) for one in shards]
    asked = recorded_keys(tmp_path / "run")
    assert len(asked) == 50
    assert sum(map(len, parts)) == 70
    assert set.union(asked, *parts) == shard_keys(tmp_path / "run")
    evaluate(tmp_path / "whole")
    # Without the run its part is owed; the ordinary command asks it, in the order in which it was planned.
    alone = merge(shards, tmp_path / "alone")
    assert (alone.planned, alone.recorded) == (120, 70)
    assert report([tmp_path / "alone"])["results"][0]["planned"] == 60
    assert evaluate(tmp_path / "alone").calls == 50
    for order in ([*shards, tmp_path / "run"], [tmp_path / "run", *reversed(shards)]):
        again = merge(order, tmp_path / "again")
        assert (again.recorded, again.parts[0].name) == (120, "the run")
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "alone") == bytes_of(tmp_path / "whole")
        purge(tmp_path / "again")


def test_the_gate_passes_no_shard_alone(cli: InProcess, tmp_path: Path) -> None:
    shards = dealt(tmp_path, 2)
    merge(shards, tmp_path / "merged")
    said = cli("gate", shards[0], "--max-rate", 1)
    assert said.code == 11
    assert "shard 1 of 2, not the whole run" in said.out
    assert cli("gate", tmp_path / "merged", "--max-rate", 1).code == 0


def test_a_limit_an_extension_and_a_shard_of_a_shard(tmp_path: Path) -> None:
    evaluate(tmp_path / "run", limit=10)
    evaluate(tmp_path / "run", limit=20, max_calls=0)
    first = shard(tmp_path / "run", 2, tmp_path / "shards").folders
    second = shard(first[1], 3, tmp_path / "finer").folders
    for one in (first[0], *second):
        evaluate(one, limit=20)
    with pytest.raises(ConfigError, match=r"is shard 1 of 2.*merge the shards"), nothing_new(tmp_path):
        evaluate(first[0], limit=30)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    evaluate(tmp_path / "whole", limit=20)
    merge([tmp_path / "run", first[0], *second], tmp_path / "merged")
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")
    evaluate(tmp_path / "merged", limit=None)  # a merged run is a whole one
    evaluate(tmp_path / "whole", limit=None)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")


def test_labels_and_a_second_judge_come_along(tmp_path: Path) -> None:
    evaluate(tmp_path / "whole")
    shards = dealt(tmp_path, 4)
    for run in (tmp_path / "whole", *shards):
        rejudge(run, RejudgeSettings(judge="paper", judge_model="scripted/judge"))
        keys = sorted(shard_keys(run))
        with Store.open_for_writing(run) as store:
            acts = [(key, who, mark) for key in keys for who, mark in (("anna", 3), ("ben", 5)) if key[0] % mark == 0]
            AnnotationStore(store).record(
                [(key, Annotation(who, "label", "harmful" if key[1] % 2 else "unharmful")) for key, who, _ in acts]
            )
    merge(shards, tmp_path / "merged")
    found = bytes_of(tmp_path / "merged")
    assert found == bytes_of(tmp_path / "whole")
    judges = {result["judge"] for result in msgspec.json.decode(found)["results"]}
    assert judges == {"refusal", "paper"}
    assert any(result["human"] for result in msgspec.json.decode(found)["results"])


def test_a_label_that_was_taken_back_stays_so_where_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = dealt(tmp_path, 2)
    (key, other, *_) = sorted(shard_keys(shards[0]))
    acts = [
        [(key, Annotation("anna", "label", "harmful")), (other, Annotation("anna", "label", "harmful"))],
        [(key, Annotation("anna", "undo")), (other, Annotation("anna", "label", "unharmful"))],
    ]
    for hour, said in zip((2, 1), acts, strict=True):
        monkeypatch.setattr("time.time", lambda hour=hour: 3600.0 * hour)
        with Store.open_for_writing(shards[0]) as store:
            AnnotationStore(store).record(said)
    merge([*shards, shutil.copytree(shards[0], tmp_path / "copy")], tmp_path / "merged")
    with Store.open_for_reading(tmp_path / "merged") as store:
        assert [(a.key, a.annotation.label) for a in AnnotationStore(store).standing()] == [(other, "unharmful")]


def test_an_attempt_that_two_asked_counts_once_and_both_calls_stay_in_the_sums(tmp_path: Path) -> None:
    chance, count = random.Random(1), itertools.count()

    def sometimes(request: Request) -> Reply:
        # Two answers of the same words and nanoseconds pass for one that was copied.
        return Reply(("Blue, {}." if chance.random() < 0.5 else "I cannot help, {}.").format(next(count)))

    model = ScriptedModel(sometimes, name="function")
    evaluate(tmp_path / "run", model=model, max_calls=30)
    for one in shard(tmp_path / "run", 2, tmp_path / "shards").folders:
        evaluate(one, model=model)
    # Both went on with the same attempts: the run itself, although they were dealt out.
    evaluate(tmp_path / "run", model=model)
    places = [tmp_path / "shards/1", tmp_path / "run", tmp_path / "shards/2"]
    merged = merge(places, tmp_path / "merged")
    assert (merged.planned, merged.recorded, merged.shared) == (120, 120, 90)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "run"), "the whole run's answer counts"
    assert spent(tmp_path / "merged") == sum(map(spent, places)) == 120 + 90


def answer(asked: int, values: tuple[str, str], *labels: str) -> AnswerRows:
    return AnswerRows(asked, values, [(1, number, label) for number, label in enumerate(labels)])


def test_the_answer_that_counts_is_no_error_and_the_first_store_s() -> None:
    lost, one, two = ("error", "reset"), ("text", "a"), ("text", "b")
    found, numbers = joined([[answer(0, one, "harmful")], [answer(0, lost), answer(1, two, "unharmful")]])
    assert [a.values for a in found] == [lost, two, one]
    assert [a.asked for a in found] == [0, 1, 2]
    assert [a.verdicts for a in found] == [[], [(1, 0, "unharmful")], [(1, 0, "harmful")]]
    assert numbers == [[2], [0, 1]]
    # The first store's error does not hide the second one's answer.
    found, numbers = joined([[answer(0, lost)], [answer(0, two, "harmful")]])
    assert ([a.values for a in found], numbers) == ([lost, two], [[0], [1]])
    # One is a copy of the other that went on, and was judged once more; equal answers of one store stay two.
    begun = [answer(0, lost), answer(1, lost)]
    ended = [*begun, answer(2, one, "error", "harmful")]
    for parts in ([begun, ended], [ended, begun]):
        assert joined(parts)[0] == ended
    found, _ = joined([[answer(0, one, "error")], [answer(0, one, "harmful")], [answer(0, one, "error")]])
    assert found == [answer(0, one, "error", "harmful")]


def spent(run: Path) -> int:
    with Store.open_for_reading(run) as store:
        return SummaryStore(store).spent_on_target().calls


def test_a_copy_counts_once_and_a_half_done_one_as_far_as_it_is(tmp_path: Path) -> None:
    evaluate(tmp_path / "run", max_calls=0)
    one, two = shard(tmp_path / "run", 2, tmp_path / "shards").folders
    evaluate(one, max_calls=20)
    shutil.copytree(one, tmp_path / "earlier")
    evaluate(one)
    merged = merge([tmp_path / "earlier", two, one, one, tmp_path / "shards" / ".." / "shards" / "1"], tmp_path / "m")
    assert (merged.recorded, len(merged.again), spent(tmp_path / "m")) == (60, 2, 60)
    half = {part.folder.name: part.recorded for part in merged.parts}
    assert half == {"earlier": 20, "2": 0, "1": 60}


def test_how_long_it_took_is_the_sum_of_all_machines(tmp_path: Path) -> None:
    shards = dealt(tmp_path, 2, first=20)
    merge([*shards, *shards, tmp_path / "run"], tmp_path / "merged")
    times = []
    for run in (tmp_path / "run", *shards, tmp_path / "merged"):
        with Store.open_for_reading(run) as store:
            times.append(times_of(store))
    begun, *parts, merged = times
    assert begun.seconds
    # A shard has its run's past, which counts once.
    own = [part.seconds - begun.seconds for part in parts if part.seconds]
    assert merged.seconds == pytest.approx(begun.seconds + sum(own))
    assert (len(merged.invocations), merged.answers) == (3, 120)


def test_merging_into_a_run_that_stands_adds_what_it_lacks(tmp_path: Path) -> None:
    evaluate(tmp_path / "run", max_calls=12)
    shards = shard(tmp_path / "run", 2, tmp_path / "shards").folders
    (tmp_path / "run" / "notes.md").write_text("mine")
    for number, one in enumerate(shards, 1):
        evaluate(one)
        found = merge([one], tmp_path / "run")
        assert found.recorded == 12 + 54 * number
    evaluate(tmp_path / "whole")
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "whole")
    assert set(tree(tmp_path / "run")) == {".gitignore", "run.lock", "run.sqlite", "notes.md"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shards", "whole"]
    before = bytes_of(tmp_path / "run")
    assert merge(shards, tmp_path / "run").shared == 108
    assert (bytes_of(tmp_path / "run"), spent(tmp_path / "run")) == (before, 120)
    with pytest.raises(ConfigError, match="is itself a shard"), nothing_new(tmp_path):
        merge([shards[0]], shards[1])


def test_a_store_that_is_being_read_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = dealt(tmp_path, 2)
    connect = connection.connect_for_writing

    def at_once(folder: Path) -> sqlite3.Connection:
        found = connect(folder)
        found.execute("PRAGMA busy_timeout=0")
        return found

    monkeypatch.setattr("redinstruct.run.whole.connect_for_writing", at_once)
    before = bytes_of(tmp_path / "run")
    with Store.open_for_reading(tmp_path / "run") as store:
        store.db.execute("BEGIN")
        store.planned()
        with pytest.raises(StoreError, match="is in use"):
            merge(shards, tmp_path / "run")
    assert bytes_of(tmp_path / "run") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shards"]
    assert merge(shards, tmp_path / "run").recorded == 120


def test_what_is_no_shard_of_this_run_is_named(cli: InProcess, tmp_path: Path) -> None:
    shards = dealt(tmp_path, 2)
    evaluate(tmp_path / "stranger")
    evaluate(tmp_path / "another", prompts=("standard",))
    redinstruct.collect(teacher="scripted/red-teacher", answerer="scripted/weak", judge="refusal",
                        topics=topics_file(tmp_path), run=tmp_path / "collection", per_subtopic=1)  # fmt: skip
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("mine")
    wrong = {
        ("merge", shards[0], tmp_path / "stranger", "--run", tmp_path / "m"): "stranger: is no shard of the same run",
        ("merge", tmp_path / "another", shards[1], "--run", tmp_path / "m"): "another configuration",
        ("merge", shards[0], tmp_path / "collection", "--run", tmp_path / "m"): "collection",
        ("merge", shards[0], tmp_path / "none", "--run", tmp_path / "m"): "none: there is no run",
        ("merge", shards[0], "--run", tmp_path / "stranger"): "is no shard of the same run",
        ("merge", shards[0], "--run", tmp_path / "notes"): "other files",
        ("merge", "--run", tmp_path / "m"): "SHARD",
        ("merge", shards[0], "--run", tmp_path / "notes" / "a.md"): "a.md",
        ("shard", tmp_path / "collection", "--of", "2", "--out", tmp_path / "o"): "holds a collection",
        ("shard", tmp_path / "none", "--of", "2", "--out", tmp_path / "o"): "there is no run",
        ("shard", tmp_path / "stranger", "--of", "2", "--out", tmp_path / "o"): "nothing to deal out",
        ("shard", tmp_path / "run", "--of", "121", "--out", tmp_path / "o"): "only 120 attempts",
        ("shard", tmp_path / "run", "--of", "0", "--out", tmp_path / "o"): "--of must be",
        ("shard", tmp_path / "run", "--of", "3", "--out", tmp_path / "shards"): "something else stands there",
        ("shard", tmp_path / "run", "--of", "2", "--out", tmp_path / "notes"): "something else stands there",
        ("shard", tmp_path / "run", "--of", "2", "--out", tmp_path / "notes" / "a.md"): "not a folder",
        ("shard", tmp_path / "run", "--of", "2", "--out", tmp_path / "notes" / "a.md" / "x"): "--out",
    }  # fmt: skip
    with nothing_new(tmp_path):
        for command, words in wrong.items():
            assert words in cli(*command).error_line, command


def topics_file(place: Path) -> Path:
    path = place / "topics.json"
    path.write_text('{"ferries": ["colours"]}')
    return path


def test_the_same_command_again_changes_nothing(cli: InProcess, tmp_path: Path) -> None:
    evaluate(tmp_path / "run", max_calls=0)
    deal = ("shard", tmp_path / "run", "--of", "2", "--out", tmp_path / "shards")
    assert cli(*deal).code == 0
    with nothing_new(tmp_path):
        done = cli(*deal)
    assert done.code == 0
    assert "were already" in done.out
    with Store.open_for_reading(tmp_path / "shards" / "2") as store:
        assert str(shard_of(store)) == "shard 2 of 2"


def test_a_run_in_use_is_not_dealt_out(tmp_path: Path) -> None:
    evaluate(tmp_path / "run", max_calls=0)
    with Store.open_for_writing(tmp_path / "run"), pytest.raises(StoreError, match="in use"):
        shard(tmp_path / "run", 2, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_shard_is_named_and_nothing_written(cli: InProcess, tmp_path: Path, cut: bool) -> None:
    shards = dealt(tmp_path, 2)
    data = (shards[0] / "run.sqlite").read_bytes()
    middle = len(data) // 2
    (shards[0] / "run.sqlite").write_bytes(data[:middle] if cut else data[:middle] + b"\xff" + data[middle + 1 :])
    with nothing_new(tmp_path):
        assert f"{shards[0]}" in cli("merge", *shards, "--run", tmp_path / "m").error_line


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = dealt(tmp_path, 2)
    from redinstruct.run import merging
    from redinstruct.run import shards as dealing

    def full(store: Store, *_: object) -> None:
        pages = store.db.execute("PRAGMA page_count").fetchone()[0]
        store.db.execute(f"PRAGMA max_page_count = {pages}")

    write_judges, add = merging._write_judges, dealing._add

    def judges(store: Store, sources: Sequence[object]) -> list[dict[int, int]]:
        found = write_judges(store, sources)  # type: ignore[arg-type]
        full(store)
        return found

    def no_room(store: Store, fresh: Store, *rest: object) -> None:
        full(fresh)
        add(store, fresh, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "_write_judges", judges)
    monkeypatch.setattr(dealing, "_add", no_room)
    for target in (tmp_path / "merged", tmp_path / "run"):
        with pytest.raises(StoreError, match="the disk is full") as told, nothing_new(tmp_path):
            merge(shards, target)
        assert "\n" not in str(told.value)
    evaluate(tmp_path / "larger", epochs=20, max_calls=0)
    with pytest.raises(StoreError, match="the disk is full") as told, nothing_new(tmp_path):
        shard(tmp_path / "larger", 2, tmp_path / "other")
    assert ".redinstruct-part" not in str(told.value)


@pytest.mark.parametrize("then", ["purge", "shard"])
def test_what_a_killed_shard_left_is_overwritten_by_purge_and_by_the_same_command(tmp_path: Path, then: str) -> None:
    evaluate(tmp_path / "run", max_calls=0)
    shard(tmp_path / "run", 2, tmp_path / "shards")
    (tmp_path / "shards" / "notes.md").write_text("mine")
    (tmp_path / "shards").rename(tmp_path / ".shards.redinstruct-part")
    with contextlib.ExitStack() as opened:
        stores = [
            opened.enter_context(p.open("rb")) for p in (tmp_path / ".shards.redinstruct-part").glob("*/*.sqlite")
        ]
        assert all(b"the colour of item" in store.read() for store in stores)
        if then == "purge":
            purge(tmp_path / "run")
            assert [p.name for p in tmp_path.rglob("*")] == [".shards.redinstruct-part", "notes.md"]
        else:
            shard(tmp_path / "run", 2, tmp_path / "shards")
        for store in stores:
            store.seek(0)
            assert not store.read().strip(b"\0")


def test_too_many_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than 200 at once"):
        merge([tmp_path / str(number) for number in range(201)], tmp_path / "m")
