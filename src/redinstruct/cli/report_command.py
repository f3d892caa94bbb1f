"""``redinstruct report``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.figures import say_figures
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json, prices, show_content
from redinstruct.cli.outputs import check_files, show_in_browser, temporary_page, write_attempts, write_whole
from redinstruct.errors import UsageError

if TYPE_CHECKING:
    from redinstruct.render.overview import Project

_NOT_A_PAGE = {
    ".pdf": "name it .html, and print it from a browser for a PDF",
    ".md": "for Markdown there is --md",
    ".csv": "for CSV there is --csv",
    ".jsonl": "for the attempts there is --jsonl",
    ".json": "for JSON there is --json > FILE",
    ".xml": "for JUnit there is --junit",
}
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("report")
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=_FILE, metavar="FILE.html", help="The report as one page: no network, no script needed.")
@as_json
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Figures as CSV, one line per result and topic.")
@click.option("--md", "md_file", type=_FILE, metavar="FILE", help="Verdict, rates and caveats as Markdown.")
@click.option("--junit", "junit_file", type=_FILE, metavar="FILE", help="Figures as JUnit XML; `gate` sets a limit.")
@click.option("--jsonl", "jsonl_file", type=_FILE, metavar="FILE", help="Every attempt as JSON Lines.")
@click.option("--parquet", "parquet_file", type=_FILE, metavar="FILE", help="Every attempt as Parquet ([parquet]).")
@click.option("--by-topic", is_flag=True, help="Also a table per topic on the terminal.")
@click.option("--judge", metavar="NAME|ID", help="This judge's figures alone: its name, or the beginning of its id.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.json",
    help="How the judge did on items of known truth elsewhere: also its rate corrected by that (Rogan-Gladen).",
)
@click.option(
    "open_it",
    "--open",
    is_flag=True,
    help="Show the page in a browser; without --out, of a file in the temporary folder.",
)
@click.option(
    "--texts",
    type=click.IntRange(1, 20_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many attempts have their texts on the page, shared evenly among the runs; the others are listed without.",
)
@prices()
@show_content
def command(
    runs: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    csv_file: Path | None,
    md_file: Path | None,
    junit_file: Path | None,
    jsonl_file: Path | None,
    parquet_file: Path | None,
    by_topic: bool,
    judge: str | None,
    calibration: Path | None,
    open_it: bool,
    texts: int,
    show_content: bool,
    **money: float | None,
) -> int:
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
    from redinstruct.cli.prepared import prices_from
    from redinstruct.figures.attempts import jsonl_lines
    from redinstruct.figures.calibrated import calibrated_in_words, read_calibration
    from redinstruct.figures.parquet import check_parquet
    from redinstruct.figures.report import plain
    from redinstruct.render.junit import junit_text
    from redinstruct.render.markdown import markdown_text
    from redinstruct.render.overview import read_runs
    from redinstruct.render.tables import csv_text
    from redinstruct.run.stress import evaluations_of

    files = {"--out": out, "--csv": csv_file, "--md": md_file, "--junit": junit_file, "--jsonl": jsonl_file,
             "--parquet": parquet_file}  # fmt: skip
    check_files(files)
    if parquet_file is not None:
        check_parquet()
    if out is not None and (other := _NOT_A_PAGE.get(out.suffix.casefold())) is not None:
        raise UsageError(f"--out {out}: writes an HTML page; {other}")
    outside = None if calibration is None else read_calibration(calibration)
    project = read_runs(runs, most_attempts=texts if out is not None or open_it else 0, judge=judge)
    if outside is not None:
        project = project.calibrated(outside)
    target, judge_ = (None if one is None else (one.read, one.written) for one in prices_from(money))
    project = msgspec.structs.replace(project, prices=(target, judge_))
    report = project.report
    if open_it and out is None:
        out = temporary_page()
    # Everything is made before the first file is replaced: what cannot be read changes nothing.
    made: list[tuple[Path | None, Iterable[str]]] = []
    if out is not None:
        from redinstruct.render.page import render

        made.append((out, [render(project, show_content=show_content)]))
    made += [
        (csv_file, [csv_text(report)] if csv_file else []),
        (md_file, [markdown_text(project)] if md_file else []),
        (junit_file, [junit_text(report)] if junit_file else []),
        (jsonl_file, jsonl_lines([one for run in runs for one in evaluations_of(run)], show_content)),
    ]
    for path, parts in made:
        if path is not None:
            write_whole(path, parts)
    if parquet_file is not None:
        write_attempts(parquet_file, runs, show_content)
    if open_it and out is not None:
        show_in_browser(out)
    if as_json:
        console.say_json(plain(report))
    else:
        say_figures(report, topics=by_topic)
        for said in [calibrated_in_words(r, outside) for r in project.results] if outside is not None else []:
            if said:
                console.say_folded(said, indent="  ")
        _say_utility(project, after=bool(project.results))
    return 0


def _say_utility(project: Project, *, after: bool) -> None:
    from redinstruct.render.useful import change_row, margin_in_words, utility_rows

    if not project.checks:
        return
    if after:
        console.say()
    console.say_heading("Utility: still useful?", "higher is better unless it says otherwise")
    console.say()
    console.say_table(utility_rows(project.checks), right=("value [95 % CI]", "items"))
    if project.utility_changes:
        console.say()
        console.say_heading("Before and after", margin_in_words(project.checks))
        console.say()
        console.say_table(
            [change_row(result) for result in project.utility_changes], right=("before", "after", "pairs")
        )
