"""``redinstruct plan --labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.annotate.allocation import FALSE_OMISSION, PPV, Assumed, CellPlan, cells_to_plan, label_plan
from redinstruct.annotate.session import judge_of
from redinstruct.cli import console
from redinstruct.errors import UsageError
from redinstruct.run import Store
from redinstruct.settings import Setting

_LABELS = ("labels",)


class LabelPlanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``redinstruct plan --labels`` is told beside the run and the judge."""

    labels: Annotated[bool, Setting("Plan people's labels instead: how many buy which width of the interval.")] = False
    width: Annotated[
        float | None,
        Setting("With --labels: the width asked for, 0.1 for ten points.", "W", above=0, below=1, needs=_LABELS),
    ] = None
    attempts: Annotated[
        int | None, Setting("With --labels, without a run: its answers.", "N", least=1, needs=_LABELS)
    ] = None
    flagged: Annotated[
        float | None, Setting("With --attempts: the judge's own rate.", "X", least=0, most=1, needs=_LABELS)
    ] = None
    ppv: Annotated[
        float | None,
        Setting("With --labels: the share truly so of what the judge flags.", "X", least=0, most=1, needs=_LABELS),
    ] = None
    false_omission: Annotated[
        float | None,
        Setting("With --labels: that share of what it does not flag.", "X", least=0, most=1, needs=_LABELS),
    ] = None


def plan_labels(run: Path | None, judge: str | None, asked: LabelPlanSettings, *, as_json: bool) -> int:
    """Say how many labels buy which width, for a run or for assumed numbers; returns the exit code.

    Raises:
        UsageError: numbers that fit no run, or neither a run nor numbers.
    """
    if (run is None) == (asked.attempts is None):
        raise UsageError("plan --labels: give --run DIR, or --attempts N and --flagged X")
    ppv, false_omission, flagged = asked.ppv, asked.false_omission, asked.flagged
    if run is not None:
        if flagged is not None:
            raise UsageError("--flagged: the run itself tells; leave it out")
        cells = _cells_of_run(run, judge, ppv, false_omission)
    else:
        assert asked.attempts is not None
        if flagged is None:
            raise UsageError("--attempts: needs --flagged, the share that the judge calls positive")
        ppv, false_omission = PPV if ppv is None else ppv, FALSE_OMISSION if false_omission is None else false_omission
        cells = [Assumed("", "", asked.attempts, round(asked.attempts * flagged), ppv, false_omission, "assumed")]
    document = label_plan(cells, asked.width)
    if as_json:
        console.say_json(msgspec.to_builtins(document))
    else:
        for position, result in enumerate(document.results):
            if position:
                console.say()
            _say(result)
    return 0


def _cells_of_run(run: Path, judge: str | None, ppv: float | None, false_omission: float | None) -> list[Assumed]:
    with Store.open_for_reading(run) as store:
        row, card = judge_of(store, judge)
        cells = cells_to_plan(store, row, card, ppv, false_omission)
    if not cells:
        raise UsageError(f"{run}: the judge has labelled nothing yet")
    return cells


def _say(result: CellPlan) -> None:
    where = f"{result.bank}/{result.prompt}" if result.prompt else "an assumed run"
    console.say_heading(
        f"labels for {where}",
        f"{result.total:,} judged answers, {result.flagged:,} flagged",
        f"truly so: {result.ppv:.0%} of the flagged, {result.false_omission:.0%} of the others "
        + ("(by the labels so far)" if result.basis == "labels" else "(assumed: --ppv, --false-omission)"),
    )
    console.say()
    rows = [
        {
            "labels": f"{row.labels:,}",
            "flagged +\nothers": f"{row.neyman.flagged:,} + {row.neyman.others:,}",
            "width,\npoints": f"{100 * row.neyman.width:.1f}",
            "as annotate\ndraws": f"{row.drawn.flagged:,} + {row.drawn.others:,}",
            "width ": f"{100 * row.drawn.width:.1f}",
        }
        for row in result.sizes
    ]
    console.say_table(rows, right=list(rows[0]))
    console.say()
    if result.width is not None:
        count = result.labels_for_width
        console.remark(
            f"{100 * result.width:.1f} points: "
            + (f"{count:,} labels." if count is not None else "not even with a label for every answer.")
        )
    console.remark(
        "Width: the mean one of the corrected rate's 95 % interval. The first three columns: Neyman's allocation."
    )
