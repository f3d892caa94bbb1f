"""People's labels in a run: what they correct, and how far they and the judge agree. One place for every reader of it.

A label counts for a judge's rate where that judge gave one of the measure's two labels, and a person settled on one:
an answer on which people disagree and nobody adjudicated corrects nothing. No annotator's name leaves the store.

`annotate` draws answers by one judge's labels, so that its rarer label is labelled more often. Another judge's figures
stay right all the same: within each pair of labels, the drawing judge's and its own, the draw is a matter of chance,
and each pair is a part of its own. All figures of a judge, its rate and its agreement with people, are weighed so.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cached_property

import msgspec

from redinstruct.run import (
    AnnotationStore,
    Outcomes,
    Planned,
    SettleRule,
    Store,
    by_annotator,
    by_answer,
    outcomes_of_cells,
    settle,
)
from redinstruct.stats import (
    Interval,
    Part,
    corrected,
    corrected_of,
    grouped,
    jeffreys,
    run_difference,
    run_rate,
    sides,
    strata,
)
from redinstruct.types import MEASURES, Annotation, JudgeCard, Verdict

Labels = Mapping[bytes, str]
"""Attempt key -> label."""


class People(msgspec.Struct, frozen=True):
    """What people said of a run's answers, and by whose labels the answers were drawn for them.

    ``settled`` is the label that they settled on; ``annotators`` holds everybody's own labels, adjudications left out;
    ``drawn`` holds, by the id of each judge that a draw was made for, that judge's labels of all attempts, None where
    it gave none. ``lost`` are answers that somebody was shown and nobody settled.
    """

    settled: Labels = {}
    annotators: tuple[Labels, ...] = ()
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
    said, rule = by_answer(annotations.standing()), annotations.rule()
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


def drawn_labels(store: Store) -> dict[str, Mapping[bytes, str | None]]:
    """The judges that answers were drawn for, by id, with their labels of all attempts: for the other judges' figures,
    and so empty where there is no other.
    """
    drawn = {draw.judge for draw in AnnotationStore(store).draws()}
    judges = store.judges()
    alone = len(judges) == 1  # whose own labels make the parts anyway
    return {
        card.id: {} if alone else {key: label for key, _, _, label in store.labels(row)}
        for row, card in judges
        if row in drawn
    }


def cells_of(store: Store, judge: int) -> dict[tuple[str, str], Outcomes]:
    """Bank and prompt, by name -> how every planned attempt came out under the judge; empty of an unplanned run."""
    config = store.config()
    if config is None:
        return {}
    names = {pinned.sha256: pinned.name for pinned in (*config.banks, *config.prompts)}
    return {(names[bank], names[prompt]): of for (bank, prompt), of in outcomes_of_cells(store, judge).items()}


FEWEST_LABELS = 5
"""With fewer labels of a part that is not labelled whole, nothing is estimated from them."""


class Cell(msgspec.Struct, frozen=True, dict=True):
    """The attempts of one judge, bank and prompt that have one of the measure's two labels, beside people's labels.

    ``judge`` is true for the measure's first label; ``human`` maps an index into it to a person's label. ``drawn_by``
    holds the labels by which other judges' draws were made, None where there was no other judge's draw. ``questions``
    is the question of each, under which statistics count it (:attr:`redinstruct.run.Planned.unit`), None where each was
    asked once; ``topics`` holds the attempts with theirs; ``lost`` are the places of what people were shown
    and did not settle.
    """

    judge: Sequence[bool]
    human: Mapping[int, bool]
    drawn_by: Sequence[tuple[str | None, ...]] | None = None
    questions: Sequence[int] | None = None
    topics: Outcomes | None = None
    lost: Sequence[int] = ()
    flagged: int | None = None
    """How many ``judge`` holds true, where that is known."""

    @cached_property
    def counted(self) -> tuple[Part, Part] | None:
        """What the judge flagged, and the rest, where nothing else has to be told of an attempt; else None."""
        if self.drawn_by is not None or self.questions is not None:
            return None
        return self.counts_of(self.human)

    def counts_of(self, said: Mapping[int, bool]) -> tuple[Part, Part]:
        """What the judge flagged, and the rest, with what is said of some of them."""
        return sides(self.judge, said, self.flagged)

    def taken(self, places: Sequence[int]) -> Cell:
        """The attempts at some places."""
        return Cell(
            [self.judge[i] for i in places],
            {number: self.human[i] for number, i in enumerate(places) if i in self.human},
            None if self.drawn_by is None else [self.drawn_by[i] for i in places],
            None if self.questions is None else [self.questions[i] for i in places],
        )

    @cached_property
    def parts(self) -> list[Hashable]:
        """Within which attempts the labelled ones are a matter of chance: the part of each attempt."""
        if self.drawn_by is None:
            return list(self.judge)
        return list(zip(self.judge, self.drawn_by, strict=True))

    @cached_property
    def strata(self) -> list[Part]:
        """The parts with their labels counted."""
        if self.counted is not None:
            return [part for part in self.counted if part.size]
        return strata(self.parts, self.human, self.questions)


class Labelling:
    """A cell's attempts that the judge could label, looked through once: labels are joined as often as there are new.

    ``keys`` are those of which people may say anything.
    """

    def __init__(self, card: JudgeCard, outcomes: Sequence[Planned], keys: Collection[bytes]) -> None:
        self._card, measure = card, MEASURES[card.measure]
        self._two, self._first = measure.labels[:2], measure.first
        self._kept = Outcomes.of(outcomes).where(lambda way: way.label in self._two)
        self._judge = self._kept.hits(measure.first)
        self._flagged = sum(self._judge)
        self._places = self._kept.find(keys)

    def cell(self, people: People) -> Cell:
        """The attempts beside people's labels."""
        kept, two = self._kept, self._two
        settled = {at: people.settled[key] for key, at in self._places.items() if key in people.settled}
        human = {at: label == self._first for at, label in settled.items() if label in two}
        # Which answers people labelled by hand, or in an import, is taken to be chance: only draws have parts.
        others = [said for judge, said in people.drawn.items() if judge != self._card.id]
        return Cell(
            self._judge,
            human,
            # A label by which an answer may have been drawn; all others are none.
            [tuple(x if (x := said.get(key)) in two else None for said in others) for key in kept.every_key()]
            if others
            else None,
            kept.unit if kept.repeated else None,
            kept,
            [at for key, at in self._places.items() if key in people.lost and at not in human],
            self._flagged,
        )


