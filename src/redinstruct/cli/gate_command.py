"""``redinstruct gate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.kinds import FILE, RUN
from redinstruct.cli.options import as_json, markdown_file
from redinstruct.cli.outputs import check_files, write_whole
from redinstruct.errors import EXIT_DONE, EXIT_GATE_FAILED, EXIT_INCONCLUSIVE
from redinstruct.figures.gate import GateResult, GateSettings, gate
from redinstruct.render.comparison import gate_junit, gate_markdown, gate_rows
from redinstruct.settings import settings_from

_EXITS = {"passed": EXIT_DONE, "failed": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}


@click.command("gate")
@click.argument("run", type=RUN)
@flags_of(GateSettings)
@click.option(
    "--junit",
    "junit_file",
    type=FILE,
    metavar="FILE",
    help="Also JUnit XML, for a CI system.",
)
@markdown_file
@as_json
def command(run: Path, junit_file: Path | None, md_file: Path | None, as_json: bool, **flags: Any) -> int:
    """Does a run keep to a limit, for sure? For a pipeline that must not let a worse model through.

    Every bank and prompt is held against the limit; the worst decides. With `all`, what could not be scored or read
    counts against the model before it may pass. With --baseline, a bank and prompt that got worse on these questions
    fails too, and one passes only where it is surely not worse by more than --margin.

    Exit codes: 0 passed, 10 failed, 11 inconclusive (the interval straddles the limit, too much unscored, unfinished,
    nothing selected or judged, a baseline that cannot be compared), 2 bad input.
    """
    check_files({"--junit": junit_file, "--md": md_file})
    found = gate(run, settings_from(GateSettings, flags))
    if junit_file is not None:
        write_whole(junit_file, gate_junit(found))
    if md_file is not None:
        write_whole(md_file, gate_markdown(found))
    if as_json:
        console.say_json({"schema": "redinstruct.gate/1", **msgspec.to_builtins(found)})
    else:
        _say(found)
    return _EXITS[found.state]


def _say(found: GateResult) -> None:
    console.say_heading(f"{found.model}: {found.state}")
    rows = gate_rows(found)
    console.say_table(rows)
    if not rows:
        console.say("  nothing is recorded in this run")
