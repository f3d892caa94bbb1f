"""``redinstruct report``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.browser import show_in_browser, temporary_page
from redinstruct.cli.derived import flags_of
from redinstruct.cli.figures import say_figures
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json, prices
from redinstruct.cli.outputs import check_files, write_attempts, write_whole
from redinstruct.cli.prepared import prices_from
from redinstruct.errors import EXIT_DONE, UsageError
from redinstruct.figures.calibrated import calibrated_in_words, read_calibration
from redinstruct.figures.report import plain
from redinstruct.render.comparison import comparison_rows
from redinstruct.render.overview import Project, read_runs
from redinstruct.render.settings import ReportSettings
from redinstruct.render.useful import margin_in_words, utility_rows
from redinstruct.settings import check_said, settings_from

_NOT_A_PAGE = {
    ".pdf": "name it .html, and print it from a browser for a PDF",
    ".md": "for Markdown there is --md",
    ".csv": "for CSV there is --csv",
    ".jsonl": "for the attempts there is --jsonl",
    ".json": "for JSON there is --json > FILE",
    ".xml": "for JUnit there is --junit",
}


@click.command("report")
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN...")
@flags_of(ReportSettings)
@prices()
@as_json
def command(runs: tuple[Path, ...], as_json: bool, **flags: Any) -> int:
    """Figures of one or more runs, computed from their rows.

    Each rate is shown in both conventions (of the judged answers, and of all attempts), with its interval, and with
    the bounds that the attempts without a verdict leave open. Two runs of one measure are also set side by side,
    question by question, in the page and in Markdown. Utility checks (`redinstruct utility`) may stand among the runs:
    their figures are shown beside the rates. Questions and answers are in none of the files unless
    --show-content is given.

    With prices the page says what the tokens came to; what a provider bills may differ.

    --calibration takes a JSON object: judge (its name, or the beginning of its id), true_positives, positives,
    true_negatives, negatives. Labels of the run itself are better: they need no judge that errs the same everywhere.
    """
    asked = settings_from(ReportSettings, flags)
    _check(asked)
    told = prices_from(flags)
    if told != (None, None) and asked.page is None and not asked.open:
        raise UsageError("--price-in and its like: only with --out or --open, since the page says what it came to")
    outside = None if asked.calibration is None else read_calibration(asked.calibration)
    most = asked.texts if asked.page is not None or asked.open else 0
    project = read_runs(runs, most_attempts=most, judge=asked.judge)
    if outside is not None:
        project = project.calibrated(outside)
    target, judge = (None if one is None else (one.read, one.written) for one in told)
    project = msgspec.structs.replace(project, prices=(target, judge))
    page = temporary_page() if asked.open and asked.page is None else asked.page
    _write(project, runs, msgspec.structs.replace(asked, page=page))
    if asked.open and page is not None:
        show_in_browser(page)
    if as_json:
        console.say_json(plain(project.report))
        return EXIT_DONE
    say_figures(project.report, topics=asked.by_topic)
    for said in [calibrated_in_words(r, outside) for r in project.results] if outside is not None else []:
        if said:
            console.remark(said)
    _say_utility(project, after=bool(project.results))
    return EXIT_DONE


def _check(asked: ReportSettings) -> None:
    """Nothing is read for files that cannot be written."""
    check_said(asked)
    check_files(asked.files)
    if asked.parquet is not None:
        from redinstruct.figures.parquet import check_parquet

        check_parquet()
    if asked.page is not None and (other := _NOT_A_PAGE.get(asked.page.suffix.casefold())) is not None:
        raise UsageError(f"--out {asked.page}: writes an HTML page; {other}")


def _write(project: Project, runs: Sequence[Path], asked: ReportSettings) -> None:
    """The files that were asked for. All is made before the first is replaced: what cannot be read changes nothing."""
    made: list[tuple[Path, Iterable[str]]] = []
    if asked.page is not None:
        from redinstruct.render.page import render

        made.append((asked.page, [render(project, show_content=asked.show_content)]))
    if asked.csv is not None:
        from redinstruct.render.tables import csv_text

        made.append((asked.csv, [csv_text(project.report)]))
    if asked.md is not None:
        from redinstruct.render.markdown import markdown_text

        made.append((asked.md, [markdown_text(project)]))
    if asked.junit is not None:
        from redinstruct.render.junit import junit_text

        made.append((asked.junit, [junit_text(project.report)]))
    if asked.jsonl is not None:
        from redinstruct.figures.attempts import jsonl_lines
        from redinstruct.run.stress import evaluations_of

        made.append(
            (asked.jsonl, jsonl_lines([one for run in runs for one in evaluations_of(run)], asked.show_content))
        )
    for path, parts in made:
        write_whole(path, parts)
    if asked.parquet is not None:
        write_attempts(asked.parquet, runs, asked.show_content)


def _say_utility(project: Project, *, after: bool) -> None:
    if not project.checks:
        return
    if after:
        console.say()
    better, numbers = "higher is better unless it says otherwise", ("value [95 % CI]", "items")
    console.say_section("Utility: still useful?", better, rows=utility_rows(project.checks), right=numbers)
    if project.utility_changes:
        rows = comparison_rows(project.utility_changes, project.checks[-1].margin)
        tested = all(result.difference is not None for result in project.utility_changes)
        rows = console.without(rows, "because") if tested else rows
        said = margin_in_words(project.checks)
        console.say_section("Before and after", said, rows=rows, right=("before", "after", "p"))
