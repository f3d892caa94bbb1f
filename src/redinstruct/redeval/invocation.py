"""How one invocation on a run ended."""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct.errors import EXIT_DONE, EXIT_INCONCLUSIVE
from redinstruct.run import Failures, Store, failures, too_many_errors


class Outcome(msgspec.Struct, frozen=True):
    """How an invocation ended. ``complete`` is false when a limit of calls or money cut it, or a decision ended it.

    ``decided`` tells, under ``stop_when_decided``, whether every bank and prompt is decided; ``decisions`` says how, in
    words. Both are empty otherwise. ``cut`` tells a limit, or a stop, from a decision. ``stopped`` is why the run was
    stopped where the endpoint would not answer. ``failures`` are the attempts without a usable answer or verdict, by
    reason, with the endpoint's words; ``erring`` names the results of which too many attempts are errors,
    ``notes`` say what an endpoint does not take, and what is sent instead.
    """

    run: Path
    planned: int
    recorded: int
    calls: int
    complete: bool
    decided: bool | None = None
    decisions: tuple[str, ...] = ()
    cut: bool = False
    stopped: str | None = None
    failures: Failures = ()
    erring: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every attempt is recorded, or enough to decide, and few enough are errors; else 11."""
        done = (self.complete or self.decided) and not self.stopped and not self.erring
        return EXIT_DONE if done else EXIT_INCONCLUSIVE


def outcome_of(store: Store, judge: int, run: Path, planned: int) -> Outcome:
    """What the rows say of a judge's results: how many are recorded, what failed, and where too much did."""
    recorded: dict[str, tuple[int, int]] = {}
    for row in store.counts(judge):
        if row.label is not None:
            where = f"{row.bank}/{row.prompt}"
            total, errors = recorded.get(where, (0, 0))
            recorded[where] = (total + row.count, errors + row.count * (row.label == "error"))
    total = sum(total for total, _ in recorded.values())
    erring = tuple(too_many_errors(recorded))
    return Outcome(run, planned, total, 0, True, failures=failures(store, judge), erring=erring)
