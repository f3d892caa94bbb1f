"""A loop's utility check of one model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct.models import id_of
from redinstruct.progress import OnProgress
from redinstruct.rounds.config import UtilityPart
from redinstruct.rounds.ledger import Ledger
from redinstruct.types import JsonObject
from redinstruct.utility_check.settings import UtilitySettings


def settings_of(model: str, part: UtilityPart) -> UtilitySettings:
    """The utility check of a model that a loop's table means."""
    data = None if part.data is None else Path(part.data)
    return UtilitySettings(model=model, suite=part.suite, margin=part.margin, limit=part.limit, data=data)


def utility_stage(
    ledger: Ledger, number: int, title: str, model: str, part: UtilityPart, on_progress: OnProgress
) -> Path:
    """The run folder of the check.

    Raises:
        RedInstructError: the [utility] extra is missing, or a task cannot be carried out.
    """
    from redinstruct.utility_check.runs import check_utility

    name = f"{number}-{title}-utility"
    wanted = settings_of(model, part)

    def work(place: Path) -> JsonObject:
        done = check_utility(wanted, place, on_progress)
        return {"tasks": len(done.asked)}

    inputs = {"model": id_of(model), "part": msgspec.to_builtins(part)}
    return Path(ledger.stage(name, inputs, work, f"is {title} still useful?").place)
