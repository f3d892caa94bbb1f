"""Runs: a plan carried out in a folder, and answers judged again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from redinstruct.engine import Limits, Party, Spending, Worklist, in_a_loop
from redinstruct.engine.opening import check_stands, checked_limits, closing, spending_of
from redinstruct.errors import UsageError
from redinstruct.figures.deciding import Decider
from redinstruct.judges import Judge, bound_judge
from redinstruct.models import Model
from redinstruct.progress import OnProgress, Progress
from redinstruct.redeval.fitness import Fitness, tested
from redinstruct.redeval.invocation import Outcome
from redinstruct.redeval.plan import Plan
from redinstruct.redeval.sampling import owed_part
from redinstruct.redeval.session import JUDGE, TARGET, EvaluationSession
from redinstruct.redeval.settings import RejudgeSettings
from redinstruct.run import (
    Owed,
    OwedAttempt,
    Scope,
    Store,
    check_shard_stays,
    note_stop,
    planned_attempts,
)
from redinstruct.run.config import RunConfig, check_same_run
from redinstruct.run.plans import Mark
from redinstruct.settings import check_said
from redinstruct.types import MEASURES


def evaluate(plan: Plan, run: Path, limits: Limits | None = None, on_progress: OnProgress | None = None) -> Outcome:
    """Carry a plan out in a run folder, or resume or extend the run that stands there.

    Raises:
        ConfigError: the folder holds another run, or other things.
        UsageError: the judge failed its self-test; nothing was written.
        EndpointDenied: every attempt failed as no other will fare better, 20 of them or all; nothing was recorded.
        StoreError: the store cannot be written; what was committed is safe.
    """
    limits = checked_limits(limits, decides=True)
    stored = check_stands(run, partial(_stored_config, config=plan.config, run=run))
    return in_a_loop(_evaluate(plan.for_run(stored), run, limits, on_progress))


async def _evaluate(plan: Plan, run: Path, limits: Limits, on_progress: OnProgress | None) -> Outcome:
    async with closing(plan.model, plan.judge_model):
        spending = spending_of(run, limits, Store.tokens, plan.model, plan.judge_model)
        fitness = await tested(run, plan.judge, plan.judge_model, limits, spending, on_progress)
        with Store.open_for_writing(run) as store:
            begun = _stored_config(store, plan.config, run) is not None
            before = store.planned_so_far()
            judge_row = store.plan(plan.config, plan.banks, plan.templates, plan.lots(), plan.judge.card)
            _keep(store, judge_row, fitness)
            owed = store.owing(judge_row, Scope(retry_errors=not limits.keep_errors))
            total = store.planned()  # of a shard: its part
            progress = Progress(total - len(owed), total, labels=owed.settled())
            work = _worklist(plan.model, plan.judge_model, limits, spending, on_progress, progress)
            decider = _decider(store, judge_row, plan, limits.stop_when_decided, owed)
            session = EvaluationSession(store, work, plan.config, bound_judge(plan.judge), judge_row, owed, decider)
            with store.no_blank_run(store.is_blank, begun=begun), _no_denied_plan(store, before):
                return await session.go(run, total)


def rejudge(
    run: Path, asked: RejudgeSettings, limits: Limits | None = None, on_progress: OnProgress | None = None
) -> Outcome:
    """Judge a run's recorded answers by another judge. Never samples; verdicts that stand already stay.

    ``sample`` asks the judge on a random part only: so many answers of each bank and prompt. ``again`` asks it once
    more of every answer that it has judged: the newest verdict counts, and the report says how far they agree.

    Raises:
        ConfigError: there is no run in the folder.
        UsageError: a judge that cannot judge this run's measure, or that failed its self-test.
    """
    limits = checked_limits(limits)
    with Store.open_for_reading(run) as store:
        config = store.begun()
    judge = asked.judge_of(MEASURES[config.measure])
    model = asked.judge_model_of(judge, limits.timeout)
    check_said(asked)
    if asked.again and asked.sample is not None:
        raise UsageError("--again and --sample: one at a time; a part is drawn once")
    return in_a_loop(_rejudge(run, config, judge, model, asked, limits, on_progress))


async def _rejudge(
    run: Path,
    config: RunConfig,
    judge: Judge,
    model: Model | None,
    asked: RejudgeSettings,
    limits: Limits,
    on_progress: OnProgress | None,
) -> Outcome:
    async with closing(model):
        spending = spending_of(run, limits, Store.tokens, model)
        fitness = await tested(run, judge, model, limits, spending, on_progress)
        with Store.open_for_writing(run) as store:
            judge_row = store.add_judge(judge.card)
            _keep(store, judge_row, fitness)
            owed = store.owing(judge_row, Scope(False, not limits.keep_errors, asked.again))
            planned = sum(row.count for row in store.counts(judge_row))
            progress = Progress(planned - len(owed), planned, labels=owed.settled())
            todo: Owed | list[OwedAttempt] = owed
            if asked.sample is not None:
                todo = owed_part(store, judge.card, judge_row, owed, judge.measure, asked.sample)
                planned = len(todo)
                progress = Progress(0, planned)
            work = _worklist(None, model, limits, spending, on_progress, progress)
            return await EvaluationSession(store, work, config, bound_judge(judge), judge_row, todo).go(run, planned)


def _worklist(
    target: Model | None,
    judge_model: Model | None,
    limits: Limits,
    spending: Spending | None,
    on_progress: OnProgress | None,
    progress: Progress,
) -> Worklist:
    parties: dict[str, Party] = {}
    if target is not None:
        parties[TARGET] = Party(target, limits.prices)
    if judge_model is not None:
        # The answers that it judges stand already.
        parties[JUDGE] = Party(judge_model, limits.judge_prices or limits.prices, begun=True)
    return Worklist(parties, limits, spending, on_progress, progress)


def _decider(store: Store, judge_row: int, plan: Plan, limit: float | None, owed: Owed) -> Decider | None:
    if limit is None:
        return None
    if len(owed):  # a run that is whole already stays one of a fixed size
        note_stop(store, limit)
    names = {pinned.sha256: pinned.name for pinned in (*plan.config.banks, *plan.config.prompts)}
    planned, again = planned_attempts(store, judge_row), {one.attempt.key for one in owed}
    # What is asked again counts when it has come back.
    known = [o if o.key not in again else o._replace(label=None) for o in planned]
    decider = Decider(limit, plan.measure, store.secret())
    decider.follow(((names[o.bank], names[o.prompt]), o) for o in known)
    return decider


def _keep(store: Store, judge_row: int, fitness: Fitness | None) -> None:
    if fitness is not None:
        store.add_selftest(judge_row, fitness.body, fitness.tokens_in, fitness.tokens_out)


@contextlib.contextmanager
def _no_denied_plan(store: Store, before: Mark) -> Iterator[None]:
    """Denied before a single answer: an extended run is again what it was, and takes the command it was made by."""
    try:
        yield
    except UsageError:
        store.take_back(before)
        raise


def _stored_config(store: Store, config: RunConfig, run: Path) -> RunConfig | None:
    """The configuration of the run that stands there; None of none. Raises ``ConfigError`` for another one's."""
    stored = store.config()
    if stored is not None:
        check_same_run(stored, config, str(run))
        check_shard_stays(store, config)
    return stored
