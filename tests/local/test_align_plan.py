"""``align --plan``: what it takes is known before anything is loaded; and where memory runs out, the run goes on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from redinstruct.errors import RedInstructError, UsageError
from redinstruct.safealign import (
    AlignConfig,
    Lora,
    align,
    align_in_processes,
    machine_of,
    plan_alignment,
    with_settings,
)
from redinstruct.safealign.plan import GB, MemoryPlan
from redinstruct.safealign.trainer import AlignTrainer
from tests.support import align_data
from tests.support.cli import ROOT, InProcess, nothing_written

pytestmark = pytest.mark.local

KEYS = {"schema", "fits", "gpu_gb", "host_gb", "gpus", "micro_batch", "accumulation", "checkpointing", "dtype",
        "sharding", "steps", "why"}  # fmt: skip
SEVEN_BILLION = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=12)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the configuration of a Llama of seven billion parameters."""
    folder = tmp_path_factory.mktemp("seven")
    (folder / "config.json").write_text(json.dumps(SEVEN_BILLION))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of four layers as wide: a billion."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "config.json").write_text(json.dumps({**SEVEN_BILLION, "num_hidden_layers": 4}))
    return folder


def config(base: Path, data: dict[str, Path], out: Path, strategy: str = "blue", **given: Any) -> AlignConfig:
    chosen = {"steps": 2, "batch": 8, **given.pop("settings", {})}
    return AlignConfig(
        base=base, data=(data["blue-red"],), general=(data["general"],), strategy=strategy, out=out, threads=1,
        preset="toy", settings=with_settings("toy", **{"packing": False, "learning_rate": 1e-3, **chosen}),
        **given,
    )  # fmt: skip


# ---- the plan ----


