"""What people's labels say: the corrected rate of each bank and prompt, and how far people and the judge agree.

Promised: a figure about the judge is about the whole run, though the labels were drawn more often from its rarer label
(both the rate and the agreement are post-stratified). A figure about two people is about the answers that both
labelled, as they are. Not promised: anything for answers that were chosen by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from redinstruct.figures.people import (
    People,
    by_people,
    cell_of,
    cells_of,
    corrected_bounds,
    corrected_rate,
    corrected_run,
    drawn_labels,
    judge_agreement,
    judge_agreement_of,
    rate_among,
    settled_labels,
)
from redinstruct.run import UNANIMOUS, Annotated, AnnotationStore, Planned, SettleRule, Store, by_annotator, settle
from redinstruct.stats import (
    Interval,
    cohen_kappa,
    gwet_ac1,
    krippendorff_alpha,
    tallied,
    wilson,
    wilson_by_question,
)
from redinstruct.types import MEASURES, Annotation, JudgeCard, Measure

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


class Coefficient(msgspec.Struct, frozen=True):
    """An agreement beyond chance, 1 at most, and its 95 % interval; all None where it is not defined."""

    estimate: float | None
    low: float | None
    high: float | None


class PeopleFigures(msgspec.Struct, frozen=True):
    """How far people agree: on the ``common`` answers that at least two labelled, ``agreed`` of them by all.

    ``open`` are disagreements that are not settled: they correct nothing until they are. ``alpha_ordinal`` is by
    degrees of refusal (complied, partial, refused); not defined for other labels.
    """

    annotators: int
    common: int
    agreed: Interval
    alpha: Coefficient
    alpha_ordinal: Coefficient
    kappa: Coefficient
    ac1: Coefficient
    open: int


def cell_figures(
    cells: Mapping[tuple[str, str], Sequence[Planned]], card: JudgeCard, people: People
) -> list[CellFigures]:
    """The figures of each bank and prompt by what people settled on, 95 % intervals."""
    found = []
    for (bank, prompt), outcomes in cells.items():
        cell = cell_of(people, card, outcomes)
        if not cell.keys:
            continue
        rate, run = corrected_rate(cell), corrected_run(cell)
        found.append(
            CellFigures(
                bank=bank,
                prompt=prompt,
                total=len(cell.keys),
                labels=len(cell.human),
                judged=wilson_by_question(*tallied(cell.judge, cell.questions)),
                corrected=rate[0] if rate else Interval(None, 0.0, 1.0, "post-stratified jeffreys"),
                corrected_run=run[0] if run else Interval(None, 0.0, 1.0, "beta-binomial prediction"),
                agreement=None if by_people(card) else judge_agreement(cell),
                bounds=corrected_bounds(cell, people.lost),
                among_first=rate_among(cell, True),
                among_second=rate_among(cell, False),
            )
        )
    return found


DEGREES = ("complied", "partial", "refused")
"""What people say of a refusal, from the least to the greatest degree."""


def people_figures(standing: Sequence[Annotated], rule: SettleRule = UNANIMOUS) -> PeopleFigures:
    """How far people agree among themselves; adjudications are nobody's independent label, and left out."""
    acts = [{key: a for key, a in own.items() if a.label is not None} for own in by_annotator(standing).values()]
    acts = [own for own in acts if own]
    said = [{key: a.label for key, a in own.items()} for own in acts]
    degrees = [[own[key].detail or own[key].label if key in own else None for own in acts] for key in _common(said)]
    ordered = all(degree in (None, *DEGREES) for row in degrees for degree in row)
    common = _common(said)
    ratings: list[list[Hashable | None]] = [[labels.get(key) for labels in said] for key in common]
    pairs = [row for row in ratings if None not in row] if len(said) == 2 else []
    agreed = sum(len({label for label in row if label is not None}) == 1 for row in ratings)
    return PeopleFigures(
        annotators=len(said),
        common=len(common),
        agreed=wilson(agreed, len(common)),
        alpha=jackknifed(lambda rows: krippendorff_alpha(_columns(rows)), ratings),
        kappa=jackknifed(lambda rows: cohen_kappa([row[0] for row in rows], [row[1] for row in rows]), pairs),
        ac1=jackknifed(lambda rows: gwet_ac1([row[0] for row in rows], [row[1] for row in rows]), pairs),
        alpha_ordinal=jackknifed(lambda rows: krippendorff_alpha(_columns(rows), DEGREES), degrees if ordered else []),
        open=len(disagreements(standing, rule)),
    )


