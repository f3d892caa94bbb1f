"""How owed work is carried out: a pool of workers, calls with retries and limits, batches, one writer.

The room knows nothing of prompts, questions or judges: RED-EVAL and HARMFULQA hand it jobs. Everything that waits does
so through asyncio's clock, so that the tests run it on a virtual one.
"""

from __future__ import annotations

from redinstruct.engine.calls import Answer, Caller
from redinstruct.engine.fuse import Fuse, Held, is_failing
from redinstruct.engine.gate import AdaptiveGate
from redinstruct.engine.limits import (
    DEFAULT_CONCURRENCY,
    MAX_CONCURRENCY,
    Allowance,
    LimitReached,
    Limits,
    Prices,
    Spending,
    check_limits,
)
from redinstruct.engine.loops import in_a_loop, stoppable
from redinstruct.engine.pool import run_pool
from redinstruct.engine.retry import RetryPolicy
from redinstruct.engine.servers import PATIENCE
from redinstruct.engine.worklist import Asked, Calling, Party, Worklist
from redinstruct.engine.writer import GroupWriter

__all__ = [
    "DEFAULT_CONCURRENCY",
    "MAX_CONCURRENCY",
    "PATIENCE",
    "AdaptiveGate",
    "Allowance",
    "Answer",
    "Asked",
    "Caller",
    "Calling",
    "Fuse",
    "GroupWriter",
    "Held",
    "LimitReached",
    "Limits",
    "Party",
    "Prices",
    "RetryPolicy",
    "Spending",
    "Worklist",
    "check_limits",
    "in_a_loop",
    "is_failing",
    "run_pool",
    "stoppable",
]
