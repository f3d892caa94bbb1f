"""From flags to how a run is carried out, and the signals that end it."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator
from types import FrameType

import msgspec

from redinstruct.engine import Limits, Prices
from redinstruct.errors import UsageError
from redinstruct.settings import Flags, settings_from


def prices_from(flags: Flags) -> tuple[Prices | None, Prices | None]:
    """The target's and the judge's prices; None where none was given.

    Raises:
        UsageError: one price of a pair without the other, or a price that is no number.
    """
    found: list[Prices | None] = []
    for prefix in ("", "judge_"):
        read, written = flags.get(f"{prefix}price_in"), flags.get(f"{prefix}price_out")
        if (read is None) != (written is None):
            flag = f"--{prefix}price".replace("_", "-")
            raise UsageError(f"{flag}-in and {flag}-out belong together: give both")
        if read is None or written is None:
            found.append(None)
            continue
        if not (math.isfinite(read) and math.isfinite(written)):
            raise UsageError("a price must be a finite number of US dollars per million tokens")
        found.append(Prices(read, written))
    return found[0], found[1]


def limits_from(flags: Flags) -> Limits:
    """How the run is to be carried out. Raises ``UsageError`` for flags that contradict each other."""
    if flags["keep_errors"] and flags["retry_errors"]:
        raise UsageError("--keep-errors and --retry-errors contradict each other: --retry-errors is the default")
    prices, judge_prices = prices_from(flags) if "price_in" in flags else (None, None)
    return msgspec.structs.replace(settings_from(Limits, flags), prices=prices, judge_prices=judge_prices)


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
