"""One result of a run as the gate holds it against a limit: by which figure, and what speaks against passing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.labelled import Half
from redinstruct.figures.comparison.runs import Evaluation, Prompt
from redinstruct.figures.deciding import Followed
from redinstruct.figures.numbers import percent
from redinstruct.figures.people import Cell, by_people, corrected_bounds, corrected_rate
from redinstruct.figures.tallies import rates_in, tries_of
from redinstruct.run import Outcomes, Planned
from redinstruct.run.config import Pinned
from redinstruct.stats import Interval, Rates, at_k, smallest_level, tallied
from redinstruct.types import Measure, is_unscored

State = Literal["passed", "failed", "inconclusive"]
FigureName = Literal["all", "judged", "corrected"]
FIGURES: tuple[FigureName, ...] = ("all", "judged", "corrected")


class Limit(NamedTuple):
    """What a result is held against."""

    rate: float
    figure: FigureName | None
    confidence: float
    max_unscored: float
    at_k: int | None = None


class GateCheck(msgspec.Struct, frozen=True):
    """One result (bank, prompt, judge) held against the limit, or against the baseline.

    Against the limit ``estimate`` is the rate, ``low`` and ``high`` the ends that decide; against the baseline they are
    the rate minus the baseline's. ``low`` decides failing, at the level of Holm's step over the results; ``high``
    decides passing, at the gate's own confidence. ``labels`` counts the people's labels behind a corrected figure,
    ``total`` the recorded attempts of ``planned`` (the scored pairs against the baseline), ``unscored`` their share
    without a verdict that nobody kept back. ``confidence`` is that of ``low``. Of a stress run's attack, ``attack`` and
    ``setting`` name it, and ``prompt`` tells of it too.
    """

    bank: str
    prompt: str | None
    judge_id: str
    measure: str
    state: State = "inconclusive"
    estimate: float | None = None
    low: float = 0.0
    high: float = 1.0
    unscored: float = 1.0
    total: int = 0
    why: str = ""
    figure: str = "all"
    labels: int = 0
    against: Literal["limit", "baseline"] = "limit"
    planned: int = 0
    confidence: float = 0.95
    attack: str | None = None
    setting: int | None = None


class HeldFigure(NamedTuple):
    """One result before the others are seen. ``problems`` allow no pass; ``told`` stands beside any answer.

    ``at`` gives the ends at a confidence: the lower one decides failing, the upper one passing. ``empty``: nothing can
    be said at all. ``check`` is the result without its state and ends.
    """

    check: GateCheck
    limit: Limit
    at: Callable[[float], Interval]
    problems: tuple[str, ...]
    told: tuple[str, ...]
    empty: bool

    @property
    def p_above(self) -> float:
        """The p-value against the rate being at most the limit, two-sided; 1 where it is not above for sure."""
        if self.empty or self.at(self.limit.confidence).low <= self.limit.rate:
            return 1.0
        return smallest_level(lambda level: self.at(1 - level).low > self.limit.rate)


def held_by(run: Evaluation, bank: Pinned, prompt: Prompt, limit: Limit) -> HeldFigure:
    """One bank and prompt of a run under its first judge.

    Raises:
        UsageError: ``at_k`` is more than a question was asked.
    """
    judged = run.judged[0]
    cell, measure = judged.cell(bank.sha256, prompt.sha256), judged.measure
    recorded = cell.where(lambda way: way.label is not None)
    plain = rates_in(recorded, measure, limit.confidence)
    labelled = Half(run, judged, cell).people
    people = None if limit.at_k is not None else corrected_rate(labelled, limit.confidence)
    figure: FigureName = limit.figure or ("all" if people is None else "corrected")
    at: Callable[[float], Interval]
    followed = _followed(cell, run, limit, figure)
    if followed is not None:
        at = partial(_sequence, followed)
    elif limit.at_k is not None:
        at = _at_k(recorded, measure, limit.at_k, run.config.epochs)
    elif figure == "corrected":
        at = partial(_corrected, labelled)
    else:
        at = partial(_plain, recorded, measure, figure)
    decided = followed is not None and followed.side(limit.confidence) is not None
    problems = tuple(_problems(cell, plain, at(limit.confidence), limit, decided=decided))
    if run.shard is not None:
        problems += (f"{run.shard}, not the whole run: `redinstruct merge` puts the shards together",)
    labels = people[1] if people is not None and figure == "corrected" else 0
    whose = f"{labels:,} labels, people's own" if by_people(judged.card) else f"corrected by {labels:,} labels"
    told = ((whose,) if labels else ()) + (
        (f"of the questions, in {limit.at_k} tries",) if limit.at_k is not None else ()
    )
    bounds = corrected_bounds(labelled, limit.confidence) if labels else None
    if bounds is not None:
        told += ("whatever people would have said of what they left open: {:.1%} to {:.1%}".format(*bounds),)
    told += tuple(run.doubts(judged, cell))
    if followed is not None:
        told += (f"confidence sequence, {followed.counted:,} of {len(cell):,} attempts counted",)
    check = GateCheck(
        bank.name, prompt.name, judged.card.id, measure.name,
        unscored=plain.unscored / plain.total if plain.total else 0.0, total=plain.total, figure=figure, labels=labels,
        planned=len(cell),
    )  # fmt: skip
    return HeldFigure(check, limit, at, problems, told, plain.total == 0 or at(limit.confidence).estimate is None)


def _corrected(labelled: Cell, confidence: float) -> Interval:
    found = corrected_rate(labelled, confidence)
    return Interval(None, 0.0, 1.0, "none") if found is None else found[0]


def _plain(recorded: Outcomes, measure: Measure, figure: FigureName, confidence: float) -> Interval:
    """The interval of the judge's own labels. Of ``all``, its upper end counts what is unscored against the model."""
    found = rates_in(recorded, measure, confidence)
    return found.judged if figure == "judged" else found.all._replace(high=found.worst.high)


