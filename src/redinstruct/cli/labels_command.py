"""``redinstruct labels``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json
from redinstruct.cli.outputs import check_files, write_whole
from redinstruct.errors import EXIT_DONE, UsageError
from redinstruct.figures.numbers import in_column, percent

if TYPE_CHECKING:
    from redinstruct.annotate.figures import LabelsFigures
    from redinstruct.figures.agreement import Coefficient
    from redinstruct.run import SettleRule

FORMATS = ("csv", "argilla", "label-studio")


@click.command("labels")
@click.argument("run", type=RUN)
@click.option("--judge", metavar="J", help="The judge to hold against people; left out, the run's first.")
@click.option("--export", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write what was drawn to FILE.")
@click.option(
    "--import", "source", type=click.Path(path_type=Path), metavar="FILE", help="Take people's labels from FILE."
)
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Of FILE; left out, by its ending: csv or none.")
@click.option("--show-content", is_flag=True, help="With --export: questions and answers too; they may be harmful.")
@click.option(
    "--settle", "rule", type=click.Choice(["unanimous", "majority"]),
    help="From now on several people's labels of one answer count when all agree, or when more than half do. Kept with "
    "the run, for every verb.",
)  # fmt: skip
@click.option("--annotator", metavar="NAME", help="With --import: whose labels these are, where FILE does not say.")
@as_json
def command(
    run: Path,
    judge: str | None,
    out: Path | None,
    source: Path | None,
    kind: str | None,
    show_content: bool,
    rule: SettleRule | None,
    annotator: str | None,
    as_json: bool,
) -> int:
    """What people's labels say of a run: corrected rates, agreement with the judge and with each other.

    With --export, the drawn answers (or, without a draw, every judged one) and their labels go to a file that Argilla
    or Label Studio reads; with --import, labels come back. Importing the same file twice adds nothing.
    """
    from redinstruct.annotate.exchange import settle_by
    from redinstruct.annotate.session import judge_of
    from redinstruct.run import NAMED, Store, is_run, no_run

    if out is not None and source is not None:
        raise UsageError("--export and --import: one at a time")
    if not is_run(run):
        raise no_run(run, NAMED["evaluation"])
    check_files({"--export": out})
    if source is not None:
        _import(run, source, kind, annotator, judge)
    if rule is not None:
        settle_by(run, rule)
    with Store.open_for_reading(run) as store:
        row, card = judge_of(store, judge)
        if out is not None:
            _export(store, row, out, kind, show_content)
            return EXIT_DONE
        from redinstruct.annotate.figures import summary
        from redinstruct.figures.report import plain

        figures = summary(store, row, card)
    if as_json:
        console.say_json(plain(figures))
    else:
        say_labels(figures)
    return EXIT_DONE


def _format(kind: str | None, path: Path) -> str:
    if kind is None and path.suffix.lower() != ".csv":
        raise UsageError(f"--format: which of {', '.join(FORMATS)} is {path.name}?")
    return kind or "csv"


def _export(store: Any, judge: int, out: Path, kind: str | None, content: bool) -> None:
    from redinstruct.annotate.exchange import exported

    kind = _format(kind, out)
    if kind != "csv" and not content:
        raise UsageError(f"--export for {kind}: people there need the texts; add --show-content")
    text, count = exported(store, judge, kind, content=content)
    write_whole(out, text)
    console.note(f"{count:,} answers in {out}")


def _import(run: Path, source: Path, kind: str | None, annotator: str | None, judge: str | None) -> None:
    from redinstruct.annotate.exchange import take_labels

    added, read = take_labels(run, source, _format(kind, source), annotator, judge)
    console.note(f"{added:,} new labels of {read:,} in {source.name}")


def say_labels(figures: LabelsFigures) -> None:
    """The figures of people's labels, to be read at 80 columns."""
    people = figures.people
    console.say_heading("people's labels", f"{figures.labels:,} answers have a label that people settled on")
    console.say()
    rows = [
        {
            "bank": r.bank,
            "prompt": r.prompt,
            "labels": f"{r.labels:,} of {r.total:,}",
            "% by people" if figures.judge is None else "% by the\njudge alone": in_column(r.judged),
            "% corrected": in_column(r.corrected),
            **({} if figures.judge is None else {"% judge and\npeople agree": in_column(r.agreement)}),
        }
        for r in figures.results
    ]
    if len({row["bank"] for row in rows}) == 1:
        rows = [{name: cell for name, cell in row.items() if name != "bank"} for row in rows]
    if rows:
        console.say_table(rows, right=[column for column in rows[0] if column not in ("bank", "prompt")])
        console.say()
    judge = figures.judge_id.rpartition("@")[0]
    told = (
        "No judge has seen these answers: how far one agrees with people is not measured."
        if figures.judge is None
        else f"Judge {judge}. Corrected, and agreement with it: over the whole run, post-stratified by its labels."
    )
    console.say_folded(f"{told} 95 % intervals.", indent="  ")
    if people.annotators > 1:
        console.say_folded(
            f"{people.annotators} people labelled {people.common:,} answers in common: they agree on "
            f"{in_column(people.agreed)} % of them; Krippendorff's alpha {_coefficient(people.alpha)}, Cohen's "
            f"kappa {_coefficient(people.kappa)}, Gwet's AC1 {_coefficient(people.ac1)}.",
            indent="  ",
        )
        _say_split(figures)
    if people.open:
        majority = "" if figures.settle == "majority" else ", or labels RUN --settle majority"
        console.say_folded(
            f"{people.open:,} disagreements wait to be settled, and correct nothing until then: "
            f"redinstruct annotate RUN --adjudicate{majority}.",
            indent="  ",
        )
    _say_doubts(figures)


