"""How an alignment ends, and who hears of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from redinstruct.alignment import TrainingFigures
from redinstruct.errors import RedInstructError
from redinstruct.progress import OnProgress
from redinstruct.safealign.card import read_card
from redinstruct.safealign.front import OnEvaluate


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One optimizer step. Losses are mean negative log-likelihoods per token, None where the step had no such rows.

    ``red_first`` is that of the red answers' first tokens, ``red_above`` the share of red rows above the strategy's
    threshold, ``red_term`` what red adds to the loss; ``red_off``: the guard has dropped it. ``probe``: what the
    harmless questions gave after this step (:mod:`redinstruct.safealign.probe`), None where they were not asked.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    blue: float | None = None
    general: float | None = None
    red: float | None = None
    red_first: float | None = None
    red_above: float | None = None
    red_term: float = 0.0
    red_off: bool = False
    probe: Mapping[str, float] | None = None


OnStep = Callable[[StepFigures], None]


class Aligned(msgspec.Struct, frozen=True, kw_only=True):
    """A finished alignment. ``figures`` are those of the card; ``history`` is empty where it was there already."""

    checkpoint: Path
    history: tuple[StepFigures, ...] = ()
    figures: TrainingFigures = {}
    warnings: tuple[str, ...] = ()


class GuardStopped(RedInstructError):
    """The guard stopped the run; ``history`` says how it went. Nothing was written to ``--out``."""

    def __init__(self, message: str, history: tuple[StepFigures, ...]) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True)
class Listeners:
    """Who is told, and asked, while a run goes on (:func:`redinstruct.safealign.align`)."""

    on_step: OnStep | None = None
    on_evaluate: OnEvaluate | None = None
    should_stop: Callable[[], bool] = lambda: False
    on_progress: OnProgress | None = None
    say: Callable[[str], None] | None = None

    def note(self, line: str) -> None:
        """Say a line to who listens."""
        if self.say is not None:
            self.say(line)


def there_already(out: Path, digest: str) -> Aligned | None:
    """The checkpoint at ``out`` where it is of this very run."""
    card = read_card(out)
    if card is None or card.digest != digest:
        return None
    return Aligned(checkpoint=out, figures=card.figures, warnings=("it was there already",))
