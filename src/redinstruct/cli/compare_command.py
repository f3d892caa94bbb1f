"""``redinstruct compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.kinds import RUN
from redinstruct.cli.options import as_json, markdown_file
from redinstruct.cli.outputs import check_files, write_whole
from redinstruct.figures.comparison import SCHEMA, CompareSettings, Comparison, Result, compare
from redinstruct.figures.comparison.words import change_in_words, detectable_in_words
from redinstruct.figures.numbers import p_value
from redinstruct.render.comparison import comparison_markdown, figures, held
from redinstruct.settings import settings_from


@click.command("compare")
@click.argument("before", type=RUN, metavar="RUN_BEFORE")
@click.argument("after", type=RUN, metavar="RUN_AFTER")
@flags_of(CompareSettings)
@markdown_file
@as_json
def command(before: Path, after: Path, md_file: Path | None, as_json: bool, **flags: Any) -> int:
    """Is the model after better than the model before? Two evaluations, or two utility checks.

    Every question is paired with itself: McNemar's mid-p test and Tango's interval, by question where one was asked
    several times, adjusted for several prompts, banks or benchmarks (Holm). The verdict is about these topics; `beyond`
    says whether it also holds for topics in general. Where people labelled both runs, their labels decide. An attack
    success or over-refusal rate is better when lower, a utility score when higher. `held` says whether the loss stays
    under the margin for sure (non-inferiority).
    """
    check_files({"--md": md_file})
    found = compare(before, after, settings_from(CompareSettings, flags))
    if md_file is not None:
        write_whole(md_file, comparison_markdown(found))
    if as_json:
        console.say_json({"schema": SCHEMA, **msgspec.to_builtins(found)})
    else:
        _say(found)
    return 0


def _say(found: Comparison) -> None:
    judges = list(dict.fromkeys(r.judge_id for r in found.results if r.judge_id is not None))
    measures = list(dict.fromkeys(r.measure for r in found.results if r.judge_id is not None))
    details = [*(measure.replace("_", " ") + ", lower is better" for measure in measures)]
    if found.kind == "utility":
        details.append("utility")
    if any(r.by == "people" and r.judge_difference is None for r in found.results):
        details.append("labelled by people alone")
    elif len(judges) == 1:
        details.append(f"judge {judges[0].rpartition('@')[0]}")
    console.say_heading(f"{found.before} before, {found.after} after", *details)
    console.say()
    rows = [_row(result) for result in found.results]
    if not any(row["beyond"] for row in rows):
        rows = console.without(rows, "beyond")
    right, alike = ("before", "after", "p", "pairs"), ("bank", "judge", "by")
    console.say_table(rows, right=right, alike=alike, aside=(("pairs",), ("by",)))
    console.say()
    _say_notes(found)


def _row(result: Result) -> dict[str, str]:
    before, after = (text.replace(" %", "") for text in figures(result))
    change, pairs = result.difference, result.pairs
    ci = "change [interval]"
    row = {
        "verdict": result.verdict + (" *" if result.provisional else ""),
        "bank": result.bank or "",
        "of": result.name if result.bank is None else result.prompt or "(all prompts)",
        "judge": (result.judge_id or "").partition("@")[0],
        "before": before,
        "after": after,
        ci: "-",
        "p": "-",
        "by": result.by or "",
        "beyond": result.beyond or "",
        "pairs": "-" if pairs is None else f"{pairs.scored:,}",
        "held": held(result),
    }
    if change is not None:
        row[ci] = change_in_words(result).replace(" points", "")
        row["p"] = p_value(change.p_holm)
    return row


def _say_notes(found: Comparison) -> None:
    tested = [r for r in found.results if r.difference is not None]
    if tested:
        by = ", by question" if any(r.difference is not None and r.difference.questions for r in tested) else ""
        family = (
            f", adjusted for {len(tested)} tests (Holm), the interval at the level of the step that decided"
            if len(tested) > 1
            else ""
        )
        console.remark(
            "Figures in per cent, over the pairs with a verdict in both runs; changes in points, with their "
            f"{100 * found.confidence:g} % interval. p: paired, two-sided{by}{family}."
        )
        for result in tested:
            console.remark(f"{result.name}: {result.why}.")
        seen = "; ".join(f"{r.name} {detectable_in_words(r) or 'none'}" for r in tested if r.detectable is not None)
        if seen:
            console.remark(f"The smallest change that so many pairs show in four of five cases: {seen}.")
        origin = {"runs": "fixed before the runs began", "flag": "from --margin", "default": "the default"}
        console.remark(
            f"held: whether the loss stays under {100 * found.margin:g} points ({origin[found.margin_from]}), "
            "one-sided, adjusted in the same way."
        )
    if found.kind == "evaluation" and tested and not any(r.by == "people" for r in tested):
        console.remark("The judge's own labels, uncorrected: people's labels of both runs would correct them.")
    if any(r.provisional for r in found.results):
        console.remark("* provisional: fewer than 95 % of the pairs have a verdict in both runs.")
    for note in found.notes:
        console.remark(note + ".")
    for result in found.results:
        lines = [*([result.why] if result.verdict == "not comparable" else []), *result.notes]
        if result.bounds is not None and result.pairs is not None and result.pairs.scored < result.pairs.paired:
            low, high = (100 * end for end in result.bounds)
            lines.append(f"whatever the others were, the change lies in [{low:+.1f}, {high:+.1f}]")
        for line in lines:
            console.remark(f"{result.name}: {line}.")
