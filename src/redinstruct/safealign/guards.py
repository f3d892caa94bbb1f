"""Guards on a training run: what is watched at each step, and what happens when the model begins to break. Pure.

Ascent on red samples is unbounded below; the paper calls it unstable (Bhardwaj & Poria 2023, arXiv 2308.09662) and
gives no number. What breaks first is what the run should keep: the loss on general data. So that one is watched.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from redinstruct.alignment import GuardRule

Found = Literal["fine", "zero", "stop"]


class GuardState(msgspec.Struct):
    """What the guard knows so far; part of a resumable state."""

    start: float = 0.0
    seen: int = 0
    average: float = 0.0
    tripped_at: int | None = None
    stopped_at: int | None = None
    probe_start: dict[str, float] | None = None
    refused_seen: int = 0
    """Looks in a row that found too much refused."""
    stopped_for: Literal["loss", "refusals"] = "loss"


class Guard:
    """Watches one loss over the steps of a run.

    ``zero``: from the step after the trip on, the red term has no weight. If the watched loss is still over the limit
    ``start_steps * 4`` steps later, the red term was not the cause, or the damage is done: the run stops.
    """

    def __init__(self, rule: GuardRule, state: GuardState | None = None) -> None:
        self.rule = rule
        self.state = state or GuardState()

    @property
    def red_is_off(self) -> bool:
        """Whether the red term has no weight any more."""
        return self.state.tripped_at is not None

    @property
    def limit(self) -> float | None:
        """The watched loss may not average above this; None while the start is measured, or nothing is watched."""
        if self.rule.rise is None or self.state.seen < self.rule.start_steps:
            return None
        return self.state.start + max(self.rule.rise * self.state.start, self.rule.floor)

    @property
    def risen(self) -> str:
        """By how much the watched loss rose, in words, once it is over the limit."""
        state = self.state
        return (
            f"the general loss rose to {state.average:.3g} nats per token from {state.start:.3g}, over the limit of"
            f" {self.limit:.3g}"
        )

    def see(self, step: int, watched: float | None) -> Found:
        """One step's watched loss (mean negative log-likelihood); None where the step had no such rows."""
        if watched is None or self.rule.rise is None or self.state.stopped_at is not None:
            return "fine"
        state = self.state
        if state.seen < self.rule.start_steps:
            state.start += (watched - state.start) / (state.seen + 1)
            state.seen += 1
            state.average = state.start
            return "fine"
        state.average += (1 - self.rule.smoothing) * (watched - state.average)
        limit = self.limit
        if limit is None or state.average <= limit:
            return "fine"
        if state.tripped_at is None and self.rule.action == "zero":
            state.tripped_at = step
            return "zero"
        if state.tripped_at is not None and step - state.tripped_at < 4 * self.rule.start_steps:
            return "fine"  # without the red term it may come back
        state.stopped_at = step
        return "stop"

    def see_probe(self, step: int, found: dict[str, float]) -> Found:
        """A look at the harmless questions; the first is the start's."""
        state, rule = self.state, self.rule
        if state.probe_start is None:
            state.probe_start = found
        if rule.refused_rise is None or found["refused"] <= state.probe_start["refused"] + rule.refused_rise:
            state.refused_seen = 0
            return "fine"
        state.refused_seen += 1
        if rule.refused_action == "stop" and state.refused_seen > 1 and state.stopped_at is None:
            state.stopped_at, state.stopped_for = step, "refusals"
            return "stop"
        return "fine"
