"""The verdicts of a comparison, once all of its results can be seen together: Holm, intervals at his levels, words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from redinstruct.figures.comparison.values import Beyond, By, Difference, NonInferiority, Result, TopicsChange, Word
from redinstruct.figures.comparison.words import people_in_words, why_in_words
from redinstruct.stats import Change, detectable, detectable_mean, holm, holm_levels

MEANS = "paired t"
"""The method of a difference of mean scores."""


class Rules(NamedTuple):
    """What was fixed before: the margin and the confidence."""

    margin: float
    confidence: float

    @property
    def level(self) -> float:
        """One minus the confidence."""
        return 1.0 - self.confidence


class Test(NamedTuple):
    """What decides a result: a change, at whatever confidence it is asked for. Its p-values are the same at each."""

    at: Callable[[float], Change]
    method: str
    by: By | None = None
    labels: int | None = None
    counted: bool = True
    """Whether ``gained`` and ``lost`` are counts of pairs."""

    def difference(self, confidence: float, p_holm: float | None = None) -> Difference:
        """The change as a result holds it; adjusted for nothing where no p-value says so."""
        change = self.at(confidence)
        gained, lost = (change.gained, change.lost) if self.counted else (None, None)
        return Difference(
            change.difference, (change.low, change.high),
            self.method + (", by question" if change.clusters is not None else ""), self.labels, confidence,
            change.p_value, change.p_value if p_holm is None else p_holm, gained, lost, change.clusters,
            change.design_effect, change.freedom,
        )  # fmt: skip


class Open(NamedTuple):
    """A result whose verdict is open until Holm has seen the others; without a ``test`` it is not comparable.

    ``judge`` is the judge's own test where people's labels decide. ``topics`` is the change of topics in general, whose
    p-value is not adjusted yet; None where there are too few.
    """

    result: Result
    test: Test | None = None
    judge: Test | None = None
    topics: TopicsChange | None = None


def decided(opens: Sequence[Open], rules: Rules) -> list[Result]:
    """The results with their verdicts. Holm's family are those that could be tested: for the test (each interval then
    stands at the level of the step that decided it), for topics in general, and for the margin.
    """
    tests = [o.test for o in opens if o.test is not None]
    plain = [test.at(rules.confidence) for test in tests]
    levels = iter(holm_levels([change.p_value for change in plain], rules.level))
    adjusted = iter(holm([change.p_value for change in plain]))
    margins = iter(holm([change.p_margin for change in plain]))
    topics = iter(holm([o.topics.p_value for o in opens if o.test is not None and o.topics is not None]))
    changes = iter(plain)
    found = []
    for one in opens:
        if one.test is None:
            found.append(one.result)
            continue
        level = next(levels)
        result = msgspec.structs.replace(
            one.result,
            by=one.test.by,
            difference=one.test.difference(1 - level, next(adjusted)),
            judge_difference=None if one.judge is None else one.judge.difference(rules.confidence),
            non_inferiority=_kept(one.result, next(changes), next(margins), rules),
            topics=None if one.topics is None else msgspec.structs.replace(one.topics, p_holm=next(topics)),
        )
        verdict = _word(result, level)
        result = msgspec.structs.replace(result, verdict=verdict, beyond=_beyond(result, verdict, rules))
        shown = _detectable(result, one.test, rules.level / len(tests), rules)
        result = msgspec.structs.replace(result, detectable=shown)
        notes = (*result.notes, *filter(None, (people_in_words(result),)))
        found.append(msgspec.structs.replace(result, why=why_in_words(result), notes=notes))
    return found


def _kept(result: Result, change: Change, p_holm: float, rules: Rules) -> NonInferiority | None:
    """The margin's test; None for scores that are no shares."""
    if result.non_inferiority is None:
        return None
    worst = change.high if result.direction == "lower is better" else 0.0 - change.low
    return NonInferiority(rules.margin, worst, change.p_margin, p_holm, p_holm <= rules.level / 2)


def unkept(rules: Rules) -> NonInferiority:
    """The mark of a result to whose figures the margin applies, before anything is tested."""
    return NonInferiority(rules.margin, 1.0, 1.0, 1.0, False)


def _word(result: Result, level: float) -> Word:
    change = result.difference
    if change is None or change.p_value > level or change.estimate == 0:
        return "no difference shown"
    return "better" if (change.estimate > 0) is (result.direction == "higher is better") else "worse"


def _beyond(result: Result, verdict: Word, rules: Rules) -> Beyond | None:
    """Whether the verdict holds for topics in general too; None of scores, which have none."""
    if result.bank is None:
        return None
    change, topics = result.difference, result.topics
    if topics is None or change is None:
        return "too few"
    alike = (topics.estimate > 0) is (change.estimate > 0)
    told = verdict in ("better", "worse") and topics.p_holm <= rules.level and alike
    return "shown" if told else "not shown"


def _detectable(result: Result, test: Test, level: float, rules: Rules) -> float | None:
    """What a test at Holm's strictest level would show in four of five cases; None of people's labels."""
    change = result.difference
    if change is None or result.pairs is None or not test.counted:
        return None
    if test.method == MEANS:
        plain = test.at(rules.confidence)
        return detectable_mean(plain.low, plain.high, confidence=rules.confidence, level=level)
    n = result.pairs.scored
    return detectable(
        n, ((change.gained or 0) + (change.lost or 0)) / n, confidence=1 - level, design_effect=change.design_effect,
        freedom=change.freedom or None,
    )  # fmt: skip
