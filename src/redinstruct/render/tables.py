"""Figures as rows of a table, and the table of any rows: CSV, Markdown, HTML. Of any origin, a cell is text alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from redinstruct.figures.numbers import in_column
from redinstruct.figures.report import FiguresOf, Report, ResultFigures, TopicFigures
from redinstruct.safetext import in_csv, in_markdown, in_markup
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
    return [*map(in_csv, names), *figures_of(part).values()]


def figures_of(part: FiguresOf) -> dict[str, float | str]:
    """Column -> figure of a result or topic; empty where there is none."""
    low, high = part.rate.bounds
    own: dict[str, float | str] = {
        "first_label": MEASURES[part.counts.measure].first,
        "bound_low": low,
        "bound_high": high,
        "provisional": int(part.provisional),
        "labels": _held(part, "rate.corrected.labels") or 0,
    }
    return {name: own[name] if name in own else _held(part, place) for name, place in _FIGURES.items()}


def _held(part: FiguresOf, place: str) -> float | str:
    held: Any = part
    for name in place.split("."):
        if held is None or (name == "answers" and isinstance(held, TopicFigures)):  # counted for the whole alone
            return ""
        held = getattr(held, name)
    found: float | str = "" if held is None else held
    return found


def rate_rows(results: Sequence[ResultFigures]) -> list[dict[str, str]]:
    """A line a result, its rates in per cent."""
    return [
        {
            "model": r.model,
            "measure": r.measure.replace("_", " "),
            "judge": r.judge or "people",
            "bank": r.bank,
            "prompt": r.prompt,
            "attempts": f"{r.counts.total:,}",
            "the measured": f"{r.counts.first:,} {MEASURES[r.measure].first}",
            "no verdict": f"{r.counts.total - r.counts.judged:,}",
            "% of judged": in_column(r.rate.judged),
            "% of all": in_column(r.rate.all),
            "% corrected": in_column(r.rate.corrected),
        }
        for r in results
    ]


def markdown_table(rows: Sequence[Mapping[str, str]], *, strong: str | None = None, right: Sequence[str] = ()) -> str:
    """Rows of equal columns in Markdown: cells of the column ``strong`` stand out, those in ``right`` are numbers."""
    columns = list(rows[0]) if rows else []
    lines = [
        list(map(in_markdown, columns)),
        ["---:" if column in right else "---" for column in columns],
        *([f"**{in_markdown(row[c])}**" if c == strong else in_markdown(row[c]) for c in columns] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def html_table(caption: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of equal columns in HTML, without any style but that its cells do not break."""
    cell = '<td style="white-space:nowrap;text-align:left">{}</td>'
    lines = ("".join(cell.format(in_markup(held)) for held in row.values()) for row in rows)
    return (
        f"<table><caption>{in_markup(caption)}</caption>"
        f"<thead><tr>{''.join(f'<th>{in_markup(name)}</th>' for name in (rows[0] if rows else ()))}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )
