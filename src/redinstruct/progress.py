"""How far a long piece of work is: one type for all stages, told to one kind of listener."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class StagePart(msgspec.Struct, frozen=True):
    """Which part of longer work this is: number ``number`` of ``of``, by its name.

    ``seconds``: it has ended, and took so long. ``skipped``: it was done before, by an earlier invocation.
    """

    number: int
    of: int
    name: str
    seconds: float | None = None
    skipped: bool = False


class Progress(msgspec.Struct):
    """``done`` of ``total`` (None where nobody knows), in the work's own unit: attempts, steps, tokens, bytes.

    ``stage`` names what is being done, where that is not the whole; ``labels`` counts how it came out so far;
    ``detail`` is what else is to be known now; ``part``: of longer work, which part this is. Whoever tells it may go on
    changing it: a listener keeps a copy.
    """

    done: int
    total: int | None
    stage: str = ""
    labels: dict[str, int] = msgspec.field(default_factory=dict)
    retries: int = 0
    calls: int = 0
    detail: str = ""
    part: StagePart | None = None

    @property
    def far(self) -> str:
        """How far it is, in words."""
        return f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"

    @property
    def outcomes(self) -> list[str]:
        """How it came out so far, the most frequent first, and how many calls were tried again."""
        told = [f"{label} {count:,}" for label, count in sorted(self.labels.items(), key=lambda pair: -pair[1])]
        return [*told, f"retries {self.retries:,}"] if self.retries else told

    def staged(self, stage: str) -> Progress:
        """The same, of a stage by that name."""
        return msgspec.structs.replace(self, stage=stage)


OnProgress = Callable[[Progress], None]


def unheard(_: Progress) -> None:
    """The listener of work to which nobody listens."""
