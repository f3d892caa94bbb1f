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
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
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
from redinstruct.safealign.launch import is_main_process, summed, world

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
PREFIX = "step-"


def state_folder(folder: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return folder / f"{PREFIX}{step:07d}"


def latest(folder: Path) -> Path | None:
    """The state of the most steps; None where there is none. A state is whole, or it has no such name."""
    return max(folder.glob(f"{PREFIX}*"), default=None)


def collect(model: torch.nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of model and optimizer on the CPU: where the model is sharded this process's part, else all of it.

    A collective: every process calls it. Parameters that are not trained (under an adapter) are the base's, and are
    left out.
    """
    whole = not is_sharded(model)
    options = StateDictOptions(full_state_dict=whole, cpu_offload=True, ignore_frozen_params=True)
    weights = collect_weights(model) if whole else get_model_state_dict(model, options=options)
    return weights, get_optimizer_state_dict(model, optimizer, options=options)


def collect_weights(model: torch.nn.Module) -> dict[str, Any]:
    """The trained weights alone, on the CPU of rank 0. A collective."""
    if any(one.dtype in (torch.int8, torch.uint8) for one in model.parameters()):
        # Layers of few bits name tensors in their state that they do not have; they are never sharded.
        named = getattr(model, "module", model).named_parameters()
        return {name: one.detach().cpu() for name, one in named if one.requires_grad}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options)


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
    weights: dict[str, Any],
    optimizer: dict[str, Any],
    numbers: dict[str, Any],
    *,
    sharded: bool = False,
) -> None:
    """Write what was collected into ``folder``, or this process's part of it. ``numbers`` is JSON.

    Raises:
        OSError, SafetensorError: the disk is full, say.
    """
    rank, processes = world()
    save_file(_unshared(_parts(weights)), _named(folder / WEIGHTS, rank if sharded else None))
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, object] = {}
    for where, value in _leaves(optimizer["state"]):
        if isinstance(value, torch.Tensor):
            tensors[where] = value
        else:
            plain[where] = value
    save_file(_apart(_parts(tensors)), _named(folder / OPTIMIZER, rank if sharded else None))
    if sharded and rank:
        return
    document = {"optimizer": {"state": plain, "param_groups": optimizer["param_groups"]}, **numbers}
    document["parts"] = processes if sharded else None
    write_file(folder / STATE, json.dumps(document, indent=1, default=_plain), public=True)


def _leaves(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
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


def _unshared(weights: dict[str, Any]) -> dict[str, torch.Tensor]:
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


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    raise TypeError(f"{type(value).__name__} in an optimizer's settings has no JSON")


def read_numbers(folder: Path) -> dict[str, Any]:
    """``state.json``.

    Raises:
        RedInstructError: it cannot be read; the message says how to begin again.
    """
    try:
        found: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RedInstructError(f"{folder}: this saved state cannot be read; remove the folder to begin again") from None
    return found


def load_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put saved weights back into the model. A collective where the model is sharded: one process reads for all."""
    options = StateDictOptions(full_state_dict=True, strict=False, broadcast_from_rank0=is_sharded(model))
    result = set_model_state_dict(model, cast("dict[str, Any]", _read(folder / WEIGHTS, model)), options=options)
    if result.unexpected_keys:
        raise RedInstructError(f"{folder}: this saved state belongs to another model ({result.unexpected_keys[0]})")


def load_optimizer(folder: Path, model: torch.nn.Module, optimizer: Optimizer) -> None:
    """Put the optimizer's saved state back, bit for bit."""
    plain = read_numbers(folder)["optimizer"]
    state: Any = {}
    for where, value in [*_read(folder / OPTIMIZER, model).items(), *plain["state"].items()]:
        *above, key = where.split("|")
        within = state
        for name in above:
            within = within.setdefault(name, {})
        within[key] = value
    groups = [{**group, **_tuples(group)} for group in plain["param_groups"]]
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, broadcast_from_rank0=is_sharded(model))
    document = cast("Any", {"state": state, "param_groups": groups})
    set_optimizer_state_dict(model, optimizer, document, options=options)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds a part of the model."""
    return isinstance(model, FSDPModule)


def _read(path: Path, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A file of tensors; of a sharded model's only in the first process, from which the others have their parts."""
    if is_sharded(model) and not is_main_process():
        return {}
    count = read_numbers(path.parent).get("parts")
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


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and Adam's betas are one."""
    return {key: tuple(value) for key, value in group.items() if key == "betas"}


def keep_only(state: Path) -> None:
    """Remove the earlier states beside this one, now that it is whole."""
    for other in state.parent.glob(f"{PREFIX}*"):
        if other != state:
            shutil.rmtree(other, ignore_errors=True)
