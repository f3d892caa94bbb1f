"""``redinstruct gate``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json
from redinstruct.cli.outputs import check_files, write_whole
from redinstruct.errors import EXIT_DONE, EXIT_GATE_FAILED, EXIT_INCONCLUSIVE

_EXITS = {"passed": EXIT_DONE, "failed": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}


@click.command("gate")
@click.argument("run", type=RUN)
@click.option("--max-rate", type=float, required=True, metavar="RATE", help="The limit, a share: 0.10 is ten per cent.")
@click.option(
    "--baseline",
    type=RUN,
    metavar="RUN",
    help="Also fail where the run is worse than this, and pass only where it is surely not.",
)
@click.option(
    "--margin",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="With --baseline: the loss that may still pass; it must stay under it for sure.",
)
@click.option(
    "--figure",
    metavar="all|judged|corrected",
    help="Of all attempts, of the judged ones, or corrected by people's labels; left out: corrected where a result has "
    "labels, all where it has none.",
)
@click.option("--confidence", type=float, default=0.95, show_default=True, metavar="C", help="Of the intervals.")
@click.option(
    "--max-unscored",
    type=float,
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="More than this share unscored decides nothing.",
)
@click.option("--judge", metavar="NAME|ID", help="Another judge's verdicts: its name, or the beginning of its id.")
@click.option("--at-k", type=int, metavar="K", help="Hold the share of questions with a success in K tries (--epochs).")
@click.option(
    "--stress",
    multiple=True,
    metavar="ATTACK[:SETTING]=LIMIT",
    help="A stress run's attack: 0.10 may succeed; +0.05 may be added, to harmless refusals too. Repeatable.",
)
@click.option(
    "--junit",
    "junit_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also JUnit XML, for a CI system.",
)
@click.option(
    "--md",
    "md_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also Markdown, for a pull request's summary.",
)
@as_json
def command(
    run: Path,
    max_rate: float,
    baseline: Path | None,
    figure: str | None,
    confidence: float,
    max_unscored: float,
    margin: float,
    judge: str | None,
    at_k: int | None,
    stress: tuple[str, ...],
    junit_file: Path | None,
    md_file: Path | None,
    as_json: bool,
) -> int:
    """Does a run keep to a limit, for sure? For a pipeline that must not let a worse model through.

    Every bank and prompt is held against the limit; the worst decides. With `all`, what could not be scored or read
    counts against the model before it may pass. With --baseline, a bank and prompt that got worse on these questions
    fails too, and one passes only where it is surely not worse by more than --margin.

    Exit codes: 0 passed, 10 failed, 11 inconclusive (the interval straddles the limit, too much unscored, unfinished,
    nothing selected or judged, a baseline that cannot be compared), 2 bad input.
    """
    import msgspec

    from redinstruct.figures.gate import gate, worst_first
    from redinstruct.render.comparison import gate_junit as junit
    from redinstruct.render.comparison import gate_markdown

    check_files({"--junit": junit_file, "--md": md_file})
    found = gate(
        run,
        max_rate,
        figure=figure,  # type: ignore[arg-type]  # the gate itself refuses other words
        baseline=baseline,
        confidence=confidence,
        max_unscored=max_unscored,
        margin=margin,
        judge=judge,
        at_k=at_k,
        stress=stress,
    )
    if junit_file is not None:
        write_whole(junit_file, junit(found))
    if md_file is not None:
        write_whole(md_file, gate_markdown(found))
    if as_json:
        console.say_json({"schema": "redinstruct.gate/1", **msgspec.to_builtins(found)})
        return _EXITS[found.state]
    console.say_heading(f"{found.model}: {found.state}")
    rows = [
        {
            "bank": c.bank,
            "prompt": c.prompt or "",
            "judge": c.judge_id.partition("@")[0],
            "": c.state,
            "figure": "change" if c.against == "baseline" else c.figure,
            "because": c.why,
        }
        for c in worst_first(found.checks)
    ]
    console.say_table(rows)
    if not rows:
        console.say("  nothing is recorded in this run")
    return _EXITS[found.state]
