"""One result of a run as the gate holds it against a limit: by which figure, and what speaks against passing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.labelled import Half
from redinstruct.figures.comparison.runs import Evaluation, Prompt
from redinstruct.figures.deciding import Followed
from redinstruct.figures.numbers import percent
from redinstruct.figures.people import Cell, by_people, corrected_bounds, corrected_rate
from redinstruct.figures.tallies import rates_in
from redinstruct.run import Outcomes, Planned
from redinstruct.run.config import Pinned
from redinstruct.stats import Interval, Rates, at_k, smallest_level
from redinstruct.types import Measure, is_unscored

FigureName = Literal["all", "judged", "corrected"]
FIGURES: tuple[FigureName, ...] = ("all", "judged", "corrected")


class Limit(NamedTuple):
    """What a result is held against."""

    rate: float
    figure: FigureName | None
    confidence: float
    max_unscored: float
    at_k: int | None = None


class HeldFigure(NamedTuple):
    """One result before the others are seen. ``problems`` allow no pass; ``told`` stands beside any answer.

    ``at`` gives the ends at a confidence: the lower one decides failing, the upper one passing. ``empty``: nothing can
    be said at all.
    """

    bank: str
    prompt: str | None
    judge_id: str
    measure: str
    figure: str
    labels: int
    planned: int
    total: int
    unscored: float
    at: Callable[[float], Interval]
    problems: tuple[str, ...]
    told: tuple[str, ...]
    empty: bool

    def p_above(self, limit: Limit) -> float:
        """The p-value against the rate being at most the limit, two-sided; 1 where it is not above for sure."""
        if self.empty or self.at(limit.confidence).low <= limit.rate:
            return 1.0
        return smallest_level(lambda level: self.at(1 - level).low > limit.rate)


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
        at = _sequence(followed)
    elif limit.at_k is not None:
        at = _at_k(recorded, measure, limit.at_k, run.config.epochs)
    elif figure == "corrected":
        at = _corrected(labelled)
    else:
        at = _plain(recorded, measure, figure)
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
    return HeldFigure(
        bank.name, prompt.name, judged.card.id, measure.name, figure, labels, len(cell), plain.total,
        plain.unscored / plain.total if plain.total else 0.0, at, problems, told,
        plain.total == 0 or at(limit.confidence).estimate is None,
    )  # fmt: skip


def _corrected(labelled: Cell) -> Callable[[float], Interval]:
    def at(confidence: float) -> Interval:
        found = corrected_rate(labelled, confidence)
        return Interval(None, 0.0, 1.0, "none") if found is None else found[0]

    return at


def _plain(recorded: Outcomes, measure: Measure, figure: FigureName) -> Callable[[float], Interval]:
    """The interval of the judge's own labels. Of ``all``, its upper end counts what is unscored against the model."""

    def at(confidence: float) -> Interval:
        found = rates_in(recorded, measure, confidence)
        return found.judged if figure == "judged" else found.all._replace(high=found.worst.high)

    return at


def _at_k(recorded: Outcomes, measure: Measure, k: int, epochs: int) -> Callable[[float], Interval]:
    """The share of questions with a success in k tries; its upper end counts what is unscored as a success."""
    if not 1 <= k <= epochs:
        raise UsageError(f"--at-k {k}: each question was asked {epochs} times")
    tries: dict[int, list[Planned]] = {}
    for outcome in recorded:
        tries.setdefault(outcome.unit, []).append(outcome)
    enough = [of for of in tries.values() if len(of) >= k]
    hits = [sum(o.label == measure.first for o in of) for of in enough]
    worst = [sum(o.label == measure.first or is_unscored(o.label, o.reason) for o in of) for of in enough]
    samples = [len(of) for of in enough]

    def at(confidence: float) -> Interval:
        return at_k(hits, samples, k, confidence)._replace(high=at_k(worst, samples, k, confidence).high)

    return at


def _followed(cell: Sequence[Planned], run: Evaluation, limit: Limit, figure: FigureName) -> Followed | None:
    """The run's sequence against this limit, where it was asked under ``--stop-when-decided``: looked at after every
    question, so that no interval of a fixed size holds any more. Another limit than the one it stopped by is as good.
    """
    if run.order is None or figure != "all" or limit.at_k is not None or not 0 < limit.rate < 1:
        return None
    return Followed(cell, run.judged[0].measure, limit.rate, run.order)


def _sequence(followed: Followed) -> Callable[[float], Interval]:
    def at(confidence: float) -> Interval:
        ends = followed.ends(confidence)
        return Interval(followed.estimate, ends.low, ends.high, "confidence sequence")

    return at


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
