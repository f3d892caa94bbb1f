"""``compare``: two runs, before and after, whichever kind they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.paired import compare_evaluations
from redinstruct.figures.comparison.runs import Evaluation, read_evaluation
from redinstruct.figures.comparison.useful import compare_utility, margin_of
from redinstruct.figures.comparison.values import MARGIN, Comparison
from redinstruct.figures.comparison.verdicts import Rules
from redinstruct.figures.scores import is_utility, read_utility
from redinstruct.settings import Setting, check_said


class CompareSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How two runs are compared: the settings of ``redinstruct compare``."""

    margin: Annotated[
        float | None,
        Setting(
            "The loss that counts as none; left out, what the utility runs fixed before they began, else 0.02.",
            "SHARE",
            least=0,
            below=1,
        ),
    ] = None
    confidence: Annotated[float, Setting("Of tests and intervals.", "C")] = 0.95
    judge: Annotated[
        str | None, Setting("Another judge's verdicts: its name, or the beginning of its id.", "NAME|ID")
    ] = None


def compare(before: str | Path, after: str | Path, asked: CompareSettings | None = None) -> Comparison:
    """Hold two runs over the same questions, or two utility checks, against each other.

    Each bank and prompt, or each benchmark, gets one of four verdicts: better, worse, no difference shown, not
    comparable. The first two where the paired test of these topics, by question and adjusted by Holm, rejects "no
    change" at ``1 - confidence``; where people labelled both runs, the test of the corrected difference. Where no judge
    is named, it is the one that the run after was begun with, where the run before has its verdicts too.

    Raises:
        UsageError: a margin or confidence that is none; runs of two kinds, or without a bank or task in common; a
            margin other than the one that the runs fixed; a judge that the runs do not have.
        ConfigError: there is no run in a folder, or nothing to compare; a UsageError.
        StoreError: a store does not read.
    """
    asked = asked or CompareSettings()
    margin, confidence, judge = asked.margin, asked.confidence, asked.judge
    check_said(asked)
    if not 0 < 1 - confidence < 1:  # by its level: of 1e-17 it is 1
        raise UsageError("--confidence must lie between 0 and 1")
    before, after = Path(before), Path(after)
    kinds = is_utility(before), is_utility(after)
    if judge is not None and any(kinds):
        raise UsageError("--judge: a utility check has no judge")
    if all(kinds):
        return _of_utility(before, after, margin, confidence)
    if any(kinds):
        check, other = (before, after) if kinds[0] else (after, before)
        read_evaluation(other)  # a folder without an evaluation is named as that
        raise UsageError(f"{check} holds a utility check, {other} an evaluation: compare two runs of one kind")
    runs = read_evaluation(before, judge), read_evaluation(after, judge)
    return _of_evaluations(*runs, Rules(MARGIN if margin is None else margin, confidence), margin)


def _of_utility(before: Path, after: Path, margin: float | None, confidence: float) -> Comparison:
    one, other = read_utility(before), read_utility(after)
    rules = Rules(margin_of(one, other, margin), confidence)
    notes = [
        f"{folder}: not done yet: {', '.join(run.missing)}"
        for folder, run in ((before, one), (after, other))
        if run.missing
    ]
    if one.config.harness != other.config.harness:
        notes.append(f"another version of the harness ({one.config.harness} before, {other.config.harness} after)")
    return Comparison(
        "utility", one.model, other.model, confidence, rules.margin, "runs",
        tuple(compare_utility(one, other, (before, after), rules)), tuple(notes),
    )  # fmt: skip


def _of_evaluations(one: Evaluation, other: Evaluation, rules: Rules, asked: float | None) -> Comparison:
    results = compare_evaluations(one, other, rules)
    seeds = one.config.sampling.seed, other.config.sampling.seed
    notes = [] if seeds[0] == seeds[1] else [f"sampled with different seeds ({seeds[0]} before, {seeds[1]} after)"]
    return Comparison(
        "evaluation", one.config.model, other.config.model, rules.confidence, rules.margin,
        "default" if asked is None else "flag", tuple(results), tuple(notes),
    )  # fmt: skip
