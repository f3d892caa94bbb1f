"""People's labels in a run: what they correct, and how far they and the judge agree. One place for every reader of it.

A label counts for a judge's rate where that judge gave one of the measure's two labels, and a person settled on one:
an answer on which people disagree and nobody adjudicated corrects nothing. No annotator's name leaves the store.

`annotate` draws answers by one judge's labels, so that its rarer label is labelled more often. Another judge's figures
stay right all the same: within each pair of labels, the drawing judge's and its own, the draw is a matter of chance,
and each pair is a part of its own. All figures of a judge, its rate and its agreement with people, are weighed so.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import msgspec

from redinstruct.run import AnnotationStore, Planned, SettleRule, Store, by_annotator, planned_attempts, settle
from redinstruct.stats import (
    Interval,
    Part,
    corrected,
    jeffreys,
    run_difference,
    run_rate,
    strata,
)
from redinstruct.types import MEASURES, Annotation, JudgeCard, Verdict

Labels = Mapping[bytes, str]
"""Attempt key -> label."""


class People(msgspec.Struct, frozen=True):
    """What people said of a run's answers, and by whose labels the answers were drawn for them.

    ``settled`` is the label that they settled on; ``annotators`` holds everybody's own labels, adjudications left out;
    ``topics`` is every attempt's topic, empty where nobody labelled anything. ``drawn`` holds, by the id of each judge
    that a draw was made for, that judge's labels of all attempts, None where it gave none. ``lost`` are answers that
    somebody was shown and nobody settled.
    """

    settled: Labels = {}
    annotators: tuple[Labels, ...] = ()
    topics: Mapping[bytes, str | None] = {}
    drawn: Mapping[str, Mapping[bytes, str | None]] = {}
    lost: frozenset[bytes] = frozenset()

    @property
    def labelled(self) -> bool:
        """Whether anybody labelled anything."""
        return bool(self.annotators) or bool(self.settled)


def people_of(store: Store) -> People:
    """Everybody's standing labels in a run.

    Raises:
        StoreError: the store does not read.
    """
    annotations = AnnotationStore(store)
    standing = annotations.standing()
    if not standing:
        return People()
    settled = settled_labels(store)
    return People(
        settled,
        tuple(
            {key: a.label for key, a in said.items() if a.label is not None}
            for said in by_annotator(standing).values()
            if any(a.label is not None for a in said.values())
        ),
        annotations.topics(),
        drawn_labels(store),
        frozenset(entry.key for entry in standing if entry.key not in settled),
    )


def verdict_of_people(acts: Sequence[Annotation], rule: SettleRule) -> Verdict | None:
    """What people said of one answer, as the verdict of a run that no judge has seen; None where nobody labelled it."""
    if not any(act.label is not None for act in acts):
        return None
    settled = settle(acts, rule)
    if settled is None or settled.label is None:
        return Verdict("unparsable", reason="people_differ")
    return Verdict(settled.label, settled.detail)


def by_people(card: JudgeCard) -> bool:
    """Whether the labels under a card are people's own: no judge has seen these answers."""
    return dict(card.parameters).get("labels") == "people"


PEOPLE_ALONE = "the labels are people's; no judge has seen these answers"


def follow_people(store: Store) -> None:
    """Bring the verdicts of a run without a judge up to what people say by now, by the run's rule.

    Such a run's rate is people's own. Where a judge gave verdicts nothing is done: labels correct that judge.

    Raises:
        StoreError: the store cannot be written.
    """
    config, annotations = store.config(), AnnotationStore(store)
    judges = store.judges()
    if config is None or any(store.has_verdicts(row) for row, card in judges if not by_people(card)):
        return
    said: dict[bytes, list[Annotation]] = {}
    for entry in annotations.standing():
        said.setdefault(entry.key, []).append(entry.annotation)
    rule = annotations.rule()
    verdicts = {key: verdict for key, acts in said.items() if (verdict := verdict_of_people(acts, rule)) is not None}
    row = next((row for row, card in judges if by_people(card)), None)
    if row is None and verdicts:
        people = (("labels", "people"),)
        row = store.add_judge(JudgeCard("imported", config.measure, parameters=people, notes=(PEOPLE_ALONE,)))
    if row is not None:
        annotations.follow_people(row, verdicts)


