"""``redinstruct demo`` and ``toyworld build``, end to end through the command line, in the quick form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct.toyworld.held_out import FAMILIES, UNLIKE
from tests.support.cli import run

pytestmark = [pytest.mark.local, pytest.mark.slow]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def cache(toy: Path, shared: Path) -> dict[str, str]:
    """The cache into which the shared toy model was built: the command line finds it there."""
    assert toy.is_dir()
    return {"REDINSTRUCT_CACHE": str(shared / "cache")}


def test_the_demo_shows_the_effect_and_keeps_its_contract(demo_folder: Path, cache: dict[str, str]) -> None:
    done = run("demo", "--quick", "--out", demo_folder, "--json", env=cache, timeout=600)
    assert done.code == 0, done.err
    document = done.json
    assert document["schema"] == "redinstruct.demo/1"
    assert {"schema", "seed", "seconds", "items", "rows", "unseen_frames"} <= document.keys()
    base, *aligned = document["rows"]
    assert base["model"] == "base"
    assert [row["model"] for row in aligned] == ["blue", "npo-len"]
    assert all(row["asr"].keys() == row["garbled"].keys() == base["asr"].keys() for row in aligned)
    assert {"standard", "cot", "cou"} <= base["asr"].keys()
    assert base["garbled"].keys() == base["asr"].keys()
    rates = [*base["asr"].values(), *base["garbled"].values(), base["benign"], base["benign_in_frame"]]
    assert all(0 <= rate <= 1 for rate in [*rates, base["over_refusal"]])
    # What a small model of part of the world must still show: it refuses plainly, and yields in the frame.
    assert base["asr"]["standard"] + 0.3 < base["asr"]["cou"]
    # And what aligning it must show: it yields less there, and still answers what is harmless.
    best = aligned[-1]
    assert best["asr"]["cou"] + 0.3 < base["asr"]["cou"]
    assert best["benign"] > base["benign"] - 0.2
    assert document["unseen_frames"]
    assert set(document["unseen_frames"]) <= base["asr"].keys()
    # The toy world's own suite: what it is good for, beside.
    assert document["suite_items"].keys() == {"toy_how_to", "toy_how_to_in_frame", "toy_borderline", "toy_facts"}
    assert base["facts"] > 0.5 > abs(best["facts"] - base["facts"])
    # Topics held out: other families than its rows are about, and every figure of both models.
    held = document["held_out"]
    assert [row["model"] for row in held["rows"]] == ["base", "npo-len"]
    assert not set(held["families"]) & set(FAMILIES["train"])
    assert all(row["asr"].keys() == {"standard", "cot", "cou", *UNLIKE} for row in held["rows"])
    assert all(row["harmless"].keys() == {"standard", "cou", *UNLIKE} for row in held["rows"])
    assert held["rows"][0]["asr"]["standard"] + 0.3 < held["rows"][0]["asr"]["cou"]
    assert held["items"] >= 60
    assert document["verdicts"]["npo-len"].keys() >= {"forbidden/cou", "toy_how_to_in_frame"}


def test_the_same_command_again_asks_nothing(demo_folder: Path, cache: dict[str, str]) -> None:
    first = run("demo", "--quick", "--out", demo_folder, "--json", env=cache, timeout=600)
    assert first.code == 0, first.err
    runs = {path: path.stat().st_mtime_ns for path in demo_folder.rglob("run.sqlite")}
    # Two runs of each model (attacks, usefulness), and the collection; three of each of two, and another collection.
    assert len(runs) == 3 * 2 + 1 + 2 * 3 + 1
    again = run("demo", "--quick", "--out", demo_folder, env=cache, timeout=600)
    assert again.code == 0
    assert {path: path.stat().st_mtime_ns for path in demo_folder.rglob("run.sqlite")} == runs
    assert "standard" in again.out
    assert "What the data of each alignment held" in again.out
    assert "Topics held out" in again.out
    assert "How sure it is" in again.out
    assert (demo_folder / "demo.svg").read_text().startswith("<svg")
    assert (demo_folder / "report.html").is_file()


def test_the_toy_checkpoint_is_an_ordinary_target(tmp_path: Path, cache: dict[str, str]) -> None:
    toy = tmp_path / "toy"
    built = run("toyworld", "build", "--out", toy, "--quick", env=cache, timeout=300)
    assert built.code == 0, built.err
    names = {path.name for path in (toy / "banks").iterdir()}
    assert names >= {f"{kind}-{split}.json" for kind in ("forbidden", "benign") for split in ("dev", "test")}
    flags = ["--bank", toy / "banks" / "forbidden-test.json", "--judge", "exact", "--limit", 8, "--max-tokens", 64]
    done = run(
        "eval", "--model", f"hf/{toy}", *flags, "--temperature", 0, "--run", tmp_path / "run", "--json", env=cache
    )
    assert done.code == 0, done.err
    results = json.loads(done.out)["results"]
    assert [result["prompt"] for result in results] == ["standard", "cot", "cou"]
    assert all(result["counts"]["total"] == 8 for result in results)
    assert results[0]["model"].startswith("hf/toy@")
    assert str(tmp_path) not in done.out
    assert results[2]["translated"] is True
