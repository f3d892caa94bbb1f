"""One invocation on a run: its limits, what it tells while it runs, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from redinstruct.engine import PATIENCE, Prices
from redinstruct.errors import EXIT_DONE, EXIT_INCONCLUSIVE, UsageError
from redinstruct.run import Failures, Store, failures

DEFAULT_CONCURRENCY = 64
MAX_CONCURRENCY = 4096
MOST_ERRORS = 0.05
"""The share of a result's attempts that may be errors, and the run still counts as done (design 5)."""


class Limits(msgspec.Struct, frozen=True):
    """How a run is carried out; no part of its configuration.

    ``max_calls`` bounds the requests of one invocation, retries and judge calls included. ``budget`` bounds, in US
    dollars, what the whole run has cost. ``keep_errors`` leaves the attempts labelled ``error`` as
    they are; else each is asked again, once. ``patience`` is how many seconds a server that answered before is waited
    for when nobody answers. ``force`` goes on with a judge that failed its self-test.
    ``stop_when_decided`` ends the asking of a bank and prompt once its rate is known to lie on one side of that limit.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    max_calls: int | None = None
    budget: float | None = None
    prices: Prices | None = None
    judge_prices: Prices | None = None
    keep_errors: bool = False
    force: bool = False
    stop_when_decided: float | None = None
    timeout: float = 120.0
    patience: float = PATIENCE


class Progress(msgspec.Struct):
    """What a long run tells while it runs: ``done`` of ``total``, and how many came out which way so far.

    ``stage`` names what is being done, where that is not the asking itself.
    """

    total: int
    done: int = 0
    labels: dict[str, int] = msgspec.field(default_factory=dict)
    retries: int = 0
    calls: int = 0
    stage: str = ""


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


OnProgress = Callable[[Progress], None]


def check_limits(limits: Limits) -> None:
    """Raises ``UsageError`` for limits that no run can keep to."""
    if not 1 <= limits.concurrency <= MAX_CONCURRENCY:
        raise UsageError(f"--concurrency must lie between 1 and {MAX_CONCURRENCY}")
    if limits.max_calls is not None and limits.max_calls < 0:
        raise UsageError("--max-calls must be at least 0")
    if not (math.isfinite(limits.patience) and limits.patience >= 0):
        raise UsageError("--patience must be 0 seconds or more")
    if not (math.isfinite(limits.timeout) and limits.timeout > 0):
        raise UsageError("--timeout must be more than 0 seconds")
    if limits.stop_when_decided is not None and not 0 < limits.stop_when_decided < 1:
        raise UsageError("--stop-when-decided must lie between 0 and 1: it is a rate")
    if limits.budget is not None:
        if limits.prices is None:
            raise UsageError("--budget needs --price-in and --price-out: the project knows no prices of its own")
        if not (math.isfinite(limits.budget) and limits.budget > 0):
            raise UsageError("--budget must be more than 0")


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


def too_many_errors(recorded: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """A line for each place of which, of so many in all, too many are errors (5 %; design 5)."""
    for where, (total, errors) in recorded.items():
        if errors > MOST_ERRORS * total:
            yield f"{where}: {errors:,} of {total:,} are errors"
