"""How far people and a judge agree, and people among themselves: one place for reports, labels and the page.

Promised: a figure about the judge is about all its answers, though the labels were drawn more often from its rarer
label. A figure about people is about the answers that several of them labelled, as they are. Not promised: anything
for answers that were chosen by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import msgspec

from redinstruct.figures.people import Cell, Labels, People, by_people, corrected_by_labels, enough_labels
from redinstruct.run import UNANIMOUS, Annotated, Outcomes, SettleRule, by_annotator, by_answer, settle
from redinstruct.stats import Interval, cohen_kappa, gwet_ac1, krippendorff_alpha, wilson
from redinstruct.types import MEASURES, JudgeCard

Ratings = Sequence[Sequence[Hashable | None]]
"""One row per answer, one column per person; None: that person did not label it."""


class JudgeAgreement(msgspec.Struct, frozen=True):
    """A judge and people, over all judged answers, each label weighed by what it stands for.

    ``among_labelled`` is the plain share, which says as much of the draw as of the judge.
    """

    observed: float | None
    low: float
    high: float
    method: str
    cohen_kappa: float | None
    gwet_ac1: float | None
    among_labelled: float | None

    @property
    def estimate(self) -> float | None:
        """``observed``, as every figure calls it."""
        return self.observed


class AnnotatorAgreement(msgspec.Struct, frozen=True):
    """How people agree on the ``several`` answers that at least two labelled; None where that is not defined."""

    count: int
    several: int
    observed: float | None
    krippendorff_alpha: float | None
    cohen_kappa: float | None
    gwet_ac1: float | None


class Agreement(msgspec.Struct, frozen=True):
    """A judge and people, and people among themselves, on one bank and prompt.

    ``confusion`` counts labels: the judge's x the settled one; it and ``judge_agreement`` are None where people
    labelled and no judge did: a person with himself agrees, which says nothing.
    """

    labels: int
    settled: int
    confusion: dict[str, dict[str, int]] | None
    judge_agreement: JudgeAgreement | None
    annotators: AnnotatorAgreement
    drawn_for: tuple[str, ...]


class Coefficient(msgspec.Struct, frozen=True):
    """An agreement beyond chance, 1 at most, and its 95 % interval; all None where it is not defined."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = "jackknife"


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


def agreement(people: People, card: JudgeCard, cell: Cell, outcomes: Outcomes) -> Agreement | None:
    """The agreement on one bank and prompt; None where nobody labelled any of it.

    ``outcomes`` are all of the cell's attempts, ``cell`` those that the judge could label.
    """
    if not people.labelled:
        return None
    two = MEASURES[card.measure].labels[:2]
    inside = outcomes.find({*people.settled, *(key for said in people.annotators for key in said)})
    own = [{k: label for k, label in said.items() if k in inside and label in two} for said in people.annotators]
    own = [said for said in own if said]
    settled = sum(1 for key in inside if people.settled.get(key) in two)
    if not own and not settled:
        return None
    confusion = {judge: dict.fromkeys(two, 0) for judge in two}
    for index, label in cell.human.items():
        confusion[two[not cell.judge[index]]][two[not label]] += 1
    alone = by_people(card)
    return Agreement(
        len(cell.human), settled, None if alone else confusion, None if alone else _with_judge(cell), _among(own),
        tuple(people.drawn),
    )  # fmt: skip


def _with_judge(cell: Cell) -> JudgeAgreement:
    judge, human = [cell.judge[i] for i in cell.human], list(cell.human.values())
    parts = cell.parts
    sizes, drawn = Counter(parts), Counter(parts[index] for index in cell.human)
    weights = [sizes[parts[index]] / drawn[parts[index]] for index in cell.human]
    return JudgeAgreement(
        *judge_agreement(cell),
        cohen_kappa(judge, human, weights),
        gwet_ac1(judge, human, weights=weights),
        sum(a == b for a, b in zip(judge, human, strict=True)) / len(judge) if judge else None,
    )


def judge_agreement(cell: Cell) -> Interval:
    """The share of all judged answers on which people say, or would say, what the judge says; None of too few labels.

    Source: :func:`redinstruct.stats.corrected`, with "people say the same" in the place of "people say the first".
    """
    same = {index: label == cell.judge[index] for index, label in cell.human.items()}
    known = same if enough_labels(cell.strata) else {}
    return corrected_by_labels(cell, known)


