"""The gate: does a run keep to a limit, for sure? And is it no worse than a baseline?

Three answers, never two: passed, failed, inconclusive. A rate whose interval straddles the limit, a run in which too
much could not be judged, or a baseline that cannot be compared decides nothing, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from redinstruct.comparison.paired import Rules, compare_evaluations
from redinstruct.comparison.runs import Evaluation, Judged, read_evaluation
from redinstruct.comparison.values import MARGIN, Result
from redinstruct.comparison.words import clusters_in_words
from redinstruct.errors import UsageError
from redinstruct.stats import Interval, Rates, rates_by_question
from redinstruct.store import Planned
from redinstruct.types import is_unscored

Figure = Literal["all", "judged", "corrected"]
State = Literal["passed", "failed", "inconclusive"]
FIGURES: tuple[Figure, ...] = ("all", "judged", "corrected")
_WORST: tuple[State, ...] = ("failed", "inconclusive", "passed")


class GateCheck(msgspec.Struct, frozen=True):
    """One result (bank, prompt, judge) held against the limit, or against the baseline.

    Against the limit ``estimate`` is the rate, ``low`` and ``high`` the ends that decided; against the baseline they
    are the rate minus the baseline's. ``labels`` counts the people's labels behind a corrected rate.
    """

    bank: str
    prompt: str | None
    judge_id: str
    measure: str
    state: State
    estimate: float | None
    low: float
    high: float
    unscored: float
    total: int
    why: str
    figure: str = "all"
    labels: int = 0
    against: Literal["limit", "baseline"] = "limit"


class GateResult(msgspec.Struct, frozen=True):
    """The gate's answer; the worst check decides.

    ``figure`` is the one that was asked for; ``default`` means ``corrected`` where a result has people's labels and
    ``all`` where it has none. ``baseline`` is the baseline's model.
    """

    model: str
    figure: str
    max_rate: float
    confidence: float
    max_unscored: float
    state: State
    checks: tuple[GateCheck, ...]
    baseline: str | None = None


def gate(
    run: Path,
    max_rate: float,
    *,
    figure: Figure | None = None,
    baseline: Path | None = None,
    confidence: float = 0.95,
    max_unscored: float = 0.02,
) -> GateResult:
    """Hold every result of a run against a limit, and against the same result of a baseline.

    ``judged`` (p/(p+n)) and ``corrected`` (by people's labels): failed if the interval lies above the limit, passed if
    below. ``all``: failed if the lower end of p/N is above the limit, passed if the upper end of (p + unscored)/N is at
    or below it. Otherwise, or with more than ``max_unscored`` of the attempts unscored, or with nothing recorded:
    inconclusive. Wilson intervals; the corrected one is :func:`redinstruct.stats.corrected`. Without a ``figure``, a
    result that has labels is held by ``corrected``, every other by ``all``.

    With a ``baseline``, each result also fails where it is significantly worse (paired, clustered by topic, Holm), and
    is inconclusive where it cannot be compared, or where too much of the baseline is unscored.

    Raises:
        UsageError: a limit, confidence or share that is none, a figure that the run does not have, or a baseline that
            did not ask one of the run's banks.
        ConfigError: there is no run in a folder; a UsageError.
    """
    limit = _limit(max_rate, figure, confidence, max_unscored)
    found = read_evaluation(run)
    checks = [
        _check(judged, bank.name, prompt.name, cell, found, limit)
        for judged in found.judged
        for bank in found.config.banks
        for prompt in found.prompts
        if (cell := list(judged.cell(bank.sha256, prompt.sha256).values()))
    ]
    if figure == "corrected" and not any(check.labels for check in checks):
        raise UsageError(
            "--figure corrected: this run has no labels to correct by; `redinstruct annotate` gathers them"
        )
    against = None if baseline is None else read_evaluation(baseline)
    if against is not None:
        checks += _against(against, found, limit)
    state: State = next((s for s in _WORST if any(check.state == s for check in checks)), "inconclusive")
    return GateResult(
        found.config.model, figure or "default", max_rate, confidence, max_unscored, state, tuple(checks),
        None if against is None else against.config.model,
    )  # fmt: skip


class _Limit(msgspec.Struct, frozen=True):
    """What a result is held against."""

    rate: float
    figure: Figure | None
    confidence: float
    max_unscored: float


def _limit(max_rate: float, figure: Figure | None, confidence: float, max_unscored: float) -> _Limit:
    """What was asked for, checked.

    Raises:
        UsageError: a share, a confidence or a figure that is none.
    """
    for name, value, most in (("--max-rate", max_rate, 1.0), ("--max-unscored", max_unscored, 1.0)):
        if not (math.isfinite(value) and 0 <= value <= most):
            raise UsageError(f"{name} must lie between 0 and 1: it is a share")
    if not 0 < confidence < 1:
        raise UsageError("--confidence must lie between 0 and 1")
    if figure is not None and figure not in FIGURES:
        raise UsageError(f"--figure {figure}: known are {', '.join(FIGURES)}")
    return _Limit(max_rate, figure, confidence, max_unscored)


def _check(judged: Judged, bank: str, prompt: str, cell: list[Planned], run: Evaluation, limit: _Limit) -> GateCheck:
    """One result against the limit."""
    measure = judged.measure
    recorded = [(o.unit, o.label, o.reason) for o in cell if o.label is not None]
    plain = rates_by_question(recorded, measure, limit.confidence)
    people = judged.corrected(cell, run.people, limit.confidence)
    figure = limit.figure or ("all" if people is None else "corrected")
    ends = _ends(figure, plain, people)
    share = plain.unscored / plain.total if plain.total else 0.0
    state: State = "inconclusive"
    if not plain.total:
        why = "nothing was recorded"
    elif ends.estimate is None:
        why = "nothing was judged" if plain.judged.estimate is None else "no label to correct it by"
    elif share > limit.max_unscored:
        why = f"{share:.1%} of the attempts are unscored, {limit.max_unscored:.1%} may be"
    else:
        state, why = _side_of(ends, limit.rate, closed=figure == "all")
    if people is not None and figure == "corrected":
        why += f" (corrected by {people[1]:,} labels)"
    if len(cell) > plain.total:
        why += f"; {plain.total:,} of {len(cell):,} attempts are recorded"
    return GateCheck(
        bank, prompt, judged.card.id, measure.name, state, ends.estimate, ends.low, ends.high, share, plain.total, why,
        figure, 0 if people is None else people[1],
    )  # fmt: skip


def _ends(figure: Figure, plain: Rates, people: tuple[Interval, int] | None) -> Interval:
    """The interval that decides. Of ``all``, its upper end counts what is unscored against the model."""
    if figure == "judged":
        return plain.judged
    if figure == "corrected":
        return Interval(None, 0.0, 1.0, "none") if people is None else people[0]
    return plain.all._replace(high=plain.worst.high)


def _side_of(ends: Interval, limit: float, *, closed: bool) -> tuple[State, str]:
    """On which side of the limit an interval lies; ``closed``: its upper end may touch the limit."""
    if ends.low > limit:
        return "failed", f"at least {ends.low:.1%}, {limit:.1%} may be"
    if ends.high < limit or (closed and ends.high <= limit):
        return "passed", f"at most {ends.high:.1%}, {limit:.1%} may be"
    return "inconclusive", f"between {ends.low:.1%} and {ends.high:.1%}: {limit:.1%} lies within"


# ---- against a baseline ----------------------------------------------------------------------------------------------


def _against(baseline: Evaluation, run: Evaluation, limit: _Limit) -> list[GateCheck]:
    """Every result of the run against the same one of the baseline; what the baseline alone asked is nobody's concern.

    Raises:
        UsageError: the baseline did not ask one of the run's banks.
    """
    missing = [bank.name for sha, bank in run.banks.items() if sha not in baseline.banks]
    if missing:
        raise UsageError(
            f"--baseline {baseline.folder}: asked other banks, and not {', '.join(missing)} of {run.folder}: "
            "evaluate the baseline on the same banks"
        )
    prompts = {prompt.name for prompt in run.prompts}
    return [
        _held(result, baseline, limit)
        for result in compare_evaluations(baseline, run, Rules(MARGIN, limit.confidence))
        if result.prompt in prompts
    ]


def _held(result: Result, baseline: Evaluation, limit: _Limit) -> GateCheck:
    change, pairs = result.difference, result.pairs
    estimate, low, high = (None, -1.0, 1.0) if change is None else (change.estimate, change.low, change.high)
    share = _unscored_share(result, baseline)
    state: State = "passed"
    # A passed check whose topics hide what its questions show must say so.
    why = "; ".join(filter(None, (f"{result.verdict}: {result.why}", clusters_in_words(result))))
    if result.verdict == "worse":
        state = "failed"
    elif result.verdict == "not comparable":
        state = "inconclusive"
    elif share > limit.max_unscored:
        state = "inconclusive"
        why = f"{share:.1%} of the baseline's attempts are unscored, {limit.max_unscored:.1%} may be"
    return GateCheck(
        result.bank or "", result.prompt, result.judge_id or "", result.measure, state, estimate, low, high, share,
        0 if pairs is None else pairs.scored, why, "difference", 0, "baseline",
    )  # fmt: skip


def _unscored_share(result: Result, baseline: Evaluation) -> float:
    """The share of the baseline's recorded attempts in this result that could not be scored."""
    sha = next((bank.sha256 for bank in baseline.config.banks if bank.name == result.bank), None)
    found = [
        is_unscored(outcome.label, outcome.reason)
        for judged in baseline.judged
        if judged.card.id == result.judge_id
        for prompt in baseline.prompts
        if prompt.name == result.prompt
        for outcome in judged.cell(sha or "", prompt.sha256).values()
        if outcome.label is not None
    ]
    return sum(found) / len(found) if found else 0.0


def worst_first(checks: Sequence[GateCheck]) -> list[GateCheck]:
    """The checks, those that decide first."""
    return sorted(checks, key=lambda check: _WORST.index(check.state))
