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
from redinstruct.stressing.options import StressOptions
from redinstruct.toyworld.alignment import general_rows

NEVER = 10**9
RATES = {"toy": 5e-4}
RATE, BATCH = 2e-5, 16
"""Learning rate of any other model, and rows a step: those of Qi et al. for Llama-2 on Alpaca and Dolly, its batch
smaller, so that few steps are few rows."""
TOY_ROWS = 400
PLACE = "tuned"
"""The name beside which, in the run's folder, the trainer works."""


def rate_of(asked: StressOptions) -> float:
    """The learning rate; where it was left out, by the kind of model."""
    return RATES.get(preset_for(asked.folder), RATE) if asked.tune_rate is None else asked.tune_rate


def batch_of(asked: StressOptions) -> int:
    """Rows a step."""
    return BATCH if asked.tune_batch is None else asked.tune_batch


@contextmanager
def rows_of(asked: StressOptions) -> Iterator[Path]:
    """The file of rows: the user's, else the toy world's for a toy model, else two dozen short ones of our own."""
    if asked.tune_data is not None:
        yield asked.tune_data
    elif preset_for(asked.folder) == "toy":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "toy-harmless.jsonl"
            rows = general_rows(1, TOY_ROWS, of=world.world())
            write_file(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), public=True)
            yield path
    else:
        with as_file(files(__package__).joinpath("rows", "harmless.jsonl")) as path:
            yield path


def prepared_tuning(asked: StressOptions, steps: int, place: Path) -> tuple[Prepared, str]:
    """What the training needs, checked, and the sha256 of its rows; nothing is written.

    Raises:
        UsageError: the rows cannot be read, or none can be trained on.
    """
    preset = preset_for(asked.folder)
    with rows_of(asked) as data:
        config = AlignConfig(
            base=asked.folder,
            data=(data,),
            strategy="general",
            out=place,
            forms=(),
            settings=with_settings(
                preset, steps=steps, batch=batch_of(asked), learning_rate=rate_of(asked), warm_up=0.0,
                schedule="constant", deep_prefix=0.0, save_every=NEVER,
            ),
            seed=asked.seed,
            guard=GuardRule(rise=None),
            threads=1 if preset == "toy" else None,
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
