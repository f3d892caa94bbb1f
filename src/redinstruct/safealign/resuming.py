"""Saved states of our own in the place of Trainer's, which are pickle: the same of our trainer and of TRL's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from redinstruct.alignment import Settings
from redinstruct.errors import TrainingFailed
from redinstruct.files.atomic import whole_folder
from redinstruct.safealign import states
from redinstruct.safealign.batches import Cut
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.launch import wait_for_all
from redinstruct.safealign.outcome import Listeners, StepFigures
from redinstruct.safealign.saving import writing


def rate_at(settings: Settings, step: int, steps: int) -> float:
    """The share of the peak learning rate that step 0, 1, ... is made with: linear warm-up, then the schedule."""
    warm = settings.warm_up if settings.warm_up >= 1 else math.ceil(settings.warm_up * steps)
    if step + 1 <= warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[settings.schedule]
    return settings.final_rate_share + (1 - settings.final_rate_share) * left


class ResumableTrainer(Trainer):
    """Keeps and reads :mod:`redinstruct.safealign.states`, and none of Trainer's own files.

    ``history`` holds every step's figures, those before a resumption included; ``cut`` is None where TRL cuts the
    steps, ``sharded`` where each process has a part of the model.
    """

    guard: Guard
    history: list[StepFigures]
    cut: Cut | None = None
    sharded = False

    def begin_run(self, guard: Guard, listeners: Listeners, settings: Settings) -> None:
        """Let it be the trainer of a run that has not made a step."""
        self.guard, self.history, self.listeners, self._settings = guard, [], listeners, settings
        # Without a progress bar of its own, Trainer prints every log to standard output.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    @property
    def folder(self) -> Path:
        """Where the states lie."""
        return Path(str(self.args.output_dir))

    def intact(self) -> str:
        """What is left on the disk, in words."""
        last = states.latest(self.folder)
        if last is None:
            return "nothing was saved before"
        return f"the state after {int(last.name.removeprefix(states.PREFIX))} steps is intact"

    def broken(self, what: str, step: int) -> TrainingFailed:
        """Why there is no next step, where this is not finite."""
        return TrainingFailed(f"the {what} is not finite at step {step}; {self.intact()}; lower --lr")

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """:func:`rate_at`, a pure function of the step: in TRL's loop too, whose schedules know no final rate."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or inner(self.optimizer), lambda step: rate_at(self._settings, step, num_training_steps)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def note_step(self, figures: StepFigures) -> None:
        """One step more is made."""
        self.history.append(figures)
        if self.listeners.on_step is not None:
            self.listeners.on_step(figures)

    def decide(self, control: TrainerControl, save_every: int, *, stopped: bool) -> None:
        """After a step: whether it was the last one, and whether its state is kept."""
        step = self.state.global_step
        control.should_training_stop |= stopped
        control.should_save |= stopped or step % save_every == 0 or step == self.state.max_steps

    def _save_checkpoint(self, model: torch.nn.Module, *_: Any, **__: Any) -> None:
        step = self.state.global_step
        weights, optimizer = states.collect(model, inner(self.optimizer))
        target = states.state_folder(self.folder, step)
        if self.args.should_save or self.sharded:
            scheduler = cast("Any", self.lr_scheduler).state_dict()
            numbers = states.Numbers(
                step=step, scheduler=scheduler, guard=self.guard.state, cut=self.cut, history=self.history
            )
            by_all = states.written_by_all(target, self.args.device) if self.sharded else None
            whole = by_all or whole_folder(target, mode=0o700)
            with writing(f"the state after {step} steps", self.intact()), whole as fresh:
                states.write(fresh, weights, optimizer, numbers, sharded=self.sharded)
                if self.args.should_save:
                    self.state.save_to_json(str(fresh / TRAINER_STATE_NAME))
            if self.args.should_save:
                states.keep_only(target)
        wait_for_all()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        states.load_weights(
            Path(resume_from_checkpoint), cast("torch.nn.Module", self.model if model is None else model)
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        states.load_optimizer(Path(checkpoint), self.model_wrapped, inner(self.optimizer))
        numbers = states.read_numbers(Path(checkpoint))
        cast("Any", self.lr_scheduler).load_state_dict(dict(numbers.scheduler))
        self.guard.state, self.history = numbers.guard, numbers.history
        self.cut = numbers.cut or self.cut

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """There is none: what is drawn within a step is drawn from the seed and the step's number."""

    def resume(self) -> None:
        """Train, from the last state on where there is one."""
        start = states.latest(self.folder)
        self.train(resume_from_checkpoint=str(start) if start is not None else None)


def inner(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer under accelerate's wrapper."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found
