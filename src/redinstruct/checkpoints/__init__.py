"""A checkpoint folder before anything of it is loaded: what is refused, and its identity.

Refused, each in one line: code that would come with the checkpoint, weights in pickle files (loading those runs
whatever their author wrote), weights that are not there (a pointer of git-lfs, a missing shard, Mistral's own format
alone). Pure: reads files, knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from redinstruct.checkpoints.template_probe import check_chat_templates
from redinstruct.errors import ModelSpecError

_WEIGHTS = "*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ADAPTER = "adapter_config.json"
"""Of peft: where it lies beside weights, transformers puts the adapter on them."""
_IDENTITY = (
    _WEIGHTS,
    "*.safetensors.index.json",
    "config.json",
    ADAPTER,
    "generation_config.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "tekken.json",
)
"""What decides a checkpoint's answers: weights, configuration, tokenizer, chat template. Not notes and manifests."""
_ATTENTION_KEYS = ("_attn_implementation", "attn_implementation")
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")

_LAYERS = re.compile(r"layers?$|^n_blocks?$|_blocks$")
_MOST_LAYERS = 10_000
_WIDTHS = re.compile(r"(size|dim|rank|heads|groups|experts|positions?|embeddings|channels)$|^(d_|n_|num_)")
_MOST_WIDTH = 2**31
_MAX_JSON = 64 << 20

LICENCES = tuple(
    f"{name}{suffix}"
    for name in ("LICENSE", "LICENCE", "NOTICE", "COPYING", "COPYRIGHT", "USE_POLICY")
    for suffix in ("", ".md", ".txt")
)
"""On which terms a checkpoint is given: these files go wherever its weights go."""

_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
GENERATION = "generation_config.json"

_digests: dict[tuple[str, int, int], str] = {}
"""File digests of this process, by (path, size, time of change)."""


def check(folder: Path, shown: str, *, own: Collection[str] = ()) -> None:
    """Refuse a folder that is no safe causal checkpoint; ``shown`` is how the message names it.

    ``own``: the ``model_type``s that transformers has the architecture of. The code that such a checkpoint brings
    (``auto_map``) is not needed, and is left alone; any other's is asked for in vain.

    Raises:
        ModelSpecError: there is no configuration, it asks for code, or the weights are not there as safetensors.
    """
    check_configuration(folder, shown, own=own)
    weight_files(folder, shown)


def check_configuration(folder: Path, shown: str, *, own: Collection[str] = ()) -> None:
    """Refuse a folder whose configuration is missing or asks for code; weights may be missing.

    Raises:
        ModelSpecError: see :func:`check`.
    """
    if not (folder / "config.json").is_file():
        if (folder / "run.sqlite").is_file():
            raise ModelSpecError(
                f"{shown} holds a run (`redinstruct eval`, `collect` or `utility`), not a checkpoint (a model's folder)"
            )
        raise ModelSpecError(f"{shown}: no config.json there; hf/ takes the folder of a transformers checkpoint")
    for pattern in _IDENTITY:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and _is_pointer(path):
                raise ModelSpecError(f"{shown}: {path.name} is a pointer of git-lfs, not the file; run git lfs pull")
    for name in ("config.json", GENERATION, "tokenizer_config.json"):
        if (folder / name).is_file():
            config = _read(folder / name, shown)
            # The tokenizer's own class is looked for when it is loaded; without remote code it must be transformers'.
            known = name != "config.json" or (isinstance(config, dict) and config.get("model_type") in own)
            _check_config(config, name, shown, known=known)
            if name == "config.json":
                _check_sizes(config, shown)
    check_chat_templates(folder, shown)


def weight_files(folder: Path, shown: str) -> tuple[Path, ...]:
    """The weight files that transformers reads: one file, or the shards of the index. Others may lie beside them.

    Raises:
        ModelSpecError: there are none, or a shard of the index is missing.
    """
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    if (folder / INDEX).is_file():
        held = _read(folder / INDEX, shown)
        shards = held.get("weight_map") if isinstance(held, dict) else None
        named = shards.values() if isinstance(shards, dict) else (p.name for p in folder.glob("model-*.safetensors"))
        names = sorted({str(name) for name in named})
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise ModelSpecError(
                f"{shown}: {len(missing)} of the {len(names)} weight files in its index are missing"
                f" ({', '.join(missing[:3])}); download it again"
            )
        return tuple(folder / name for name in names)
    if any(folder.glob("consolidated*.safetensors")):
        found = "it holds consolidated.safetensors alone, Mistral's own format"
        raise ModelSpecError(f"{shown}: {found}; download its model*.safetensors too, which transformers reads")
    if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
        raise ModelSpecError(f"{shown}: its weights are pickle files, which can run code; only safetensors are loaded")
    raise ModelSpecError(f"{shown}: it holds no weights ({_SINGLE}, or shards); only safetensors are loaded")


def check_loaded(found: Mapping[str, Any], shown: str) -> None:
    """Pass what transformers says of a load (``output_loading_info``, after its ties and lists of what may differ).

    Raises:
        ModelSpecError: the checkpoint lacks tensors of its architecture, which would be random, or holds others.
    """
    for what, why in (
        ("missing_keys", "lacks tensors that its architecture has, which would be random"),
        ("unexpected_keys", "holds tensors that its architecture does not have"),
        ("mismatched_keys", "holds tensors of another shape than its architecture's"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in found.get(what, ()))
        if names:
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            raise ModelSpecError(f"{shown}: the checkpoint {why} ({names[0]}{more}); it is refused")


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _read(path: Path, shown: str) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ModelSpecError(f"{shown}: {path.name} is larger than {_MAX_JSON >> 20} MiB; that is no configuration")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        raise ModelSpecError(f"{shown}: {path.name} is not readable JSON") from None


def _check_config(config: Any, name: str, shown: str, *, known: bool) -> None:
    for key, value in _entries(config):
        if key == "auto_map" and value and not known:
            raise ModelSpecError(
                f"{shown}: {name} asks for code of its own (auto_map); remote code is never run, and transformers does"
                " not have this architecture itself"
            )
        # A name such as "org/kernel" here makes transformers download and run that kernel.
        foreign = key in _ATTENTION_KEYS and not isinstance(value, dict) and value not in _ATTENTIONS
        if foreign or key == "_attn_implementation_internal":
            raise ModelSpecError(f"{shown}: {name} sets {key}, which can load code; remove it to use the checkpoint")


def _check_sizes(config: Any, shown: str) -> None:
    """A layer or a width too many is built one by one before anything is compared with the files: for ever."""
    for key, value in _entries(config):
        most = _MOST_LAYERS if _LAYERS.search(key) else _MOST_WIDTH if _WIDTHS.search(key) else None
        if most is not None and isinstance(value, int | float) and not 0 <= abs(value) <= most:
            raise ModelSpecError(f"{shown}: config.json asks for a {key} that no model has (at most {most:,})")


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    waiting = [config]
    while waiting:
        held = waiting.pop()
        if isinstance(held, dict):
            yield from held.items()
            waiting.extend(held.values())
        elif isinstance(held, list):
            waiting.extend(held)


def digest(folder: Path) -> str:
    """sha256 over names and contents of the files that decide the answers (top level only)."""
    files = {path for pattern in _IDENTITY for path in folder.glob(pattern) if path.is_file()}
    lines = [f"{path.name} {_file_digest(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
