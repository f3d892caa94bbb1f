"""Stage 4: is the model still useful? TruthfulQA, MMLU, BBH, HHH and bias, before and after.

:mod:`results` reads what a check found, and loads nothing heavy; :mod:`runs` carries one out.
"""

from __future__ import annotations

from redinstruct.figures.scores import (
    GroupPlan,
    MeasuredScore,
    Metric,
    TaskCard,
    UtilityConfig,
    UtilityResult,
    is_utility,
    read_utility,
    utility_in,
)

__all__ = [
    "GroupPlan",
    "MeasuredScore",
    "Metric",
    "TaskCard",
    "UtilityConfig",
    "UtilityResult",
    "is_utility",
    "read_utility",
    "utility_in",
]
