"""Judges: measuring instruments with an identity, never oracles."""

from __future__ import annotations

from redinstruct.judges.base import Asking, Bindable, Call, Case, Judge, bound_judge
from redinstruct.judges.registry import JUDGES, TESTED, JudgeOptions, make_judge, model_of_judge
from redinstruct.judges.selftest import SelfTest, battery, run_selftest
from redinstruct.judges.settings import JudgeSettings

__all__ = [
    "JUDGES", "TESTED", "Asking", "Bindable", "Call", "Case", "Judge", "JudgeOptions", "JudgeSettings", "SelfTest",
    "battery", "bound_judge", "make_judge", "model_of_judge", "run_selftest",
]  # fmt: skip
