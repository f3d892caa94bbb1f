"""What only looks at a run leaves its folder as it was, also where it is refused; and nothing is put into one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from redinstruct.run import Store, shard
from redinstruct.run.folder import LOG_NAME, STORE_NAME
from redinstruct.run.stress import evaluations_of
from tests.figures.test_stressed import stress_run
from tests.support.cli import here, nothing_written, tree
from tests.support.stores import Setup, fill, make_bank, text

ASKED = ("--model", "scripted/weak", "--bank", "bank.json", "--judge", "refusal")
READING: dict[str, tuple[tuple[object, ...], int]] = {
    "report": (("report", "run", "--json"), 0),
    "gate": (("gate", "run", "--max-rate", 0.5), 11),
    "compare": (("compare", "run", "run"), 0),
    "show": (("show", "run"), 0),
    "list": (("list", "."), 0),
    "labels": (("labels", "run"), 0),
    "plan": (("plan", *ASKED, "--run", "run"), 0),
    "plan of labels": (("plan", "--labels", "--run", "run"), 0),
    "a judge that the run does not have": (("report", "run", "--judge", "nobody"), 2),
    "a gate of no stress run": (("gate", "run", "--max-rate", 0.5, "--stress", "prefill=0.1"), 2),
    "an attempt that is not there": (("show", "run", "ffff"), 2),
    "a merge with nothing": (("merge", "run", "nowhere", "--run", "new"), 2),
    "a merge with another run": (("merge", "run", "other", "--run", "new"), 2),
    "shards of what is whole": (("shard", "run", "--of", 2, "--out", "new"), 2),
    "another configuration": (("eval", *ASKED, "--max-tokens", 7, "--run", "run"), 2),
    "another kind": (("collect", "--teacher", "scripted/red-teacher", "--run", "run"), 2),
    "a judge that cannot judge it": (("judge", "run", "--judge", "rubric"), 2),
    "a comparison with nothing": (("compare", "run", "nowhere"), 2),
    "an export of another kind": (("export", "run", "--to", "messages", "--out", "new.jsonl"), 2),
    "a sealed run's rotation": (("seal", "run", "--rotate"), 2),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that are whole and closed."""
    folder = tmp_path_factory.mktemp("looking")
    (folder / "bank.json").write_text(json.dumps([f"What is the colour of item {i}?" for i in range(5)]))
    for name in ("run", "other"):
        assert here("eval", *ASKED, "--run", name, cwd=folder).code == 0
    return folder


@pytest.mark.parametrize("case", READING)
def test_what_only_reads_leaves_no_file_beside_the_store(case: str, runs: Path) -> None:
    words, code = READING[case]
    with nothing_written(runs):
        assert here(*words, cwd=runs).code == code


@pytest.mark.parametrize("case", READING)
@pytest.mark.parametrize("index", [True, False], ids=["with its log's index", "copied without it"])
def test_of_a_run_whose_writer_was_killed_the_log_stays_and_its_bytes(
    case: str, runs: Path, tmp_path: Path, index: bool
) -> None:
    for name in ("bank.json", "other"):
        (shutil.copytree if (runs / name).is_dir() else shutil.copy)(runs / name, tmp_path / name)
    shutil.copytree(runs / "run", tmp_path / "writing")
    with Store.open_for_writing(tmp_path / "writing") as store:
        with store.writing("going on") as db:
            db.execute("INSERT INTO sessions (at, version) VALUES (1.0, '0')")
        shutil.copytree(tmp_path / "writing", tmp_path / "run")
    shutil.rmtree(tmp_path / "writing")
    scratch = f"{STORE_NAME}-shm"  # SQLite's own, made anew from the log by whoever comes first
    if not index:
        (tmp_path / "run" / scratch).unlink()
    assert (tmp_path / "run" / LOG_NAME).stat().st_size

    def kept() -> dict[str, str]:
        return {name: digest for name, digest in tree(tmp_path).items() if not name.endswith(scratch)}

    before, words = kept(), READING[case][0]
    here(*words, cwd=tmp_path)
    assert kept() == before


