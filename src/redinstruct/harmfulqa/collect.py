"""A collection in its run folder: begun or resumed, read, counted by topic and subtopic, exported."""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct.engine import Limits, Party, Spending, Worklist, in_a_loop
from redinstruct.engine.opening import check_stands, checked_limits, closing, spending_of
from redinstruct.errors import EXIT_DONE, EXIT_INCONCLUSIVE, ConfigError, EndpointLost
from redinstruct.harmfulqa.calls import ANSWERER, JUDGE, TEACHER, CallsEnded, Live, Recorded
from redinstruct.harmfulqa.pipeline import Harvest, Pipeline
from redinstruct.harmfulqa.plan import CollectConfig, CollectPlan, check_same_collection, read_config
from redinstruct.harmfulqa.published import harvest_of
from redinstruct.harmfulqa.rows import Dialogue
from redinstruct.judges import Judge, bound_judge
from redinstruct.progress import OnProgress
from redinstruct.redeval.fitness import tested
from redinstruct.run import (
    NAMED,
    CollectionStore,
    Failures,
    Store,
    calls_by_step,
    failed_calls,
    too_many_errors,
)


class Coverage(msgspec.Struct, frozen=True):
    """How far one subtopic is: questions of those wanted, conversations, and how many of the blue ones are whole."""

    topic: str
    subtopic: str
    wanted: int
    questions: int
    blue: int
    whole: int
    red: int


class Collection(msgspec.Struct, frozen=True):
    """A collection as its rows tell it."""

    config: CollectConfig
    harvest: Harvest

    def coverage(self) -> tuple[Coverage, ...]:
        """One row per subtopic, in the topics' order."""
        of: dict[tuple[str, str], list[int]] = {(c.topic, c.name): [0, 0, 0, 0] for c in self.harvest.cells}
        for row in self.harvest.rows:
            counts = of[row.question.topic, row.question.subtopic]
            counts[0] += 1
            counts[1] += len(row.blue)
            counts[2] += sum(dialogue.complete for dialogue in row.blue)
            counts[3] += len(row.red)
        return tuple(Coverage(*cell, self.config.per_subtopic, *counts) for cell, counts in of.items())

    def dialogues(self) -> list[Dialogue]:
        """Every conversation, question by question, blue before red."""
        return [dialogue for row in self.harvest.rows for dialogue in (*row.blue, *row.red)]


class Collecting(msgspec.Struct, frozen=True):
    """How an invocation ended: the collection, the requests it sent, and whether a limit cut it.

    ``stopped`` is why it was stopped where an endpoint would not answer; ``failures`` are the calls that gave nothing,
    by step and reason, with the endpoint's words; ``erring`` names the steps of which too many calls are errors;
    ``notes`` say what an endpoint does not take, and what is sent instead.
    """

    collection: Collection
    calls: int
    complete: bool
    stopped: str | None = None
    failures: Failures = ()
    erring: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cut(self) -> bool:
        """Whether a limit, or a stop, ended it before everything was asked."""
        return not self.complete

    @property
    def exit_code(self) -> int:
        """0 when everything was asked and few enough calls are errors, else 11."""
        return EXIT_DONE if self.complete and not self.erring else EXIT_INCONCLUSIVE


def collect(
    plan: CollectPlan,
    run: Path,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
    *,
    until_covered: bool = False,
) -> Collecting:
    """Carry a collection out in a run folder, or resume or extend the one that stands there.

    ``until_covered`` goes on asking where a subtopic lacks questions or a conversation could not be read, within a
    bound; it belongs to the invocation, not to the collection.

    Raises:
        ConfigError: the folder holds another run, or other things.
        UsageError: the judge failed its self-test; nothing was written.
        EndpointDenied: every call failed as no other will fare better; nothing was recorded.
        StoreError: the store cannot be written; what was committed is safe.
    """
    limits = checked_limits(limits)
    check_stands(run, lambda store: _check(CollectionStore(store), plan.config, run))
    return in_a_loop(_collect(plan, run, limits, on_progress, until_covered))


