"""A checkpoint read to be trained, and written as any other program reads it.

Written: the weights as transformers saves them, in one precision, which the configuration names too (a plain load
rounds to what it says there); the tokens that answers were learnt to end with, among those that generation stops at;
every other file of the base as it was (tokenizer, chat template, a toy's prompts). An adapter is merged into the
weights; what it was stands in ``adapter/``.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from redinstruct import checkpoints
from redinstruct.alignment import DTYPES, Lora
from redinstruct.checkpoints import loading
from redinstruct.errors import UsageError, from_extra, how_to_install
from redinstruct.files.atomic import write_file
from redinstruct.safealign.resta import PRECISIONS, header
from redinstruct.safetext import terminal

_FOLDERS = ("prompts", "banks")
"""What a toy checkpoint has beside its weights, and its evaluation needs."""
_LEFT = (".md", ".bin", ".pt", ".pth", ".safetensors", ".lock")
_NOT_THE_BASES = ("align.json", "history.jsonl", "toyworld.json", checkpoints.INDEX, "trainer_state.json")


def check_base(folder: Path, flag: str = "--base") -> str:
    """Pass a safe causal checkpoint; returns how it is named, ``<folder>@<12 hex>``.

    Raises:
        UsageError: it is none, would run code, or holds a bare adapter.
    """
    shown = f"{flag} {terminal(folder.name)}"
    if not folder.is_dir():
        raise UsageError(f"{flag} {terminal(str(folder))}: no such folder; give that of a transformers checkpoint")
    loading.check_folder(folder, shown)
    if (folder / checkpoints.ADAPTER).is_file():
        raise UsageError(
            f"{shown}: an adapter lies beside its weights ({checkpoints.ADAPTER}); merge it into them first (peft's"
            " merge_and_unload), or take it out"
        )
    for path in checkpoints.weight_files(folder, shown):
        try:
            header(path)
        except UsageError as error:
            raise UsageError(f"{shown}: {error}") from None
    return f"{terminal(folder.resolve().name)}@{checkpoints.digest(folder)[:12]}"


def load_model(
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    quantize: int | None = None,
    attention: str | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """The checkpoint in this precision, or with its linear layers in so many bits; on the CPU, or straight on a device.

    Raises:
        UsageError: transformers cannot load it, or a tensor of it is missing or surplus; bitsandbytes is missing.
    """
    torch.manual_seed(seed)
    options = {
        "attn_implementation": attention,
        "quantization_config": None if quantize is None else _quantization(quantize),
        "device_map": None if device is None else {"": device},  # no process holds a second copy on the host
    }
    given = {name: option for name, option in options.items() if option is not None}
    return loading.load_causal(folder, terminal(folder.name), dtype=dtype, **given)


def _quantization(bits: int) -> Any:
    """4 bits as QLoRA has them (Dettmers et al. 2023, arXiv 2305.14314), or 8 (arXiv 2208.07339)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"--quantize {bits} needs bitsandbytes: {how_to_install('quantize')}")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip


def with_adapter(model: PreTrainedModel, lora: Lora) -> Any:
    """The model under a fresh adapter on every linear layer but the head.

    Raises:
        UsageError: peft is missing.
    """
    with from_extra("train", "--lora"):
        from peft import LoraConfig, get_peft_model
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with _quiet_peft():
        return get_peft_model(model, config)


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Quiet about what peft asks of transformers under an old name, and about patterns that it sets itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern", RuntimeWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        yield


def base_dtype(folder: Path) -> torch.dtype:
    """The precision of the checkpoint's files: that of their first floating-point tensor."""
    for path in checkpoints.weight_files(folder, terminal(folder.name)):
        for entry in header(path)[0].values():
            if entry["dtype"] in PRECISIONS:
                return PRECISIONS[entry["dtype"]]
    return torch.float32


def write_checkpoint(
    model: Any,
    weights: Mapping[str, torch.Tensor],
    base: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    template: str | None = None,
    stops: Collection[int] = (),
) -> None:
    """Write ``weights`` (of the unwrapped ``model``, by its own names) and the base's other files into ``target``.

    ``dtype`` None is the base's; ``template`` is the chat template that was trained in, where it is not the base's own;
    ``stops`` are the tokens with which the learnt answers end.

    Raises:
        OSError, SafetensorError: the disk is full, say.
    """
    kind = dtype or base_dtype(base)
    adapted = _whole(model, weights, base) if hasattr(model, "peft_config") else None
    plain, merged = (model, dict(weights)) if adapted is None else _merged(adapted)
    twins = first_names(plain)
    cast = {
        name: tensor.to(kind) if tensor.is_floating_point() else tensor
        for name, tensor in merged.items()
        if name not in twins
    }
    plain.save_pretrained(target, state_dict=cast)
    if adapted is not None:
        adapted.save_pretrained(target / "adapter")
        (target / "adapter" / "README.md").unlink(missing_ok=True)  # it names a path of this machine
        _without_path(target / "adapter" / "adapter_config.json")
    copy_others(base, target)
    say_precision(target, kind)
    say_stops(target, stops)
    if template is not None:
        # This file goes before a template in the tokenizer's configuration.
        write_file(target / "chat_template.jinja", template, public=True)