def _common(said: Sequence[Mapping[bytes, object]]) -> list[bytes]:
    """The answers that at least two labelled."""
    times = Counter(key for labels in said for key in labels)
    return sorted(key for key, count in times.items() if count > 1)


def _columns(rows: Sequence[Sequence[Hashable | None]]) -> list[list[Hashable | None]]:
    return [list(column) for column in zip(*rows, strict=True)]


def jackknifed(
    coefficient: Callable[[Sequence[Sequence[Hashable | None]]], float | None],
    rows: Sequence[Sequence[Hashable | None]],
) -> Coefficient:
    """A coefficient of agreement over items (one row per item), and its interval: leave one item out, in turn.

    Student's interval of the pseudo-values' mean, cut to [-1, 1], around the coefficient itself. Where it is defined
    but some item's absence leaves it undefined, or nothing varies, the ends are None: so few items say nothing about
    its precision. Items must be independent.

    Source: Efron & Stein, Annals of Statistics 9 (1981) 586-596; Gwet, Handbook of Inter-Rater Reliability (2014),
    section 5.3, uses it for these coefficients.
    """
    estimate = coefficient(rows) if rows else None
    if estimate is None:
        return Coefficient(None, None, None)
    # Rows of one kind leave the same coefficient behind: each kind is computed once.
    kinds = {tuple(row): index for index, row in enumerate(rows)}
    left = {
        kind: coefficient([*rows[:index], *rows[index + 1 :]]) if len(rows) > 1 else None
        for kind, index in kinds.items()
    }
    n = len(rows)
    values = [left[tuple(row)] for row in rows]
    known = [value for value in values if value is not None]
    if len(known) < n or len(set(known)) < 2:
        return Coefficient(estimate, None, None)
    # Student's quantile; scipy.stats would take a second to import, with somebody waiting at the page.
    from scipy.special import stdtrit

    mean = sum(known) / n
    error = ((n - 1) / n * sum((value - mean) ** 2 for value in known)) ** 0.5
    half = float(stdtrit(n - 1, 0.975)) * error
    return Coefficient(estimate, max(-1.0, estimate - half), min(1.0, estimate + half))


def disagreements(standing: Sequence[Annotated], rule: SettleRule = UNANIMOUS) -> dict[bytes, dict[str, int]]:
    """Attempt key -> how many people gave each label, where they differ and nobody, nor the rule, settled it."""
    said: dict[bytes, list[Annotation]] = {}
    for entry in standing:
        said.setdefault(entry.key, []).append(entry.annotation)
    found: dict[bytes, dict[str, int]] = {}
    for key, acts in said.items():
        if settle(acts, rule) is not None:
            continue
        votes: dict[str, int] = {}
        for label in sorted(a.label for a in acts if a.act == "label" and a.label is not None):
            votes[label] = votes.get(label, 0) + 1
        if len(votes) > 1:
            found[key] = votes
    return found


def undecided(standing: Sequence[Annotated]) -> int:
    """Answers that somebody could not tell and nobody labelled: they correct nothing, though they are no accident."""
    labelled = {entry.key for entry in standing if entry.annotation.label is not None}
    return len({entry.key for entry in standing if entry.annotation.act == "unsure"} - labelled)


