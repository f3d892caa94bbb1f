"""Which stages of a loop are done: a stage whose inputs are unchanged is not carried out again.

A stage's folder is named by what goes into it, so that another configuration never writes over an older one's results.
Its record is written last, and whole: a stage that was killed has none, and is carried out again by the same command,
which goes on in its folder where it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from redinstruct.checkpoints.host import give_back
from redinstruct.errors import ConfigError, UsageError
from redinstruct.files.atomic import write_file
from redinstruct.files.opening import read_json
from redinstruct.files.words import Fields
from redinstruct.progress import OnProgress, Progress, StagePart, unheard
from redinstruct.rounds.config import digest_of
from redinstruct.run import remove_empty
from redinstruct.types import JsonObject

RECORDS = "stages"


class Stage(msgspec.Struct, frozen=True):
    """A stage that is done. ``place`` is its folder; ``figures`` is what it says of itself, plain values.

    ``seconds`` is what it took when it was carried out (the last, undisturbed part of it, if it was killed before);
    ``skipped``: not in this invocation.
    """

    name: str
    digest: str
    place: str
    seconds: float
    figures: Fields
    skipped: bool = False


class Ledger:
    """The stages of one loop folder, in the order in which they were asked for."""

    def __init__(self, folder: Path, on_progress: OnProgress = unheard, of: int = 0, before: int = 0) -> None:
        """``of`` stages are expected in all, ``before`` them other parts of the work: for who listens."""
        self.folder = folder
        self.stages: list[Stage] = []
        self._on_progress, self._before, self._of = on_progress, before, max(of, 1) + before
        self._part: StagePart | None = None
        self._made = [place for place in (folder / RECORDS, folder, *folder.parents) if not place.exists()]
        try:
            (folder / RECORDS).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written ({error.strerror}); name another folder") from None

    def tell(self, state: Progress) -> None:
        """Pass on how far the stage is that is carried out now, with its place among the others."""
        self._on_progress(msgspec.structs.replace(state, part=self._part))

    def stage(self, name: str, inputs: Fields, work: Callable[[Path], JsonObject], what: str = "") -> Stage:
        """Do a stage, or find it done. ``work`` is given its folder (not made yet) and returns the figures.

        ``what`` it does, in words, is for who listens.

        Raises:
            RedInstructError: what ``work`` raised; after a UsageError no empty folder is left.
        """
        digest = digest_of(name, inputs)
        place = self.folder / f"{name}-{digest[:8]}"
        record = self.folder / RECORDS / f"{place.name}.json"
        number = self._before + len(self.stages) + 1
        self._part = StagePart(number, max(self._of, number), what or name)
        found = read_json(record, Stage)
        if found is not None and found.digest == digest and place.exists():
            stage = msgspec.structs.replace(found, place=str(place), skipped=True)
        else:
            began = time.monotonic()
            self.tell(Progress(0, None))
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                figures = work(place)
            except UsageError:
                remove_empty(self._made)
                raise
            give_back()  # what a local model took: the next stage loads its own
            seconds = round(time.monotonic() - began, 1)
            stage = Stage(name, digest, str(place), seconds, msgspec.to_builtins(figures))
            kept = msgspec.json.encode(msgspec.structs.replace(stage, place=place.name))
            write_file(record, msgspec.json.format(kept) + b"\n")
        self.stages.append(stage)
        self._part = msgspec.structs.replace(self._part, seconds=stage.seconds, skipped=stage.skipped)
        self.tell(Progress(1, 1))
        return stage
