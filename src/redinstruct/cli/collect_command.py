"""``redinstruct collect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.derived import Grouped, flags_of
from redinstruct.cli.endings import say_ending
from redinstruct.cli.options import as_json, how_to_ask, money, on_engine, seal_option
from redinstruct.cli.prepared import limits_from, stop_signals
from redinstruct.cli.run_folder import BEGUN, run_option, run_or_dated
from redinstruct.harmfulqa.settings import CollectSettings
from redinstruct.settings import settings_from
from redinstruct.types import JsonObject

if TYPE_CHECKING:
    from redinstruct.harmfulqa import Collection, Coverage

SCHEMA = "redinstruct.collection/1"


@click.command("collect", cls=Grouped)
@flags_of(CollectSettings)
@run_option(BEGUN.format("The collection's folder"))
@how_to_ask()
@on_engine
@money()
@seal_option
@as_json
def command(run: Path | None, as_json: bool, **flags: Any) -> int:
    """Collect questions and blue (safe) conversations, and red ones with --red, from any teacher.

    Topics, subtopics with a definition, questions, conversations, verdicts: each call is recorded before it is used.
    The same command resumes an interrupted collection; a larger --per-subtopic or --blue extends it.

    Exit codes: 0 all asked (at most 5 % of any step's calls as errors; they are left out); 2 bad input, or a teacher
    that refuses everything (nothing is recorded); 11 cut by --max-calls or --budget, too many errors, or stopped
    because an endpoint fails later on (the same command goes on); 130 interrupted.
    """
    from redinstruct.harmfulqa import collect, prepare_collection

    asked, limits = settings_from(CollectSettings, flags), limits_from(flags)
    plan = prepare_collection(asked, limits.timeout)
    run = run_or_dated(run, f"{plan.config.teacher}-collection")
    with stop_signals(), console.progress("collecting") as tell:
        done = collect(plan, run, limits, tell, until_covered=asked.until_covered)
    if as_json:
        console.say_json(collection_document(done.collection, calls=done.calls, complete=done.complete))
    else:
        say_collection(done.collection)
        console.note(f"{done.calls:,} calls now; `redinstruct export {run} --to messages --out FILE` writes them out")
    return say_ending(done)


def collection_document(collection: Collection, *, calls: int, complete: bool) -> JsonObject:
    """A collection as ``--json`` tells it: counts, and no text."""
    return {
        "schema": SCHEMA,
        "complete": complete,
        "calls": calls,
        **_totals(collection.coverage()),
        "unparsable": collection.harvest.unparsable,
        "left_out": collection.harvest.left_out,
        "coverage": [msgspec.to_builtins(cell) for cell in collection.coverage()],
    }


def _totals(cells: tuple[Coverage, ...]) -> dict[str, int]:
    names = ("wanted", "questions", "blue", "whole", "red")
    return {name: sum(getattr(cell, name) for cell in cells) for name in names}


def say_collection(collection: Collection) -> None:
    """The coverage by topic, and by subtopic where one is thin."""
    cells = collection.coverage()
    console.say_table([_row(topic, of) for topic, of in _by_topic(cells).items()], right=_RIGHT)
    thin = [cell for cell in cells if cell.questions < cell.wanted]
    if thin:
        console.say()
        rows = [_row(f"{cell.topic} / {cell.subtopic}", (cell,)) for cell in thin]
        why = "fewer questions than wanted; --until-covered asks on"
        console.say_section("Thin subtopics", why, rows=rows, right=_RIGHT)
    for step, reasons in collection.harvest.unparsable.items():
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        console.note(f"{step}: replies that could not be used: {told}")
    for step, count in collection.harvest.left_out.items():
        console.note(f"{step}: {count:,} left out")


_RIGHT = ("questions", "blue", "whole", "red")


def _by_topic(cells: tuple[Coverage, ...]) -> dict[str, tuple[Coverage, ...]]:
    found: dict[str, tuple[Coverage, ...]] = {}
    for cell in cells:
        found[cell.topic] = (*found.get(cell.topic, ()), cell)
    return {**found, "all": cells} if len(found) > 1 else found


def _row(name: str, cells: tuple[Coverage, ...]) -> dict[str, str]:
    totals = _totals(cells)
    counts = {column: f"{totals[column]:,}" for column in _RIGHT}
    return {"topic": name, **counts, "questions": f"{totals['questions']:,} of {totals['wanted']:,}"}