def settled_labels(store: Store) -> dict[bytes, str]:
    """Attempt key -> the label that people settled on."""
    return {key: a.label for key, a in AnnotationStore(store).settled().items() if a.label is not None}


def drawn_labels(store: Store) -> dict[str, dict[bytes, str | None]]:
    """The judges that answers were drawn for, by id, with their labels of all attempts."""
    drawn = {draw.judge for draw in AnnotationStore(store).draws()}
    return {
        card.id: {key: label for key, _, _, label in store.labels(row)} for row, card in store.judges() if row in drawn
    }


def cells_of(store: Store, judge: int) -> dict[tuple[str, str], list[Planned]]:
    """Bank and prompt, by name -> how every planned attempt came out under the judge; empty of an unplanned run."""
    config = store.config()
    if config is None:
        return {}
    names = {pinned.sha256: pinned.name for pinned in (*config.banks, *config.prompts)}
    cells: dict[tuple[str, str], list[Planned]] = {}
    for outcome in planned_attempts(store, judge):
        cells.setdefault((names[outcome.bank], names[outcome.prompt]), []).append(outcome)
    return cells


FEWEST_LABELS = 5
"""With fewer labels of a part that is not labelled whole, nothing is estimated from them."""


class Cell(msgspec.Struct, frozen=True):
    """The attempts of one judge, bank and prompt that have one of the measure's two labels, beside people's labels.

    ``judge`` is true for the measure's first label; ``human`` maps an index into it to a person's label. ``drawn_by``
    holds the labels by which other judges' draws were made, None where there was no other judge's draw. ``questions``
    is the question of each, under which statistics count it (:attr:`redinstruct.run.Planned.unit`).
    """

    keys: tuple[bytes, ...]
    judge: tuple[bool, ...]
    human: Mapping[int, bool]
    drawn_by: tuple[tuple[str | None, ...], ...] | None = None
    questions: tuple[int, ...] = ()

    @property
    def parts(self) -> list[Hashable]:
        """Within which attempts the labelled ones are a matter of chance: the part of each attempt."""
        if self.drawn_by is None:
            return list(self.judge)
        return list(zip(self.judge, self.drawn_by, strict=True))

    @property
    def strata(self) -> list[Part]:
        """The parts with their labels counted."""
        return strata(self.parts, self.human, self.questions)


def cell_of(people: People, card: JudgeCard, outcomes: Sequence[Planned]) -> Cell:
    """Keep of a cell's attempts those that the judge could label, and join people's labels."""
    measure = MEASURES[card.measure]
    two = measure.labels[:2]
    kept = [outcome for outcome in outcomes if outcome.label in two]
    judged = [(outcome.key, outcome.label == measure.first) for outcome in kept]
    human = {
        index: people.settled[key] == measure.first
        for index, (key, _) in enumerate(judged)
        if people.settled.get(key) in two
    }
    # Which answers people labelled by hand, or in an import, is taken to be chance: only draws have parts.
    others = [said for judge, said in people.drawn.items() if judge != card.id]
    return Cell(
        tuple(key for key, _ in judged),
        tuple(label for _, label in judged),
        human,
        tuple(tuple(_drawable(said.get(key), two) for said in others) for key, _ in judged) if others else None,
        tuple(outcome.unit for outcome in kept),
    )


def _drawable(label: str | None, two: Sequence[str]) -> str | None:
    """A label by which an answer may have been drawn; all others are none."""
    return label if label in two else None


def enough_labels(parts: Sequence[Part]) -> bool:
    """Whether an estimate may rest on these labels: each part has five, or is labelled whole.

    The rule of every figure that people's labels give. Of a part with fewer next to nothing is known, yet the estimate
    would rest on it: one label of a run whose judge says 30 % once made a headline of "65 %".
    """
    return any(part.labelled for part in parts) and all(
        part.labelled >= FEWEST_LABELS or part.labelled == part.size for part in parts
    )


