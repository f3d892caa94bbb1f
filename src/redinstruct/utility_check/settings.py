"""What a utility check may be set to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.settings import Setting

DEFAULT_MARGIN = 0.02


class UtilitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """A utility check: the settings of ``redinstruct utility``. With ``data`` nothing else is read."""

    model: Annotated[str, Setting("hf/<path>, or an endpoint with log-probabilities.", "M", short="-m")]
    suite: Annotated[str, Setting("paper, bias, toy, hhh, or tasks of the harness, separated by commas.", "S")]
    margin: Annotated[
        float,
        Setting(
            "The loss that counts as none when this run is compared: fixed now, part of the run.", "X", least=0, below=1
        ),
    ] = DEFAULT_MARGIN
    limit: Annotated[int | None, Setting("The first N items of each task.", "N", least=1)] = None
    data: Annotated[
        Path | None,
        Setting("Benchmark files as published; with it, no other data is read (docs/utility.md).", "DIR"),
    ] = None
    shots: Annotated[
        int | None, Setting("Examples before each question; left out, the task's own.", "N", least=0, most=100)
    ] = None
    chat_template: Annotated[
        str | None,
        Setting(
            "For hf/ models. Left out: native for the toy world's tasks, none for all others.", names=("native", "none")
        ),
    ] = None
    batch: Annotated[int | None, Setting("Rows at once on a local model.", "N", least=1, most=4096)] = None
    download: Annotated[bool, Setting("Let the harness fetch data that is not on this machine.")] = False
