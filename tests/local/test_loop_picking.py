"""``pick_every`` and ``coefficients`` from a TOML file: which checkpoint of a training is kept, also after a kill."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from redinstruct import world
from redinstruct.checkpoints import digest
from redinstruct.errors import UsageError
from redinstruct.rounds import carry_out, read_config
from tests.support import align_data
from tests.support.cli import run, start

pytestmark = [pytest.mark.local, pytest.mark.slow]

EVAL = """
name = "{name}"
banks = ["{bank}"]
prompts = ["{prompt}"]
measure = "{measure}"
judge = "exact"
limit = {limit}
max_tokens = {tokens}
temperature = 0.0
"""
CONFIG = """
model = "hf/{model}"
folder = "{folder}"

[[eval]]
{measured}

[align]
data = ["{data}"]
general = ["{general}"]
seed = {seed}

[[align.recipes]]
{recipe}

[align.pick]
margin = {margin}

[align.pick.safety]
{safety}

[align.pick.utility]
{utility}
"""
STEPS, EVERY, SAVED = 12, 4, 5
"""Saved out of step with the choosing: what is measured at step 8 was last saved at step 5."""
TRAINED = f"""strategy = "npo-len"
preset = "toy"
pick_every = {EVERY}
settings = {{ steps = {STEPS}, save_every = {SAVED}, batch = 16, warm_up = 2.0, learning_rate = 1e-3 }}
"""
BROKEN = TRAINED.replace("npo-len", "unbounded").replace("1e-3", "1.6e-3") + "guard = false\n"
"""Ascent without a bound: soon as safe as can be; of how much use after each step is another matter on another CPU."""


def part(
    name: str, bank: Path, measure: str = "attack_success", *, prompt: str = "cou", limit: int = 20, tokens: int = 64
) -> str:
    return EVAL.format(name=name, bank=bank, prompt=prompt, measure=measure, limit=limit, tokens=tokens)


def write(folder: Path, model: Path, banks: Path, data: dict[str, Path], name: str = "loop", **given: Any) -> Path:
    """A loop's file: no collection, one recipe, and the choice on dev questions."""
    asked = {key: given.pop(key) for key in ("prompt", "limit", "tokens") if key in given}
    filled = {
        "model": model, "folder": name, "data": data["blue-red"], "general": data["general"], "seed": 0,
        "margin": 0.9, "recipe": TRAINED,
        "measured": part("forbidden", banks / "forbidden-test.json", **asked),
        "safety": part("safety", banks / "forbidden-dev.json", **asked),
        "utility": part("utility", banks / "benign-dev.json", "over_refusal", **asked),
    }  # fmt: skip
    file = folder / f"{name}.toml"
    file.write_text(CONFIG.format(**{**filled, **given}))
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=60)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions of each kind, for a model that only babbles."""
    folder = tmp_path_factory.mktemp("banks")
    for split in ("dev", "test"):
        for name, pairs in (
            ("forbidden", world.world().pairs("forbidden", split)),
            ("benign", world.world().pairs("plain", split)),
        ):
            (folder / f"{name}-{split}.json").write_text(json.dumps([world.how_to(pair, 0).text for pair in pairs[:4]]))
    return folder


def outcome(document: Any) -> Any:
    """A loop's document without its clock; the model's shown name holds a digest that is its folder's own."""
    models = [{**m, "results": [{**result, "model": ""} for result in m["results"]]} for m in document["models"]]
    return models, document["stopped"], [stage["stage"] for stage in document["stages"]]


def picks(folder: Path) -> list[Path]:
    """The runs in which candidates were measured."""
    return sorted(path.parent for path in folder.glob("1-pick-*/*/run.sqlite"))


def test_the_safest_checkpoint_of_use_is_kept_and_a_kill_while_choosing_changes_nothing(
    tmp_path: Path, toy: Path, data: dict[str, Path]
) -> None:
    given: dict[str, Any] = {"recipe": BROKEN, "margin": 0.3, "prompt": "cot"}
    whole = run("loop", write(tmp_path, toy, toy / "banks", data, "whole", **given), "--json", timeout=400)
    assert whole.code == 0, whole.err
    _, aligned = whole.json["models"]
    said = aligned["figures"]["figures"]
    measured = {0, *range(EVERY, STEPS + 1, EVERY)}
    assert {int(run.name.split("-")[1]) for run in picks(tmp_path / "whole")} == measured
    useful = {int(name.split()[1]): (figures["safety"], figures["utility"]) for name, figures in
              said["candidates"].items() if figures["utility"] >= said["base"]["utility"] - 0.3}  # fmt: skip
    assert said["chosen step"] == max(useful, key=lambda step: (*useful[step], step))
    assert useful[said["chosen step"]][0] > said["base"]["safety"]
    assert aligned["results"][0]["rate"]["all"]["estimate"] < 0.5, "what the table shows is the chosen one"

    # Killed while the second candidate is asked, and again while the third one is.
    config, folder = write(tmp_path, toy, toy / "banks", data, "killed", **given), tmp_path / "killed"
    for step in (8, 12):
        process = start("loop", config, "--json")
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if list(folder.glob(f"1-pick-*/step-{step}-*")):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert list(folder.glob(f"1-pick-*/step-{step}-*"))
        assert not list(folder.glob("stages/1-align-*"))
    done = run("loop", config, "--json", timeout=400)
    assert done.code == 0, done.err
    assert outcome(done.json) == outcome(whole.json)
    kept = [digest(next((tmp_path / name).glob("1-align-*"))) for name in ("whole", "killed")]
    assert kept[0] == kept[1]
    assert len(picks(folder)) == 2 * len(measured), "each candidate was measured once"
    again = run("loop", config, timeout=400)
    assert again.code == 0
    (line,) = (line for line in again.out.splitlines() if f"step {said['chosen step']} of {STEPS}" in line)
    base, chosen = said["base"], said["candidates"][f"step {said['chosen step']}"]
    for figure in ("safety", "utility"):
        assert f"{base[figure]:.1%} to {chosen[figure]:.1%}" in line
    assert "1-align-unbounded" in again.out


