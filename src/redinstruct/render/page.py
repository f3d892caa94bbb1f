"""The report as one HTML file: a projection of the store, readable without network and without script.

Promised: whatever a model, a bank or a file's name says is shown as text. Every value passes
:func:`redinstruct.safetext.shown` and then Jinja's escaping, by the environment and not by the template's author;
the page's policy forbids everything but the style and the script whose hashes it names. Same rows, same bytes: there is
no path, no random number and no clock in it, but the times that the rows hold. Content is hidden (hash, length, label)
unless it is asked for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from redinstruct.figures.comparison.words import change_in_words, signed
from redinstruct.figures.numbers import p_value, percent
from redinstruct.figures.report import FailureFigures, FiguresOf, ResultFigures, TopicFigures
from redinstruct.render import words
from redinstruct.render.changes import change_certainty, change_headline
from redinstruct.render.comparison import comparison_rows
from redinstruct.render.curve import stress_svg
from redinstruct.render.listing import as_sent, data_block, index_of
from redinstruct.render.overview import Project, read_runs
from redinstruct.render.pictures import tries
from redinstruct.render.stressed import ABOUT, stress_notes, stress_table
from redinstruct.render.summary import summary
from redinstruct.render.tables import NO_TOPIC
from redinstruct.render.times import day, duration
from redinstruct.render.useful import margin_in_words, utility_rows
from redinstruct.safetext import redact, short_hash, shown
from redinstruct.types import MEASURES

MOST_TOPICS = 200
"""How many topics a forest plot shows; the largest ones, if there are more."""
MOST_CHARACTERS = 20_000
"""How much of one text a page with content shows."""
MOST_WORDINGS = 50
"""How many tellings of what failed a page lists per judge, the most frequent of each result first."""
MOST_INVOCATIONS = 20
"""How many of the commands that worked on a run a page lists."""
POLICY = (
    "default-src 'none'; style-src '{style}'; script-src '{script}'; img-src 'none'; base-uri 'none';"
    " form-action 'none'; require-trusted-types-for 'script'"
)


class FigureLine(NamedTuple):
    """A line of a plot: what it is about (``bank`` where there are several), and the figures."""

    name: str
    bank: str | None
    part: FiguresOf


class Forest(NamedTuple):
    """One result by topic, the largest topics first to be kept; ``left_out`` are not shown."""

    result: ResultFigures
    lines: tuple[FigureLine, ...]
    left_out: int


class Block(NamedTuple):
    """The results of one run under one judge. ``run`` counts from 1; ``failed`` are those that said why.

    ``leads``: it is the judge that the run was begun with.
    """

    run: int
    results: tuple[ResultFigures, ...]
    verdict: words.ModelVerdict
    lines: tuple[FigureLine, ...]
    forests: tuple[Forest, ...]
    failed: tuple[tuple[FigureLine, FailureFigures], ...]
    leads: bool


class Sides(NamedTuple):
    """One model from both sides: the worst it gave in to, and the worst that it refused for nothing."""

    model: str
    lines: tuple[FigureLine, ...]


def html_page(runs: Sequence[Path], *, show_content: bool = False) -> str:
    """The report on one or more runs.

    Raises:
        ConfigError: a folder without a run.
        StoreError: a store that does not read.
    """
    return render(read_runs(runs), show_content=show_content)


def render(project: Project, *, show_content: bool = False) -> str:
    """The page of runs that were read already."""
    blocks = [
        _block(number, results, leads=not place)
        for number, run in enumerate(project.runs, 1)
        for place, results in enumerate(run.by_judge)
    ]
    style, script = _asset("report.css"), _asset("report.js")
    page: str = (
        _environment()
        .get_template("report.html")
        .render(
            policy=page_policy(),
            style=Markup(style),  # noqa: S704  (this package's own file)
            script=Markup(script),  # noqa: S704
            title=_title(project),
            summary=summary(project),
            runs=project.runs,
            changes=project.changes,
            blocks=blocks,
            sides=_sides(project.results),
            useful=utility_rows(project.checks),
            stressed=[
                (one, Markup(stress_svg(one)), *stress_table(one), stress_notes(one))  # noqa: S704  (it escapes its names)
                for one in project.stressed
            ],
            about_stress=ABOUT,
            useful_changes=comparison_rows(project.utility_changes, project.checks[-1].margin)
            if project.utility_changes
            else [],
            margin=margin_in_words(project.checks) if project.checks else "",
            cards={result.judge_id: result for result in reversed(project.results)},
            show_content=show_content,
            judge_name=lambda result: words.judge_name(result, project.results),
            index=data_block(index_of(project.runs)),
            indexed=sum(len(run.listing.index) for run in project.runs if run.listing is not None),
            unindexed=sum(run.listing.unindexed for run in project.runs if run.listing is not None),
            tries=tries(project.runs),
            listed=sum(len(run.listing.views) for run in project.runs if run.listing is not None),
            left_out=sum(run.listing.left_out for run in project.runs if run.listing is not None),
            several=len(project.runs) > 1,
            most_wordings=MOST_WORDINGS,
            most_invocations=MOST_INVOCATIONS,
        )
    )
    return page


def page_policy() -> str:
    """The Content-Security-Policy of every page: its own style and script by their hashes, and nothing else."""
    return POLICY.format(style=_digest(_asset("report.css")), script=_digest(_asset("report.js")))


def _title(project: Project) -> str:
    models = list(
        dict.fromkeys([*(run.config.model for run in project.runs), *(check.model for check in project.checks)])
    )
    shown = " and ".join(models) if len(models) < 3 else f"{models[0]} and {len(models) - 1} other models"
    return f"Red-teaming report: {shown}"


def _block(number: int, results: Sequence[ResultFigures], *, leads: bool) -> Block:
    several = len({result.bank for result in results}) > 1
    lines = tuple(FigureLine(r.prompt + words.in_doubt(r), r.bank if several else None, r) for r in results)
    failed = tuple(
        (line, failure)
        for line, result in zip(lines, results, strict=True)
        for failure in result.failures
        if failure.words
    )
    forests = tuple(_forest(result) for result in results if result.by_topic)
    return Block(number, tuple(results), words.verdict(results), lines, forests, failed, leads)


def _forest(result: ResultFigures) -> Forest:
    parts = result.by_topic
    largest = sorted(range(len(parts)), key=lambda i: -parts[i].planned)[:MOST_TOPICS]
    lines = tuple(
        FigureLine(NO_TOPIC if part.topic is None else part.topic, None, part)
        for part in (parts[i] for i in sorted(largest))
    )
    return Forest(result, lines, len(parts) - len(lines))


def _sides(results: Sequence[ResultFigures]) -> list[Sides]:
    found = []
    for model in dict.fromkeys(result.model for result in results):
        lines = []
        for measure in MEASURES:
            judged = [r for r in results if (r.model, r.measure) == (model, measure) and r.counts.judged]
            for worst in words.worst_first(judged)[:1]:
                name = f"{words.TITLES[measure]}, {worst.prompt} prompt{words.in_doubt(worst)}"
                lines.append(FigureLine(name, worst.bank, worst))
        if len(lines) == len(MEASURES):
            found.append(Sides(model, tuple(lines)))
    return found


# ---- the environment ---------------------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A source of the page's policy: the hash of exactly what stands between the tags."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _one_line(value: object) -> object:
    """What every ``{{ }}`` passes through before it is escaped: no control, no invisible character, one line."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _filters() -> dict[str, Callable[..., object]]:
    """What the templates write figures with."""
    return {
        "percent": percent,
        "position": lambda share: f"{100 * share:.2f}%",
        "width": lambda figure: f"{100 * (figure.high - figure.low):.2f}%",
        "count": lambda value: f"{value:,}",
        "ratio": lambda value: "-" if value is None else f"{value:.2f}",
        "interval": words.interval,
        "points": signed,
        "p_value": p_value,
        "change_headline": change_headline,
        "change_certainty": change_certainty,
        "plot_title": plot_title,
        "percent_of": lambda share: f"{percent(share.estimate)} %, 95 % interval {words.interval(share)}",
        "change_told": lambda change: change_in_words(change).replace(" points", ""),
        "day": day,
        "duration": duration,
        "lost_in_words": words.lost_in_words,
        "variation_in_words": words.variation_in_words,
        "block": shown_text,
        "as_sent": as_sent,
        "text_hash": short_hash,
        "measure_title": words.TITLES.__getitem__,
        "measure": MEASURES.__getitem__,
    }


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_filters())
    return environment


def plot_title(part: FiguresOf) -> str:
    """A line of a plot in words: what stands for the picture where it cannot be seen."""
    rate = part.rate
    if rate.judged.estimate is None:
        told = "nothing judged"
    else:
        told = f"{percent(rate.judged.estimate)} % of judged, 95 % interval {words.interval(rate.judged)}"
    if isinstance(part, TopicFigures) and (shrunken := part.shrunken) is not None:
        told += f"; drawn to the other topics {percent(shrunken.estimate)} % ({words.interval(shrunken)})"
    low, high = map(percent, rate.bounds)
    told += f"; bounds {low} to {high} %"
    if (corrected := rate.corrected) is not None:
        told += f"; corrected {percent(corrected.estimate)} %, 95 % interval {words.interval(corrected)}"
    return told


def shown_text(text: str) -> Markup:
    """A text of several lines, cut where it is longer than a page can bear, and said so."""
    masked = redact(text)
    block = escape(shown(masked[:MOST_CHARACTERS], multiline=True))
    if len(masked) <= MOST_CHARACTERS:
        return block
    return block + Markup("\n[{:,} more characters]").format(len(masked) - MOST_CHARACTERS)
