"""What people's labels say: the corrected rate of each bank and prompt, and how far people and the judge agree.

Promised: a figure about the judge is about the whole run, though the labels were drawn more often from its rarer label
(both the rate and the agreement are post-stratified). A figure about two people is about the answers that both
labelled, as they are. Not promised: anything for answers that were chosen by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from redinstruct.people import (
    People,
    cell_of,
    cells_of,
    corrected_rate,
    drawn_labels,
    judge_agreement,
    rate_among,
    settled_labels,
)
from redinstruct.stats import (
    Interval,
    cohen_kappa,
    gwet_ac1,
    krippendorff_alpha,
    tallied,
    wilson,
    wilson_by_question,
)
from redinstruct.store import Annotated, AnnotationStore, Planned, Store, by_annotator
from redinstruct.types import Annotation, JudgeCard

ADJUDICATING = " (adjudicating)"
"""Ends the name under which somebody settles cases, so that their own labels stand beside it, not under it."""


class CellFigures(msgspec.Struct, frozen=True):
    """One bank and prompt: the judge's own rate, the corrected one, and how often people say what the judge says.

    ``among_first`` is the share of truly first labels among the answers that the judge gave the first label (its
    precision), ``among_second`` among the others (its false omissions); ``agreement`` is over the whole cell.
    """

    bank: str
    prompt: str
    total: int
    labels: int
    judged: Interval
    corrected: Interval
    agreement: Interval
    among_first: Interval
    among_second: Interval


class Coefficient(msgspec.Struct, frozen=True):
    """An agreement beyond chance, 1 at most, and its 95 % interval; all None where it is not defined."""

    estimate: float | None
    low: float | None
    high: float | None


class PeopleFigures(msgspec.Struct, frozen=True):
    """How far people agree: on the ``common`` answers that at least two labelled, ``agreed`` of them by all.

    ``open`` are disagreements that nobody has settled: they correct nothing until somebody does.
    """

    annotators: int
    common: int
    agreed: Interval
    alpha: Coefficient
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
        rate = corrected_rate(cell)
        found.append(
            CellFigures(
                bank=bank,
                prompt=prompt,
                total=len(cell.keys),
                labels=len(cell.human),
                judged=wilson_by_question(*tallied(cell.judge, cell.questions)),
                corrected=rate[0] if rate else Interval(None, 0.0, 1.0, "post-stratified jeffreys"),
                agreement=judge_agreement(cell),
                among_first=rate_among(cell, True),
                among_second=rate_among(cell, False),
            )
        )
    return found


def people_figures(standing: Sequence[Annotated]) -> PeopleFigures:
    """How far people agree among themselves; adjudications are nobody's independent label, and left out."""
    said = [
        {key: a.label for key, a in acts.items() if a.label is not None} for acts in by_annotator(standing).values()
    ]
    said = [labels for labels in said if labels]
    keys = sorted({key for labels in said for key in labels})
    common = [key for key in keys if sum(key in labels for labels in said) > 1]
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
        open=len(disagreements(standing)),
    )


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


def disagreements(standing: Sequence[Annotated]) -> dict[bytes, dict[str, int]]:
    """Attempt key -> how many people gave each label, where they differ and nobody has settled it."""
    said: dict[bytes, list[Annotation]] = {}
    for entry in standing:
        said.setdefault(entry.key, []).append(entry.annotation)
    found: dict[bytes, dict[str, int]] = {}
    for key, acts in said.items():
        if any(a.act == "adjudicate" for a in acts):
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
    here knows how their answers were chosen.
    """
    annotations = AnnotationStore(store)
    standing = annotations.standing()
    drawn, settled = drawn_labels(store), settled_labels(store)
    people = People(settled, drawn=drawn)
    return {
        "schema": "redinstruct.labels/1",
        "judge_id": card.id,
        "measure": card.measure,
        "labels": len(settled),
        "undecided": undecided(standing),
        "imported": sum(e.annotation.origin == "import" and e.annotation.label is not None for e in standing),
        "drawn_for": list(drawn),
        "results": [plain(figures) for figures in cell_figures(cells_of(store, judge), card, people)],
        "people": plain(people_figures(standing)),
    }


def plain(figures: CellFigures | PeopleFigures) -> dict[str, Any]:
    """A struct of figures as JSON: every interval in the shape that ``report --json`` gives it."""
    found: dict[str, Any] = {}
    for name in figures.__struct_fields__:
        value = getattr(figures, name)
        if isinstance(value, Interval):
            value = {"estimate": value.estimate, "ci": [value.low, value.high], "method": value.method}
        elif isinstance(value, Coefficient):
            value = {"estimate": value.estimate, "ci": [value.low, value.high], "method": "jackknife"}
        found[name] = value
    return found
