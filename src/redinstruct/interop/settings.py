"""What an import may be set to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from redinstruct.run import MAJORITY, UNANIMOUS, SettleRule
from redinstruct.settings import Setting

IMPORTED = "imported"


class ImportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a file of answers is read: the settings of ``redinstruct import``.

    ``columns``: purpose -> column, several for ``human``, one a person.
    """

    measure: Annotated[
        str,
        Setting(
            "What the labels mean, and which rows are kept where a column says which prompts are safe.",
            "attack_success|over_refusal",
        ),
    ] = "attack_success"
    model: Annotated[str | None, Setting("Who answered, as reports name it; left out, what the file says.", "NAME")] = (
        None
    )
    annotator: Annotated[
        str, Setting("Whose labels the human column holds, where no column `annotator` says so.", "NAME")
    ] = IMPORTED
    columns: Annotated[
        Mapping[str, str | Sequence[str]],
        Setting(
            "A column by its own name: prompt, response, judge, human (one a person), annotator, adjudicated, cluster, "
            "subtopic or label (which prompts are safe). Repeatable.",
            "PURPOSE=NAME",
            flag="--column",
        ),
    ] = msgspec.field(default_factory=dict)
    one: Annotated[
        str | None, Setting("What 1 means in a column of 1 and 0 whose name does not tell: harmful, say.", "LABEL")
    ] = None
    settle: Annotated[
        SettleRule,
        Setting(
            "When several people's labels of one answer count as one: all agree, or more than half do.",
            names=(UNANIMOUS, MAJORITY),
        ),
    ] = UNANIMOUS
