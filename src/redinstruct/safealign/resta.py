"""RESTA: safety by arithmetic on weights (Bhardwaj, Do and Poria 2024, arXiv 2402.11746, equations 1 to 4).

``merged = model + coefficient * (safe - unsafe)``, tensor by tensor; ``unsafe`` is ``safe`` fine-tuned on harmful
answers. With DARE (Yu et al. 2023, arXiv 2311.03099) a share ``drop`` of the vector's entries is set to zero and the
rest is scaled by ``1 / (1 - drop)``: the paper's way of leaving more of the model alone.

Promised: at most one tensor of each of the three models is in memory; the merged files have the layout of ``model``'s
own, byte for byte but for the values (and their precision, where another is asked for); what is dropped depends on the
seed and the tensor's name, and on nothing else. The arithmetic is done in float32, or in float64 for float64 tensors,
and rounded once.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from redinstruct import checkpoints
from redinstruct.errors import UsageError
from redinstruct.files.atomic import whole_file, write_file
from redinstruct.progress import OnProgress, Progress
from redinstruct.safetext import terminal


class Merge(msgspec.Struct, frozen=True):
    """How much of the vector is added, which share of its entries is dropped (DARE), and by which seed."""

    coefficient: float
    drop: float = 0.0
    seed: int = 0


class Names(msgspec.Struct, frozen=True):
    """What a model's files call its tensors.

    ``twins``: further names of tied tensors, which the files may lack, and the name that each is written under.
    ``ignored``: patterns of tensors that the architecture does not read (a rotary embedding's buffer of older files,
    the layers that predict several tokens), and so are nobody's to train: the merged model keeps the model's own.
    """

    twins: Mapping[str, str] = {}
    ignored: tuple[str, ...] = ()

    def are_read(self, name: str) -> bool:
        """Whether the architecture reads the tensor of this name."""
        return not any(re.search(pattern, name) for pattern in self.ignored)


_AS_READ = Names()


class Entry(TypedDict):
    """A tensor in a safetensors file's header. ``data_offsets``: where its bytes begin and end, after the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Weights:
    """The tensors of one checkpoint folder by name, read one at a time; of the files that transformers reads."""

    def __init__(self, folder: Path, twins: Mapping[str, str] | None = None) -> None:
        self.files = checkpoints.weight_files(folder, terminal(folder.name))
        self._where: dict[str, Path] = {}
        self._twins: dict[str, str] = {}
        for path in self.files:
            for name in header(path)[0]:
                if name in self._where:
                    raise UsageError(f"{folder.name}: {name} stands in two files; it is not clear which one counts")
                self._where[name] = path
        for twin, name in (twins or {}).items():
            if twin not in self._where and name in self._where:
                self._twins[twin] = name

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where or name in self._twins

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        own = self._twins.get(name, name)
        with safe_open(self._where[own], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(own)
            return tensor


def header(path: Path) -> tuple[dict[str, Entry], bytes]:
    """Name -> entry of a safetensors file, in the order of the bytes; and the header's own bytes.

    Raises:
        UsageError: the file is cut off, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt"):
            pass  # checks offsets against the file's size
        with path.open("rb") as file:
            first = file.read(8)
            raw = file.read(struct.unpack("<Q", first)[0])
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
    except (OSError, SafetensorError, ValueError, struct.error):
        raise UsageError(f"{path.name}: cannot be read as safetensors; the file may be cut off") from None
    return dict(sorted(entries.items(), key=lambda pair: pair[1]["data_offsets"][0])), first + raw


def check_written(model: Weights, written: Collection[str], names: Names) -> None:
    """Pass when training writes every tensor that is read, under the names of the ``model``'s files.

    Raises:
        UsageError: it would not; nothing has been trained.
    """
    held = (name for path in model.files for name in header(path)[0])
    missing = sorted(name for name in held if name not in written and name not in names.twins and names.are_read(name))
    if missing:
        raise UsageError(
            f"--strategy resta: {len(missing)} tensors of the files ({missing[0]}, ...) are none that transformers"
            " trains and writes under that name, so that their difference cannot be taken; nothing was trained"
        )


def check_alike(model: Weights, safe: Weights, unsafe: Weights, names: Names = _AS_READ) -> None:
    """Pass when the three checkpoints hold the same tensors, so that adding and subtracting them means something.

    Raises:
        UsageError: a floating-point tensor of ``model`` is missing in another, or has another shape there.
    """
    for path in model.files:
        for name, entry in header(path)[0].items():
            for what, other in (("safe", safe), ("unsafe", unsafe)) if names.are_read(name) else ():
                if name not in other:
                    raise UsageError(f"the {what} model has no tensor {name}: it is no relative of the model to mend")
                if list(other.read(name).shape) != entry["shape"]:
                    raise UsageError(f"{name} has another shape in the {what} model: it is no relative of this one")


def dropped(vector: torch.Tensor, drop: float, seed: int, name: str) -> torch.Tensor:
    """DARE: each entry is zero with probability ``drop``, the rest scaled so that the expectation stays."""
    if not drop:
        return vector
    generator = torch.Generator().manual_seed(
        int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")
    )
    kept = torch.rand(vector.shape, generator=generator, dtype=torch.float32) >= drop
    return vector * kept / (1 - drop)


def merged_tensors(
    parts: tuple[Weights, Weights, Weights], wanted: Iterable[str], how: Merge, names: Names
) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
    """Each wanted tensor of the merged model, unrounded, and its own precision.

    Integers, flags and what the architecture does not read are the model's.
    """
    model, safe, unsafe = parts
    for name in wanted:
        own = model.read(name)
        if own.is_floating_point() and names.are_read(name):
            kind = torch.float64 if own.dtype == torch.float64 else torch.float32
            vector = safe.read(name).to(kind) - unsafe.read(name).to(kind)
            yield name, own.to(kind) + how.coefficient * dropped(vector, how.drop, how.seed, name), own.dtype
        else:
            yield name, own, own.dtype


def merge_weights(
    model: Path,
    safe: Path,
    unsafe: Path,
    out: Path,
    how: Merge,
    *,
    dtype: torch.dtype | None = None,
    names: Names = _AS_READ,
    on_progress: OnProgress | None = None,
) -> None:
    """Write the merged weight files of the three checkpoint folders into the folder ``out``; nothing else.

    ``dtype`` is the precision of floating-point tensors, None each one's own.

    Raises:
        UsageError: the three do not fit together; nothing was written.
        OSError: the disk is full, say; what was written so far is left to the caller.
    """
    parts = Weights(model), Weights(safe, names.twins), Weights(unsafe, names.twins)
    check_alike(*parts, names)
    done = 0
    for path in parts[0].files:
        head = header_in(path, dtype)
        with whole_file(out / path.name, public=True) as file:
            file.write(head)
            for _, tensor, own in merged_tensors(parts, header(path)[0], how, names):
                wanted = dtype if dtype is not None and tensor.is_floating_point() else own
                file.write(tensor.to(wanted).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
                done += 1
                if on_progress is not None:
                    on_progress(Progress(done, len(parts[0]), "merge"))
        header(out / path.name)  # the sizes that it names are those of the bytes
    if (model / checkpoints.INDEX).is_file():
        write_file(out / checkpoints.INDEX, (model / checkpoints.INDEX).read_bytes(), public=True)


PRECISIONS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Those of floating-point tensors, by their names in a safetensors file."""


def header_in(path: Path, dtype: torch.dtype | None) -> bytes:
    """The header's bytes of a safetensors file, as it would be with its floating-point tensors in another precision."""
    entries, raw = header(path)
    wanted = next((name for name, kind in PRECISIONS.items() if kind == dtype), None)
    if wanted is None or {entry["dtype"] for entry in entries.values()} & set(PRECISIONS) <= {wanted}:
        return raw
    held: dict[str, Entry] = {}
    at = 0
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        size = end - begin
        if (kind := PRECISIONS.get(entry["dtype"])) is not None:
            size = size // kind.itemsize * PRECISIONS[wanted].itemsize
            entry = {**entry, "dtype": wanted}
        held[name] = {**entry, "data_offsets": (at, at + size)}
        at += size
    about = json.loads(raw[8:]).get("__metadata__", {"format": "pt"})
    made = json.dumps({"__metadata__": about, **held}).encode()
    made += b" " * (-len(made) % 8)
    return struct.pack("<Q", len(made)) + made