def judge_agreement_of(cells: Sequence[Cell]) -> tuple[Interval, int]:
    """The same over the cells that have labels, each a stratum of its own; and how many labels it rests on."""
    cells = [cell for cell in cells if cell.human]
    starts = [sum(len(cell.judge) for cell in cells[:place]) for place in range(len(cells))]
    human = zip(starts, (cell.human for cell in cells), strict=True)
    whole = Cell(
        [label for cell in cells for label in cell.judge],
        {start + index: label for start, labels in human for index, label in labels.items()},
        [
            (str(place), *(() if cell.drawn_by is None else cell.drawn_by[index]))
            for place, cell in enumerate(cells)
            for index in range(len(cell.judge))
        ],
        [question for cell in cells for question in (cell.questions or range(len(cell.judge)))],
    )
    return judge_agreement(whole), len(whole.human)


def ratings(own: Sequence[Mapping[bytes, Hashable]]) -> list[list[Hashable | None]]:
    """What each person said of the answers that at least two labelled, a row per answer, in the order of their keys."""
    times = Counter(key for labels in own for key in labels)
    return [[labels.get(key) for labels in own] for key in sorted(key for key, count in times.items() if count > 1)]


def _alpha(rows: Ratings, order: Sequence[Hashable] | None = None) -> float | None:
    return krippendorff_alpha([list(column) for column in zip(*rows, strict=True)], order)


def _kappa(rows: Ratings) -> float | None:
    return cohen_kappa([row[0] for row in rows], [row[1] for row in rows])


def _ac1(rows: Ratings) -> float | None:
    return gwet_ac1([row[0] for row in rows], [row[1] for row in rows])


def _agreed(rows: Ratings) -> int:
    return sum(len(set(row) - {None}) == 1 for row in rows)


def _among(own: Sequence[Labels]) -> AnnotatorAgreement:
    rows = ratings(own)
    pairs = rows if len(own) == 2 else []
    observed = _agreed(rows) / len(rows) if rows else None
    return AnnotatorAgreement(len(own), len(rows), observed, _alpha(rows), _kappa(pairs), _ac1(pairs))


DEGREES = ("complied", "partial", "refused")
"""What people say of a refusal, from the least to the greatest degree."""


def people_figures(standing: Sequence[Annotated], rule: SettleRule = UNANIMOUS) -> PeopleFigures:
    """How far people agree among themselves; adjudications are nobody's independent label, and left out."""
    acts = [{key: a for key, a in own.items() if a.label is not None} for own in by_annotator(standing).values()]
    acts = [own for own in acts if own]
    rows = ratings([{key: a.label for key, a in own.items()} for own in acts])
    degrees = ratings([{key: a.detail or a.label for key, a in own.items()} for own in acts])
    ordered = all(degree in (None, *DEGREES) for row in degrees for degree in row)
    pairs = rows if len(acts) == 2 else []
    return PeopleFigures(
        annotators=len(acts),
        common=len(rows),
        agreed=wilson(_agreed(rows), len(rows)),
        alpha=jackknifed(_alpha, rows),
        alpha_ordinal=jackknifed(lambda rows: _alpha(rows, DEGREES), degrees if ordered else []),
        kappa=jackknifed(_kappa, pairs),
        ac1=jackknifed(_ac1, pairs),
        open=len(disagreements(standing, rule)),
    )


def jackknifed(coefficient: Callable[[Ratings], float | None], rows: Ratings) -> Coefficient:
    """A coefficient of agreement over items (one row per item), and its interval: leave one item out, in turn.

    Student's interval of the pseudo-values' mean, cut to [-1, 1], around the coefficient itself. Where it is defined
    but some item's absence leaves it undefined, or nothing varies, the ends are None: so few items say nothing about
    its precision. Items must be independent.

    Source: Efron & Stein, Annals of Statistics 9 (1981) 586-596; Gwet, Handbook of Inter-Rater Reliability (2014),
    section 5.3, uses it for these coefficients.
    """
    estimate = coefficient(rows) if rows else None
    if estimate is None:
        return Coefficient()
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
        return Coefficient(estimate)
    # Student's quantile; scipy.stats would take a second to import, with somebody waiting at the page.
    from scipy.special import stdtrit

    mean = sum(known) / n
    error = ((n - 1) / n * sum((value - mean) ** 2 for value in known)) ** 0.5
    half = float(stdtrit(n - 1, 0.975)) * error
    return Coefficient(estimate, max(-1.0, estimate - half), min(1.0, estimate + half))


def disagreements(standing: Sequence[Annotated], rule: SettleRule = UNANIMOUS) -> dict[bytes, dict[str, int]]:
    """Attempt key -> how many people gave each label, where they differ and nobody, nor the rule, settled it."""
    found: dict[bytes, dict[str, int]] = {}
    for key, acts in by_answer(standing).items():
        if settle(acts, rule) is not None:
            continue
        votes = Counter(sorted(a.label for a in acts if a.act == "label" and a.label is not None))
        if len(votes) > 1:
            found[key] = dict(votes)
    return found