async def _collect(
    plan: CollectPlan, run: Path, limits: Limits, on_progress: OnProgress | None, until_covered: bool
) -> Collecting:
    async with closing(plan.teacher, plan.answerer, plan.judge_model):
        spending = spending_of(run, limits, _tokens, plan.teacher, plan.answerer, plan.judge_model)
        fitness = None
        if plan.judge is not None:
            fitness = await tested(run, plan.judge, plan.judge_model, limits, spending, on_progress)
        with Store.open_for_writing(run) as store:
            rows = CollectionStore(store)
            _check(rows, plan.config, run)
            begun = rows.config() is not None
            rows.begin(plan.config.digest, plan.config.body, plan.red_template)
            judge = None
            if plan.judge is not None:
                number = store.add_judge(plan.judge.card)
                if fitness is not None:
                    store.add_selftest(number, fitness.body, fitness.tokens_in, fitness.tokens_out)
                judge = bound_judge(plan.judge)
            with store.no_blank_run(rows.is_blank, begun=begun):
                return await _carry_out(plan, rows, judge, limits, spending, on_progress, until_covered)


async def _carry_out(
    plan: CollectPlan,
    rows: CollectionStore,
    judge: Judge | None,
    limits: Limits,
    spending: Spending | None,
    on_progress: OnProgress | None,
    until_covered: bool,
) -> Collecting:
    stopped = None
    work = Worklist(_parties(plan, limits), limits, spending, on_progress)
    async with work.writer:
        live = Live(rows, work, judge=judge)
        pipeline = Pipeline(plan.config, live, plan.red_template, until_covered=until_covered)
        try:
            harvest = await pipeline.run()
            await work.finish()
        except CallsEnded:
            harvest = None
        except EndpointLost as lost:
            harvest, stopped = None, str(lost)
    complete = harvest is not None
    if harvest is None:
        # The writer has ended: what was committed is read as anybody reads it.
        recorded = Recorded(rows.calls(), plan.config.judge)
        harvest = await Pipeline(plan.config, recorded, plan.red_template).run()
    return Collecting(
        Collection(plan.config, harvest),
        work.calls,
        complete,
        stopped,
        failed_calls(rows.store),
        tuple(too_many_errors(calls_by_step(rows.store))),
        work.notes,
    )


def _parties(plan: CollectPlan, limits: Limits) -> dict[str, Party]:
    asked = ((TEACHER, plan.teacher, limits.prices), (ANSWERER, plan.answerer, limits.prices),
             (JUDGE, plan.judge_model, limits.judge_prices or limits.prices))  # fmt: skip
    # The teacher comes first: what it did stands when another one is denied.
    return {role: Party(model, at, begun=role != TEACHER) for role, model, at in asked if model is not None}


def _check(rows: CollectionStore, config: CollectConfig, run: Path) -> None:
    stored = rows.config()
    if stored is not None:
        check_same_collection(read_config(stored), config, str(run))


def _tokens(store: Store) -> tuple[int, int, int, int]:
    """Tokens so far: in and out of teacher and answerer, in and out of the judge."""
    of = CollectionStore(store).tokens()
    asked = [tokens for role, tokens in of.items() if role != JUDGE]
    return sum(read for read, _ in asked), sum(written for _, written in asked), *of.get(JUDGE, (0, 0))


def read_collection(run: Path) -> Collection:
    """A collection as its committed rows tell it; asks nobody.

    Raises:
        ConfigError: there is no collection in the folder.
        StoreError: it is damaged.
    """
    with Store.open_for_reading(run, NAMED["collection"]) as store:
        rows = CollectionStore(store)
        body = rows.config()
        if body is None:
            raise ConfigError(f"{run}: the run was never begun; nothing is recorded in it")
        config = read_config(body)
        if config.published is not None:
            return Collection(config, harvest_of(config, [call.reply or "" for _, _, call in rows.calls()]))
        recorded = Recorded(rows.calls(), config.judge)
        template = next(t for t in store.templates() if t.sha256 == config.red_prompt.sha256)
    return Collection(config, in_a_loop(Pipeline(config, recorded, template).run()))
