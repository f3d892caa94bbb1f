"""Figures as rows of a table: for the terminal and for CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from redinstruct.safetext import csv_cell
from redinstruct.types import MEASURES

BASELINES = frozenset({"refusal"})
NO_TOPIC = "(no topic)"


_LABEL_COLUMNS = ("first", "second", "no_response", "judge_refused", "unparsable", "error")
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
    "truncated",
    "looping",
    "repeated",
    "unread",
    "withheld",
)


def csv_text(document: Mapping[str, Any]) -> str:
    """The figures as CSV: one line per result, then one per topic (``topic`` is empty for the whole).

    No cell of text can be a formula in a spreadsheet: text is quoted, so that a spreadsheet that splits at semicolons
    does not split it, and :func:`redinstruct.safetext.csv_cell` does the rest. Figures are bare numbers. ``first`` and
    ``second`` count the measure's two labels, the first of which ``first_label`` names.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(CSV_COLUMNS)
    for result in document["results"]:
        writer.writerow(_csv_row(result, result, ""))
        for part in result["by_topic"]:
            writer.writerow(_csv_row(result, part, NO_TOPIC if part["topic"] is None else part["topic"]))
    return out.getvalue()


def _csv_row(result: Mapping[str, Any], part: Mapping[str, Any], topic: str) -> list[object]:
    measure = MEASURES[result["measure"]]
    counts, rate, details = part["counts"], part["rate"], part["details"]
    names = ("model", "bank", "prompt", "measure", "judge", "judge_id")
    text = [csv_cell("" if result[name] is None else str(result[name])) for name in names]
    figures: list[object] = []
    for name in ("judged", "all"):
        figures += ["" if rate[name]["estimate"] is None else rate[name]["estimate"], *rate[name]["ci"]]
    corrected = rate["corrected"]
    by_people = ["", "", "", 0] if corrected is None else [corrected["estimate"], *corrected["ci"], corrected["labels"]]
    return [
        *text, csv_cell(topic), part["planned"], counts["total"], csv_cell(measure.first),
        *(counts[label] for label in measure.labels),
        *(details.get(name, 0) for name in ("refused", "complied", "partial", "garbled")),
        *figures, *rate["bounds"], part["coverage"], int(part["provisional"]), *by_people,
        *(("", "") if rate["corrected_run"] is None else rate["corrected_run"]["ci"]),
        *(part.get("answers", {}).get(name, "") for name in CSV_COLUMNS[-5:]),
    ]  # fmt: skip
