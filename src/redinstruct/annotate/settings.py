"""What is done with people's labels: one struct, from which the flags and the Python function derive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from redinstruct.run import SettleRule
from redinstruct.settings import Setting

Format = Literal["csv", "argilla", "label-studio"]


class LabelsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """People's labels of a run: the settings of ``redinstruct labels``."""

    judge: Annotated[str | None, Setting("The judge to hold against people; left out, the run's first.", "J")] = None
    out: Annotated[Path | None, Setting("Write what was drawn to FILE.", "FILE", flag="--export")] = None
    source: Annotated[Path | None, Setting("Take people's labels from FILE.", "FILE", flag="--import")] = None
    kind: Annotated[
        Format | None,
        Setting("Of FILE; left out, by its ending: csv or none.", flag="--format", needs=("out", "source")),
    ] = None
    show_content: Annotated[
        bool, Setting("With --export: questions and answers too; they may be harmful.", needs=("out",))
    ] = False
    settle: Annotated[
        SettleRule | None,
        Setting(
            "From now on several people's labels of one answer count when all agree, or when more than half do. Kept"
            " with the run, for every verb."
        ),
    ] = None
    annotator: Annotated[
        str | None,
        Setting("With --import: whose labels these are, where FILE does not say.", "NAME", needs=("source",)),
    ] = None
