"""Several processes: what torchrun started, and proof that the model really was wrapped for them.

``torchrun --nproc-per-node N -m redinstruct align ...`` starts N processes; on a CPU they speak gloo. On CPUs
accelerate can fall back without a word: to one process under its own launcher, and from FSDP2 to DDP. So what was asked
for is asserted on the wrapped model before the first step.

FSDP2 needs GPUs, since accelerate has it for no other device. The tests run its whole path on CPUs over gloo, with that
one refusal of accelerate's lifted; on GPUs it has not been run by us.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from redinstruct.errors import RedInstructError, UsageError


def world() -> tuple[int, int]:
    """The rank of this process and how many there are, as torchrun says."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return world()[0] == 0


def check_world(processes: int | None, *, fsdp: bool) -> None:
    """Pass when the launch is what the user asked for.

    Raises:
        UsageError: another number of processes was started than asked for, or FSDP2 was asked for where it cannot be.
    """
    found = world()[1]
    if processes is not None and processes != found:
        raise UsageError(
            f"--processes {processes}, but {found} were started: use"
            f" torchrun --nproc-per-node {processes} -m redinstruct align ..."
        )
    if fsdp and not torch.cuda.is_available():
        raise UsageError("--fsdp needs GPUs: on CPUs accelerate would train with DDP instead, without a word")
    if fsdp and "RANK" not in os.environ:
        raise UsageError("--fsdp needs several processes: torchrun --nproc-per-node N -m redinstruct align ...")


def keep_wide(plugin: Any) -> None:
    """Under FSDP2 in mixed precision: answer log-probabilities and sum gradients in float32, as DDP does.

    accelerate's default rounds both to bfloat16, and a sum over an answer's log-probabilities to 8 bits with them.
    """
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None:
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=torch.float32)


def check_engaged(wrapped: torch.nn.Module, processes: int, *, fsdp: bool) -> None:
    """Pass when ``wrapped`` is what several processes need.

    Raises:
        RedInstructError: the model is not wrapped as was asked for; nothing was trained.
    """
    if fsdp and not isinstance(wrapped, FSDPModule):
        name = type(wrapped).__name__
        raise RedInstructError(f"FSDP2 was asked for, but the model is wrapped in {name}; not trained")
    if not fsdp and processes > 1 and not isinstance(wrapped, DistributedDataParallel):
        raise RedInstructError(
            f"{processes} processes were started, but the model is wrapped in {type(wrapped).__name__}, so that each"
            " would train its own; not trained"
        )


def summed(values: list[float], device: torch.device) -> list[float]:
    """Each value summed over the processes, in float64."""
    if world()[1] == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    summed: list[float] = tensor.tolist()
    return summed


def wait_for_all() -> None:
    """Return when every process got here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
