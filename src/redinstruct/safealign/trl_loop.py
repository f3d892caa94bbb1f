"""What TRL's loops lack: states from which a run goes on, and a guard on the loss of ordinary rows.

A state is the one that our own loop writes (:mod:`redinstruct.safealign.resuming`); TRL's order of the rows is a
function of its seed, and what is drawn within a step of the seed and the step's number, so that a resumed run goes on
as if it had not been stopped. The guard looks at ordinary rows now and then instead of at each step's own (TRL's steps
have none apart), and can stop the run only: there is no red term to take out of TRL's losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from transformers import TrainerCallback, TrainerControl

from redinstruct.alignment import AlignConfig
from redinstruct.safealign.fidelity import losses, sampled
from redinstruct.safealign.forward import labelled_by
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.outcome import Listeners, StepFigures
from redinstruct.safealign.resuming import ResumableTrainer

_LOOKS, _LEAST_BETWEEN = 20, 5
"""Looks at the ordinary rows in a run, and the fewest steps between two."""


class GuardedTrainer(ResumableTrainer, TrainerCallback):
    """To stand before TRL's class: takes what that logs of each step, passes a stop on, guards, and keeps states."""

    def watch(self, config: AlignConfig, listeners: Listeners, ordinary: Sequence[Encoded], pad_id: int) -> None:
        """Before it trains; its model gains the labelled forward.

        ``ordinary`` are the rows whose loss may not rise: general ones, or where there are none the safe answers.
        """
        self._config = config
        self._ordinary, self._pad_id = sampled(ordinary), pad_id
        # One look is one mean over the same rows each time: there is no noise to be smoothed away.
        rule = msgspec.structs.replace(config.guard, action="stop", start_steps=1, smoothing=0.0)
        self.begin_run(Guard(rule), listeners, config.chosen)
        labelled_by(self.model)
        self.add_callback(self)

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
            TrainingFailed: it, or the gradient, is not finite.
        """
        if not logs or "loss" not in logs:
            return
        loss, gradient = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        for what, value in (("loss", loss), ("gradient", gradient)):
            if not math.isfinite(value):
                raise self.broken(what, state.global_step)
        self.note_step(
            StepFigures(
                step=state.global_step,
                steps=state.max_steps,
                loss=loss,
                grad_norm=gradient,
                learning_rate=float(logs.get("learning_rate", 0.0)),
            )
        )

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **__: Any) -> None:  # noqa: ARG002
        """Look, stop when asked to or told to, and keep a state."""
        step = state.global_step
        if step == state.max_steps or step % max(_LEAST_BETWEEN, state.max_steps // _LOOKS) == 0:
            self._look(step)
        stopped = self.listeners.should_stop() or self.guard.state.stopped_at is not None
        self.decide(control, self._config.chosen.save_every, stopped=stopped)

    def _look(self, step: int) -> None:
        if self.guard.rule.rise is not None:
            ((_, loss),) = losses(self.model, self._ordinary, self._pad_id).items()
            self.guard.see(step, loss)
