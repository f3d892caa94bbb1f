"""The resumable state of a training run: one folder of safetensors and JSON, no pickle.

``weights.safetensors`` and ``optimizer.safetensors`` hold full tensors under the parameters' own names. Of a model that
is sharded (FSDP2) each process writes its part, ``weights.00000.safetensors`` and so on, so that none has to hold the
whole; put together along their first dimension the parts are the full tensors. So a state can be read by another number
of processes, whatever the model was wrapped in.
``state.json`` holds every number that is no tensor, ``trainer_state.json`` what transformers keeps of its own.

There is no random state in it: whatever is drawn during training is drawn from (seed, step, micro-batch, rank).
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    DictValueType,
    OptimizerStateType,
    StateDictOptions,
    ValueType,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from redinstruct.errors import RedInstructError
from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.files.opening import read_json
from redinstruct.files.words import Fields
from redinstruct.safealign.batches import Cut
from redinstruct.safealign.guards import GuardState
from redinstruct.safealign.launch import is_main_process, summed, world
from redinstruct.safealign.outcome import StepFigures

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
PREFIX = "step-"


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run is no tensor. ``scheduler`` is torch's own; ``cut`` is None where TRL cuts."""

    step: int
    scheduler: Fields
    guard: GuardState
    cut: Cut | None = None
    history: list[StepFigures]


class _OptimizerNumbers(msgspec.Struct, frozen=True):
    """What of an optimizer's state is no tensor: ``parameter|key`` and value, and the settings of its groups."""

    state: Fields
    param_groups: list[Fields]


class _State(Numbers, frozen=True, kw_only=True):
    """``state.json``. ``parts``: how many files the tensors of a sharded model lie in."""

    optimizer: _OptimizerNumbers
    parts: int | None = None


def state_folder(folder: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return folder / f"{PREFIX}{step:07d}"


def latest(folder: Path) -> Path | None:
    """The state of the most steps; None where there is none. A state is whole, or it has no such name."""
    return max(folder.glob(f"{PREFIX}*"), default=None)


def collect(model: torch.nn.Module, optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], OptimizerStateType]:
    """State of model and optimizer on the CPU: where the model is sharded this process's part, else all of it.

    A collective: every process calls it. Parameters that are not trained (under an adapter) are the base's, and are
    left out.
    """
    whole = not is_sharded(model)
    options = StateDictOptions(full_state_dict=whole, cpu_offload=True, ignore_frozen_params=True)
    weights = collect_weights(model) if whole else get_model_state_dict(model, options=options)
    return cast("dict[str, torch.Tensor]", weights), get_optimizer_state_dict(model, optimizer, options=options)


def collect_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained weights alone, on the CPU of rank 0. A collective."""
    if any(one.dtype in (torch.int8, torch.uint8) for one in model.parameters()):
        # Layers of few bits name tensors in their state that they do not have; they are never sharded.
        named = getattr(model, "module", model).named_parameters()
        return {name: one.detach().cpu() for name, one in named if one.requires_grad}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return cast("dict[str, torch.Tensor]", get_model_state_dict(model, options=options))


@contextlib.contextmanager
def written_by_all(target: Path, device: torch.device) -> Iterator[Path]:
    """A folder that every process fills; the first makes it, and puts it in the place of ``target`` if all succeeded.

    Raises:
        OSError, SafetensorError: this process could not write, or another (which has its own error).
    """
    failed: BaseException | None = None
    with contextlib.ExitStack() as kept:
        place: list[str | None] = [None]
        if is_main_process():
            try:
                place = [str(kept.enter_context(whole_folder(target, mode=0o700)))]
            except OSError as error:
                failed = error
        torch.distributed.broadcast_object_list(place)
        if place[0] is None:
            raise failed or OSError(errno.EIO, "the first process could not make the folder")
        try:
            yield Path(place[0])
        except (OSError, SafetensorError) as error:
            failed = error
        # Nobody may wait for one that gave up.
        if summed([float(failed is not None)], device)[0]:
            raise failed or OSError(errno.EIO, "another process could not write its part")


def write(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    optimizer: OptimizerStateType,
    numbers: Numbers,
    *,
    sharded: bool = False,
) -> None:
    """Write what was collected into ``folder``, or this process's part of it.

    Raises:
        OSError, SafetensorError: the disk is full, say.
    """
    rank, processes = world()
    save_file(_unshared(_parts(weights)), _named(folder / WEIGHTS, rank if sharded else None))
    tensors: dict[str, torch.Tensor] = {}
    plain = {}
    for where, value in _leaves(cast("Fields", optimizer["state"])):
        if isinstance(value, torch.Tensor):
            tensors[where] = value
        else:
            plain[where] = value
    save_file(_apart(_parts(tensors)), _named(folder / OPTIMIZER, rank if sharded else None))
    if sharded and rank:
        return
    held = _OptimizerNumbers(plain, cast("list[Fields]", optimizer["param_groups"]))
    document = _State(**msgspec.structs.asdict(numbers), optimizer=held, parts=processes if sharded else None)
    write_file(folder / STATE, msgspec.json.encode(document, enc_hook=_plain), public=True)


def _leaves(tree: Fields, above: str = "") -> Iterator[tuple[str, object]]:
    """``parameter|key`` and value; optimizers in 8 bits have keys within keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}|")
        else:
            yield f"{above}{key}", value


