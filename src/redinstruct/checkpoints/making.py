"""An ordinary checkpoint of a Llama's GGUF: configuration, safetensors, and the tokenizer with its own rules.

transformers reads a GGUF, does not save what it read, and forgets that this tokenizer splits digits: the weights are
moved into a plain Llama, and the pre-tokenizer is put back as llama.cpp has it (``smollm``: each digit by itself, then
GPT-2's rule). Four tensors are held against the ``gguf`` package's own dequantiser.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from redinstruct.checkpoints.loading import without_progress_bars
from redinstruct.errors import ModelSpecError
from redinstruct.files.atomic import write_file

HELD = {
    "token_embd.weight": "model.embed_tokens.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.7.attn_v.weight": "model.layers.7.self_attn.v_proj.weight",
    "output_norm.weight": "model.norm.weight",
}
"""Tensors by their names in the GGUF and in transformers; none that llama.cpp permutes."""
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
_OF_THE_FILE = ("quantization_config", "_model_name_or_path")


def checkpoint_of(gguf: Path, out: Path) -> None:
    """Write the checkpoint into the folder ``out``, in bf16, which holds four-bit weights but for 1 part in 256.

    Raises:
        ModelSpecError: a tensor was read otherwise than the file holds it.
        OSError: the folder cannot be written.
    """
    # transformers' reader draws a bar of its own there, which its settings do not switch off.
    with without_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
        read = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        if different := _different(gguf, read.state_dict()):
            raise ModelSpecError(f"{gguf.name}: read otherwise than it is written: {', '.join(different)}")
        _plain(read).save_pretrained(out)
        AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        ).save_pretrained(out)
    path = out / "tokenizer.json"
    saved = json.loads(path.read_text(encoding="utf-8")) | {"pre_tokenizer": PRE_TOKENIZER}
    write_file(path, json.dumps(saved, ensure_ascii=False), public=True)


def _plain(read: Any) -> Any:
    """What was read, as a Llama that can be saved, in bf16."""
    fields = {name: value for name, value in read.config.to_dict().items() if name not in _OF_THE_FILE}
    model: Any = LlamaForCausalLM(LlamaConfig(**fields | {"dtype": "bfloat16"}))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return model.to(torch.bfloat16)


def _different(gguf: Path, weights: Any) -> list[str]:
    """The tensors that are not what the file holds."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(str(gguf)).tensors}
    return [
        theirs
        for theirs, ours in HELD.items()
        if not torch.equal(
            torch.from_numpy(dequantize(tensors[theirs].data, tensors[theirs].tensor_type).copy()), weights[ours]
        )
    ]
