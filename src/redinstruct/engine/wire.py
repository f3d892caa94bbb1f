"""What travels between a run and the workers that hold its models: plain data, as bytes.

Requests go out and replies come back in groups, each of all that is ready: at a high rate a message costs little per
reply, at a low one no reply waits for others.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.types import FailureReason

T = TypeVar("T")


class Errand(msgspec.Struct, frozen=True, array_like=True):
    """One request to a model's part (one of several servers behind it)."""

    number: int
    model: int
    part: int
    request: Request


class Failed(msgspec.Struct, frozen=True, array_like=True):
    """A :class:`redinstruct.models.base.ModelError` on its way."""

    reason: FailureReason
    transient: bool
    retry_after: float | None
    note: str | None
    refused: tuple[str, ...]

    def raised(self) -> ModelError:
        """The error as the model raised it."""
        told = {"transient": self.transient, "retry_after": self.retry_after}
        return ModelError(self.reason, note=self.note, refused=self.refused, **told)  # type: ignore[arg-type]


class Came(msgspec.Struct, frozen=True, array_like=True):
    """What came of a request: a reply, or why there is none."""

    number: int
    reply: Reply | None
    failed: Failed | None = None


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Everything that was ready, and what the models have to say by now, where that has changed."""

    came: list[Came]
    notes: list[tuple[int, tuple[str, ...]]] = []


class ModelSpec(msgspec.Struct, frozen=True, array_like=True):
    """A model as :func:`redinstruct.models.make_model` is asked for it; ``options`` are JSON."""

    spec: str
    options: str
    timeout: float
    chat_template: str
    batch: int | None = None
    threads: int | None = None


class Loaded(msgspec.Struct, frozen=True, array_like=True):
    """A model that a worker holds, or ``error``: why it cannot.

    ``batches``: it answers several requests at once; ``scores``: it computes log-probabilities.
    """

    version: str
    id: str = ""
    parts: int = 1
    batches: bool = False
    address_from: str | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    scores: bool = False


def pack(value: object) -> bytes:
    """A struct, or a list of them, as bytes."""
    try:
        return b"m" + msgspec.msgpack.encode(value)
    except UnicodeEncodeError:  # a lone surrogate, which banks may hold
        return b"j" + json.dumps(msgspec.to_builtins(value)).encode()


def unpack(packed: bytes, type_: type[T]) -> T:
    """The inverse of :func:`pack`. Raises ``msgspec.ValidationError`` for something else."""
    if packed[:1] == b"m":
        return msgspec.msgpack.decode(memoryview(packed)[1:], type=type_)
    return msgspec.convert(json.loads(packed[1:]), type_)