def _named(path: Path, part: int | None) -> Path:
    return path if part is None else path.with_suffix(f".{part:05d}{path.suffix}")


def _parts(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What this process has of each tensor; what is the same in all of them the first process alone."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            (placed,) = tensor.placements
            assert placed.is_shard(dim=0), f"{name} is not cut along its first dimension"
            found[name] = tensor.to_local()
        elif is_main_process():
            found[name] = tensor
    return found


def _unshared(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor once: a tied one is written under its first name, and tied again when it is loaded."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        kept[name] = _own(tensor)
    return kept


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor with a memory of its own: in 8 bits all parameters have one table of values."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = _own(tensor)
        found[name] = own.clone() if own.numel() and own.data_ptr() in seen else own
        seen.add(found[name].data_ptr())
    return found


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with a memory of its own, copied only where it is a part of another's."""
    whole = tensor.detach().contiguous()
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


def _plain(value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} in an optimizer's settings has no JSON")


def read_numbers(folder: Path) -> _State:
    """``state.json``.

    Raises:
        RedInstructError: it cannot be read; the message says how to begin again.
    """
    if (found := read_json(folder / STATE, _State)) is None:
        raise RedInstructError(f"{folder}: this saved state cannot be read; remove the folder to begin again")
    return found


def load_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put saved weights back into the model. A collective where the model is sharded: one process reads for all."""
    options = StateDictOptions(full_state_dict=True, strict=False, broadcast_from_rank0=is_sharded(model))
    result = set_model_state_dict(model, cast("DictValueType", _read(folder / WEIGHTS, model)), options=options)
    if result.unexpected_keys:
        raise RedInstructError(f"{folder}: this saved state belongs to another model ({result.unexpected_keys[0]})")


def load_optimizer(folder: Path, model: torch.nn.Module, optimizer: Optimizer) -> None:
    """Put the optimizer's saved state back, bit for bit."""
    plain = read_numbers(folder).optimizer
    state: DictValueType = {}
    for where, value in [*_read(folder / OPTIMIZER, model).items(), *plain.state.items()]:
        *above, key = where.split("|")
        within = state
        for name in above:
            within = cast("DictValueType", within.setdefault(name, {}))
        within[key] = cast("ValueType", value)
    groups = [
        # JSON has no tuples, and Adam's betas are one.
        {key: tuple(cast("list[float]", value)) if key == "betas" else value for key, value in group.items()}
        for group in plain.param_groups
    ]
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, broadcast_from_rank0=is_sharded(model))
    document = cast("OptimizerStateType", {"state": state, "param_groups": groups})
    set_optimizer_state_dict(model, optimizer, document, options=options)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds a part of the model."""
    return isinstance(model, FSDPModule)


def _read(path: Path, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A file of tensors; of a sharded model's only in the first process, from which the others have their parts."""
    if is_sharded(model) and not is_main_process():
        return {}
    count = read_numbers(path.parent).parts
    if count is None:
        return load_file(path)
    try:
        first, *others = (load_file(_named(path, part)) for part in range(count))
    except FileNotFoundError:
        raise RedInstructError(
            f"{path.parent}: a part of this saved state is missing; remove the folder to begin again"
        ) from None
    found = {}
    for name, tensor in first.items():
        more = [one[name] for one in others if name in one]
        found[name] = torch.cat([tensor, *more]) if more else tensor
    return found


def keep_only(state: Path) -> None:
    """Remove the earlier states beside this one, now that it is whole."""
    for other in state.parent.glob(f"{PREFIX}*"):
        if other != state:
            shutil.rmtree(other, ignore_errors=True)
