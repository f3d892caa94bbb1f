"""What an alignment takes, and how its steps are cut to fit: decided before anything is loaded.

One arithmetic for ``align --plan`` and for the run itself. The peak of a device is what it holds all along (weights,
gradients, the optimizer's state) and what one micro-batch keeps for its backward pass (counted by
:mod:`redinstruct.safealign.sizes`), with the logits of a chunk and the gradients of one layer on top; or, where that is
more, what writing a state or a checkpoint takes. GB are 10^9 bytes. What is said of GPUs is arithmetic; on CPUs it was
held against measured peaks (docs/experiments/memory.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
import torch

from redinstruct.alignment import AlignConfig
from redinstruct.checkpoints.host import host_bytes, resident
from redinstruct.errors import UsageError
from redinstruct.safealign.batches import Cut
from redinstruct.safealign.launch import world
from redinstruct.safealign.losses import CHUNK
from redinstruct.safealign.sizes import Sizes, sizes_of

SCHEMA = "redinstruct.plan/1"
GB = 1e9
Sharding = Literal["none", "ddp", "fsdp"]
BaseDtype = Literal["float32", "bfloat16", "8bit", "4bit"]

_CPU_POSITIONS, _GPU_POSITIONS = 512, 16_384
"""Positions of a micro-batch beyond which it gets no faster: measured on CPUs, assumed of GPUs."""
_CONTEXT, _FRAGMENTS, _NCCL = 0.8 * GB, 0.05, 0.6 * GB
"""A GPU's context and libraries, the share that its allocator cannot use, buffers between GPUs."""
_BASE_BYTES: Mapping[BaseDtype, float] = {"float32": 4, "bfloat16": 2, "8bit": 1.02, "4bit": 0.53}
_STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2.1, "paged-adamw-8bit": 2.1}


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. ``gpus`` 0 is a CPU; ``memory`` is in bytes: of each GPU, or of the host for each process."""

    gpus: int
    processes: int
    memory: float


class RowsToFit(msgspec.Struct, frozen=True, kw_only=True):
    """What of the data memory depends on: the longest row in tokens, the rows of a step, the steps, where known."""

    longest: int
    batch: int
    steps: int | None = None
    compared_tokens: int = 0
    exact: bool = True


class DeviceBytes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one device at its peak, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    reference: float
    overhead: float

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(msgspec.structs.astuple(self)))


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """``align --plan --json``. ``gpu_gb`` and ``host_gb`` are the peaks of one GPU and of the host, with all processes.

    ``micro_batch`` is how many rows of the longest length go at once, ``accumulation`` how many micro-batches a step of
    such rows takes in each process; ``dtype`` is what the base's weights are held in, ``parts`` the peak by purpose.
    """

    schema: str = SCHEMA
    fits: bool
    gpu_gb: float
    host_gb: float
    gpus: int
    micro_batch: int
    accumulation: int
    checkpointing: bool
    dtype: BaseDtype
    sharding: Sharding
    steps: int | None
    why: str
    parts: dict[str, float]
    limit_gb: float
    longest_row: int
    cut: Cut

    @property
    def sentence(self) -> str:
        """The plan in one line."""
        held = "checkpointed activations" if self.checkpointing else "activations kept"
        where = f"{self.gpu_gb:.1f} GB a GPU" if self.gpus else f"{self.host_gb:.1f} GB"
        shared = {"none": "", "ddp": ", a copy in each process", "fsdp": ", sharded over the GPUs"}[self.sharding]
        return (
            f"micro-batches of {self.micro_batch} rows of {self.longest_row:,} tokens, {self.accumulation} a step;"
            f" {held}; weights in {self.dtype}{shared}; about {where} of {self.limit_gb:.1f}"
        )


def machine_of(memory_gb: float | None = None, gpus: int | None = None) -> Machine:
    """The machine that was described, and where nothing is said this one.

    A size of memory without a number of GPUs is that of one GPU.

    Raises:
        UsageError: such a machine can not be.
    """
    if memory_gb is not None and not 0 < memory_gb < 1e6:
        raise UsageError(f"--memory {memory_gb}: expected gigabytes, above 0")
    if gpus is not None and gpus < 0:
        raise UsageError(f"--gpus {gpus}: must be at least 0 (0 is a CPU)")
    processes = world()[1]
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is None:
        gpus = 1 if memory_gb is not None and not seen else min(seen, processes) if processes > 1 else min(seen, 1)
    if gpus:
        memory = memory_gb * GB if memory_gb is not None else _gpu_bytes() if seen else None
        if memory is None:
            raise UsageError("--gpus: there is none here, so say how large they are: --memory GB")
        return Machine(gpus=gpus, processes=gpus, memory=memory)
    memory = memory_gb * GB if memory_gb is not None else host_bytes()
    return Machine(gpus=0, processes=processes, memory=memory / processes)


def this_machine(memory_gb: float | None = None) -> Machine:
    """The machine of a run: its GPUs, one for each process, or the host."""
    return machine_of(memory_gb, world()[1] if torch.cuda.is_available() else 0)


def _gpu_bytes() -> float:
    return float(torch.cuda.get_device_properties(0).total_memory)


class _Layout(msgspec.Struct, frozen=True):
    """One way to train that could fit."""

    base: BaseDtype
    checkpointing: bool
    sharding: Sharding


def plan(config: AlignConfig, rows: RowsToFit, machine: Machine) -> MemoryPlan:
    """The first way that fits, of those that are fastest first; where none does, the one that takes least.

    Raises:
        UsageError: the base's architecture is not known.
    """
    share = max(1, rows.batch // machine.processes)
    room = machine.memory
    best: MemoryPlan | None = None
    for way in _ways(config, machine):
        for micro in _micros(config, share, rows.longest, gpu=machine.gpus > 0):
            found = _weighed(config, rows, machine, way, micro)
            if found.fits:
                return found
            if best is None or _peak(found) < _peak(best):
                best = found
    assert best is not None
    tried = "checkpointed, one row at a time" if best.checkpointing else "one row at a time"
    takes = f"{tried}, it takes {_peak(best):.1f} of {room / GB:.1f} GB"
    return msgspec.structs.replace(best, why=f"does not fit: {takes}. {_advice(config, best, machine)}")


def _peak(found: MemoryPlan) -> float:
    return found.gpu_gb if found.gpus else found.host_gb


def _advice(config: AlignConfig, best: MemoryPlan, machine: Machine) -> str:
    advice = []
    if config.lora is None:
        advice.append("--lora R trains an adapter")
    elif best.dtype not in ("4bit",):
        advice.append("--quantize 4 holds the base in 4 bits")
    if config.chosen.optimizer == "adamw" and machine.gpus and config.lora is None:
        advice.append("--optimizer adamw-8bit")
    if machine.gpus and best.sharding != "fsdp":
        advice.append("more GPUs (--gpus N under torchrun) share it")
    advice.append(f"--max-length below {best.longest_row}")
    return "Less takes: " + "; ".join(advice)


def _ways(config: AlignConfig, machine: Machine) -> Iterator[_Layout]:
    """What was left open, the fastest first: no sharding, nothing computed twice."""
    shardings: list[Sharding] = ["none"]
    if machine.processes > 1:
        left_open = config.fsdp is None and machine.gpus > 1
        shardings = ["ddp", "fsdp"] if left_open else ["fsdp"] if config.fsdp else ["ddp"]
    asked = config.activation_checkpointing
    for base in base_dtypes(config, gpu=machine.gpus > 0):
        for sharding in shardings:
            for checkpointing in (False, True) if asked is None else (asked,):
                yield _Layout(base, checkpointing, sharding)


def base_dtypes(config: AlignConfig, *, gpu: bool) -> tuple[BaseDtype, ...]:
    """What the base may be held in, the preferred first.

    Weights that are trained are float32: bfloat16 would lose steps of a usual size. A frozen base loses nothing in the
    16 bits that a GPU computes in; a CPU is slower in them.
    """
    if config.quantize is not None:
        return ("4bit",) if config.quantize == 4 else ("8bit",)
    if config.base_dtype is not None:
        return (config.base_dtype,)
    if config.lora is None:
        return ("float32",)
    return ("bfloat16",) if gpu else ("float32", "bfloat16")


def _micros(config: AlignConfig, share: int, longest: int, *, gpu: bool) -> Iterator[int]:
    """Rows of a micro-batch: as was asked for, else from what is no faster down to one."""
    if config.chosen.accumulation is not None:
        yield -(-share // config.chosen.accumulation)
        return
    micro = max(1, min(share, (_GPU_POSITIONS if gpu else _CPU_POSITIONS) // longest))
    while True:
        yield micro
        if micro == 1:
            return
        micro //= 2


def _weighed(config: AlignConfig, rows: RowsToFit, machine: Machine, way: _Layout, micro: int) -> MemoryPlan:
    gpu = machine.gpus > 0
    frozen = torch.float32 if way.base == "float32" else torch.bfloat16
    sizes = sizes_of(config.base, rows.longest, lora=config.lora, base=frozen, half=gpu)
    parts = _parts(config, sizes, rows, machine, way, micro)
    used = parts.total
    if gpu:
        used = used * (1 + _FRAGMENTS) + _CONTEXT + (_NCCL if machine.gpus > 1 else 0)
        host = _host_beside(sizes, config, machine, way)
    else:
        used = max(used, _writing(sizes, config)) + resident()
        host = used * machine.processes
    share = max(1, rows.batch // machine.processes)
    given = config.chosen.accumulation
    cut = Cut(micro, sys.maxsize) if given is not None else Cut(share, micro * rows.longest)
    notes = [] if sizes.counted else ["activations are by a formula: this architecture can not be carried through"]
    notes += [] if rows.exact else ["every row is taken to be as long as --max-length allows"]
    return MemoryPlan(
        fits=used <= machine.memory,
        gpu_gb=round(used / GB, 3) if gpu else 0.0,
        host_gb=round(host / GB, 3),
        gpus=machine.gpus,
        micro_batch=micro,
        accumulation=-(-share // micro),
        checkpointing=way.checkpointing,
        dtype=way.base,
        sharding=way.sharding,
        steps=rows.steps,
        why="; ".join(["fits", *notes]),
        parts={name: round(value / GB, 3) for name, value in msgspec.structs.asdict(parts).items()},
        limit_gb=round(machine.memory / GB, 3),
        longest_row=rows.longest,
        cut=cut,
    )


def _parts(
    config: AlignConfig, sizes: Sizes, rows: RowsToFit, machine: Machine, way: _Layout, micro: int
) -> DeviceBytes:
    ways = machine.processes if way.sharding == "fsdp" else 1
    trained = sizes.trained
    second = sizes.parameters * 4 if config.strategy in ("kto", "dpo") and config.lora is None else 0
    weights = sizes.parameters * (_BASE_BYTES[way.base] if config.lora else 4) + (trained * 4 if config.lora else 0)
    # Of a sharded model two layers and what stands outside them are whole at any time, in 16 bits.
    whole = (2 * sizes.in_layers + sizes.embedding) * 2 if ways > 1 else 0
    dequantised = sizes.in_layers * 2 if way.base in ("4bit", "8bit") else 0
    kept = micro * (sizes.row_checkpointed + sizes.layer if way.checkpointing else sizes.row)
    casts = 0 if ways > 1 else sizes.casts
    positions = min(CHUNK, micro * rows.longest)
    head = 0 if config.lora else sizes.vocabulary * sizes.width * 4
    # DDP sums gradients in buckets of their own.
    buckets = trained * 4 if way.sharding == "ddp" else 0
    return DeviceBytes(
        weights=(weights + second) / ways + whole + casts + dequantised,
        gradients=(trained * 4 + buckets) / ways,
        optimizer=trained * _STATE_BYTES[config.chosen.optimizer] / ways,
        activations=kept + micro * sizes.layer // 2,
        logits=3 * positions * sizes.vocabulary * 4 + head,
        reference=rows.compared_tokens * 4 if machine.gpus == 0 else 0,
        overhead=0,
    )


def _writing(sizes: Sizes, config: AlignConfig) -> float:
    """Bytes while a state is written (its tensors once more), or a checkpoint (the weights, three times more)."""
    state = sizes.trained * _STATE_BYTES[config.chosen.optimizer]
    return sizes.parameters * 4 + max(2 * state, 3 * sizes.parameters * 4)


def _host_beside(sizes: Sizes, config: AlignConfig, machine: Machine, way: _Layout) -> float:
    """Bytes of the host beside its GPUs: the programs, and the weights while a state or a checkpoint is written."""
    state = sizes.trained * (4 + _STATE_BYTES[config.chosen.optimizer])
    loading = sizes.parameters * 4 if way.sharding == "fsdp" else 0
    return machine.processes * 1.5 * GB + max(state, loading, 2 * sizes.parameters * 4)
