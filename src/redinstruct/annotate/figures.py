"""What people's labels say: the corrected rate of each bank and prompt, and how far people and the judge agree.

Promised: a figure about the judge is about the whole run, though the labels were drawn more often from its rarer label
(both the rate and the agreement are post-stratified). A figure about two people is about the answers that both
labelled, as they are. Not promised: anything for answers that were chosen by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from redinstruct.figures.agreement import PeopleFigures, judge_agreement, judge_agreement_of, people_figures
from redinstruct.figures.people import (
    Cell,
    Labelling,
    People,
    by_people,
    cell_of,
    cells_of,
    corrected_bounds,
    corrected_rate,
    corrected_run,
    drawn_labels,
    rate_among,
    settled_labels,
)
from redinstruct.figures.report import CorrectedRate
from redinstruct.run import Annotated, AnnotationStore, Planned, SettleRule, Store, by_annotator
from redinstruct.stats import Interval, tallied, wilson, wilson_by_question
from redinstruct.types import MEASURES, JudgeCard

PlannedCells = Mapping[tuple[str, str], Sequence[Planned]]
"""How every planned attempt came out, by bank and prompt."""
Joined = Mapping[tuple[str, str], Labelling]
"""The same, looked through once for a session's figures."""

ADJUDICATING = " (adjudicating)"
"""Ends the name under which somebody settles cases, so that their own labels stand beside it, not under it."""


class CellFigures(msgspec.Struct, frozen=True):
    """One bank and prompt: the judge's own rate, the corrected one, and how often people say what the judge says.

    ``among_first`` is the share of truly first labels among the answers that the judge gave the first label (its
    precision), ``among_second`` among the others (its false omissions); ``agreement`` is over the whole cell, None
    where no judge has seen the answers. ``bounds`` are the ends of the corrected rate whatever people would have said
    of the answers that they left out; None where they left out none. ``corrected_run`` is the rate of these very
    answers. Both have no estimate where labels are too few (:func:`redinstruct.figures.people.enough_labels`).
    """

    bank: str
    prompt: str
    total: int
    labels: int
    judged: Interval
    corrected: Interval
    corrected_run: Interval
    agreement: Interval | None
    bounds: tuple[float, float] | None
    among_first: Interval
    among_second: Interval


class RatersSplit(msgspec.Struct, frozen=True):
    """The rates among the answers on which people agree so far; None of no answer, or where no judge has seen them."""

    agree: Literal["all", "most", "neither"]
    answers: int
    people: Interval | None
    judge: Interval | None
    judge_agreement: Interval | None


class LabelsFigures(msgspec.Struct, frozen=True):
    """Everything that the labels of a run say of one judge and of each other: ``labels --json``.

    ``drawn_for`` names the judges whose labels were the strata of a draw: where one is another judge, the figures are
    weighed by both judges' labels. ``imported`` counts labels of which nobody here knows how their answers were chosen.
    ``agreement`` is the judge's with people over the whole run, None where people labelled and no judge did (``judge``
    is None then too).
    """

    schema: str
    judge: str | None
    judge_id: str
    measure: str
    settle: SettleRule
    labels: int
    undecided: int
    imported: int
    drawn_for: tuple[str, ...]
    agreement: CorrectedRate | None
    results: tuple[CellFigures, ...]
    people: PeopleFigures
    by_agreement: tuple[RatersSplit, ...]


def cell_figures(cells: PlannedCells | Joined, card: JudgeCard, people: People) -> list[CellFigures]:
    """The figures of each bank and prompt by what people settled on, 95 % intervals."""
    found = []
    for (bank, prompt), of in cells.items():
        cell = of.cell(people) if isinstance(of, Labelling) else cell_of(people, card, of)
        if not cell.judge:
            continue
        rate, run = corrected_rate(cell), corrected_run(cell)
        found.append(
            CellFigures(
                bank=bank,
                prompt=prompt,
                total=len(cell.judge),
                labels=len(cell.human),
                judged=judged_rate(cell),
                corrected=rate[0] if rate else Interval(None, 0.0, 1.0, "post-stratified jeffreys"),
                corrected_run=run[0] if run else Interval(None, 0.0, 1.0, "beta-binomial prediction"),
                agreement=None if by_people(card) else judge_agreement(cell),
                bounds=corrected_bounds(cell),
                among_first=rate_among(cell, True),
                among_second=rate_among(cell, False),
            )
        )
    return found


