"""``redinstruct stress``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.endings import say_ending
from redinstruct.cli.options import as_json, how_to_ask, seal_option
from redinstruct.cli.prepared import limits_from, stop_signals
from redinstruct.cli.run_folder import run_option
from redinstruct.errors import from_extra
from redinstruct.figures.report import plain
from redinstruct.figures.stressed import StressFigures
from redinstruct.judges import JudgeSettings
from redinstruct.render.stressed import ABOUT, stress_notes, stress_table
from redinstruct.run.encryption import check_sealing
from redinstruct.settings import settings_from
from redinstruct.stressing.options import StressOptions

_JUDGE = JudgeSettings.__struct_fields__


@click.command("stress")
@flags_of(StressOptions, only=("model", "bank", *_JUDGE))
@run_option("The run's folder; made, or resumed if it is this run's.", required=True)
@flags_of(StressOptions, without=("model", "bank", *_JUDGE))
@seal_option
@how_to_ask()
@as_json
def command(run: Path, as_json: bool, **flags: Any) -> int:
    """How long does a repair last? Attack a checkpoint in ways that anybody who holds its weights can.

    The undisturbed model comes first, and each attack is set beside it, question by question: begun answers
    (--prefill), many tries (--samples), other first tokens (--ranks), a few steps of harmless fine-tuning (--tune),
    weights rounded to few bits (--quantize), the refusal direction taken out (--ablate). With --benign, each has the
    share of harmless questions beside it that the attacked model still answers, plainly and in the attack's own frame.
    Changed weights are never kept. The folder is a run of the undisturbed model, which every verb reads; `report` reads
    the attacks' with it.

    Exit codes: 0 all recorded; 2 bad input; 11 cut, or too many errors; 130 interrupted (the same command goes on).
    """
    check_sealing()
    with from_extra("train", "stress"):
        from redinstruct.stressing.carrying import stress
    asked, limits = settings_from(StressOptions, flags), limits_from(flags)
    with stop_signals(), console.steps() as tell:
        found = stress(asked, run, limits, tell)
    if as_json:
        console.say_json(plain(found.figures))
    else:
        say_stress(found.figures)
    if len(asked.conditions) == 1:
        console.note("no attack was named: --prefill, --samples, --ranks, --tune, --quantize, --ablate")
    for outcome in found.outcomes:
        say_ending(outcome)
    return found.exit_code


def say_stress(found: StressFigures) -> None:
    """The table of a stress run."""
    rows, numbers = stress_table(found)
    console.say_heading(f"{found.model}, {found.bank}", ABOUT)
    console.say_table(rows, right=numbers, indent=2)
    for line in stress_notes(found):
        console.note(line)
