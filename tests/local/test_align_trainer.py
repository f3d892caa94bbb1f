"""The trainer: one loss however the step is cut, packed or not, on one process or two; states; the front."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from redinstruct.alignment import PRESETS, with_settings
from redinstruct.checkpoints import digest
from redinstruct.errors import RedInstructError, UsageError
from redinstruct.safealign import AlignConfig, Lora, Settings, StepFigures, align
from redinstruct.safealign.card import read_card
from redinstruct.safealign.front import Candidate, best, candidate, front
from redinstruct.safealign.launch import check_engaged, check_world
from redinstruct.safealign.losses import STRATEGIES
from redinstruct.safealign.resuming import rate_at
from tests.support import align_data, trajectories

pytestmark = pytest.mark.local

EXACT = 1e-6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=24)


def settings(**given: Any) -> Settings:
    small = {"steps": 3, "batch": 8, "warm_up": 1.0, "save_every": 100, "packing": False, "learning_rate": 1e-3}
    return with_settings("toy", **{**small, **given})


def config(base: Path, data: dict[str, Path], out: Path, strategy: str = "npo-len", **given: Any) -> AlignConfig:
    chosen = {name: given.pop(name) for name in tuple(given) if name in Settings.__struct_fields__}
    return AlignConfig(
        base=base,
        data=(data["blue-red"],),
        general=(data["general"],),
        strategy=strategy,
        out=out,
        settings=settings(**chosen),
        preset="toy",
        threads=1,
        **given,
    )


def history(found: Any) -> list[tuple[float, float]]:
    return [(one.loss, one.grad_norm) for one in found]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_loss_and_the_gradient_are_the_same_however_a_step_is_cut(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    whole = align(config(tiny, data, tmp_path / "a", accumulation=1))
    cut = align(config(tiny, data, tmp_path / "b", accumulation=4))
    packed = align(config(tiny, data, tmp_path / "c", accumulation=2, packing=True))
    for other in (cut, packed):
        for one, another in zip(history(whole.history), history(other.history), strict=True):
            assert one == pytest.approx(another, rel=EXACT * 10, abs=EXACT)
    assert whole.history[0].red is not None
    assert whole.history[0].red_above is not None


def test_what_comes_out_is_an_ordinary_checkpoint_with_its_card(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "aligned"
    done = align(config(tiny, data, out, "blue"))
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    base = weights(tiny)
    assert any(not torch.equal(base[name], tensor) for name, tensor in weights(out).items())
    assert (out / "config.json").read_bytes() == (tiny / "config.json").read_bytes()
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny).chat_template
    assert model.config.vocab_size == len(tokenizer)
    card = read_card(out)
    assert card is not None
    assert card.strategy == "blue"
    assert card.rows == {"blue": 24, "general": 24, "red": 24}
    assert card.settings["steps"] == 3
    assert [name for name, _ in card.files] == ["blue-red.jsonl", "general.jsonl"]
    assert card.base.startswith("tiny@")
    text = (out / "README.md").read_text()
    assert "24" in text
    assert str(tmp_path) not in text + (out / "align.json").read_text()
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [one.step for one in done.history] == [1, 2, 3]
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"
    assert not list(out.glob("*.bin")), "no pickle"


@pytest.mark.slow
def test_a_head_that_is_the_embedding_is_written_once_in_the_wished_precision(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(tiny, half)
    save_file({name: tensor.bfloat16() for name, tensor in weights(tiny).items()}, half / "model.safetensors")
    for name, lora in (("full", None), ("adapter", Lora(rank=2))):
        out = align(config(half, data, tmp_path / name, "blue", steps=1, lora=lora, dtype="bfloat16")).checkpoint
        assert weights(out).keys() == weights(half).keys()
        assert {tensor.dtype for tensor in weights(out).values()} == {torch.bfloat16}


@pytest.mark.slow
def test_the_same_alignment_again_is_there_already_and_another_replaces_it(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "aligned"
    first = align(config(tiny, data, out, "blue", steps=1))
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = align(config(tiny, data, out, "blue", steps=1))
    assert again.history == ()
    assert again.figures == msgspec.to_builtins(first.figures)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    align(config(tiny, data, out, "general", steps=1))
    card = read_card(out)
    assert card is not None
    assert card.strategy == "general"


@pytest.mark.slow
def test_an_adapter_learns_is_merged_and_starts_as_the_base(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    out = tmp_path / "aligned"
    full = align(config(tiny, data, tmp_path / "full", steps=2))
    done = align(config(tiny, data, out, steps=2, lora=Lora(rank=4, alpha=8)))
    # Its second matrix starts as zero: before the first step the model is the base.
    assert done.history[0].loss == pytest.approx(full.history[0].loss, rel=1e-5)
    assert done.history[1].loss < done.history[0].loss
    base, merged = weights(tiny), weights(out)
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed
    assert all("proj" in name for name in changed), "norms, embeddings and head are the base's"
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a = adapter[f"base_model.model.{name}.lora_A.weight"]
    b = adapter[f"base_model.model.{name}.lora_B.weight"]
    assert torch.allclose(merged[f"{name}.weight"], base[f"{name}.weight"] + 2 * b @ a, atol=1e-6)
    assert str(tmp_path) not in (out / "adapter" / "adapter_config.json").read_text()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_warms_up_and_ends_at_its_share(schedule: Any) -> None:
    chosen = with_settings("toy", schedule=schedule, warm_up=4.0, final_rate_share=0.1)
    rates = [rate_at(chosen, step, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert rate_at(chosen, 20, 20) == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_starling_is_the_released_run() -> None:
    """The README of the authors' training code: 2 x 8 x 4 rows, 3 epochs, 1e-5, cosine, 1e-4, no decay, 1280 tokens."""
    found = PRESETS["starling"]
    assert (found.batch, found.epochs, found.learning_rate, found.schedule) == (64, 3.0, 1e-5, "cosine")
    assert (found.warm_up, found.weight_decay, found.clip, found.max_length) == (1e-4, 0.0, 1.0, 1280)


