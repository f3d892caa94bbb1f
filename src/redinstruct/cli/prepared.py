"""From flags to a checked plan, shared by ``eval`` and ``plan``."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from redinstruct.checkpoints.embedded import LOCAL_KINDS
from redinstruct.cli.options import columns_from, parse_options
from redinstruct.engine import Limits, Prices
from redinstruct.errors import UsageError
from redinstruct.judges import JudgeOptions
from redinstruct.models.registry import DTYPE_OPTION
from redinstruct.redeval import Plan, prepare, read_system
from redinstruct.types import Sampling


def plan_from(flags: dict[str, Any]) -> Plan:
    """The checked plan of an evaluation. Raises ``UsageError``; writes nothing."""
    return prepare(
        model=flags["model"],
        banks=flags["banks"],
        judge=flags["judge"],
        judge_model=flags["judge_model"],
        judge_options=judge_options_from(flags),
        prompts=flags["prompts"],
        measure=flags["measure"],
        limit=flags["limit"],
        epochs=flags["epochs"],
        dedupe=flags["dedupe"],
        sampling=Sampling(
            max_tokens=flags["max_tokens"],
            temperature=flags["temperature"],
            top_p=flags["top_p"],
            seed=flags["seed"],
        ),
        chat_template=flags["chat_template"],
        protocol=flags["protocol"],
        options=with_dtype(parse_options(flags["model_options"]), flags["model"], flags["dtype"]),
        system=read_system(flags["system"]),
        columns={purpose: names[0] for purpose, names in columns_from(flags["columns"]).items()},
        timeout=flags.get("timeout", 120.0),
    )


def with_dtype(options: dict[str, object], model: str | None, dtype: str | None) -> dict[str, object]:
    """The options of a role. What a checkpoint computes in changes answers, and so is one of them."""
    local = model is not None and model.startswith(LOCAL_KINDS)
    return {**options, DTYPE_OPTION: dtype} if dtype is not None and local else options


def judge_options_from(flags: dict[str, Any]) -> JudgeOptions:
    """What was chosen about the judge."""
    request = parse_options(flags["judge_options"], "--judge-option")
    return JudgeOptions(flags["rubric"], flags["judge_format"] == "json", flags["guard_kind"], request, flags["policy"])


def prices_from(flags: dict[str, Any]) -> tuple[Prices | None, Prices | None]:
    """The target's and the judge's prices; None where none was given.

    Raises:
        UsageError: one price of a pair without the other, or a price that is no number.
    """
    found: list[Prices | None] = []
    for prefix in ("", "judge_"):
        read, written = flags[f"{prefix}price_in"], flags[f"{prefix}price_out"]
        if (read is None) != (written is None):
            flag = f"--{prefix}price".replace("_", "-")
            raise UsageError(f"{flag}-in and {flag}-out belong together: give both")
        if read is not None and not (math.isfinite(read) and math.isfinite(written)):
            raise UsageError("a price must be a finite number of US dollars per million tokens")
        found.append(None if read is None else Prices(read, written))
    return found[0], found[1]


def limits_from(flags: dict[str, Any]) -> Limits:
    """How the run is to be carried out."""
    prices, judge_prices = prices_from(flags)
    return Limits(
        concurrency=flags["concurrency"],
        max_calls=flags["max_calls"],
        budget=flags["budget"],
        prices=prices,
        judge_prices=judge_prices,
        keep_errors=kept_errors(flags),
        force=flags["force"],
        stop_when_decided=flags.get("stop_when_decided"),
        timeout=flags["timeout"],
        patience=flags["patience"],
    )


def kept_errors(flags: dict[str, Any]) -> bool:
    """Whether attempts that ended as errors stay as they are. Raises ``UsageError`` for a contradiction."""
    if flags["keep_errors"] and flags["retry_errors"]:
        raise UsageError("--keep-errors and --retry-errors contradict each other: --retry-errors is the default")
    return bool(flags["keep_errors"])


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what is recorded stays, exit 130."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signum, frame)

    # A shell starts background jobs with Ctrl-C ignored. They end on SIGTERM all the same, and by the same way: the
    # event loop puts its own handler in the place of the usual one only. Ctrl-C itself is kept out meanwhile.
    ignored = not callable(signal.getsignal(signal.SIGINT))
    if ignored:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
