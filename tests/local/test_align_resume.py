"""A run that was stopped goes on as if it had not been, and whatever goes wrong leaves the last good state."""

from __future__ import annotations

import errno
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from redinstruct.errors import RedInstructError, TrainingFailed, UsageError
from redinstruct.safealign import AlignConfig, GuardRule, GuardStopped, Lora, StepFigures, align, states, with_settings
from tests.support import align_data
from tests.support.cli import run, start, tree

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=24)


def config(base: Path, data: dict[str, Path], out: Path, **given: Any) -> AlignConfig:
    chosen = {"steps": 14, "batch": 6, "save_every": 4, "learning_rate": 1e-3, **given.pop("settings", {})}
    return AlignConfig(
        base=base,
        data=(data["blue-red"],),
        general=(data["general"],),
        strategy=given.pop("strategy", "hinge"),
        out=out,
        preset="toy",
        settings=with_settings("toy", **chosen),
        threads=1,
        **given,
    )


def unfinished(out: Path) -> Path:
    return out.parent / f".{out.name}.unfinished"


class Killed(Exception):
    pass


def killed_at(step: int) -> Any:
    def on_step(figures: StepFigures) -> None:
        if figures.step == step:
            raise Killed

    return on_step


@pytest.mark.parametrize(
    "lora",
    [
        pytest.param(None, id="full"),
        pytest.param(Lora(rank=2, dropout=0.2), id="adapter with dropout", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_step_10_and_resumed_has_the_identical_trajectory(
    lora: Lora | None, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    if lora is not None:
        pytest.importorskip("peft")
    whole = align(config(tiny, data, tmp_path / "whole", lora=lora))
    out = tmp_path / "cut"
    with pytest.raises(Killed):
        align(config(tiny, data, out, lora=lora), killed_at(10))
    assert not out.exists()
    assert [path.name for path in unfinished(out).glob("step-*")] == ["step-0000008"]
    seen: list[int] = []
    resumed = align(config(tiny, data, out, lora=lora), lambda figures: seen.append(figures.step))
    assert seen == list(range(9, 15)), "it went on, and did not begin again"
    assert resumed.history == whole.history, "bit for bit"
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not unfinished(out).exists()


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_ends_its_step_saves_it_and_goes_on_later(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out, steps = tmp_path / "out", []
    whole = align(config(tiny, data, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        align(config(tiny, data, out), lambda f: steps.append(f.step), should_stop=lambda: len(steps) >= 5)
    assert [path.name for path in unfinished(out).glob("step-*")] == ["step-0000006"]
    assert align(config(tiny, data, out)).history == whole.history


@pytest.mark.slow
def test_another_configuration_does_not_take_an_unfinished_run_for_its_own(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        align(config(tiny, data, out), killed_at(5))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="unfinished alignment with other flags"):
        align(config(tiny, data, out, seed=1))
    assert tree(tmp_path) == before
    align(config(tiny, data, out, settings={"save_every": 100}))  # how often it is saved is no part of it


@pytest.mark.slow
def test_one_run_at_a_time_makes_a_checkpoint(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    asked = config(tiny, data, tmp_path / "out", settings={"save_every": 2})
    refused = []

    def meanwhile(figures: StepFigures) -> None:
        if figures.step == 5:
            before = tree(unfinished(asked.out))
            for other in (asked, config(tiny, data, tmp_path / "out", seed=7)):
                with pytest.raises(RedInstructError, match="in use by another redinstruct process") as caught:
                    align(other)
                refused.append(str(caught.value))
            assert tree(unfinished(asked.out)) == before

    assert len(align(asked, meanwhile).history) == 14
    assert len(refused) == 2


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_state_and_the_checkpoint_that_was_there(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = align(config(tiny, data, tmp_path / "whole"))
    align(config(tiny, data, out, strategy="blue", settings={"steps": 1}))
    before = tree(out)
    good, calls = states.write, []

    def full(folder: Path, *rest: Any, **named: Any) -> None:
        calls.append(folder)
        if len(calls) == 2:
            (folder / states.WEIGHTS).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        good(folder, *rest, **named)

    monkeypatch.setattr(states, "write", full)
    with pytest.raises(RedInstructError) as caught:
        align(config(tiny, data, out))
    assert str(caught.value) == (
        "the state after 8 steps could not be saved (No space left on device); the state after 4 steps is intact"
    )
    assert [path.name for path in unfinished(out).iterdir() if path.is_dir()] == ["step-0000004"]
    assert tree(out) == before
    assert align(config(tiny, data, out)).history == whole.history


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_very_end_loses_nothing(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("redinstruct.safealign.fidelity.write_checkpoint", full)
        with pytest.raises(RedInstructError, match=r"No space left.*the state after 14 steps is intact"):
            align(config(tiny, data, out))
    assert not out.exists()
    steps: list[int] = []
    done = align(config(tiny, data, out), lambda figures: steps.append(figures.step))
    assert steps == []
    assert len(done.history) == 14
    assert (out / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_state_is_for_its_owner_only_and_no_pickle(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        align(config(tiny, data, out), killed_at(5))
    folder = unfinished(out)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {"", ".json", ".safetensors"}


def test_a_run_without_a_saved_state_leaves_nothing_behind(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        align(config(tiny, data, tmp_path / "out"), killed_at(2))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_move(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wild = config(tiny, data, out, settings={"learning_rate": 1e30, "clip": 1e30, "steps": 14, "warm_up": 1.0})
    with pytest.raises(TrainingFailed, match=r"is not finite at step \d+; .*lower --lr"):
        align(wild)
    assert not out.exists()


@pytest.mark.slow
def test_the_guard_drops_the_red_term_or_stops_the_run(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    sensitive: dict[str, Any] = {"rise": 0.0, "floor": 0.0, "start_steps": 2, "smoothing": 0.0}
    chosen = {"learning_rate": 3e-2, "save_every": 100}
    out = tmp_path / "out"
    with pytest.raises(GuardStopped, match=r"stopped at step \d+ of 14: the general loss rose") as caught:
        align(
            config(tiny, data, out, strategy="unbounded", guard=GuardRule(action="stop", **sensitive), settings=chosen)
        )
    assert 2 < len(caught.value.history) < 14
    assert list(tmp_path.iterdir()) == []
    patient = GuardRule(action="zero", **{**sensitive, "start_steps": 3})
    done = align(config(tiny, data, out, strategy="unbounded", guard=patient, settings=chosen))
    tripped = done.figures["red term dropped at step"]
    assert tripped is not None
    for one in done.history:
        assert (one.red_term == 0.0) == (one.step > tripped)
        assert one.red_off == (one.step >= tripped)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_is_resumed_by_the_same_command(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ["align", "--base", tiny, "--data", data["blue-red"], "--general", data["general"], "--strategy", "npo",
             "--preset", "toy", "--steps", 60, "--batch", 6, "--save-every", 5, "--threads", 1]  # fmt: skip
    whole = run(*flags, "--out", tmp_path / "whole", timeout=900)
    assert whole.code == 0, whole.err
    out = tmp_path / "cut"
    for kill_after, how in (("step-0000010", signal.SIGKILL), ("step-0000020", signal.SIGINT)):
        process = start(*flags, "--out", out)
        deadline = time.monotonic() + 900
        while not list(unfinished(out).glob(f"{kill_after[:-2]}[{kill_after[-2]}-9]*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(how)
        _, err = process.communicate(timeout=900)
        if how == signal.SIGINT:
            assert process.returncode == 130, err
            assert b"the same command goes on where it stopped" in err
        assert not out.exists()
    done = run(*flags, "--out", out, "--json", timeout=900)
    assert done.code == 0, done.err
    first, second = ((folder / "history.jsonl").read_text() for folder in (tmp_path / "whole", out))
    assert first == second
    assert [json.loads(line)["step"] for line in second.splitlines()] == list(range(1, 61))
    assert not list(tmp_path.glob(".*"))
