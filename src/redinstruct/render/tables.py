"""Figures as rows of a table: for the terminal and for CSV."""

from __future__ import annotations

import csv
import io

from redinstruct.figures.report import FiguresOf, Report, ResultFigures
from redinstruct.safetext import in_csv
from redinstruct.types import MEASURES

BASELINES = frozenset({"refusal"})
NO_TOPIC = "(no topic)"


_LABEL_COLUMNS = ("first", "second", "no_response", "judge_refused", "unparsable", "error")
_ANSWERS = ("truncated", "looping", "repeated", "unread", "withheld")
CSV_COLUMNS = (
    "model",
    "bank",
    "prompt",
    "measure",
    "judge",
    "judge_id",
    "topic",
    "planned",
    "total",
    "first_label",
    *_LABEL_COLUMNS,
    "refused_detail",
    "complied_detail",
    "partial",
    "garbled",
    "judged",
    "judged_low",
    "judged_high",
    "all",
    "all_low",
    "all_high",
    "bound_low",
    "bound_high",
    "coverage",
    "provisional",
    "corrected",
    "corrected_low",
    "corrected_high",
    "labels",
    *(f"run_{name}" for name in ("low", "high")),
    *_ANSWERS,
    "promise",
)


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
    measure, counts, rate = MEASURES[result.measure], part.counts, part.rate
    names = (result.model, result.bank, result.prompt, result.measure, result.judge or "", result.judge_id)
    figures: list[object] = []
    for figure in (rate.judged, rate.all):
        figures += ["" if figure.estimate is None else figure.estimate, figure.low, figure.high]
    corrected, run = rate.corrected, rate.corrected_run
    people: tuple[object, ...] = ("", "", "", 0)
    if corrected is not None:
        people = corrected.estimate, corrected.low, corrected.high, corrected.labels
    answers = part.answers if isinstance(part, ResultFigures) else None
    details = part.details
    return [
        *map(in_csv, names), in_csv(topic), part.planned, counts.total, in_csv(measure.first),
        *counts.by_label().values(), details.refused, details.complied, details.partial, details.garbled,
        *figures, *rate.bounds, part.coverage, int(part.provisional),
        *people,
        *(("", "") if run is None else (run.low, run.high)),
        *(getattr(answers, name, "") for name in _ANSWERS),
        details.promised,
    ]  # fmt: skip
