"""How a run's folder is opened by whatever asks in it: what must hold before, and what is put right after."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from redinstruct.engine.limits import Limits, Prices, Spending, check_limits
from redinstruct.errors import UsageError
from redinstruct.models import Model
from redinstruct.models.base import longest_answer
from redinstruct.run import Store, check_run_folder, is_run

T = TypeVar("T")


def check_stands(run: Path, check: Callable[[Store], T]) -> T | None:
    """Hold a run that stands in the folder against what is asked now; where none stands, a new one may be made.

    What ``check`` finds is returned, None where none stands.

    Looked at before the folder is made or its lock taken: another configuration writes nothing.

    Raises:
        ConfigError: the folder holds another run, or other things.
    """
    check_run_folder(run)
    if is_run(run):
        with Store.open_for_reading(run) as store:
            return check(store)
    return None


def checked_limits(limits: Limits | None, *, decides: bool = False) -> Limits:
    """The limits of a command, fit to be kept; only an evaluation ``decides``. Raises ``UsageError``."""
    limits = limits or Limits()
    check_limits(limits)
    if limits.stop_when_decided is not None and not decides:
        raise UsageError("--stop-when-decided: only an evaluation has rates to decide; leave it out")
    return limits


@contextlib.asynccontextmanager
async def closing(*models: Model | None) -> AsyncIterator[None]:
    """Work with models, which are let go however it ends."""
    try:
        yield
    finally:
        for model in models:
            if model is not None:
                await model.aclose()


def check_bounded(limits: Limits, *models: Model | None) -> None:
    """Raises ``UsageError`` where there is a budget, and an option leaves open how much one of the models may write."""
    for model in models if limits.budget is not None else ():
        if model is not None and longest_answer(model, 1) is None:
            raise UsageError(f"--budget: an option takes {model.id}'s max_tokens away; set max_completion_tokens")


def spending_of(
    run: Path, limits: Limits, tokens: Callable[[Store], tuple[int, int, int, int]], *models: Model | None
) -> Spending | None:
    """The limits of calls and money, where there are any; what the run has cost already is spent.

    ``tokens`` are those so far: in and out of everybody but the judge, in and out of the judge. ``models`` are asked;
    raises as :func:`check_bounded`.
    """
    if limits.max_calls is None and limits.budget is None:
        return None
    check_bounded(limits, *models)
    spent = 0.0
    if limits.budget is not None and is_run(run):
        with Store.open_for_reading(run) as store:
            read, written, judge_read, judge_written = tokens(store)
        prices = limits.prices or Prices()
        spent = prices.cost(read, written) + (limits.judge_prices or prices).cost(judge_read, judge_written)
    return Spending(limits.max_calls, limits.budget, spent)
