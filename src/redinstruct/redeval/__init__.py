"""Stage 1, RED-EVAL: how often can a model be talked into harm?

``prepare`` reads and checks everything and writes nothing; ``evaluate`` asks what is owed; ``rejudge`` judges recorded
answers again and never samples. One attempt's way: render, ask, commit the raw answer, judge it, commit the verdict.
Source: Bhardwaj & Poria 2023 (arXiv 2308.09662), section on RED-EVAL; the protocol as recovered in the project's
specification of it.
"""

from __future__ import annotations

from redinstruct.redeval.invocation import Outcome
from redinstruct.redeval.plan import Plan, prepare
from redinstruct.redeval.runs import evaluate, rejudge
from redinstruct.redeval.settings import AskSettings, EvalSettings, RejudgeSettings, read_system

__all__ = [
    "AskSettings", "EvalSettings", "Outcome", "Plan", "RejudgeSettings", "evaluate", "prepare", "read_system",
    "rejudge",
]  # fmt: skip