def test_what_is_kept_are_the_weights_that_were_measured(
    tmp_path: Path, tiny: Path, banks: Path, data: dict[str, Path]
) -> None:
    # A model that babbles is as safe as can be and of no use at all: every candidate is as good, so the last is kept.
    result = carry_out(read_config(write(tmp_path, tiny, banks, data, prompt="standard", tokens=8)))
    _, aligned = result.models
    assert aligned.figures["figures"]["chosen step"] == STEPS
    assert aligned.model == f"hf/{next(tmp_path.glob('loop/1-align-*'))}"


CHANGES: dict[str, dict[str, Any]] = {
    "another seed": {"seed": 1},
    "another bank": {"limit": 3},
    "another prompt": {"prompt": "cot"},
    "another way of training": {"recipe": TRAINED.replace("batch = 16", "batch = 12")},
    "another margin": {"margin": 0.5},
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_another_configuration_is_measured_anew_and_writes_over_nothing(
    name: str, tmp_path: Path, tiny: Path, banks: Path, data: dict[str, Path]
) -> None:
    plain: dict[str, Any] = {"prompt": "standard", "tokens": 8}
    first = carry_out(read_config(write(tmp_path, tiny, banks, data, **plain)))
    before = {path: digest(path) for path in tmp_path.glob("loop/1-align-*")}
    runs = set(picks(tmp_path / "loop"))
    carry_out(read_config(write(tmp_path, tiny, banks, data, **{**plain, **CHANGES[name]})))
    assert len(list(tmp_path.glob("loop/1-align-*"))) == 2
    assert runs <= set(picks(tmp_path / "loop"))
    assert {path: digest(path) for path in before} == before
    again = carry_out(read_config(write(tmp_path, tiny, banks, data, **plain)))
    assert all(stage.skipped for stage in again.stages)
    assert again.models == first.models


RESTA = """strategy = "resta"
preset = "toy"
settings = {{ steps = 3, batch = 4, learning_rate = 1e-2 }}
coefficients = {coefficients}
"""


def test_another_coefficient_is_another_model(tmp_path: Path, tiny: Path, banks: Path, data: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    name = "model.layers.0.mlp.up_proj.weight"
    base = load_file(tiny / "model.safetensors")[name]
    moved = {}
    for coefficients in ([0.1], [0.4], [0.1, 0.4], [0.4, 0.1]):
        recipe = RESTA.format(coefficients=coefficients)
        given: dict[str, Any] = {"recipe": recipe, "prompt": "standard", "tokens": 8}
        result = carry_out(read_config(write(tmp_path, tiny, banks, data, **given)))
        aligned = result.models[1]
        kept = aligned.figures.get("coefficient", coefficients[0])
        found = load_file(Path(aligned.model.removeprefix("hf/")) / "model.safetensors")[name] - base
        moved[tuple(coefficients)] = (found / kept).norm().item()
    first, *others = moved.values()
    assert first > 0
    assert others == pytest.approx([first] * 3, rel=1e-3), "base + coefficient * vector, whichever stood first"


def test_a_judge_that_failed_its_self_test_chooses_only_where_that_is_forced(
    tmp_path: Path, tiny: Path, banks: Path, data: dict[str, Path]
) -> None:
    unfit = part("safety", banks / "forbidden-dev.json", prompt="standard", tokens=8).replace(
        'judge = "exact"', 'judge = "rubric"\njudge_model = "scripted/comply"'
    )
    config = read_config(write(tmp_path, tiny, banks, data, safety=unfit, prompt="standard", tokens=8))
    with pytest.raises(UsageError, match="self-test"):
        carry_out(config)
    assert carry_out(config, force=True).models[1].figures["figures"]["chosen step"] == STEPS