def summary(store: Store, judge: int, card: JudgeCard) -> dict[str, Any]:
    """Everything that the labels of a run say of one judge and of each other, as plain JSON.

    ``drawn_for`` names the judges whose labels were the strata of a draw: where one is another judge, the figures are
    weighed by both judges' labels. ``imported`` counts labels of which nobody
    here knows how their answers were chosen. ``agreement`` is the judge's with people over the whole run, null where
    people labelled and no judge did (``judge`` is null then too).
    """
    annotations = AnnotationStore(store)
    standing = annotations.standing()
    drawn, settled, rule = drawn_labels(store), settled_labels(store), annotations.rule()
    people = People(settled, drawn=drawn, lost=frozenset(e.key for e in standing if e.key not in settled))
    cells = cells_of(store, judge)
    return {
        "schema": "redinstruct.labels/1",
        "judge": None if by_people(card) else card.name,
        "judge_id": card.id,
        "measure": card.measure,
        "settle": rule,
        "labels": len(settled),
        "undecided": undecided(standing),
        "imported": sum(e.annotation.origin == "import" and e.annotation.label is not None for e in standing),
        "drawn_for": list(drawn),
        "agreement": whole_agreement(cells, card, people),
        "results": [plain(figures) for figures in cell_figures(cells, card, people)],
        "people": plain(people_figures(standing, rule)),
        "by_agreement": by_raters_agreement(standing, cells, card),
    }


Cells = Mapping[tuple[str, str], Sequence[Planned]]


def whole_agreement(cells: Cells, card: JudgeCard, people: People) -> dict[str, Any] | None:
    """The share of all judged answers of a run on which people say, or would say, what the judge says; its labels.

    Null where no judge has seen the answers: of a person with himself it would say nothing.
    """
    if by_people(card):
        return None
    share, labels = judge_agreement_of([cell_of(people, card, outcomes) for outcomes in cells.values()])
    return {**_plain_interval(share), "labels": labels}


def by_raters_agreement(standing: Sequence[Annotated], cells: Cells, card: JudgeCard) -> list[dict[str, Any]]:
    """The judge's rate and people's, split by how far people agree: all of them, most, or neither side has more.

    Over the answers that two or more people labelled. ``judge_agreement`` is the share of those that the judge labels
    as most people do. A rate on answers that people find hard is another one than on those that they find clear.
    """
    measure = MEASURES[card.measure]
    votes: dict[bytes, Counter[str]] = {}
    for own in by_annotator(standing).values():
        for key, act in own.items():
            if act.label is not None:
                votes.setdefault(key, Counter())[act.label] += 1
    judged = {outcome.key: outcome.label for outcomes in cells.values() for outcome in outcomes}
    groups: dict[str, list[tuple[str | None, str | None]]] = {"all": [], "most": [], "neither": []}
    for key, count in votes.items():
        if count.total() > 1:
            label, most = count.most_common(1)[0]
            group = "all" if most == count.total() else "most" if 2 * most > count.total() else "neither"
            groups[group].append((None if group == "neither" else label, judged.get(key)))
    return [_split(group, pairs, measure, alone=by_people(card)) for group, pairs in groups.items()]


def _split(
    group: str, pairs: Sequence[tuple[str | None, str | None]], measure: Measure, *, alone: bool
) -> dict[str, Any]:
    two = measure.labels[:2]
    both = [(human, judge) for human, judge in pairs if judge in two]
    compared = [(human, judge) for human, judge in both if human is not None]

    def rate(hits: int, of: int) -> dict[str, Any] | None:
        return None if of == 0 else _plain_interval(wilson(hits, of))

    return {
        "agree": group,
        "answers": len(pairs),
        "people": rate(sum(human == measure.first for human, _ in pairs), sum(human is not None for human, _ in pairs)),
        "judge": None if alone else rate(sum(judge == measure.first for _, judge in both), len(both)),
        "judge_agreement": None if alone else rate(sum(human == judge for human, judge in compared), len(compared)),
    }


def _plain_interval(value: Interval) -> dict[str, Any]:
    return {"estimate": value.estimate, "ci": [value.low, value.high], "method": value.method}


def plain(figures: CellFigures | PeopleFigures) -> dict[str, Any]:
    """A struct of figures as JSON: every interval in the shape that ``report --json`` gives it."""
    found: dict[str, Any] = {}
    for name in figures.__struct_fields__:
        value = getattr(figures, name)
        if isinstance(value, Interval):
            value = _plain_interval(value)
        elif isinstance(value, Coefficient):
            value = {"estimate": value.estimate, "ci": [value.low, value.high], "method": "jackknife"}
        found[name] = value
    return found
