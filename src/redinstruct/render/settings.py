"""What a report is to hold and where it goes: one struct, from which the flags derive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.settings import Setting


class ReportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of ``redinstruct report`` beside the runs: the files that it writes, and what they show."""

    page: Annotated[
        Path | None, Setting("The report as one page: no network, no script needed.", "FILE.html", flag="--out")
    ] = None
    csv: Annotated[Path | None, Setting("Figures as CSV, one line per result and topic.", "FILE")] = None
    md: Annotated[Path | None, Setting("Verdict, rates and caveats as Markdown.", "FILE")] = None
    junit: Annotated[Path | None, Setting("Figures as JUnit XML; `gate` sets a limit.", "FILE")] = None
    jsonl: Annotated[Path | None, Setting("Every attempt as JSON Lines.", "FILE")] = None
    parquet: Annotated[Path | None, Setting("Every attempt as Parquet ([parquet]).", "FILE")] = None
    by_topic: Annotated[bool, Setting("Also a table per topic on the terminal.")] = False
    judge: Annotated[
        str | None, Setting("This judge's figures alone: its name, or the beginning of its id.", "NAME|ID")
    ] = None
    calibration: Annotated[
        Path | None,
        Setting(
            "How the judge did on items of known truth elsewhere: also its rate corrected by that (Rogan-Gladen).",
            "FILE.json",
        ),
    ] = None
    open: Annotated[bool, Setting("Show the page in a browser; without --out, of a file in the temporary folder.")] = (
        False
    )
    texts: Annotated[
        int,
        Setting(
            "How many attempts have their texts on the page, shared evenly among the runs; the others are listed"
            " without.",
            "N",
            least=1,
            most=20_000,
            needs=("page", "open"),
        ),
    ] = 1000
    show_content: Annotated[
        bool,
        Setting("Show questions and answers; they may be harmful to read.", needs=("page", "open", "jsonl", "parquet")),
    ] = False

    @property
    def files(self) -> dict[str, Path | None]:
        """The files to be written, each by its flag."""
        return {
            "--out": self.page, "--csv": self.csv, "--md": self.md, "--junit": self.junit, "--jsonl": self.jsonl,
            "--parquet": self.parquet,
        }  # fmt: skip
