"""Choosing among checkpoints by their figures on dev questions: the safest of those that are still of use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redinstruct.checkpoints.host import give_back
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import ResultFigures
from redinstruct.models import id_of
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.rounds.asking import ask, identity
from redinstruct.rounds.config import EvalPart, PickPart, digest_of
from redinstruct.types import PromptTemplate


class Picker:
    """Measures checkpoints: an ``on_evaluate`` of :func:`redinstruct.safealign.align`. Its runs stay in ``folder``.

    Each is named by what was measured (the checkpoint's contents, the bank, the prompts): the same is asked once, and
    nothing else goes on in its run.
    """

    def __init__(
        self,
        part: PickPart,
        folder: Path,
        safety: list[PromptTemplate],
        utility: list[PromptTemplate],
        *,
        on_progress: OnProgress = unheard,
        force: bool = False,
    ) -> None:
        self._part, self._folder, self._on_progress, self._force = part, folder, on_progress, force
        self._templates = {"safety": safety, "utility": utility}

    @property
    def margin(self) -> float:
        """How much utility may be lost."""
        return self._part.margin

    @property
    def identity(self) -> Any:
        """Plain values that decide its figures."""
        return [self.margin, *(identity(part, self._templates[what]) for what, part in self._parts().items())]

    def _parts(self) -> dict[str, EvalPart]:
        return {"safety": self._part.safety, "utility": self._part.utility}

    def __call__(self, checkpoint: Path, step: int) -> Mapping[str, float]:
        """``safety`` and ``utility`` of a checkpoint, both in [0, 1], higher is better."""
        return self.named(checkpoint, f"step-{step}")

    def named(self, checkpoint: Path, name: str) -> Mapping[str, float]:
        """The same, its runs under a name of their own."""
        found = {}
        model = f"hf/{checkpoint}"
        for what, part in self._parts().items():
            inputs = digest_of(id_of(model), identity(part, self._templates[what]))
            run = self._folder / f"{name}-{what}-{inputs[:8]}"
            title = f"trying {name}: {what}"

            def on_progress(state: Progress, title: str = title) -> None:
                self._on_progress(state.staged(title))

            ask(model, run, part, self._templates[what], on_progress, force=self._force)
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
