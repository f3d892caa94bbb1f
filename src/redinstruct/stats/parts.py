"""The parts of a run within which chance chose what people labelled: how large, how labelled, how alike inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, SupportsIndex

from redinstruct.stats.by_question import kish, residual_effect
from redinstruct.stats.checks import check_as_many, checked_count

_SEVERAL = 1.5
"""From which mean number of labels of a label's question on they tell how alike its answers are."""


class Part(NamedTuple):
    """The answers to which a judge (or the judges by whom they were drawn) gave one label.

    ``size`` answers, ``labelled`` of them labelled by people, ``positive`` of these with the measure's first label.
    Where questions were asked several times, ``effect`` says how many labelled answers weigh as much as one independent
    one, and ``unlabelled_effect`` the same of the others; at least 1.
    """

    size: int
    positive: int
    labelled: int
    effect: float = 1.0
    unlabelled_effect: float = 1.0

    @property
    def mirrored(self) -> Part:
        """The same part with the other label counted."""
        return self._replace(positive=self.labelled - self.positive)


def checked_part(part: Part | Sequence[SupportsIndex]) -> Part:
    """A part whose counts fit together.

    Raises:
        ValueError: a count is negative or no integer, more labels than answers, or more positive labels than labels.
    """
    names = ("size", "positive", "labelled")
    counts = [checked_count(name, value) for name, value in zip(names, part[:3], strict=True)]
    if not counts[1] <= counts[2] <= counts[0]:
        raise ValueError(f"a part must hold positive <= labelled <= size, not {counts[1]}, {counts[2]}, {counts[0]}")
    effects = part[3:] if isinstance(part, Part) else ()
    return Part(counts[0], counts[1], counts[2], *effects)


def sides(judge: Sequence[bool], said: Mapping[int, bool], flagged: int | None = None) -> tuple[Part, Part]:
    """What a judge flagged (so many, where that is known), and the rest, with what is said of some, by their places."""
    flagged = sum(judge) if flagged is None else flagged
    hits, drawn = [0, 0], [0, 0]
    for index, label in said.items():
        side = not judge[index]
        hits[side] += label
        drawn[side] += 1
    return Part(flagged, hits[0], drawn[0]), Part(len(judge) - flagged, hits[1], drawn[1])


def strata(
    parts: Sequence[Hashable], human: Mapping[int, bool], questions: Sequence[Hashable] | None = None
) -> list[Part]:
    """How many answers and labels each part of a run holds, and how alike those of one question are.

    Args:
        parts: the part of each answer (the judge's label, and others that its draw looked at); shape (N,).
        human: index into ``parts`` -> the human label.
        questions: the question of each answer; left out, or all different: every effect is 1.

    Returns:
        One of each part that there is. The effect of labels is the same in all parts, as one question's answers lie in
        several; that of the unlabelled follows from it where labels came several to a question, else it is that of
        identical answers.

    Raises:
        ValueError: ``questions`` and ``parts`` differ in length.
    """
    counts: dict[Hashable, list[int]] = {}
    for index, part in enumerate(parts):
        row = counts.setdefault(part, [0, 0, 0])
        row[0] += 1
        if index in human:
            row[1] += human[index]
            row[2] += 1
    if questions is None or not repeats(questions, len(parts)):
        return [Part(size, hits, drawn) for size, hits, drawn in counts.values()]
    rates = {part: (hits + 0.5) / (drawn + 1) for part, (_, hits, drawn) in counts.items()}
    effect = residual_effect([human[i] - rates[parts[i]] for i in human], [questions[i] for i in human])
    most = kish(Counter(questions[i] for i in human).values()) if human else 1.0
    alike = (effect - 1) / (most - 1) if most > _SEVERAL else 1.0
    left: dict[Hashable, Counter[Hashable]] = {part: Counter() for part in counts}
    for index, part in enumerate(parts):
        if index not in human:
            left[part][questions[index]] += 1
    effects = {part: 1 + (kish(of.values()) - 1) * alike if of else 1.0 for part, of in left.items()}
    return [Part(size, hits, drawn, effect, effects[part]) for part, (size, hits, drawn) in counts.items()]


def repeats(questions: Sequence[Hashable] | None, total: int) -> bool:
    """Whether one of the questions of so many attempts was asked more than once.

    Raises:
        ValueError: there are not as many questions as attempts.
    """
    if questions is None:
        return False
    check_as_many("questions must be as many as the attempts", questions, range(total))
    return len(set(questions)) < total


def tallied(hits: Sequence[bool], questions: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Successes and tries of each question, in the order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for hit, question in zip(hits, questions, strict=True):
        row = rows.setdefault(question, [0, 0])
        row[0] += hit
        row[1] += 1
    return [row[0] for row in rows.values()], [row[1] for row in rows.values()]
