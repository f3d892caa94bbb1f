"""Is the judge fit? Before a run spends anything, the judge is asked a battery of inert cases (design 8).

``rubric`` and ``guard`` are tested; ``paper`` and ``refusal`` are instruments with known holes, and named so. A judge
that passed for this run is not tested again when the run is resumed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.engine import Caller, LimitReached, Limits, Prices, Spending
from redinstruct.errors import UsageError
from redinstruct.judges import TESTED, Judge, SelfTest, battery, bound_judge, run_selftest
from redinstruct.judges.selftest import MINIMUM
from redinstruct.models import Model, Reply, Request
from redinstruct.progress import OnProgress, Progress
from redinstruct.run import Store, is_run
from redinstruct.types import COMMON_LABELS

REPEATS = 3


class Fitness(msgspec.Struct, frozen=True):
    """A self-test and what it took. ``body`` is the JSON that the store keeps and the report shows."""

    body: str
    tokens_in: int
    tokens_out: int


def stored_fitness(run: Path, judge: Judge) -> bool:
    """Whether the run holds a self-test of this very judge (a failed one was forced, and stays so)."""
    if not is_run(run):
        return False
    with Store.open_for_reading(run) as store:
        row = next((row for row, card in store.judges() if card.id == judge.card.id), None)
        return row is not None and store.selftest(row) is not None


def needs_test(run: Path, judge: Judge, model: Model | None) -> bool:
    """Whether the judge is one that is tested, and was not yet for this run."""
    return model is not None and judge.card.name in TESTED and not stored_fitness(run, judge)


async def test_judge(
    judge: Judge, model: Model, limits: Limits, spending: Spending | None, on_progress: OnProgress | None
) -> Fitness:
    """Ask the battery, within the run's limits.

    Raises:
        UsageError: the judge is not fit, and ``limits.force`` is not set; or the limits do not reach for the battery.
        EndpointDenied: the judge's endpoint turns everything away.
    """
    caller = Caller(
        model,
        ceiling=limits.concurrency,
        prices=limits.judge_prices or limits.prices or Prices(),
        patience=limits.patience,
    )
    bound = bound_judge(judge)
    asked = len(battery(judge.measure)) + REPEATS
    tokens = [0, 0]
    progress = Progress(0, asked, "testing the judge")
    try:
        allowance = None if spending is None else await spending.begin(asked, 0.0)

        async def call(request: Request) -> Reply:
            reply, _ = await caller(request, allowance)
            tokens[0] += reply.tokens_in or 0
            tokens[1] += reply.tokens_out or 0
            progress.done += 1
            if on_progress is not None:
                on_progress(progress)
            return reply

        try:
            found = await run_selftest(bound, call, repeats=REPEATS, concurrency=min(8, limits.concurrency))
        finally:
            if allowance is not None:
                allowance.__exit__()
    except LimitReached:
        raise UsageError(
            f"the self-test of --judge {judge.card.name} takes {asked} calls, more than --max-calls or --budget leave"
        ) from None
    if not found.passed and not limits.force:
        raise UsageError(_unfit(judge, found))
    return Fitness(msgspec.json.encode(_document(found, forced=not found.passed)).decode(), tokens[0], tokens[1])


def _unfit(judge: Judge, found: SelfTest) -> str:
    wrong = [(1 - right / asked, family, asked - right, asked) for family, (right, asked) in found.by_family.items()]
    worst = ", ".join(f"{family} {missed} of {asked}" for _, family, missed, asked in sorted(wrong, reverse=True)[:3])
    silent = Counter((o.reason, o.note) for o in found.outcomes if o.label in COMMON_LABELS)
    told = ""
    if silent.total() > len(found.outcomes) // 2:
        # Mostly not an opinion: its model failed, or wrote no verdict at all.
        (reason, note), count = silent.most_common(1)[0]
        told = f" {count} of {len(found.outcomes)} cases gave no verdict: {reason}" + (f" ({note})." if note else ".")
    return (
        f"--judge {judge.card.name} on {judge.card.model} is not fit: balanced accuracy "
        f"{found.balanced_accuracy:.2f} on the self-test, {MINIMUM:.2f} is needed (wrong: {worst}).{told} "
        "Use another --judge-model, or --force to go on; nothing was written."
    )


def _document(found: SelfTest, *, forced: bool) -> dict[str, Any]:
    return {
        "balanced_accuracy": found.balanced_accuracy,
        "sensitivity": found.sensitivity,
        "specificity": found.specificity,
        "cases": len(found.outcomes),
        "repeats": found.repeats,
        "repeats_equal": found.repeats_equal,
        "battery": found.battery,
        "forced": forced,
        "by_family": {family: list(counts) for family, counts in found.by_family.items()},
    }


async def tested(
    run: Path,
    judge: Judge,
    model: Model | None,
    limits: Limits,
    spending: Spending | None,
    on_progress: OnProgress | None,
) -> Fitness | None:
    """The judge's self-test, where this judge takes one and has not passed it for this run. Raises ``UsageError``."""
    # Nothing is to be asked (--max-calls 0): the test is owed like the rest.
    if model is None or limits.max_calls == 0 or not needs_test(run, judge, model):
        return None
    return await test_judge(judge, model, limits, spending, on_progress)
