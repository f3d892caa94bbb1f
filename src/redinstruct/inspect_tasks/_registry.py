"""What Inspect finds under ``redinstruct/``."""

from __future__ import annotations

from redinstruct.inspect_tasks.metrics import at_k, by_question, corrected, judged, share
from redinstruct.inspect_tasks.scorers import exact, guard, paper, policy, refusal, rubric
from redinstruct.inspect_tasks.solvers import cot, cou, prompted, standard
from redinstruct.inspect_tasks.tasks import over_refusal, red_eval

__all__ = [
    "at_k", "by_question", "corrected", "cot", "cou", "exact", "guard", "judged", "over_refusal", "paper", "policy",
    "prompted", "red_eval", "refusal", "rubric", "share", "standard",
]  # fmt: skip
