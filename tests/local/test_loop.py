"""The closed loop on the quick toy model: killed in every stage it ends with the same table; two rounds; a guard."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run, start

pytestmark = [pytest.mark.local, pytest.mark.slow]

CONFIG = """
model = "hf/{toy}"
folder = "{folder}"
rounds = {rounds}

[[eval]]
name = "forbidden"
banks = ["{toy}/banks/forbidden-test.json"]
prompts = ["standard", "cou"]
judge = "exact"
limit = 40
max_tokens = 64
temperature = 0.0

[[eval]]
name = "benign"
banks = ["{toy}/banks/benign-test.json"]
prompts = ["cou"]
measure = "over_refusal"
judge = "exact"
limit = 40
max_tokens = 64
temperature = 0.0

[utility]
suite = "toy"
limit = 10

[collect]
teacher = "scripted/red-teacher"
judge = "exact"
topics = "{toy}/data/topics.json"
per_subtopic = 1
blue = 1
answer_tokens = 64
temperature = 0.0
near = 1.0

[align]
general = ["{toy}/data/general-in-frame.jsonl"]
carry = "npo-len"

[[align.recipes]]
strategy = "npo-len"
preset = "toy"
settings = {{ steps = {steps}, save_every = 4 }}

[[align.recipes]]
strategy = "resta"
preset = "toy"
settings = {{ steps = 4 }}
coefficients = [0.1]
"""


def write(folder: Path, toy: Path, name: str, *, rounds: int = 1, steps: int = 12) -> Path:
    file = folder / f"{name}.toml"
    file.write_text(CONFIG.format(toy=toy, folder=name, rounds=rounds, steps=steps))
    return file


def table(document: Any) -> Any:
    """The document without what depends on the machine, and without names that hold a digest of a folder's name."""
    stages = [stage["stage"] for stage in document["stages"]]
    models = [
        {**model, "results": [{**result, "model": ""} for result in model["results"]]} for model in document["models"]
    ]
    words = {
        name: [cell["verdict"] for comparison in comparisons for cell in comparison["results"]]
        for name, comparisons in document["comparisons"].items()
    }
    return models, words, stages


STAGES = (
    "1-base-forbidden", "1-collect", "1-data", "1-align-npo-len", "1-npo-len-forbidden", "1-align-resta",
    "1-resta-forbidden", "1-resta-benign", "1-resta-utility",
)  # fmt: skip


def test_killed_in_every_stage_the_same_command_ends_with_the_same_table(tmp_path: Path, toy: Path) -> None:
    whole = run("loop", write(tmp_path, toy, "whole"), "--json", timeout=400)
    assert whole.code == 0, whole.err
    config = write(tmp_path, toy, "killed")
    folder = tmp_path / "killed"
    met = set()
    for stage in STAGES:
        process = start("loop", config, "--json")
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            begun = any(path.name.lstrip(".").startswith(f"{stage}-") for path in folder.glob("*"))
            begun |= any(path.name.lstrip(".").startswith(f"{stage}-") for path in folder.glob(".*"))
            if begun and not list(folder.glob(f"stages/{stage}-*.json")):
                met.add(stage)
                break
            if list(folder.glob(f"stages/{stage}-*.json")):
                break  # too quick to be met
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(met) >= 5, met
    done = run("loop", config, "--json", timeout=400)
    assert done.code == 0, done.err
    assert table(json.loads(done.out)) == table(json.loads(whole.out))
    assert not [path for path in folder.rglob("*") if "unsafe" in path.name]
    again = run("loop", config, "--json", timeout=400)
    assert all(stage["skipped"] for stage in json.loads(again.out)["stages"])
    shown = run("loop", config, timeout=400)
    assert shown.code == 0
    assert "What it took" in shown.out
    assert "skipped" in shown.out


def test_a_second_round_begins_with_the_aligned_model_and_the_data_of_both(tmp_path: Path, toy: Path) -> None:
    done = run("loop", write(tmp_path, toy, "two", rounds=2, steps=6), "--json", timeout=500)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [(model["round"], model["model"], model["made_from"]) for model in document["models"]] == [
        (1, "base", None),
        (1, "npo-len", "base"),
        (1, "resta", "base"),
        (2, "npo-len", "1-npo-len"),
        (2, "resta", "1-npo-len"),
    ]
    assert {"2-npo-len", "2-resta"} <= document["comparisons"].keys()
    assert len(list((tmp_path / "two").glob("?-data-*"))) == 2


def test_a_loop_goes_on_without_a_recipe_whose_training_fails_and_tries_it_again(tmp_path: Path, toy: Path) -> None:
    config = write(tmp_path, toy, "wild", steps=3)
    text, wild = config.read_text(), "steps = 4, learning_rate = 1e30, clip = 1e30"
    config.write_text(text.replace("steps = 4", wild))
    found = []
    for _ in range(2):
        done = run("loop", config, "--json", timeout=400)
        assert done.code == 0, done.err
        found.append(json.loads(done.out))
    for document in found:
        assert "is not finite" in document["stopped"]["1-resta"]
        assert {model["model"] for model in document["models"]} == {"base", "npo-len"}
    assert [stage["skipped"] for stage in found[1]["stages"]] == [True] * len(found[0]["stages"])