def test_two_who_look_at_once_do_not_take_the_log_from_each_other(runs: Path) -> None:
    with nothing_written(runs), Store.open_for_reading(runs / "run") as first:
        with Store.open_for_reading(runs / "run") as second:
            assert second.planned() == first.planned() == 15
        assert first.recorded() == 15


def test_nothing_is_taken_from_a_writer(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = Setup(banks=(make_bank(4, "bank"),)).plan(store)
        with Store.open_for_reading(tmp_path / "run") as other:
            assert other.recorded() == 0
        store.commit_completions([(1, 0, text())])
        with Store.open_for_reading(tmp_path / "run") as other:
            assert other.recorded() == 1
        fill(store, judge, ["harmful"], first=2)
    with Store.open_for_reading(tmp_path / "run") as other:
        assert other.recorded() == 2


# ---- nothing within a run's own folder -------------------------------------------------------------------------------

WITHIN: dict[str, tuple[object, ...]] = {
    "eval": ("eval", *ASKED, "--run", "run/x"),
    "eval, deeper": ("eval", *ASKED, "--run", "run/x/y"),
    "collect": ("collect", "--teacher", "scripted/red-teacher", "--run", "run/x"),
    "import": ("import", "rows.csv", "--run", "run/x"),
    "merge": ("merge", "run", "--run", "run/x"),
    "shard": ("shard", "run", "--of", 2, "--out", "run/x"),
    "utility": ("utility", "--model", "scripted/refuse", "--suite", "toy_how_to", "--run", "run/x"),
    "held-out": ("toyworld", "held-out", "--out", "run/x"),
    "demo": ("demo", "--out", "run/x"),
    "loop": ("loop", "loop.toml", "--check"),
}


@pytest.mark.parametrize("case", WITHIN)
def test_what_is_made_is_not_put_into_a_run_s_own_folder(case: str, runs: Path) -> None:
    """It would go with that run when it is purged."""
    (runs / "rows.csv").write_text("prompt,response\nWhat?,Blue.\n")
    (runs / "loop.toml").write_text(
        'model = "scripted/weak"\nfolder = "run/x"\n[[eval]]\nname = "a"\nbanks = ["bank.json"]\njudge = "refusal"\n'
    )
    with nothing_written(runs):
        assert "lies in the folder of a run (run)" in here(*WITHIN[case], cwd=runs).error_line


def test_an_aligned_checkpoint_is_not_put_into_a_run_s_own_folder(runs: Path) -> None:
    pytest.importorskip("torch")
    with nothing_written(runs):
        done = here("align", "--base", "b", "--data", "d", "--strategy", "blue", "--out", "run/x", cwd=runs)
    assert "--out run/x: lies in the folder of a run" in done.error_line


# ---- the attacks of a stress run -------------------------------------------------------------------------------------


def test_merge_and_shard_say_that_the_attacks_of_a_stress_run_stay_with_it(tmp_path: Path) -> None:
    run = stress_run(tmp_path / "run")
    before = tree(run)
    done = here("merge", "run", "--run", "merged", cwd=tmp_path)
    assert "run is a stress run: its attacks (run/attacks) stay there" in done.err
    assert not (tmp_path / "merged" / "attacks").exists()
    assert tree(run) == before
    assert "attacks" not in here("merge", "merged", "--run", "run", cwd=tmp_path).err  # it keeps them
    assert len(evaluations_of(run)) == 12
    for kind in ("bundle", "inspect"):
        done = here("export", "run", "--to", kind, "--out", f"out.{kind}.json", cwd=tmp_path)
        assert "its attacks (run/attacks) are not in it" in done.err, done
    with Store.open_for_writing(run) as store:
        Setup(banks=(make_bank(100, "bank"),), epochs=2).plan(store)
    assert len(shard(run, 2, tmp_path / "first").folders) == 2
    assert (
        "its attacks (run/attacks) stay with it" in here("shard", "run", "--of", 2, "--out", "second", cwd=tmp_path).err
    )
