"""The verbs as functions, for scripts and notebooks: the same meanings, the same run folders, the same errors.

A run is named by its folder: a text, a path, or a :class:`redinstruct.Run`. Bad input raises
:class:`redinstruct.errors.UsageError` with the one line that the command prints, and nothing is written.
"""

from __future__ import annotations

from redinstruct.api.dealing import merge, shard
from redinstruct.api.measuring import compare, evaluate, gate, judge, labels, report, stress
from redinstruct.api.mending import align, collect, export, loop, utility

__all__ = [
    "align", "collect", "compare", "evaluate", "export", "gate", "judge", "labels", "loop", "merge", "report",
    "shard", "stress", "utility",
]  # fmt: skip