_AGREE = {"all": "all agree", "most": "most agree", "neither": "neither side has more"}


def _say_split(figures: LabelsFigures) -> None:
    """The rates by how far people agree, where that differs."""
    groups = [group for group in figures.by_agreement if group.answers]
    if len(groups) < 2:
        return
    rows = [
        {
            "people": _AGREE[group.agree],
            "answers": f"{group.answers:,}",
            "% by people": in_column(group.people),
            "% by the judge": in_column(group.judge),
            "% the judge\nsays the same": in_column(group.judge_agreement),
        }
        for group in groups
    ]
    if figures.judge is None:
        rows = [dict(list(row.items())[:3]) for row in rows]
    console.say()
    console.say_table(rows, right=list(rows[0])[1:])
    console.say()


def _say_doubts(figures: LabelsFigures) -> None:
    """What may stand between these labels and the rate that they correct."""
    if any(r.labels and r.corrected.estimate is None for r in figures.results):
        from redinstruct.figures.people import FEWEST_LABELS

        console.say_folded(
            f"Where a rate is missing the labels are too few: {FEWEST_LABELS} of each of the judge's two labels, or "
            "all of them, are needed.",
            indent="  ",
        )
    others = [judge for judge in figures.drawn_for if judge != figures.judge_id]
    if others:
        console.say_folded(
            f"The answers were drawn by the labels of {', '.join(others)}: the figures are weighed by those labels and "
            "this judge's own together.",
            indent="  ",
        )
    if figures.imported:
        console.say_folded(
            f"{figures.imported:,} labels were imported: the rate holds if their answers were drawn at random.",
            indent="  ",
        )
    if figures.undecided:
        console.say_folded(f"{figures.undecided:,} answers that nobody could tell are left out.", indent="  ")
    for result in figures.results:
        if result.bounds is not None:
            low, high = map(percent, result.bounds)
            console.say_folded(
                f"Whatever people would have said of the answers that they left out, the corrected rate in "
                f"{result.bank}/{result.prompt} lies between {low} and {high} %.",
                indent="  ",
            )


def _coefficient(found: Coefficient) -> str:
    if found.estimate is None:
        return "not defined"
    return f"{found.estimate:.2f}" + ("" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]")
