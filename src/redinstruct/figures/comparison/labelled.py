"""The difference of two runs as people's labels have it, where people labelled both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from redinstruct.figures.comparison.runs import Evaluation, Judged
from redinstruct.figures.comparison.values import Estimate, Side
from redinstruct.figures.comparison.verdicts import Rules, Test
from redinstruct.figures.people import Cell, cell_of, corrected_change, corrected_rate
from redinstruct.run import Outcomes
from redinstruct.stats import Change, paired_by_question, smallest_level


class Labelled(NamedTuple):
    """People's part of one result: the test that decides it, both runs' rates, and how far these very answers differ.

    The test is of the questions as a sample; ``run`` says nothing beyond the answers that were given.
    """

    test: Test
    before: Side
    after: Side
    run: Estimate


class Half(NamedTuple):
    """One run's part of one result: all its attempts under the judge, and what people said of them."""

    run: Evaluation
    judged: Judged
    cell: Outcomes

    @property
    def people(self) -> Cell:
        """What the judge could label, beside people's labels."""
        return cell_of(self.run.people, self.judged.card, self.cell)

    def said(self, key: bytes) -> bool | None:
        """Whether people say the measure's first label of an answer; None where they settled on none."""
        label = self.run.people.settled.get(key)
        return label == self.judged.measure.first if label in self.judged.measure.labels[:2] else None


def labelled_change(before: Half, after: Half, scored: tuple[Outcomes, Outcomes], rules: Rules) -> Labelled | None:
    """The change of the corrected rate; None where people's labels do not bear one in both runs.

    Where every scored pair is labelled in both runs the pairs themselves are tested, by people's labels. Otherwise the
    interval is that of two rates whose labels are independent, never too narrow for pairs that agree more often than
    chance, and the test is its inversion.

    Source: :func:`redinstruct.stats.paired_by_question`; Zou & Donner, Statistics in Medicine 27 (2008) 1693-1702,
    equation 5 (MOVER) without the correlation.
    """
    if not (before.run.people.settled and after.run.people.settled):
        return None
    cells = before.people, after.people
    rates = [rate for cell in cells if (rate := corrected_rate(cell, rules.confidence)) is not None]
    sides = [Side(e, (low, high), method, labels) for (e, low, high, method), labels in rates if e is not None]
    if len(sides) < 2:
        return None
    labels = min(labels for _, labels in rates)
    pairs = [(before.said(b), after.said(a)) for b, a in zip(*(half.every_key() for half in scored), strict=True)]
    known = [(b, a) for b, a in pairs if b is not None and a is not None]
    if len(known) == len(pairs):
        was, now = zip(*known, strict=True)
        units = scored[1].unit

        def whole(confidence: float) -> Change:
            return paired_by_question(was, now, units, margin=rules.margin, confidence=confidence)

        test = Test(whole, "tango, people's labels", "people", labels)
    else:
        test = Test(_mover(cells, rules.margin), "corrected, mover", "people", labels, False)
    found = corrected_change(*cells, rules.confidence)
    assert found is not None
    assert found[0].estimate is not None
    run = Estimate(found[0].estimate, (found[0].low, found[0].high), found[0].method, found[1])
    return Labelled(test, sides[0], sides[1], run)


def _mover(cells: tuple[Cell, Cell], margin: float) -> Callable[[float], Change]:
    """The difference of two corrected rates at any confidence; its p-values by inversion, once."""

    def ends(confidence: float) -> tuple[float, float, float]:
        one, other = (corrected_rate(cell, confidence) for cell in cells)
        assert one is not None
        assert other is not None
        (p, p_low, p_high, _), (q, q_low, q_high, _) = one[0], other[0]
        assert p is not None
        assert q is not None
        down, up = math.hypot(q - q_low, p_high - p), math.hypot(q_high - q, p - p_low)
        return q - p, max(q - p - down, -1.0), min(q - p + up, 1.0)

    p_value = smallest_level(lambda level: not ends(1 - level)[1] <= 0 <= ends(1 - level)[2])
    p_margin = smallest_level(lambda level: ends(1 - level)[2] < margin) / 2
    return lambda confidence: Change(*ends(confidence), p_value, p_margin, 0, 0, 1.0, None)
