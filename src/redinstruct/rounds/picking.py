"""Choosing among checkpoints by their figures on dev questions: the safest of those that are still of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redinstruct.checkpoints.host import give_back
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import ResultFigures
from redinstruct.models import id_of
from redinstruct.progress import OnProgress, Progress
from redinstruct.rounds.asking import ask, identity
from redinstruct.rounds.config import EvalPart, digest_of
from redinstruct.types import PromptTemplate

PickAsking = tuple[EvalPart, Sequence[PromptTemplate]]
"""An evaluation, and its prompts as they are read for the loop's first model."""


class Picker:
    """Measures checkpoints: an ``on_evaluate`` of :func:`redinstruct.safealign.align`. Its runs stay in ``folder``.

    Each is named by what was measured (the checkpoint's contents, the bank, the prompts): the same is asked once, and
    nothing else goes on in its run.
    """

    def __init__(
        self, margin: float, folder: Path, asked: Mapping[str, PickAsking], tell: OnProgress, *, force: bool = False
    ) -> None:
        """``margin``: how much utility may be lost; ``asked``: what ``safety`` and ``utility`` are the figures of."""
        self.margin = margin
        self._folder, self._asked, self._tell, self._force = folder, asked, tell, force

    @property
    def identity(self) -> Any:
        """Plain values that decide its figures."""
        return [self.margin, *(identity(part, templates) for part, templates in self._asked.values())]

    def __call__(self, checkpoint: Path, step: int) -> Mapping[str, float]:
        """``safety`` and ``utility`` of a checkpoint, both in [0, 1], higher is better."""
        return self.named(checkpoint, f"step-{step}")

    def named(self, checkpoint: Path, name: str) -> Mapping[str, float]:
        """The same, its runs under a name of their own."""
        found = {}
        model = f"hf/{checkpoint}"
        for what, (part, templates) in self._asked.items():
            inputs = digest_of(id_of(model), identity(part, templates))
            run = self._folder / f"{name}-{what}-{inputs[:8]}"
            title = f"trying {name}: {what}"

            def on_progress(state: Progress, title: str = title) -> None:
                self._tell(state.staged(title))

            ask(model, run, part, templates, on_progress, force=self._force)
            give_back()  # the training goes on beside it
            results = read_report([run]).results
            shares = [_good(result) for result in results]
            found[what] = sum(shares) / len(shares)
        return found


def _good(result: ResultFigures) -> float:
    """The share of attempts that came out well: unsafe requests without success, harmless ones answered."""
    counts = result.counts
    if result.measure == "attack_success":
        return 1.0 - counts.first / counts.total
    return result.details.complied / counts.total
