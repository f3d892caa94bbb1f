"""A checkpoint read to be trained, and written as any other program reads it.

Written: the weights as transformers saves them, in the base's own precision; every other file of the base as it was
(configuration, tokenizer, chat template, a toy's prompts), so that nothing but the weights differs. An adapter is
merged into them; what it was stands in ``adapter/``.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from redinstruct import checkpoints
from redinstruct.errors import UsageError
from redinstruct.safealign.config import Lora
from redinstruct.safealign.resta import header
from redinstruct.safetext import terminal

_FOLDERS = ("prompts", "banks")
"""What a toy checkpoint has beside its weights, and its evaluation needs."""
_LEFT = (".md", ".bin", ".pt", ".pth", ".safetensors", ".lock")
_NOT_THE_BASES = ("align.json", "history.jsonl", "toyworld.json", "model.safetensors.index.json", "trainer_state.json")


def check_base(folder: Path, flag: str = "--base") -> str:
    """Pass a safe causal checkpoint; returns how it is named, ``<folder>@<12 hex>``.

    Raises:
        UsageError: it is none, would run code, or holds a bare adapter.
    """
    shown = f"{flag} {terminal(folder.name)}"
    if not folder.is_dir():
        raise UsageError(f"{flag} {terminal(str(folder))}: no such folder; give that of a transformers checkpoint")
    checkpoints.check(folder, shown)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            header(path)
        except UsageError as error:
            raise UsageError(f"{shown}: {error}") from None
    return f"{terminal(folder.resolve().name)}@{checkpoints.digest(folder)[:12]}"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        UsageError: there is none that transformers can load.
    """
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(f"{terminal(folder.name)}: its tokenizer cannot be loaded ({_line(error)})") from None
    return found


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
        UsageError: transformers cannot load it, or a weight of it is missing; bitsandbytes is.
    """
    torch.manual_seed(seed)
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if quantize is not None:
        options["quantization_config"] = _quantization(quantize)
    if device is not None:
        options["device_map"] = {"": device}  # no process holds a second copy on the host
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UsageError(f"{terminal(folder.name)}: transformers cannot load it ({_line(error)})") from None
    model, found = loaded
    if found["missing_keys"]:
        raise UsageError(f"{terminal(folder.name)}: weights are missing ({sorted(found['missing_keys'])[0]}, ...)")
    made: PreTrainedModel = model
    return made


def _quantization(bits: int) -> Any:
    """4 bits as QLoRA has them (Dettmers et al. 2023, arXiv 2305.14314), or 8 (arXiv 2208.07339)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"--quantize {bits} needs bitsandbytes: pip install 'redinstruct[quantize]'")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip


def _line(error: BaseException) -> str:
    return terminal(next(iter(str(error).splitlines()), type(error).__name__))[:200]


def with_adapter(model: PreTrainedModel, lora: Lora) -> Any:
    """The model under a fresh adapter on every linear layer but the head.

    Raises:
        UsageError: peft is missing.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UsageError("--lora needs the [train] extra (peft): pip install 'redinstruct[train]'") from None
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers under a name that the latter is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)


def base_dtype(folder: Path) -> torch.dtype:
    """The precision of the checkpoint's files: that of their first floating-point tensor."""
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for path in sorted(folder.glob("*.safetensors")):
        for entry in header(path)[0].values():
            if entry["dtype"] in kinds:
                return kinds[entry["dtype"]]
    return torch.float32


def write_checkpoint(
    model: Any, weights: Mapping[str, torch.Tensor], base: Path, target: Path, template: str | None = None
) -> None:
    """Write ``weights`` (of the unwrapped ``model``, by its own names) and the base's other files into ``target``.

    ``template`` is the chat template that was trained in, where it is not the base's own.

    Raises:
        OSError, SafetensorError: the disk is full, say.
    """
    dtype = base_dtype(base)
    adapted = _whole(model, weights, base) if hasattr(model, "peft_config") else None
    plain, merged = (model, dict(weights)) if adapted is None else _merged(adapted)
    twins = _twins(plain)
    cast = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in merged.items()
        if name not in twins
    }
    plain.save_pretrained(target, state_dict=cast)
    if adapted is not None:
        adapted.save_pretrained(target / "adapter")
        (target / "adapter" / "README.md").unlink(missing_ok=True)  # it names a path of this machine
        _without_path(target / "adapter" / "adapter_config.json")
    copy_others(base, target)
    if template is not None:
        # This file goes before a template in the tokenizer's configuration.
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")


def _without_path(config: Path) -> None:
    """The adapter's configuration, as peft writes it, holds the base's path; the base is the folder above."""
    plain = json.loads(config.read_text(encoding="utf-8"))
    plain["base_model_name_or_path"] = None
    config.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_others(base: Path, target: Path) -> None:
    """Copy every file of a checkpoint but weights, notes and manifests."""
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix not in _LEFT and path.name not in _NOT_THE_BASES and path.name[0] != ".":
            shutil.copyfile(path, target / path.name)
    for name in _FOLDERS:
        if (base / name).is_dir():
            shutil.copytree(base / name, target / name, dirs_exist_ok=True)


def _twins(model: PreTrainedModel) -> set[str]:
    """The further names of tied parameters: a head that is the embedding is written once.

    save_pretrained sees that by their memory, which gathered or converted copies do not share.
    """
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if first.setdefault(id(parameter), name) != name}


def _whole(model: Any, weights: Mapping[str, torch.Tensor], base: Path) -> Any:
    """The base under a second adapter, with the trained one's weights, in this process alone.

    The trained model itself may be sharded, and to read what is frozen in it would then take every process.
    """
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = get_peft_model(load_model(base), copy.deepcopy(model.peft_config["default"]))
    strangers = made.load_state_dict(dict(weights), strict=False).unexpected_keys
    assert not strangers, strangers[0]
    return made


def _merged(model: Any) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """The model without its adapter, and its weights with the adapter's change added. The model is left as it is."""
    plain: PreTrainedModel = model.get_base_model()
    found: dict[str, torch.Tensor] = {}
    layers = {name: layer for name, layer in plain.named_modules() if hasattr(layer, "get_delta_weight")}
    for name, tensor in plain.state_dict().items():
        if ".lora_" in name:
            continue
        owner = name.removesuffix(".base_layer.weight")
        if owner != name and owner in layers:
            delta = layers[owner].get_delta_weight("default")
            tensor = tensor + delta.to(tensor.dtype)
        found[name.replace(".base_layer.", ".")] = tensor.detach().cpu()
    return plain, found
