"""``redinstruct import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.figures import say_figures
from redinstruct.cli.kinds import PATH
from redinstruct.cli.options import as_json, seal_option
from redinstruct.cli.run_folder import run_option
from redinstruct.errors import UsageError
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.interop import Imported, import_file
from redinstruct.interop.settings import ImportSettings
from redinstruct.run import SettleRule
from redinstruct.settings import given_flags, settings_from


@click.command("import")
@click.argument("file", type=PATH, metavar="FILE")
@run_option("The run's folder; made.", required=True)
@flags_of(ImportSettings)
@seal_option
@as_json
def command(file: Path, run: Path, as_json: bool, **flags: Any) -> int:
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

    asked = settings_from(ImportSettings, flags)
    if is_public(file):
        if others := given_flags(asked, but=("model",)):
            raise UsageError(
                f"{others[0]}: is for files of answers, and this one holds conversations (HARMFULQA's schema)"
            )
        return _collection(file, run, asked.model, as_json)

    with console.steps() as tell:
        done = import_file(file, run, asked, tell)
    report = read_report([run])
    if as_json:
        console.say_json(plain(report))
    elif done.source.labels != "none":
        say_figures(report)
    _note(done, run, asked.settle)
    return 0


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
