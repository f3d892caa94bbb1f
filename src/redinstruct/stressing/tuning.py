"""Harmless fine-tuning as an attack: a few steps on ordinary rows, and how much of the refusing is left.

It is ``align``'s own training (strategy ``general``), in one process. The tuned weights go from memory to memory; what
the trainer saves on its way lies in a folder that only its owner can enter and that outlives neither the training nor
the process.

Source: Qi et al. 2023, "Fine-tuning aligned language models compromises safety, even when users do not intend to"
(arXiv 2310.03693).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from redinstruct import world
from redinstruct.alignment import AlignConfig, GuardRule, preset_for, with_settings
from redinstruct.checkpoints.host import give_back
from redinstruct.files.atomic import write_file
from redinstruct.progress import OnProgress, Progress
from redinstruct.safealign import states
from redinstruct.safealign.outcome import Listeners, StepFigures
from redinstruct.safealign.prepare import Prepared, prepare
from redinstruct.safealign.training import TrainingRun
from redinstruct.safealign.unfinished import as_it_was
from redinstruct.safealign.unsafe import secret_folder
from redinstruct.toyworld.alignment import general_rows

NEVER = 10**9
RATES = {"toy": 5e-4}
RATE, BATCH = 2e-5, 16
"""Learning rate of any other model, and rows a step: those of Qi et al. for Llama-2 on Alpaca and Dolly, its batch
smaller, so that few steps are few rows."""
TOY_ROWS = 400
PLACE = "tuned"
"""The name beside which, in the run's folder, the trainer works."""


class Tuning(NamedTuple):
    """How a checkpoint is tuned: the rows' file (None: harmless rows of our own), learning rate and rows a step."""

    base: Path
    data: Path | None
    rate: float
    batch: int
    seed: int
    threads: int | None = None


def tuning_of(base: Path, data: Path | None, rate: float | None, batch: int | None, seed: int) -> Tuning:
    """The tuning with what was left out filled in, by the kind of model."""
    toy = preset_for(base) == "toy"
    own = RATES.get(preset_for(base), RATE)
    return Tuning(
        base, data, own if rate is None else rate, BATCH if batch is None else batch, seed, 1 if toy else None
    )


@contextmanager
def rows_of(tuning: Tuning) -> Iterator[Path]:
    """The file of rows: the user's, else the toy world's for a toy model, else two dozen short ones of our own."""
    if tuning.data is not None:
        yield tuning.data
    elif preset_for(tuning.base) == "toy":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "toy-harmless.jsonl"
            rows = general_rows(1, TOY_ROWS, of=world.world())
            write_file(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), public=True)
            yield path
    else:
        with as_file(files(__package__).joinpath("rows", "harmless.jsonl")) as path:
            yield path


def prepared_tuning(tuning: Tuning, steps: int, place: Path) -> tuple[Prepared, str]:
    """What the training needs, checked, and the sha256 of its rows; nothing is written.

    Raises:
        UsageError: the rows cannot be read, or none can be trained on.
    """
    with rows_of(tuning) as data:
        config = AlignConfig(
            base=tuning.base,
            data=(data,),
            strategy="general",
            out=place,
            forms=(),
            settings=with_settings(
                preset_for(tuning.base), steps=steps, batch=tuning.batch, learning_rate=tuning.rate, warm_up=0.0,
                schedule="constant", deep_prefix=0.0, save_every=NEVER,
            ),
            seed=tuning.seed,
            guard=GuardRule(rise=None),
            threads=tuning.threads,
        )  # fmt: skip
        prepared = prepare(config.resolved())
    return prepared, prepared.read.files[0][1]


class Tuned(NamedTuple):
    """Trained weights by name, in memory, and the loss of the first and the last step."""

    weights: Any
    told: dict[str, float]


def tuned_weights(prepared: Prepared, home: Path, stage: str, on_progress: OnProgress) -> Tuned:
    """Train.

    Raises:
        RedInstructError: the training cannot be carried out; nothing is left of it.
    """

    def on_step(figures: StepFigures) -> None:
        on_progress(Progress(figures.step, figures.steps, stage))

    with as_it_was(prepared.config.threads), secret_folder(home / PLACE) as folder:
        (folder / "states").mkdir(mode=0o700)
        trainer = TrainingRun(prepared, folder / "states", Listeners(on_step=on_step)).train()
        weights = states.collect_weights(trainer.model_wrapped)
        history = trainer.history
    del trainer
    give_back()
    losses = {"loss_at_start": round(history[0].loss, 4), "loss_at_end": round(history[-1].loss, 4)}
    return Tuned(weights, losses)
