"""What a model holds and what a training row keeps for the backward pass, found out without its weights.

The architecture is built of tensors that have a shape and no memory, and one row is carried through its own forward:
what autograd would keep is added up. So an architecture that nobody has heard of here is counted as it is.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from redinstruct import checkpoints
from redinstruct.alignment import Lora
from redinstruct.errors import UsageError
from redinstruct.safealign.exports import with_adapter
from redinstruct.safetext import terminal

FORMULA_BYTES = 34
"""Bytes that a token, layer and unit of width keeps in 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, table 2)."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of parameters, and bytes that one row keeps: in all, where only layers' inputs are kept, and of one layer.

    ``casts``: bytes of the weights' copies in the precision that is computed in. ``counted``: by the model's own
    forward; False where that cannot be done without values, and a formula stands for it.
    """

    parameters: int
    trained: int
    embedding: int
    layers: int
    width: int
    vocabulary: int
    row: int
    row_checkpointed: int
    casts: int
    counted: bool

    @property
    def layer(self) -> int:
        """Bytes of one layer that is computed a second time."""
        return (self.row - self.row_checkpointed) // self.layers + self.row_checkpointed // self.layers

    @property
    def in_layers(self) -> int:
        """Parameters of one layer."""
        return (self.parameters - self.embedding) // self.layers


def config_of(folder: Path) -> Any:
    """The architecture of a checkpoint folder, of which nothing but ``config.json`` is needed.

    Raises:
        UsageError: there is none, it asks for code, or transformers does not know it.
    """
    shown = terminal(folder.name)
    checkpoints.check_configuration(folder, f"--base {shown}", own=CONFIG_MAPPING)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers lets through whatever a stranger's file makes it run into
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"--base {shown}: its config.json is not one of a model ({terminal(line)[:160]})") from None


def sizes_of(folder: Path, length: int, *, lora: Lora | None, base: torch.dtype, half: bool) -> Sizes:
    """The sizes for rows of ``length`` tokens. ``base`` is what frozen weights are held in, ``half``: computed in bf16.

    Raises:
        UsageError: it is no causal language model that transformers knows.
    """
    text = config_of(folder).to_json_string(use_diff=False)
    return _sizes(str(folder), text, length, lora, base, half)


@lru_cache(maxsize=32)
def _sizes(folder: str, _text: str, length: int, lora: Lora | None, base: torch.dtype, half: bool) -> Sizes:
    config = config_of(Path(folder))
    inner = config.get_text_config(decoder=True)
    dtype = torch.float32 if lora is None else base
    with _quiet(), torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        except Exception as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(f"--base {terminal(Path(folder).name)}: {terminal(line)[:160]}") from None
        made: Any = model.train()
        if lora is not None:
            made.enable_input_require_grads()
            try:
                made = with_adapter(made, lora)
            except ValueError as error:
                raise UsageError(
                    f"--lora: peft has no adapter for {config.model_type} ({terminal(str(error))[:100]})"
                ) from None
    with _quiet(), FakeTensorMode():
        _without_memory(made)
        trained = sum(one.numel() for one in made.parameters() if one.requires_grad)
        parameters = sum(one.numel() for one in made.parameters()) - (0 if lora is None else trained)
        head = model.get_output_embeddings().weight
        embedding = head.numel() if head is model.get_input_embeddings().weight else 2 * head.numel()
        row, checkpointed, casts, counted = _rows(made, model, length, half)
    return Sizes(
        parameters=parameters,
        trained=trained,
        embedding=embedding,
        layers=inner.num_hidden_layers,
        width=inner.hidden_size,
        vocabulary=inner.vocab_size,
        row=row,
        row_checkpointed=checkpointed,
        casts=casts,
        counted=counted,
    )


def _rows(made: Any, model: Any, length: int, half: bool) -> tuple[int, int, int, bool]:
    """Bytes of a row, of one of which layers' inputs alone are kept, of cast weights; whether they were counted."""

    def both(*, half: bool) -> tuple[int, int, int]:
        row, casts = _kept(model, length, half=half)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return row, _kept(model, length, half=half)[0], casts

    config = model.config.get_text_config(decoder=True)
    times = 1 if half else 2
    cast = 2 * sum(one.numel() for one in model.parameters() if one.dtype == torch.float32) if half else 0
    try:
        return *both(half=half), True
    except Exception:  # noqa: S110 - grouped products of experts, say, know one precision only
        pass
    try:
        _without_memory(made, torch.bfloat16)
        model.gradient_checkpointing_disable()
        row, checkpointed, _ = both(half=False)
        return times * row, times * checkpointed, cast, True
    except Exception:  # whatever a model does with values that are not there
        held = length * config.hidden_size * config.num_hidden_layers * times
        return FORMULA_BYTES * held, 2 * held, cast, False


def _without_memory(model: torch.nn.Module, dtype: torch.dtype | None = None) -> None:
    """Every tensor of a model on the meta device in this mode's place: on a CPU by name, and without memory."""
    made: dict[int, Any] = {}

    def fresh(tensor: torch.Tensor) -> Any:
        if id(tensor) not in made:
            kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            empty = torch.empty(tensor.shape, dtype=kind, device="cpu")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fresh(tensor)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _kept(model: Any, length: int, *, half: bool) -> tuple[int, int]:
    """Bytes that autograd keeps of one row's forward, and of those the bytes of cast weights."""
    own = {one.untyped_storage()._cdata for one in model.parameters()}
    shapes = {tuple(one.shape) for one in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    held: dict[int, tuple[torch.UntypedStorage, bool]] = {}  # the storage is kept, so that no other has its number

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = (storage, tuple(tensor.shape) in shapes)
        return tensor

    ids = torch.ones((1, length), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        out = model.get_decoder()(**inputs).last_hidden_state
    del out
    casts = sum(storage.nbytes() for storage, is_weight in held.values() if is_weight)
    return sum(storage.nbytes() for storage, _ in held.values()) - casts, casts