def cell_of(people: People, card: JudgeCard, outcomes: Sequence[Planned]) -> Cell:
    """Keep of a cell's attempts those that the judge could label, and join people's labels."""
    return Labelling(card, outcomes, people.settled.keys() | people.lost).cell(people)


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
    return corrected_by_labels(cell, cell.human, confidence), len(cell.human)


def corrected_by_labels(cell: Cell, said: Mapping[int, bool], confidence: float = 0.95) -> Interval:
    """The share of a cell's attempts of which something is true that was said of some, by their places."""
    if cell.counted is not None:
        return corrected_of(*cell.counts_of(said), confidence)
    return corrected(cell.judge, said, confidence, drawn_by=cell.drawn_by, questions=cell.questions)


def corrected_run(cell: Cell) -> tuple[Interval, int] | None:
    """The rate of the cell's very answers, and by how many labels; None where they are too few.

    Source: :func:`redinstruct.stats.run_rate`, :func:`enough_labels`.
    """
    parts = cell.strata
    return (run_rate(parts), len(cell.human)) if enough_labels(parts) else None


def corrected_change(before: Cell, after: Cell, confidence: float = 0.95) -> tuple[Interval, int] | None:
    """How far the rate of one run's very answers lies from another's, and the fewer of both runs' labels; None where
    either has too few.

    Source: :func:`redinstruct.stats.run_difference`, :func:`enough_labels`.
    """
    parts = before.strata, after.strata
    if not all(map(enough_labels, parts)):
        return None
    return run_difference(*parts, confidence), min(len(before.human), len(after.human))


def corrected_topics(cell: Cell) -> dict[str | None, tuple[Interval, int]]:
    """The same for each topic that has labels enough, by its own attempts and labels alone."""
    if not cell.human or cell.topics is None:
        return {}
    inside = grouped(cell.topics.topics(), range(len(cell.topics)))
    rates = {topic: corrected_rate(cell.taken(places)) for topic, places in inside.items()}
    return {topic: rate for topic, rate in rates.items() if rate is not None}


def corrected_bounds(cell: Cell, confidence: float = 0.95) -> tuple[float, float] | None:
    """Between which ends the corrected rate lies whatever people would have said of the answers that they left out.

    Those that people were shown and did not settle (could not tell, passed by, differed) are the hard ones, as a rule.
    The lower end is that of the interval with all of them the measure's second label, the
    upper one with all of them its first. None where none was lost in this cell, or labels are too few.
    """
    if not cell.lost:
        return None
    ends = [
        corrected_rate(
            msgspec.structs.replace(cell, human={**cell.human, **dict.fromkeys(cell.lost, side)}), confidence
        )
        for side in (False, True)
    ]
    none, every = ends
    return None if none is None or every is None else (none[0].low, every[0].high)


def rate_among(cell: Cell, side: bool) -> Interval:
    """The true rate among the answers to which the judge gave one label; a Jeffreys interval if nobody else drew."""
    if cell.counted is not None:
        part = cell.counted[not side]
        return jeffreys(part.positive, part.labelled)
    inside = cell.taken([index for index, label in enumerate(cell.judge) if label is side])
    if inside.drawn_by is None and (inside.questions is None or len(set(inside.questions)) == len(inside.questions)):
        return jeffreys(sum(inside.human.values()), len(inside.human))
    return corrected_by_labels(inside, inside.human)
