"""What a page opens with: five answers for a reader who knows nothing yet, and every rate beside every other.

Pure functions of what was read. Only the judge that leads in each run speaks here; the others follow below.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from redinstruct.figures.comparison import Result
from redinstruct.figures.numbers import Figure, percent
from redinstruct.figures.report import ResultFigures, best_figure
from redinstruct.figures.scores import MeasuredScore
from redinstruct.render import words
from redinstruct.render.answers import Column, Facts, ReportAnswer, facts_of, five_answers, headline
from redinstruct.render.names import listed, once
from redinstruct.render.overview import Project
from redinstruct.render.times import day, duration
from redinstruct.render.useful import value_words

MOST_ROWS = 12
"""How many ways of asking the overview shows of one measure, the worst ones; the rest stands below."""
TITLES = {
    "attack_success": ("Attacks that succeeded", "lower is better"),
    "over_refusal": ("Harmless requests refused", "lower is better"),
}
USEFUL = "Still useful"
DOUBT, PROVISIONAL = "\u2020", "*"
"""Marks beside a rate: answers that say nothing, and attempts without a verdict."""


class SummaryCell(NamedTuple):
    """One rate, or score, of one model; ``share`` where it can be drawn from 0 to 100 %. ``n`` answers or items."""

    told: str
    share: Figure | None
    n: int
    mark: str


class SummaryRow(NamedTuple):
    """One way of asking, or benchmark: a cell for each model, and what changed where two were compared."""

    name: str
    about: str
    cells: tuple[SummaryCell | None, ...]
    change: Result | None


class SummaryGroup(NamedTuple):
    """The rows of one measure; ``left_out`` are not shown here."""

    title: str
    better: str
    rows: tuple[SummaryRow, ...]
    left_out: int


class Summary(NamedTuple):
    """What a page opens with."""

    headline: str
    answers: tuple[ReportAnswer, ...]
    columns: tuple[Column, ...]
    groups: tuple[SummaryGroup, ...]
    compared: bool
    marks: tuple[str, ...]
    stamp: tuple[str, ...]


def summary(project: Project) -> Summary:
    """The overview of runs that were read already."""
    shown = facts_of(project)
    groups = tuple(_groups(shown))
    return Summary(
        headline=headline(shown),
        answers=five_answers(shown),
        columns=tuple(shown.columns),
        groups=groups,
        compared=any(row.change is not None for group in groups for row in group.rows),
        marks=tuple(_marks(groups)),
        stamp=tuple(_stamp(project)),
    )


# ---- every rate beside every other ---------------------------------------------------------------------------------


def _groups(facts: Facts) -> Iterable[SummaryGroup]:
    for measure, (title, better) in TITLES.items():
        rows = _rate_rows(facts, measure)
        if rows:
            yield SummaryGroup(title, better, tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS))
    rows = _score_rows(facts)
    if rows:
        yield SummaryGroup(USEFUL, "higher is better, unless it says otherwise", tuple(rows), 0)


def _rate_rows(facts: Facts, measure: str) -> list[SummaryRow]:
    leading = [one for one in facts.leading if one.result.measure == measure]
    several = len({one.result.bank for one in leading}) > 1
    changes = {(c.bank, c.prompt): c for c in reversed(facts.changes(measure))}
    rows: dict[tuple[str, str], list[SummaryCell | None]] = {}
    about: dict[tuple[str, str], str] = {}
    for one in leading:
        key = (one.result.bank, one.result.prompt)
        cells = rows.setdefault(key, [None] * len(facts.columns))
        cells[one.column] = _rate_cell(one.result)
        about[key] = one.about
    made = [
        SummaryRow(
            f"{prompt}, {bank}" if several else prompt, about[bank, prompt], tuple(cells), changes.get((bank, prompt))
        )
        for (bank, prompt), cells in rows.items()
    ]
    if len(made) > MOST_ROWS:
        made.sort(key=lambda row: -max((c.share.estimate or 0.0 for c in row.cells if c and c.share), default=-1.0))
    return made


def _rate_cell(result: ResultFigures) -> SummaryCell:
    figure = best_figure(result)
    mark = (DOUBT if words.in_doubt(result) else "") + (PROVISIONAL if result.provisional else "")
    if figure.estimate is None:
        return SummaryCell("not judged", None, result.counts.total, mark)
    return SummaryCell(f"{percent(figure.estimate)}\u00a0%", figure, result.counts.judged, mark)


def _score_rows(facts: Facts) -> list[SummaryRow]:
    changes = {change.name: change for change in facts.project.utility_changes or ()}
    rows: dict[str, tuple[MeasuredScore, list[SummaryCell | None]]] = {}
    models = [column.model for column in facts.columns]
    for check in facts.project.checks:
        for measured in check.headline:
            _, cells = rows.setdefault(measured.task, (measured, [None] * len(models)))
            cells[models.index(check.model)] = _score_cell(measured)
    return [
        SummaryRow(
            name,
            measured.metric + ("" if measured.higher_is_better else ", lower is better"),
            tuple(cells),
            change if (change := changes.get(name)) is not None and change.difference is not None else None,
        )
        for name, (measured, cells) in rows.items()
    ]


def _score_cell(measured: MeasuredScore) -> SummaryCell:
    drawn = measured.mean is not None and all(0 <= value <= 1 for value in measured.values)
    told = value_words(measured).partition(" [")[0].replace(" %", "\u00a0%")
    return SummaryCell(told, measured.interval if drawn else None, measured.n, "")


def _marks(groups: Iterable[SummaryGroup]) -> Iterable[str]:
    used = "".join(cell.mark for group in groups for row in group.rows for cell in row.cells if cell is not None)
    if DOUBT in used:
        yield f"{DOUBT} many of these answers say nothing: see the findings"
    if PROVISIONAL in used:
        yield f"{PROVISIONAL} provisional: fewer than 95 % of the attempts have a verdict"


# ---- when and how long ---------------------------------------------------------------------------------------------


def _stamp(project: Project) -> Iterable[str]:
    began = [run.times.began for run in project.runs if run.times.began is not None]
    if began:
        first, last = day(min(began)), day(max(began))
        yield f"Made {first}" if first == last else f"Made {first} to {last}"
    answered = [run.times for run in project.runs if run.times.median is not None]
    if len(answered) == 1 and answered[0].median is not None and answered[0].slow is not None:
        yield (
            f"an answer took {duration(answered[0].median)} at the median, "
            f"nineteen of twenty at most {duration(answered[0].slow)}"
        )
    elif answered:
        medians = [t.median for t in answered if t.median is not None]
        yield f"an answer took {duration(min(medians))} to {duration(max(medians))} at the median of each run"
    versions = once(version for run in project.runs for version in run.versions)
    if versions:
        yield f"redinstruct {listed(versions)}"