def say_precision(folder: Path, dtype: torch.dtype) -> None:
    """Let the configuration name the precision of the files: a load that names none rounds to what it says."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    if _renamed(config, name):
        _write_json(path, config)


def _renamed(config: Any, name: str) -> bool:
    """Put the precision's name wherever a configuration (or a part of it) has one; says whether that changed it."""
    changed = False
    if isinstance(config, dict):
        for key, value in config.items():
            if key in ("dtype", "torch_dtype") and value in DTYPES and value != name:
                config[key], changed = name, True
            elif key != "quantization_config":
                changed |= _renamed(value, name)
    return changed


def say_stops(folder: Path, stops: Collection[int]) -> None:
    """Let generation stop at these tokens too: what was learnt as an answer's end, and would be run over otherwise."""
    path = folder / checkpoints.GENERATION
    if not stops or not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    held = config.get("eos_token_id")
    known = held if isinstance(held, list) else [] if held is None else [held]
    missing = [token for token in sorted(stops) if token not in known]
    if missing:
        config["eos_token_id"] = [*known, *missing]
        _write_json(path, config)


def _write_json(path: Path, document: Any) -> None:
    write_file(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", public=True)


def written_names(model: PreTrainedModel) -> set[str]:
    """The names under which a model's tensors are written: those of its own files, which may be others in memory."""
    twins = first_names(model)
    held = {name: tensor for name, tensor in model.state_dict().items() if name not in twins}
    return set(revert_weight_conversion(model, held))


def ignored_patterns(model: PreTrainedModel) -> tuple[str, ...]:
    """What of its files' tensors transformers leaves alone: the architecture's list, and two that it adds to any."""
    buffers = {name.rpartition(".")[2] for name, _ in model.named_buffers()}
    added = {"inv_freq": r"rotary_emb\.inv_freq", "position_ids": r"(^|\.)position_ids$"}
    own: Collection[str] = model._keys_to_ignore_on_load_unexpected or ()
    return (*sorted(own), *(pattern for name, pattern in added.items() if name in buffers))


def _without_path(config: Path) -> None:
    """The adapter's configuration, as peft writes it, holds the base's path; the base is the folder above."""
    plain = json.loads(config.read_text(encoding="utf-8"))
    plain["base_model_name_or_path"] = None
    _write_json(config, dict(sorted(plain.items())))


def copy_others(base: Path, target: Path) -> None:
    """Copy every file of a checkpoint but weights, notes (not its licence) and manifests."""
    for path in sorted(base.iterdir()):
        kept = path.suffix not in _LEFT and path.name not in _NOT_THE_BASES and path.name[0] != "."
        if path.is_file() and (kept or path.name in checkpoints.LICENCES):
            shutil.copyfile(path, target / path.name)
    for name in _FOLDERS:
        if (base / name).is_dir():
            shutil.copytree(base / name, target / name, dirs_exist_ok=True)


def first_names(model: torch.nn.Module) -> dict[str, str]:
    """Further name of a tied parameter -> its first one: a head that is the embedding is written once.

    save_pretrained sees that by their memory, which gathered or converted copies do not share.
    """
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: kept for name, parameter in named if (kept := first.setdefault(id(parameter), name)) != name}


def _whole(model: Any, weights: Mapping[str, torch.Tensor], base: Path) -> Any:
    """The base under a second adapter, with the trained one's weights, in this process alone.

    The trained model itself may be sharded, and to read what is frozen in it would then take every process.
    """
    from peft import get_peft_model

    with _quiet_peft():
        made = get_peft_model(load_model(base), copy.deepcopy(model.peft_config["default"]))
    strangers = made.load_state_dict(dict(weights), strict=False).unexpected_keys
    assert not strangers, strangers[0]
    return made


def _merged(model: Any) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """The model without its adapter, and its weights with the adapter's change added. The model is left as it is.

    peft wraps a layer around its weight, and, where experts are one tensor of a module, nested wrappers around the
    module, one for each adapted parameter. What each adds to which parameter is its own to say.
    """
    plain: PreTrainedModel = model.get_base_model()
    changes: dict[int, list[Any]] = {}
    for layer in plain.modules():
        if hasattr(layer, "get_delta_weight"):
            wrapped: Any = layer
            owned = wrapped.get_param() if hasattr(layer, "parameter_name") else wrapped.get_base_layer().weight
            changes.setdefault(id(owned), []).append(wrapped)
    found: dict[str, torch.Tensor] = {}
    for name, parameter in plain.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        tensor = parameter.detach()
        for layer in changes.pop(id(parameter), ()):
            tensor = tensor + layer.get_delta_weight("default").detach().to(tensor.dtype)
        found[name.replace(".base_layer", "")] = tensor.cpu()
    assert not changes, "an adapter changes a parameter that is not written"
    return plain, found
