"""A loop's utility check of one model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct.models import id_of
from redinstruct.progress import OnProgress
from redinstruct.rounds.config import UtilityPart
from redinstruct.rounds.ledger import Ledger
from redinstruct.types import JsonObject


def utility_stage(
    ledger: Ledger, number: int, title: str, model: str, part: UtilityPart, on_progress: OnProgress
) -> Path:
    """The run folder of the check.

    Raises:
        RedInstructError: the [utility] extra is missing, or a task cannot be carried out.
    """
    from redinstruct.utility_check.runs import check_utility
    from redinstruct.utility_check.settings import UtilitySettings

    name = f"{number}-{title}-utility"
    wanted = UtilitySettings(
        model=model,
        suite=part.suite,
        margin=part.margin,
        limit=part.limit,
        data=None if part.data is None else Path(part.data),
    )

    def work(place: Path) -> JsonObject:
        done = check_utility(wanted, place, on_progress)
        return {"tasks": len(done.asked)}

    inputs = {"model": id_of(model), "part": msgspec.to_builtins(part)}
    return Path(ledger.stage(name, inputs, work, f"is {title} still useful?").place)