def _at_k(recorded: Outcomes, measure: Measure, k: int, epochs: int) -> Callable[[float], Interval]:
    """The share of questions with a success in k tries; its upper end counts what is unscored as a success."""
    if not 1 <= k <= epochs:
        raise UsageError(f"--at-k {k}: each question was asked {epochs} times")
    hits, tries = tries_of(recorded, measure)
    feared = [way.label == measure.first or is_unscored(way.label, way.reason) for way in recorded.ways]
    worst, _ = tallied([feared[way] for way in recorded.way], recorded.unit)

    def at(confidence: float) -> Interval:
        return at_k(hits, tries, k, confidence)._replace(high=at_k(worst, tries, k, confidence).high)

    return at


def _followed(cell: Sequence[Planned], run: Evaluation, limit: Limit, figure: FigureName) -> Followed | None:
    """The run's sequence against this limit, where it was asked under ``--stop-when-decided``: looked at after every
    question, so that no interval of a fixed size holds any more. Another limit than the one it stopped by is as good.
    """
    if run.order is None or figure != "all" or limit.at_k is not None or not 0 < limit.rate < 1:
        return None
    return Followed(cell, run.judged[0].measure, limit.rate, run.order)


def _sequence(followed: Followed, confidence: float) -> Interval:
    ends = followed.ends(confidence)
    return Interval(followed.estimate, ends.low, ends.high, "confidence sequence")


def _problems(cell: Sequence[Planned], plain: Rates, ends: Interval, limit: Limit, *, decided: bool) -> list[str]:
    """Why a result may not pass, whatever its rate."""
    found = []
    share = plain.unscored / plain.total if plain.total else 0.0
    if not cell:
        found.append("nothing was selected of this bank")
    elif not plain.total:
        found.append("nothing was recorded")
    elif not plain.positive + plain.negative + plain.withheld:
        found.append("nothing was judged or withheld")
    elif ends.estimate is None and limit.at_k is not None:
        found.append(f"no question was asked {limit.at_k} times yet")
    elif ends.estimate is None:
        found.append("nothing was judged" if plain.judged.estimate is None else "no label to correct it by")
    if share > limit.max_unscored:
        found.append(f"{percent(share)} % of the attempts are unscored, the most is {100 * limit.max_unscored:g} %")
    if len(cell) > plain.total and not decided:
        found.append(f"unfinished: {plain.total:,} of {len(cell):,} attempts are recorded")
    return found
