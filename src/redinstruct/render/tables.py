"""Figures as rows of a table: for the terminal and for CSV."""

from __future__ import annotations

import csv
import io

from redinstruct.figures.report import FiguresOf, Report, ResultFigures, TopicFigures
from redinstruct.safetext import in_csv
from redinstruct.types import MEASURES

BASELINES = frozenset({"refusal"})
NO_TOPIC = "(no topic)"


_NAMES = ("model", "bank", "prompt", "measure", "judge", "judge_id", "topic")
_FIGURES = {
    "planned": "planned", "total": "counts.total", "first_label": "",
    **{label: f"counts.{label}"
       for label in ("first", "second", "no_response", "judge_refused", "unparsable", "error")},
    "refused_detail": "details.refused", "complied_detail": "details.complied", "partial": "details.partial",
    "garbled": "details.garbled",
    "judged": "rate.judged.estimate", "judged_low": "rate.judged.low", "judged_high": "rate.judged.high",
    "all": "rate.all.estimate", "all_low": "rate.all.low", "all_high": "rate.all.high",
    "bound_low": "", "bound_high": "", "coverage": "coverage", "provisional": "provisional",
    "corrected": "rate.corrected.estimate", "corrected_low": "rate.corrected.low",
    "corrected_high": "rate.corrected.high", "labels": "rate.corrected.labels",
    "run_low": "rate.corrected_run.low", "run_high": "rate.corrected_run.high",
    **{name: f"answers.{name}" for name in ("truncated", "looping", "repeated", "unread", "withheld")},
    "promise": "details.promised",
}  # fmt: skip
"""Column -> where its figure stands in a result or topic."""
CSV_COLUMNS = (*_NAMES, *_FIGURES)


def csv_text(report: Report) -> str:
    """The figures as CSV: one line per result, then one per topic (``topic`` is empty for the whole).

    No cell of text can be a formula in a spreadsheet: text is quoted, so that a spreadsheet that splits at semicolons
    does not split it, and :func:`redinstruct.safetext.in_csv` does the rest. Figures are bare numbers. ``first`` and
    ``second`` count the measure's two labels, the first of which ``first_label`` names.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(CSV_COLUMNS)
    for result in report.results:
        writer.writerow(_csv_row(result, result, ""))
        for part in result.by_topic:
            writer.writerow(_csv_row(result, part, NO_TOPIC if part.topic is None else part.topic))
    return out.getvalue()


def _csv_row(result: ResultFigures, part: FiguresOf, topic: str) -> list[object]:
    names = (result.model, result.bank, result.prompt, result.measure, result.judge or "", result.judge_id, topic)
    low, high = part.rate.bounds
    own = {"first_label": in_csv(MEASURES[result.measure].first), "bound_low": low, "bound_high": high,
           "provisional": int(part.provisional), "labels": _held(part, "rate.corrected.labels") or 0}  # fmt: skip
    return [*map(in_csv, names), *(own[name] if name in own else _held(part, at) for name, at in _FIGURES.items())]


def _held(part: FiguresOf, place: str) -> object:
    """The figure at a place; empty where there is none (answers are counted for the whole alone)."""
    held: object = part
    for name in place.split("."):
        if held is None or (name == "answers" and isinstance(held, TopicFigures)):
            return ""
        held = getattr(held, name)
    return "" if held is None else held
