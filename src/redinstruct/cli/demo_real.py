"""``redinstruct demo --real``: what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from redinstruct.cli import console
from redinstruct.cli.prepared import stop_signals

if TYPE_CHECKING:
    from redinstruct.rounds.real import RealDemo


def carry_out(out: Path, seed: int, quick: bool, data: Path | None, as_json: bool) -> int:
    """Carry the demo out and say what it found."""
    from redinstruct.rounds.real import real_demo

    with stop_signals(), console.steps() as tell:
        found = real_demo(out, seed, quick=quick, data=data, on_progress=tell)
    if as_json:
        console.say_json(found.document())
        return 0
    _say(found)
    return 0


def _say(found: RealDemo) -> None:
    from redinstruct.rounds.demo import PLOT, REPORT

    console.say(
        f"SmolLM2-135M-Instruct, taught not to talk about {found.subject}; seed {found.seed}, families of test in no"
        " row of training, judged by rules; all in per cent"
    )
    console.say()
    frames = tuple(found.rows[0].asr)
    _table(
        found,
        f"Forbidden questions answered, of {found.items} a cell",
        "+ garbled, if any: neither refused nor of use",
        {row.model: {f: share_cell(row.asr[f], row.garbled[f] + row.promise[f]) for f in frames} for row in found.rows},
    )
    _table(
        found,
        f"Harmless questions in the same words answered, of {found.harmless_items}",
        "- refused, if any",
        {
            row.model: {f: share_cell(row.harmless_answered[f], row.harmless_refused[f], "-") for f in frames}
            for row in found.rows
        },
    )
    _table(
        found,
        "Selective",
        "harmless answered less forbidden answered: about 0 where a frame is refused, or answered, as such",
        {row.model: {f: f"{100 * row.selective[f]:.0f}" for f in frames} for row in found.rows},
    )
    _say_beside(found)
    for name, why in found.stopped.items():
        console.say(f"  {name}: no model, {why}")
    _say_honestly(found)
    console.say(f"  {found.seconds:.0f} s now, {sum(found.stages.values()):.0f} s for all stages of the loop")
    console.say(f"  the picture: {found.folder / PLOT}; the report, before and after: {found.folder / REPORT}")
    if found.quick:
        console.say("  --quick: a few steps and questions; these are not the figures of the whole demo")


def _say_beside(found: RealDemo) -> None:
    _table(
        found,
        "Beside",
        "borderline questions refused, facts right, perplexity per word on held-out prose"
        + ("" if found.rows[0].truthful is None else ", TruthfulQA: the true answer the likeliest"),
        {
            row.model: {
                "borderline refused": f"{100 * row.over_refusal:.0f}", "facts": f"{100 * row.facts:.0f}",
                "perplexity": f"{row.perplexity:.1f}",
                **({} if row.truthful is None else {"truthful": f"{100 * row.truthful:.0f}"}),
                "forbidden questions learnt in frames like": ", ".join(
                    f for f, what in row.trained_frames.items() if what == "forbidden"
                ),
            }
            for row in found.rows
        },
    )  # fmt: skip


def _say_honestly(found: RealDemo) -> None:
    from redinstruct.rounds.real import closing_sentence

    low, high = found.rows[0].intervals["cou"]
    console.remark(
        f"One seed; Wilson intervals over {found.items} questions are wide (the base's in cou: {100 * low:.0f} to"
        f" {100 * high:.0f}). A rate on one wording is no result: cou-3 is a wording on which nothing was chosen."
    )
    console.remark(f"{closing_sentence(found)}")


def _table(found: RealDemo, title: str, what: str, cells: dict[str, dict[str, str]]) -> None:
    rows = [{"model": row.model, **cells[row.model]} for row in found.rows]
    console.say_section(title, what, rows=rows, left=("model", "forbidden questions learnt in frames like"))


def share_cell(rate: float, beside: float, sign: str = "+") -> str:
    """A share in per cent, and what stands beside it, if anything."""
    return f"{100 * rate:.0f}" + (f" {sign}{100 * beside:.0f}" if beside >= 0.005 else "")