def judged_rate(cell: Cell) -> Interval:
    """The judge's own rate of what it could label."""
    if cell.questions is None:
        return wilson((cell.counted or cell.counts_of({}))[0].size, len(cell.judge))
    return wilson_by_question(*tallied(cell.judge, cell.questions))


def undecided(standing: Sequence[Annotated]) -> int:
    """Answers that somebody could not tell and nobody labelled: they correct nothing, though they are no accident."""
    labelled = {entry.key for entry in standing if entry.annotation.label is not None}
    return len({entry.key for entry in standing if entry.annotation.act == "unsure"} - labelled)


def summary(store: Store, judge: int, card: JudgeCard) -> LabelsFigures:
    """Everything that the labels of a run say of one judge and of each other.

    Raises:
        StoreError: the store does not read.
    """
    annotations = AnnotationStore(store)
    standing = annotations.standing()
    drawn, settled, rule = drawn_labels(store), settled_labels(store), annotations.rule()
    people = People(settled, drawn=drawn, lost=frozenset(e.key for e in standing if e.key not in settled))
    cells, alone = cells_of(store, judge), by_people(card)
    share, labels = judge_agreement_of([cell_of(people, card, outcomes) for outcomes in cells.values()])
    return LabelsFigures(
        schema="redinstruct.labels/1",
        judge=None if alone else card.name,
        judge_id=card.id,
        measure=card.measure,
        settle=rule,
        labels=len(settled),
        undecided=undecided(standing),
        imported=sum(e.annotation.origin == "import" and e.annotation.label is not None for e in standing),
        drawn_for=tuple(drawn),
        # Of a person with himself it would say nothing.
        agreement=None if alone else CorrectedRate(*share, labels),
        results=tuple(cell_figures(cells, card, people)),
        people=people_figures(standing, rule),
        by_agreement=by_raters_agreement(standing, cells, card),
    )


def by_raters_agreement(standing: Sequence[Annotated], cells: PlannedCells, card: JudgeCard) -> tuple[RatersSplit, ...]:
    """The judge's rate and people's, split by how far people agree: all of them, most, or neither side has more.

    Over the answers that two or more people labelled. ``judge_agreement`` is the share of those that the judge labels
    as most people do. A rate on answers that people find hard is another one than on those that they find clear.
    """
    votes: dict[bytes, Counter[str]] = {}
    for own in by_annotator(standing).values():
        for key, act in own.items():
            if act.label is not None:
                votes.setdefault(key, Counter())[act.label] += 1
    judged = {outcome.key: outcome.label for outcomes in cells.values() for outcome in outcomes}
    groups: dict[Literal["all", "most", "neither"], list[tuple[str | None, str | None]]] = {
        "all": [], "most": [], "neither": []
    }  # fmt: skip
    for key, count in votes.items():
        if count.total() > 1:
            label, most = count.most_common(1)[0]
            group: Literal["all", "most", "neither"]
            group = "all" if most == count.total() else "most" if 2 * most > count.total() else "neither"
            groups[group].append((None if group == "neither" else label, judged.get(key)))
    return tuple(_split(group, pairs, card) for group, pairs in groups.items())


def _split(
    group: Literal["all", "most", "neither"], pairs: Sequence[tuple[str | None, str | None]], card: JudgeCard
) -> RatersSplit:
    measure, alone = MEASURES[card.measure], by_people(card)
    humans = [human for human, _ in pairs if human is not None]
    judges = [] if alone else [judge for _, judge in pairs if judge in measure.labels[:2]]
    both = [] if alone else [h == j for h, j in pairs if h is not None and j in measure.labels[:2]]

    def rate(hits: int, total: int) -> Interval | None:
        return wilson(hits, total) if total else None

    return RatersSplit(
        group,
        len(pairs),
        rate(humans.count(measure.first), len(humans)),
        rate(judges.count(measure.first), len(judges)),
        rate(sum(both), len(both)),
    )
