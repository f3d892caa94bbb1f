"""``redinstruct import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from redinstruct.cli import console
from redinstruct.cli.figures import say_figures
from redinstruct.cli.kinds import RUN, columns_from
from redinstruct.cli.options import as_json, seal_option
from redinstruct.errors import UsageError

if TYPE_CHECKING:
    from redinstruct.interop import Imported
    from redinstruct.run import SettleRule


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--run", required=True, type=RUN, metavar="DIR", help="The run's folder; made.")
@click.option(
    "--measure", default="attack_success", show_default=True, metavar="attack_success|over_refusal",
    help="What the labels mean, and which rows are kept where a column says which prompts are safe.",
)  # fmt: skip
@click.option("--model", metavar="NAME", help="Who answered, as reports name it; left out, what the file says.")
@click.option(
    "--annotator", default="imported", show_default=True, metavar="NAME",
    help="Whose labels the human column holds, where no column `annotator` says so.",
)  # fmt: skip
@click.option(
    "--column", "columns", multiple=True, metavar="PURPOSE=NAME",
    help="A column by its own name: prompt, response, judge, human (one a person), annotator, adjudicated, cluster, "
    "subtopic or label (which prompts are safe). Repeatable.",
)  # fmt: skip
@click.option(
    "--one", metavar="LABEL", help="What 1 means in a column of 1 and 0 whose name does not tell: harmful, say."
)
@click.option(
    "--settle", type=click.Choice(["unanimous", "majority"]), default="unanimous", show_default=True,
    help="When several people's labels of one answer count as one: all agree, or more than half do.",
)  # fmt: skip
@seal_option
@as_json
def command(
    file: Path,
    run: Path,
    measure: str,
    model: str | None,
    annotator: str,
    columns: tuple[str, ...],
    one: str | None,
    settle: SettleRule,
    as_json: bool,
) -> int:
    """Make a run of answers that were collected elsewhere: existing figures get honest intervals.

    FILE is CSV, JSON Lines or a JSON list with `prompt` and `response`, and perhaps `judge` and `human` (the
    measure's labels: harmful, unharmful, or refused, partial, complied; empty: not labelled) and `cluster`. Also the
    Red-Instruct authors' results/*.json, JailbreakBench artifacts, garak's report.jsonl (answers only), Inspect's
    logs (.eval, .json), whose scores are verdicts of the judge inspect/SCORER, logs of promptfoo, lm-eval, deepteam
    and HarmBench, PyRIT's memory file and StrongREJECT's scores, each with its own verdicts. An empty response is
    no_response; an answer that the judge column leaves out is unparsable, never safe. The same command again changes
    nothing. A row of a table that does not read is named, and nothing is written; one of a log is left out and named.
    HARMFULQA's public schema becomes a collection.
    """
    from redinstruct.harmfulqa.public import is_public

    if is_public(file):
        _refuse_what_is_for_answers(measure, annotator, columns, one, settle)
        return _collection(file, run, model, as_json)
    from redinstruct.figures.rates import read_report
    from redinstruct.figures.report import plain
    from redinstruct.interop import import_file

    with console.steps() as tell:
        done = import_file(
            file,
            run,
            measure=measure,
            model=model,
            annotator=annotator,
            columns=columns_from(columns, several=("human",)),
            one=one,
            settle=settle,
            on_progress=tell,
        )
    report = read_report([run])
    if as_json:
        console.say_json(plain(report))
    elif done.source.labels != "none":
        say_figures(report)
    _note(done, run, settle)
    return 0


def _refuse_what_is_for_answers(
    measure: str, annotator: str, columns: tuple[str, ...], one: str | None, settle: SettleRule
) -> None:
    given = {
        "--measure": measure != "attack_success",
        "--annotator": annotator != "imported",
        "--column": bool(columns),
        "--one": one is not None,
        "--settle": settle != "unanimous",
    }
    if (flag := next((flag for flag in given if given[flag]), None)) is not None:
        raise UsageError(f"{flag}: is for files of answers, and this one holds conversations (HARMFULQA's schema)")


def _collection(file: Path, run: Path, model: str | None, as_json: bool) -> int:
    from redinstruct.cli.collect_command import collection_document, say_collection
    from redinstruct.harmfulqa.collect import Collection
    from redinstruct.harmfulqa.published import import_published

    done = import_published(file, run, model=model)
    collection = Collection(done.config, done.harvest)
    if as_json:
        console.say_json(collection_document(collection, calls=0, complete=True))
    else:
        say_collection(collection)
    count = len(collection.dialogues())
    console.note(
        f"{count:,} conversations about {len(done.harvest.rows):,} questions "
        f"{'are' if done.new else 'were already'} in {run}; `redinstruct export` writes them out"
    )
    return 0


def _note(done: Imported, run: Path, settle: SettleRule) -> None:
    """What was taken, what was left, and what to do next."""
    source = done.source
    counts = {
        "empty": done.blank,
        "left out by the judge": done.unlabelled,
        f"labels of {done.people} people" if done.people > 1 else "people's labels": done.human,
        "answers on which people differ": done.unsettled,
        "people's labels of empty answers, set aside": done.set_aside,
        "rows of the bank's other half, left out": source.selected.other_half,
        "rows of which the file does not say whether the prompt is safe, left out": source.selected.untold,
    }
    told = ", ".join(f"{what} {count:,}" for what, count in counts.items() if count)
    console.note(
        f"{done.answers:,} answers of {source.model} {'are' if done.new else 'were already'} in {run}"
        + (f": {told}" if told else "")
    )
    counted = {f"{what}, left out": rows for what, rows in source.left_out.items()} | dict(source.odd)
    for what, rows in counted.items():
        more = ", ..." if len(rows) > 5 else ""
        console.note(f"{what}: {len(rows):,} ({', '.join(rows[:5])}{more})")
    for note in source.notes:
        console.note(note)
    if done.unsettled:
        console.note(
            f"{done.unsettled:,} answers on which people differ count as not scored"
            + ("" if settle == "majority" else "; --settle majority (also of `redinstruct labels`) takes what most say")
        )
    if done.human and done.human < done.answers - done.blank:
        console.note("the labels of people stand for the whole run only where chance chose what they labelled")
    if source.labels == "none":
        console.note(f"the file holds no labels: `redinstruct judge {run} --judge ...` adds a judge's")
