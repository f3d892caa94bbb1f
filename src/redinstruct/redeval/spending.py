"""What an evaluation would ask and cost, before anything is spent.

Estimates, and called so: tokens are counted at four bytes each, answers at the longest that ``max_tokens`` allows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.engine import Limits, Prices, check_limits
from redinstruct.engine.opening import check_bounded
from redinstruct.judges import TESTED, Asking, battery
from redinstruct.models import Model, Request
from redinstruct.models.base import longest_answer
from redinstruct.redeval import Plan
from redinstruct.redeval.fitness import REPEATS, needs_test
from redinstruct.redeval.session import EMPTY_CASE
from redinstruct.run import Store, check_run_folder, check_shard_stays, is_run, shard_of
from redinstruct.run.config import RunConfig, check_same_run
from redinstruct.types import Question, Sampling

SCHEMA = "redinstruct.plan/1"
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 8
"""What a chat template adds around one message, roughly."""


class ForecastRow(msgspec.Struct, frozen=True):
    """One bank and prompt. ``attempts`` in all, of which ``recorded`` stand already; the rest is about what is owed."""

    bank: str
    prompt: str
    attempts: int
    recorded: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None


class SelectedRow(msgspec.Struct, frozen=True):
    """What of a bank is asked, and what is left out (see :class:`redinstruct.run.config.Selected`)."""

    bank: str
    asked: int
    of: int
    other_half: int
    untold: int
    repeats: int


class Forecast(msgspec.Struct, frozen=True):
    """The whole plan. ``cost`` is in US dollars, None without prices."""

    model: str
    judge: str
    rows: tuple[ForecastRow, ...]
    total: ForecastRow
    selected: tuple[SelectedRow, ...] = ()

    def document(self) -> dict[str, Any]:
        """The plan for ``--json``."""
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}


def forecast(plan: Plan, limits: Limits, run: Path | None = None) -> Forecast:
    """What ``evaluate`` would do now; with a run folder, only what that run, or that shard of one, still owes.

    Raises:
        ConfigError: the folder holds another run, or a shard that this would extend.
        UsageError: limits that no run can keep to.
    """
    check_limits(limits)
    check_bounded(limits, plan.model, plan.judge_model)
    standing = _standing(plan, run, retry_errors=not limits.keep_errors)
    plan = plan.for_run(standing.config)
    prices, judge_prices = limits.prices, limits.judge_prices or limits.prices
    asks = _asks(plan)
    longest = _written(plan.model, plan.config.sampling)
    rows = []
    for bank, questions in zip(plan.banks, plan.questions, strict=True):
        asked = sum(_bytes(q) for q in questions) // len(questions)
        for template in plan.templates:
            attempts = len(questions) * plan.config.epochs
            if standing.part is not None:
                attempts = standing.part[bank.name, template.name]
            done = min(attempts, standing.recorded[bank.name, template.name])
            owed = attempts - done
            fixed = sum(map(_size, (template.prefix, template.suffix, plan.config.system or "")))
            reads = owed * (MESSAGE_TOKENS + (fixed + asked) // BYTES_PER_TOKEN)
            writes = owed * longest
            cost = None if prices is None else prices.cost(reads, writes)
            if asks is not None:
                judge_reads, judge_writes = _judging(asks, owed, asked, writes)
                cost = None if cost is None else cost + (judge_prices or Prices()).cost(judge_reads, judge_writes)
                reads, writes = reads + judge_reads, writes + judge_writes
            calls = owed * (1 if asks is None else 2)
            rows.append(ForecastRow(bank.name, template.name, attempts, done, calls, reads, writes, cost))
    if asks is not None and (run is None or needs_test(run, plan.judge, plan.judge_model)):
        rows += _selftest(plan, asks, judge_prices)
    total = ForecastRow(
        bank="total",
        prompt="",
        attempts=sum(row.attempts for row in rows),
        recorded=sum(row.recorded for row in rows),
        calls=sum(row.calls for row in rows),
        tokens_in=sum(row.tokens_in for row in rows),
        tokens_out=sum(row.tokens_out for row in rows),
        cost=None if prices is None else sum(row.cost or 0.0 for row in rows),
    )
    selected = tuple(
        SelectedRow(bank.name, len(questions), s.of, s.other_half, s.untold, s.repeats)
        for bank, questions, s in zip(plan.banks, plan.questions, plan.config.selected, strict=True)
    )
    return Forecast(plan.config.model, plan.judge.card.id, tuple(rows), total, selected)


def _bytes(question: Question) -> int:
    """What of a request is the question's own, earlier turns with it."""
    return sum(map(_size, (question.text, *(turn.content for turn in question.earlier))))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _judging(asks: Request, count: int, question_bytes: int, answer_tokens: int) -> tuple[int, int]:
    """Tokens read and written by so many judgements: the judge's own words, the question, the answer."""
    own = sum(
        MESSAGE_TOKENS + len(m.content.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN for m in asks.messages
    )
    reads = count * (own + question_bytes // BYTES_PER_TOKEN) + answer_tokens
    return reads, count * asks.sampling.max_tokens


def _written(model: Model | None, sampling: Sampling) -> int:
    """Tokens that an answer has at most; where an option takes that away, what was asked without it."""
    return longest_answer(model, sampling.max_tokens) or sampling.max_tokens


def _asks(plan: Plan) -> Request | None:
    """What the judge would ask a model for a case that is empty; None where it asks none."""
    if plan.judge_model is None or not isinstance(plan.judge, Asking):
        return None
    asks = plan.judge.request(EMPTY_CASE)
    longest = _written(plan.judge_model, asks.sampling)
    return msgspec.structs.replace(asks, sampling=msgspec.structs.replace(asks.sampling, max_tokens=longest))


def _selftest(plan: Plan, asks: Request, prices: Prices | None) -> list[ForecastRow]:
    """The judge's self-test, for the judges that take one."""
    if plan.judge.card.name not in TESTED:
        return []
    cases = battery(plan.judge.measure)
    count = len(cases) + REPEATS
    size = sum(len((case.question + case.answer).encode()) for case in cases) // BYTES_PER_TOKEN
    reads, writes = _judging(asks, count, 0, size)
    cost = None if prices is None else prices.cost(reads, writes)
    return [ForecastRow("(the judge's self-test)", "", 0, 0, count, reads, writes, cost)]


class _Standing(msgspec.Struct, frozen=True):
    """What stands in the run's folder: its configuration, and by bank and prompt the attempts that are not asked now;
    of a shard those that are its ``part``, recorded or not.
    """

    config: RunConfig | None = None
    recorded: Counter[tuple[str, str]] = Counter()
    part: Counter[tuple[str, str]] | None = None


def _standing(plan: Plan, run: Path | None, *, retry_errors: bool) -> _Standing:
    if run is None:
        return _Standing()
    check_run_folder(run)
    if not is_run(run):
        return _Standing()
    with Store.open_for_reading(run) as store:
        stored = store.config()
        if stored is not None:
            check_same_run(stored, plan.config, str(run))
            check_shard_stays(store, plan.config)
        judge = next((row for row, card in store.judges() if card.id == plan.judge.card.id), 0)
        every, recorded = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for row in store.counts(judge):
            every[row.bank, row.prompt] += row.count
            if row.label is not None and not (retry_errors and row.label == "error"):
                recorded[row.bank, row.prompt] += row.count
        return _Standing(stored, recorded, None if shard_of(store) is None else every)