def corrected_rate(cell: Cell, confidence: float = 0.95) -> tuple[Interval, int] | None:
    """The cell's rate corrected by its labels, and how many they are; None where they are too few.

    Source: :func:`redinstruct.stats.corrected`, :func:`enough_labels`.
    """
    if not enough_labels(cell.strata):
        return None
    found = corrected(cell.judge, cell.human, confidence, drawn_by=cell.drawn_by, questions=cell.questions)
    return found, len(cell.human)


def corrected_run(cell: Cell, confidence: float = 0.95) -> tuple[Interval, int] | None:
    """The rate of the cell's very answers, and by how many labels; None where they are too few.

    Source: :func:`redinstruct.stats.run_rate`, :func:`enough_labels`.
    """
    parts = cell.strata
    return (run_rate(parts, confidence), len(cell.human)) if enough_labels(parts) else None


def corrected_change(before: Cell, after: Cell, confidence: float = 0.95) -> tuple[Interval, int] | None:
    """How far the rate of one run's very answers lies from another's, and the fewer of both runs' labels; None where
    either has too few.

    Source: :func:`redinstruct.stats.run_difference`, :func:`enough_labels`.
    """
    parts = before.strata, after.strata
    if not all(map(enough_labels, parts)):
        return None
    return run_difference(*parts, confidence), min(len(before.human), len(after.human))


def corrected_topics(cell: Cell, topics: Mapping[bytes, str | None]) -> dict[str | None, tuple[Interval, int]]:
    """The same for each topic that has labels enough, by its own attempts and labels alone."""
    if not cell.human:
        return {}
    inside: dict[str | None, list[int]] = {}
    for index, key in enumerate(cell.keys):
        inside.setdefault(topics[key], []).append(index)
    found = {}
    for topic, places in inside.items():
        part = Cell(
            tuple(cell.keys[i] for i in places),
            tuple(cell.judge[i] for i in places),
            {number: cell.human[i] for number, i in enumerate(places) if i in cell.human},
            None if cell.drawn_by is None else tuple(cell.drawn_by[i] for i in places),
            tuple(cell.questions[i] for i in places),
        )
        if (rate := corrected_rate(part)) is not None:
            found[topic] = rate
    return found


def corrected_bounds(cell: Cell, lost: Collection[bytes], confidence: float = 0.95) -> tuple[float, float] | None:
    """Between which ends the corrected rate lies whatever people would have said of the answers that they left out.

    ``lost`` are the keys of answers that people were shown and did not settle (could not tell, passed by, differed):
    the hard ones, as a rule. The lower end is that of the interval with all of them the measure's second label, the
    upper one with all of them its first. None where none was lost in this cell, or labels are too few.
    """
    places = [index for index, key in enumerate(cell.keys) if key in lost and index not in cell.human]
    if not places:
        return None
    ends = [
        corrected_rate(msgspec.structs.replace(cell, human={**cell.human, **dict.fromkeys(places, side)}), confidence)
        for side in (False, True)
    ]
    none, every = ends
    return None if none is None or every is None else (none[0].low, every[0].high)


def rate_among(cell: Cell, side: bool) -> Interval:
    """The true rate among the answers to which the judge gave one label; a Jeffreys interval if nobody else drew."""
    places = [index for index, label in enumerate(cell.judge) if label is side]
    human = {number: cell.human[index] for number, index in enumerate(places) if index in cell.human}
    questions = [cell.questions[index] for index in places]
    if cell.drawn_by is None and len(set(questions)) == len(questions):
        return jeffreys(sum(human.values()), len(human))
    drawn_by = None if cell.drawn_by is None else [cell.drawn_by[index] for index in places]
    return corrected([side] * len(places), human, drawn_by=drawn_by, questions=questions)
