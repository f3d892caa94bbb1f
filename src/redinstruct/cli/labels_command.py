"""``redinstruct labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.annotate.exchange import exported, format_of, take_in
from redinstruct.annotate.figures import LabelsFigures
from redinstruct.annotate.session import judge_of
from redinstruct.annotate.settings import LabelsSettings
from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json
from redinstruct.cli.outputs import check_files, write_whole
from redinstruct.errors import EXIT_DONE, UsageError
from redinstruct.figures.agreement import Coefficient
from redinstruct.figures.numbers import in_column, percent
from redinstruct.run import Store
from redinstruct.settings import settings_from


@click.command("labels")
@click.argument("run", type=RUN)
@flags_of(LabelsSettings)
@as_json
def command(run: Path, as_json: bool, **flags: Any) -> int:
    """What people's labels say of a run: corrected rates, agreement with the judge and with each other.

    With --export, the drawn answers (or, without a draw, every judged one) and their labels go to a file that Argilla
    or Label Studio reads; with --import, labels come back. Importing the same file twice adds nothing.
    """
    asked = settings_from(LabelsSettings, flags)
    if asked.out is not None and asked.source is not None:
        raise UsageError("--export and --import: one at a time")
    check_files({"--export": asked.out})
    taken = take_in(run, asked)
    if taken is not None and asked.source is not None:
        console.note(f"{taken[0]:,} new labels of {taken[1]:,} in {asked.source.name}")
    with Store.open_for_reading(run) as store:
        row, card = judge_of(store, asked.judge)
        if asked.out is not None:
            _export(store, row, asked.out, asked)
            return EXIT_DONE
        from redinstruct.annotate.figures import summary
        from redinstruct.figures.report import plain

        figures = summary(store, row, card)
    if as_json:
        console.say_json(plain(figures))
    else:
        say_labels(figures)
    return EXIT_DONE


def _export(store: Store, judge: int, out: Path, asked: LabelsSettings) -> None:
    kind = format_of(asked.kind, out)
    if kind != "csv" and not asked.show_content:
        raise UsageError(f"--export for {kind}: people there need the texts; add --show-content")
    text, count = exported(store, judge, kind, content=asked.show_content)
    write_whole(out, text)
    console.note(f"{count:,} answers in {out}")


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
    if rows:
        right = [column for column in rows[0] if column not in ("bank", "prompt")]
        console.say_table(rows, right=right, alike=("bank",))
        console.say()
    judge = figures.judge_id.rpartition("@")[0]
    told = (
        "No judge has seen these answers: how far one agrees with people is not measured."
        if figures.judge is None
        else f"Judge {judge}. Corrected, and agreement with it: over the whole run, post-stratified by its labels."
    )
    console.remark(f"{told} 95 % intervals.")
    if people.annotators > 1:
        console.remark(
            f"{people.annotators} people labelled {people.common:,} answers in common: they agree on "
            f"{in_column(people.agreed)} % of them; Krippendorff's alpha {_coefficient(people.alpha)}, Cohen's "
            f"kappa {_coefficient(people.kappa)}, Gwet's AC1 {_coefficient(people.ac1)}."
        )
        _say_split(figures)
    if people.open:
        majority = "" if figures.settle == "majority" else ", or labels RUN --settle majority"
        console.remark(
            f"{people.open:,} disagreements wait to be settled, and correct nothing until then: "
            f"redinstruct annotate RUN --adjudicate{majority}."
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

        console.remark(
            f"Where a rate is missing the labels are too few: {FEWEST_LABELS} of each of the judge's two labels, or "
            "all of them, are needed."
        )
    others = [judge for judge in figures.drawn_for if judge != figures.judge_id]
    if others:
        console.remark(
            f"The answers were drawn by the labels of {', '.join(others)}: the figures are weighed by those labels and "
            "this judge's own together."
        )
    if figures.imported:
        console.remark(
            f"{figures.imported:,} labels were imported: the rate holds if their answers were drawn at random."
        )
    if figures.undecided:
        console.remark(f"{figures.undecided:,} answers that nobody could tell are left out.")
    for result in figures.results:
        if result.bounds is not None:
            low, high = map(percent, result.bounds)
            console.remark(
                f"Whatever people would have said of the answers that they left out, the corrected rate in "
                f"{result.bank}/{result.prompt} lies between {low} and {high} %."
            )


def _coefficient(found: Coefficient) -> str:
    if found.estimate is None:
        return "not defined"
    return f"{found.estimate:.2f}" + ("" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]")