# ---- several processes ----


def test_a_launch_that_is_not_what_was_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_world(None, fsdp=False)
    with pytest.raises(UsageError, match="torchrun --nproc-per-node 2"):
        check_world(2, fsdp=False)
    with pytest.raises(UsageError, match="needs GPUs"):
        check_world(None, fsdp=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(UsageError, match="--fsdp needs several processes: torchrun"):
            check_world(None, fsdp=True)
    plain = torch.nn.Linear(2, 2)
    check_engaged(plain, 1, fsdp=False)
    with pytest.raises(RedInstructError, match="wrapped in Linear"):
        check_engaged(plain, 2, fsdp=False)
    with pytest.raises(RedInstructError, match="FSDP2 was asked for"):
        check_engaged(plain, 1, fsdp=True)


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``torchrun ... -m redinstruct ...``, with one thread a process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1",
        f"--master-port={port}", "--no-python", sys.executable, "-m", "redinstruct", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--base", tiny, "--data", data["blue-red"], "--general", data["general"], "--strategy", "npo-len",
             "--preset", "toy", "--steps", 4, "--batch", 8, "--threads", 1]  # fmt: skip
    two = torchrun(2, "align", *flags, "--processes", 2, "--out", tmp_path / "two")
    assert two.returncode == 0, two.stderr
    one = torchrun(1, "align", *flags, "--accumulation", 2, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    found = [
        [json.loads(line) for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for single, double in zip(*found, strict=True):
        for key in ("loss", "grad_norm", "blue", "general", "red", "red_first", "red_above"):
            assert single[key] == pytest.approx(double[key], rel=EXACT * 10, abs=EXACT), key
    for name, tensor in weights(tmp_path / "one").items():
        assert torch.allclose(tensor, weights(tmp_path / "two")[name], atol=1e-5), name
    card = read_card(tmp_path / "two")
    assert card is not None
    assert card.processes == 2
    refused = torchrun(2, "align", *flags, "--processes", 3, "--out", tmp_path / "three")
    assert refused.returncode != 0
    assert "2 were started" in refused.stderr


# ---- which checkpoint ----


@pytest.mark.slow
def test_the_safest_checkpoint_that_is_still_of_use_is_kept(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    answers = {0: (0.1, 0.9), 2: (0.5, 0.9), 4: (0.8, 0.89), 5: (1.0, 0.2)}
    asked: list[int] = []

    def on_evaluate(folder: Path, step: int) -> dict[str, float]:
        assert (folder / "model.safetensors").is_file()
        asked.append(step)
        safety, utility = answers[step]
        return {"safety": safety, "utility": utility}

    run = config(tiny, data, tmp_path / "out", "blue", steps=5, evaluate_every=2)
    done = align(run, on_evaluate=on_evaluate)
    assert asked == [0, 2, 4, 5]
    assert done.figures["chosen step"] == 4
    assert list(done.figures["front"]) == ["step 2", "step 4", "step 5"]
    shorter = align(
        msgspec.structs.replace(run, settings=settings(steps=5, save_every=4), out=tmp_path / "b"),
        should_stop=None,
    )
    assert shorter.history[3].loss == done.history[3].loss
    four = weights(tmp_path / "out")
    last = weights(tmp_path / "b")
    assert any(not torch.equal(four[name], last[name]) for name in four), "step 4 was kept, not the last"


@pytest.mark.slow
def test_what_is_kept_is_what_was_measured_also_when_the_measure_says_something_else_the_second_time(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Steps 2 and 4 are measured, step 3 is saved: what follows is trained, and could be measured, a second time."""
    said = iter([0.1, 0.5, 0.9, 0.2, 0.3, 0.3])
    seen: dict[int, str] = {}

    def on_evaluate(folder: Path, step: int) -> dict[str, float]:
        seen[step] = digest(folder)
        return {"safety": next(said), "utility": 1.0}

    def killed(figures: StepFigures) -> None:
        if figures.step == 5:
            raise KeyboardInterrupt

    run = config(tiny, data, tmp_path / "out", "blue", steps=6, evaluate_every=2, save_every=3)
    with pytest.raises(KeyboardInterrupt):
        align(run, killed, on_evaluate)
    done = align(run, on_evaluate=on_evaluate)
    assert list(seen) == [0, 2, 4, 6]
    chosen = done.figures["chosen step"]
    safety = {int(name.split()[1]): figures["safety"] or 0 for name, figures in done.figures["front"].items()}
    assert safety[chosen] == max(safety.values()) == 0.9
    assert digest(tmp_path / "out") == seen[chosen], "the weights of the step that the card names"


def test_the_front_and_the_choice() -> None:
    base = Candidate(0, {"safety": 0.1, "utility": 0.9})
    found = [Candidate(1, {"safety": 0.4, "utility": 0.9}), Candidate(2, {"safety": 0.4, "utility": 0.85}),
             Candidate(3, {"safety": 0.9, "utility": 0.5})]  # fmt: skip
    assert [one.step for one in front(found)] == [1, 3]
    assert best(base, found, 0.02) == found[0]
    assert best(base, found, 0.5) == found[2]
    assert best(base, [found[2]], 0.02) is None
    with pytest.raises(UsageError, match="finite 'utility'"):
        candidate(1, {"safety": 1.0, "utility": float("nan")})


def test_a_steps_figures_are_what_the_design_asks_for() -> None:
    wanted = {"blue", "general", "red", "red_first", "red_above", "loss", "grad_norm", "red_off"}
    assert wanted <= set(StepFigures.__struct_fields__)


# ---- what training did when it was written ----


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trajectories.base(tmp_path_factory.mktemp("started"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_fifty_steps_go_as_they_went(strategy: str, started: Path, tmp_path: Path) -> None:
    """Within 1e-3 of each value: other processors sum in another order, and 50 steps carry that on."""
    expected = msgspec.json.decode(trajectories.FILE.read_bytes(), type=dict[str, trajectories.Trajectory])
    assert expected.keys() == STRATEGIES.keys()
    data = align_data.write_all(tmp_path / "data", count=60)
    found = trajectories.trajectory(strategy, started, data, tmp_path / "out")
    for figure, values in expected[strategy].items():
        assert found[figure] == pytest.approx(values, rel=1e-3, abs=1e-3), figure


# ---- the frozen base ----


def test_the_bases_log_probabilities_are_computed_once_and_kept_by_content(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from redinstruct.safealign.exports import load_model
    from redinstruct.safealign.forward import add_labelled_forward
    from redinstruct.safealign.prepare import prepare
    from redinstruct.safealign.reference import reference_logps

    rows = prepare(config(tiny, data, tmp_path / "out").resolved()).encoded.of("red")
    model = load_model(tiny)
    add_labelled_forward(model)
    kept = tmp_path / "reference.safetensors"
    first = reference_logps(model, rows, pad_id=0, kept=kept, computing=nullcontext)
    with torch.no_grad():
        ids = torch.tensor([rows[3].input_ids])
        plain = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    wanted = torch.tensor(rows[3].weights)[1:] != 0
    assert torch.allclose(first[3][1:][wanted], plain[wanted], atol=1e-5)
    assert not first[3][1:][~wanted].any()

    def fails(**_: Any) -> None:
        raise AssertionError("the model was asked again")

    model.forward = fails
    again = reference_logps(model, rows, pad_id=0, kept=kept, computing=nullcontext)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    kept.write_bytes(kept.read_bytes()[:50])
    with pytest.raises(AssertionError, match="asked again"):
        reference_logps(model, rows, pad_id=0, kept=kept, computing=nullcontext)


@pytest.mark.parametrize("strategy", ["blue", "npo-len"])
def test_kl_to_the_base_keeps_harmless_answers_as_likely_as_they_were(
    strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    moved = {}
    for weight in (0.0, 100.0):
        made = config(tiny, data, tmp_path / f"{strategy}-{weight:g}", strategy, steps=8, deep_prefix=0.5,
                      parameters={"kl_weight": weight})  # fmt: skip
        losses = [one.general for one in align(made).history]
        assert losses[0] is not None
        assert losses[-1] is not None
        moved[weight] = abs(losses[-1] - losses[0])
    first = read_card(tmp_path / f"{strategy}-100")
    assert first is not None
    assert moved[100.0] < 0.5 * moved[0.0]


def test_a_refusal_begins_after_at_most_so_many_words_of_an_answer(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from redinstruct.safealign.prepare import prepare

    depths = {}
    for most in (1, 3, 100):
        chosen = config(tiny, data, tmp_path / "never", steps=40, deep_prefix=1.0, deep_prefix_tokens=most)
        steps = prepare(chosen.resolved()).data()
        depths[most] = {row.prefixed for step in range(40) for row in steps.of_step(step)[0].values()}
        assert steps.longest >= max(len(row) for step in range(40) for row in steps.of_step(step)[0].values())
    assert depths[1] == {0, 1}
    assert depths[3] == {0, 1, 2, 3}
    assert max(depths[100]) > 3


def test_the_picture_shows_a_refusal_after_as_many_words_as_are_trained_on(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from redinstruct.safealign.prepare import pictures

    def tokens(most: int) -> int:
        shown, _ = pictures(config(tiny, data, tmp_path / "never", deep_prefix=1.0, deep_prefix_tokens=most))
        return len(shown[-1].tokens)

    assert tokens(1) < tokens(3) < tokens(100)