@pytest.mark.slow
def test_a_configuration_alone_is_planned_and_nothing_is_written(
    cli: InProcess, seven: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ("align", "--base", seven, "--data", data["blue"], "--general", data["general"], "--strategy", "blue",
             "--preset", "starling", "--out", tmp_path / "out", "--plan", "--memory", 80, "--json")  # fmt: skip
    with nothing_written(tmp_path):
        full = cli(*flags)
        lora = cli(*flags, "--lora", 16)
        sharded = cli(*flags, "--gpus", 8)
    assert (full.code, lora.code, sharded.code) == (11, 0, 0), full.err + lora.err + sharded.err
    one, adapter, eight = (json.loads(done.out) for done in (full, lora, sharded))
    assert all(found["schema"] == "redinstruct.plan/1" and found.keys() >= KEYS for found in (one, adapter, eight))
    # 16 bytes a weight: 6.74 billion of them in float32 with gradients and Adam's two averages.
    assert not one["fits"]
    assert one["gpu_gb"] > 16 * 6.738
    assert "--lora" in one["why"]
    assert adapter["dtype"] == "bfloat16"
    assert 2 * 6.738 < adapter["gpu_gb"] <= 80
    assert (eight["sharding"], eight["gpus"], eight["dtype"]) == ("fsdp", 8, "float32")
    assert eight["gpu_gb"] <= 80
    assert eight["micro_batch"] * eight["accumulation"] * 8 >= 64
    assert all(found["steps"] > 0 for found in (one, adapter, eight))


def test_a_plan_needs_neither_data_nor_out(cli: InProcess, one: Path) -> None:
    done = cli("align", "--base", one, "--plan", "--memory", 6, "--lora", 8, "--quantize", 4, "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert (found["dtype"], found["steps"]) == ("4bit", None)
    assert found["gpu_gb"] < 6
    said = cli("align", "--base", one, "--plan", "--memory", 6)
    assert said.code == 11
    assert "does not fit" in said.out
    missing = cli("align", "--base", one)
    assert missing.code == 2
    assert "--data" in missing.err


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "config.json"), ("{", "JSON"), ('{"model_type": "magic"}', "magic"), ('{"auto_map": {"A": "x.Y"}}', ""),
     ('{"model_type": "llama", "hidden_size": "big"}', "hidden_size"),
     ('{"model_type": "llama", "num_attention_heads": 0}', "modulo by zero"),
     ('{"model_type": "llama", "vocab_size": 10, "pad_token_id": 11}', "num_embeddings")],
)  # fmt: skip
def test_what_can_not_be_planned_is_refused(cli: InProcess, tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    done = cli("align", "--base", tmp_path, "--plan", "--memory", 80, "--json")
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert why in done.err
    assert done.out == ""


def test_less_memory_means_smaller_parts_then_checkpointing_then_no(
    one: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    asked = config(one, data, tmp_path / "out", lora=Lora(rank=16), settings={"batch": 64, "max_length": 1024})
    found: dict[float, MemoryPlan] = {gb: plan_alignment(asked, machine_of(gb)) for gb in (80, 8, 5, 3.8, 2)}
    assert found[80].micro_batch > found[8].micro_batch >= found[5].micro_batch >= 1
    assert [found[gb].checkpointing for gb in (80, 3.8)] == [False, True]
    assert [made.fits for made in found.values()] == [True, True, True, True, False]
    for gb, made in found.items():
        assert not made.fits or made.gpu_gb <= gb


def test_what_is_asked_for_is_kept(one: Path, data: dict[str, Path], tmp_path: Path) -> None:
    def planned(**given: Any) -> MemoryPlan:
        return plan_alignment(config(one, data, tmp_path / "out", lora=Lora(rank=8), **given), machine_of(80))

    kept = planned(activation_checkpointing=True, base_dtype="float32", settings={"accumulation": 4})
    assert (kept.checkpointing, kept.dtype, kept.accumulation, kept.micro_batch) == (True, "float32", 4, 2)
    assert planned(quantize=8).parts["weights"] < planned().parts["weights"]
    asked = [config(one, data, tmp_path / "out", settings={"optimizer": name}) for name in ("adamw-8bit", "adamw")]
    small, usual = (plan_alignment(each, machine_of(640)) for each in asked)
    assert small.parts["optimizer"] < usual.parts["optimizer"] / 3


def test_experts_and_unknown_shapes_are_counted_too(data: dict[str, Path], tmp_path: Path) -> None:
    from transformers import MixtralConfig

    MixtralConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=300, num_local_experts=4,
    ).save_pretrained(tmp_path)  # fmt: skip
    for lora in (None, Lora(rank=2)):
        found = plan_alignment(config(tmp_path, data, tmp_path / "out", lora=lora), machine_of(8))
        assert found.fits
        assert found.parts["activations"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gpus"), [("loop-7b.toml", 1), ("loop-7b-8gpus.toml", 8)])
def test_the_examples_fit_where_they_say(seven: Path, name: str, gpus: int) -> None:
    from redinstruct.rounds import read_config
    from redinstruct.rounds.alignment import plans

    config = msgspec.structs.replace(read_config(ROOT / "docs" / "examples" / name), model=f"hf/{seven}")
    found = dict(plans(config))
    assert list(found) == ["blue", "npo-len"]
    assert all(one.fits and one.gpu_gb <= 80 and one.gpus == gpus for one in found.values())


# ---- the run ----


def out_of_memory_above(positions: int, seen: list[int]) -> Callable[..., Any]:
    usual = AlignTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        seen.append(inputs["input_ids"].numel())
        loss = usual(self, model, inputs, *rest, **named)
        if seen[-1] > positions:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return loss

    return compute_loss


def test_out_of_memory_halves_the_micro_batch_and_the_steps_stay_the_same(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = align(config(tiny, data, tmp_path / "a", "npo-len", settings={"accumulation": 1}))
    seen: list[int] = []
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(AlignTrainer, "compute_loss", out_of_memory_above(600, seen))
        cut = align(config(tiny, data, tmp_path / "b", "npo-len", settings={"accumulation": 1}), say=said.append)
    assert max(seen) > 600 >= max(seen[-4:])
    assert any("out of memory: going on" in line for line in said)
    ended = cut.figures["memory"]["out of memory, ended with"]
    assert isinstance(ended, int)
    assert ended <= 600
    for one, other in zip(whole.history, cut.history, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-6, abs=1e-6)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5, abs=1e-6)


def test_where_one_row_does_not_fit_a_single_line_says_what_to_do(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AlignTrainer, "compute_loss", out_of_memory_above(0, []))
    flags = ("align", "--base", tiny, "--data", data["blue"], "--strategy", "blue", "--preset", "toy", "--steps", 2,
             "--batch", 4, "--threads", 1, "--out", tmp_path / "out")  # fmt: skip
    done = cli(*flags)
    assert done.code == 1
    last = done.err.strip().splitlines()[-1]
    assert "out of memory at step 1, with one row" in last
    assert "--plan" in last
    assert "internal error" not in done.err
    assert not list(tmp_path.glob("*out*"))


def test_out_of_memory_outside_a_step_is_one_line_too(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    run: Any = importlib.import_module("redinstruct.safealign.training")
    monkeypatch.setattr(run, "load_model", fails)
    with pytest.raises(RedInstructError, match="out of memory outside a step"):
        align(config(tiny, data, tmp_path / "out"))


def test_the_run_is_cut_as_the_plan_says_and_tells_so(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ("align", "--base", tiny, "--data", data["blue"], "--general", data["general"], "--strategy", "blue",
             "--preset", "toy", "--steps", 1, "--batch", 16, "--threads", 1)  # fmt: skip
    planned = json.loads(cli(*flags, "--plan", "--json").out)
    assert planned["gpus"] == 0
    assert planned["host_gb"] * GB < 2 * GB
    done = cli(*flags, "--out", tmp_path / "out", "--json")
    memory = json.loads(done.out)["memory"]
    assert {name: planned[name] for name in memory} == memory
    assert "micro-batches of" in done.err


@pytest.mark.slow
def test_a_base_in_bfloat16_under_an_adapter_learns_what_one_in_float32_learns(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    found = [
        align(config(tiny, data, tmp_path / str(dtype), "npo-len", lora=Lora(rank=4), base_dtype=dtype)).history
        for dtype in ("float32", "bfloat16")
    ]
    for one, other in zip(*found, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.03)


@pytest.mark.slow
def test_two_processes_that_a_program_starts_make_the_steps_of_one_with_the_reference_shared_out(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """As a loop's recipe with ``memory.processes``. What the reference is shows in the losses that compare with it."""
    asked = config(tiny, data, tmp_path / "one", "npo-len", settings={"steps": 3})
    two = msgspec.structs.replace(asked, out=tmp_path / "two")
    told: list[tuple[int, int | None]] = []
    both = align_in_processes(two, 2, lambda state: told.append((state.done, state.total)))
    one = align(asked)
    assert both.figures["memory"]["sharding"] == "ddp"
    for single, double in zip(one.history, both.history, strict=True):
        assert double.loss == pytest.approx(single.loss, rel=1e-5, abs=1e-6)
    with pytest.raises(UsageError, match="expected one of"):
        align_in_processes(msgspec.structs.replace(two, strategy="magic"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_on_a_base_of_few_bits_starts_near_the_base(
    save_tiny: Callable[..., Path], data: dict[str, Path], tmp_path: Path, bits: Any
) -> None:
    pytest.importorskip("bitsandbytes")
    wide = save_tiny("wide", intermediate_size=128)
    usual, few = (
        align(config(wide, data, tmp_path / str(quantize), lora=Lora(rank=4), quantize=quantize))
        for quantize in (None, bits)
    )
    assert few.figures["memory"]["dtype"] == f"{bits}bit"
    assert few.history[0].loss == pytest.approx(usual.history[0].loss, rel=0.15)
    assert few.history[0].loss != usual.history[0].loss
    assert load_file(few.checkpoint / "model.safetensors").keys() == load_file(wide / "model.safetensors").keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit"])
def test_an_optimizer_of_few_bits_goes_on_as_if_it_had_not_been_stopped(
    save_tiny: Callable[..., Path], data: dict[str, Path], tmp_path: Path, optimizer: Any
) -> None:
    pytest.importorskip("bitsandbytes")
    wide = save_tiny("wide", intermediate_size=256)  # tensors of fewer than 4,096 numbers keep their state in float32
    seen: list[int] = []

    def made(out: str, stop_at: int | None = None, **given: Any) -> Path:
        seen.clear()
        asked = config(wide, data, tmp_path / out, settings={"steps": 6, "save_every": 2, **given})
        align(asked, lambda one: seen.append(one.step), should_stop=lambda: len(seen) + 1 == stop_at)
        return asked.out / "model.safetensors"

    whole = load_file(made("whole", optimizer=optimizer))
    with pytest.raises(KeyboardInterrupt):
        made("cut", 3, optimizer=optimizer)
    resumed = load_file(made("cut", optimizer=optimizer))
    assert seen == [4, 5, 6]
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    usual = load_file(made("usual"))
    assert any(not torch.equal(tensor, usual[name]) for name, tensor in whole.items())


def test_a_base_or_an_optimizer_of_few_bits_says_what_is_missing(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(UsageError, match=r"--optimizer adamw-8bit needs bitsandbytes: .*redinstruct\[quantize\]"):
        align(config(tiny, data, tmp_path / "out", settings={"optimizer": "adamw-8bit"}))
    with pytest.raises(UsageError, match=r"needs bitsandbytes: .*pip install .redinstruct\[quantize\]"):
        align(config(tiny, data, tmp_path / "out", lora=Lora(rank=4), quantize=4))
