"""A checkpoint folder before anything of it is loaded: what is refused, and its identity.

Refused, each in one line: code that would come with the checkpoint, and weights in pickle files (loading those runs
whatever their author wrote). Pure: reads files, knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redinstruct.errors import ModelSpecError

_WEIGHTS = "*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_IDENTITY = (
    _WEIGHTS,
    "*.safetensors.index.json",
    "config.json",
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

_digests: dict[tuple[str, int, int], str] = {}
"""File digests of this process, by (path, size, time of change)."""


def check(folder: Path, shown: str) -> None:
    """Refuse a folder that is no safe causal checkpoint; ``shown`` is how the message names it.

    Raises:
        ModelSpecError: there is no configuration, it asks for code, or the weights are not safetensors.
    """
    check_configuration(folder, shown)
    if not any(folder.glob(_WEIGHTS)):
        pickled = any(path for pattern in _PICKLES for path in folder.glob(pattern))
        found = "its weights are pickle files, which can run code" if pickled else "it holds no weights"
        raise ModelSpecError(f"{shown}: {found}; only safetensors are loaded")


def check_configuration(folder: Path, shown: str) -> None:
    """Refuse a folder whose configuration is missing or asks for code; weights may be missing.

    Raises:
        ModelSpecError: see :func:`check`.
    """
    if not (folder / "config.json").is_file():
        raise ModelSpecError(f"{shown}: no config.json there; hf/ takes the folder of a transformers checkpoint")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _check_config(_read(folder / name, shown), name, shown)


def _read(path: Path, shown: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise ModelSpecError(f"{shown}: {path.name} is not readable JSON") from None


def _check_config(config: Any, name: str, shown: str) -> None:
    for key, value in _entries(config):
        if key == "auto_map" and value:
            raise ModelSpecError(f"{shown}: {name} asks for code of its own (auto_map); remote code is never run")
        # A name such as "org/kernel" here makes transformers download and run that kernel.
        foreign = key in _ATTENTION_KEYS and not isinstance(value, dict) and value not in _ATTENTIONS
        if foreign or key == "_attn_implementation_internal":
            raise ModelSpecError(f"{shown}: {name} sets {key}, which can load code; remove it to use the checkpoint")


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(config, list):
        for value in config:
            yield from _entries(value)


def folder_of(checkpoint: str) -> Path:
    """The folder that a user named, as a path or as ``hf/PATH``."""
    return Path(checkpoint.removeprefix("hf/")).expanduser()


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
