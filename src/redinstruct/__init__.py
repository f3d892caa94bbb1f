"""Red-Instruct as software: measure how often a language model can be talked into harm, and mend it::

    evaluate, judge, report, compare, gate, labels, stress, collect, export, align, utility, loop
                                                the verbs as functions
    Run                                         one run, for a notebook: figures, rows, intervals
    stats                                       rates and intervals: pure functions of counts

``import redinstruct`` is cheap: no torch, scipy, aiohttp or pandas is loaded until a function needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redinstruct.version import __version__

if TYPE_CHECKING:
    from redinstruct import stats
    from redinstruct.api import (
        align,
        collect,
        compare,
        evaluate,
        export,
        gate,
        judge,
        labels,
        loop,
        merge,
        report,
        shard,
        stress,
        utility,
    )
    from redinstruct.render.notebook import Run

_VERBS = (
    "align", "collect", "compare", "evaluate", "export", "gate", "judge", "labels", "loop", "merge", "report",
    "shard", "stress", "utility",
)  # fmt: skip
_LAZY = {
    **dict.fromkeys(_VERBS, "redinstruct.api"),
    "Run": "redinstruct.render.notebook",
}

__all__ = [
    "Run", "__version__", "align", "collect", "compare", "evaluate", "export", "gate", "judge", "labels", "loop",
    "merge", "report", "shard", "stats", "stress", "utility",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    import importlib

    if name == "stats":
        return importlib.import_module("redinstruct.stats")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'redinstruct' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
