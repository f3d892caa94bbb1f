"""What TRL's loops lack: states from which a run goes on, and a guard on the loss of ordinary rows.

A state is the one that our own loop writes (:mod:`redinstruct.safealign.states`); TRL's order of the rows is a function
of its seed, and what is drawn within a step of the seed and the step's number, so that a resumed run goes on as if it
had not been stopped. The guard looks at ordinary rows now and then instead of at each step's own (TRL's steps have none
apart), and can stop the run only: there is no red term to take out of TRL's losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import TrainerCallback, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME

from redinstruct.alignment import AlignConfig
from redinstruct.errors import RedInstructError
from redinstruct.files.atomic import whole_folder
from redinstruct.safealign import states
from redinstruct.safealign.fidelity import losses, sampled
from redinstruct.safealign.forward import labelled_by
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.outcome import Listeners, StepFigures
from redinstruct.safealign.saving import writing
from redinstruct.safealign.trainer import inner, intact

_LOOKS, _LEAST_BETWEEN = 20, 5
"""Looks at the ordinary rows in a run, and the fewest steps between two."""


class Keeper(TrainerCallback):
    """Takes what TRL logs of each step, passes a stop on, guards, and keeps states.

    ``ordinary`` are the rows whose loss may not rise: general ones, or where there are none the safe answers.
    """

    def __init__(
        self, config: AlignConfig, listeners: Listeners, ordinary: Sequence[Encoded], pad_id: int, folder: Path
    ) -> None:
        self.history: list[StepFigures] = []
        self.interrupted = False
        # One look is one mean over the same rows each time: there is no noise to be smoothed away.
        rule = msgspec.structs.replace(config.guard, action="stop", start_steps=1, smoothing=0.0)
        self.guard = Guard(rule)
        self.folder = folder
        self._config, self._listeners = config, listeners
        self._ordinary, self._pad_id = sampled(ordinary), pad_id
        self._trainer: Any = None

    def follow(self, trainer: Any) -> None:
        """Be this trainer's callback; its model gains the labelled forward."""
        self._trainer = trainer
        labelled_by(trainer.model)
        trainer.add_callback(self)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first look is the start's."""
        if not self.guard.state.seen:
            self._look(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **__: Any) -> None:  # noqa: ARG002
        """Dropout draws from (seed, step): no random state has to be saved."""
        torch.manual_seed(self._config.seed * 1_000_003 + state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:  # noqa: ARG002
        """One step's loss.

        Raises:
            RedInstructError: it, or the gradient, is not finite.
        """
        if not logs or "loss" not in logs:
            return
        for what, value in (("loss", logs["loss"]), ("gradient", logs.get("grad_norm", 0.0))):
            if not math.isfinite(float(value)):
                raise RedInstructError(
                    f"the {what} is not finite at step {state.global_step}; {intact(self.folder)}; lower --lr"
                )
        one = StepFigures(
            step=state.global_step,
            steps=state.max_steps,
            loss=float(logs["loss"]),
            grad_norm=float(logs.get("grad_norm", 0.0)),
            learning_rate=float(logs.get("learning_rate", 0.0)),
        )
        self.history.append(one)
        if self._listeners.on_step is not None:
            self._listeners.on_step(one)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **__: Any) -> None:  # noqa: ARG002
        """Look, stop when asked to or told to, and keep a state."""
        step, last = state.global_step, state.global_step == state.max_steps
        if last or step % max(_LEAST_BETWEEN, state.max_steps // _LOOKS) == 0:
            self._look(step)
        self.interrupted = self._listeners.should_stop()
        stopped = self.interrupted or self.guard.state.stopped_at is not None
        control.should_training_stop = control.should_training_stop or stopped
        if last or stopped or step % self._config.chosen.save_every == 0:
            control.should_save = True

    def _look(self, step: int) -> None:
        if self.guard.rule.rise is not None:
            ((_, loss),) = losses(self._trainer.model, self._ordinary, self._pad_id).items()
            self.guard.see(step, loss)

    # ---- saved states ----

    def save(self) -> None:
        """The state after the step that was just made; earlier ones are removed."""
        trainer = self._trainer
        target = states.state_folder(self.folder, trainer.state.global_step)
        numbers = states.Numbers(
            step=trainer.state.global_step,
            scheduler=trainer.lr_scheduler.state_dict(),
            guard=self.guard.state,
            history=self.history,
        )
        what = f"the state after {trainer.state.global_step} steps"
        with writing(what, intact(self.folder)), whole_folder(target, mode=0o700) as fresh:
            states.write(fresh, *states.collect(trainer.model, inner(trainer.optimizer)), numbers)
            trainer.state.save_to_json(str(fresh / TRAINER_STATE_NAME))
        states.keep_only(target)

    def load(self, folder: Path) -> None:
        """Everything of a state but the weights."""
        trainer, numbers = self._trainer, states.read_numbers(folder)
        states.load_optimizer(folder, trainer.model, inner(trainer.optimizer))
        trainer.lr_scheduler.load_state_dict(dict(numbers.scheduler))
        self.guard.state, self.history = numbers.guard, numbers.history


def resumable(trainer: Any, keeper: Keeper) -> Any:
    """TRL's class of trainers, its states those of ``keeper``; none of its own files (pickle) is written or read."""

    class Resumable(trainer):  # type: ignore[misc, unused-ignore]
        def _save_checkpoint(self, *_: Any, **__: Any) -> None:
            # The step's log comes before it, so that the state has the step's figures.
            keeper.save()

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            states.load_weights(Path(resume_from_checkpoint), self.model if model is None else model)

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            if checkpoint is not None:
                keeper.load(Path(checkpoint))

        def _load_rng_state(self, checkpoint: str | None) -> None:
            """There is none: see :meth:`Keeper.on_step_begin`."""

    return Resumable
