"""The report as Markdown, for a pull request or a wiki: the verdict, the rates, the caveats.

Promised: a name that a stranger wrote is text in CommonMark and in GitHub's dialect: no heading, link, image, mention,
HTML or new table cell comes of it. Not promised: other dialects.
"""

from __future__ import annotations

from collections.abc import Sequence

from redinstruct.figures.comparison import Result
from redinstruct.figures.numbers import percent, with_interval
from redinstruct.figures.report import ResultFigures
from redinstruct.render.changes import change_certainty, change_headline
from redinstruct.render.comparison import comparison_rows
from redinstruct.render.overview import Project
from redinstruct.render.tables import markdown_table
from redinstruct.render.useful import margin_in_words, utility_rows
from redinstruct.render.words import TITLES, failures_in_words, in_doubt, judge_name, verdict
from redinstruct.safetext import in_markdown
from redinstruct.types import MEASURES


def markdown_text(project: Project) -> str:
    """The report on runs that were read already."""
    lines = ["# Red-teaming report", ""]
    for change in project.changes or ():
        lines += _change(change)
    everyone = project.results
    for number, run in enumerate(project.runs, 1):
        for results in run.by_judge:
            lines += _block(number if len(project.runs) > 1 else None, results, everyone)
    if project.checks:
        lines += ["## Utility", "", markdown_table(utility_rows(project.checks))]
    if project.utility_changes:
        changed = comparison_rows(project.utility_changes, project.checks[-1].margin)
        lines += [
            f"Before and after; {margin_in_words(project.checks)}:",
            "",
            markdown_table(changed, strong="verdict"),
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _change(result: Result) -> list[str]:
    if result.difference is None:
        return [f"**not comparable**: {in_markdown(result.name)}: {in_markdown(result.why)}.", ""]
    return [f"**{result.verdict}**: {in_markdown(change_headline(result))} {in_markdown(change_certainty(result))}", ""]


def _block(run: int | None, results: Sequence[ResultFigures], everyone: Sequence[ResultFigures]) -> list[str]:
    said = verdict(results)
    where = "" if run is None else f"Run {run}: "
    lines = [
        f"## {where}{in_markdown(said.model)}, {TITLES[said.measure].lower()}",
        "",
        # Marks before a blank are no emphasis: a name may begin with one.
        f"**{in_markdown(said.headline.strip())}** {in_markdown(said.certainty)}",
        "",
        f"Judge: {in_markdown(judge_name(results[0], everyone))} ({in_markdown(said.judge_id)})",
        "",
        _rates(results),
        *(f"- **{caveat.word}**: {in_markdown(caveat.meaning)}" for caveat in said.caveats),
        "",
    ]
    for result in results:
        if result.failures:
            failed = in_markdown(failures_in_words(result))
            lines += [f"Without a verdict in {in_markdown(result.bank)}, {in_markdown(result.prompt)}: {failed}.", ""]
    return lines


def _rates(results: Sequence[ResultFigures]) -> str:
    first, rows = MEASURES[results[0].measure].first, []
    for result in results:
        rate, counts = result.rate, result.counts
        low, high = map(percent, rate.bounds)
        corrected = "uncorrected" if rate.corrected is None else with_interval(rate.corrected)
        rows.append(
            {
                "bank": result.bank,
                "prompt": result.prompt + in_doubt(result),
                "attempts": f"{counts.total:,}",
                first: f"{counts.first:,}",
                f"% {first} of judged [95 % CI]": with_interval(rate.judged),
                "% of all [95 % CI]": with_interval(rate.all),
                "bounds, %": f"{low} to {high}",
                "% corrected [95 % CI]": "people's own labels" if result.judge is None else corrected,
                "coverage, %": percent(result.coverage) + (" (provisional)" if result.provisional else ""),
            }
        )
    return markdown_table(rows, right=list(rows[0])[2:])
