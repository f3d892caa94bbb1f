"""Two utility checks over the same items: benchmark by benchmark, what changed, and whether the margin was kept.

Promised: an item is paired with itself by its content; the margin is the one that both runs fixed before they began.
Not promised: anything about items that depend on each other; a benchmark's parts are taken as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.values import Direction, Pairs, Result, Side
from redinstruct.figures.comparison.verdicts import MEANS, Open, Rules, Test, decided, unkept
from redinstruct.figures.scores import STRIPPED, MeasuredScore, TaskCard, UtilityResult
from redinstruct.stats import PROVISIONAL_BELOW, ROUNDING, Change, paired_means

_SAME = ("version", "output_type", "shots", "chat_template", "source", "prompt_sha256", "generation")
"""What of a task's card must be equal."""


def margin_of(before: UtilityResult, after: UtilityResult, asked: float | None) -> float:
    """The margin that both runs fixed before they began.

    Raises:
        UsageError: they fixed different ones, or another one is asked for now.
    """
    if before.margin != after.margin:
        raise UsageError(
            f"the runs fixed different margins before they began, {before.margin:g} and {after.margin:g}: "
            "repeat one with the other's --margin"
        )
    if asked is not None and asked != after.margin:
        raise UsageError(
            f"--margin {asked:g}: the runs fixed {after.margin:g} before they began, and a margin chosen afterwards "
            "proves nothing; leave it out"
        )
    return after.margin


def compare_utility(
    before: UtilityResult, after: UtilityResult, folders: tuple[Path, Path], rules: Rules
) -> list[Result]:
    """Every benchmark's headline figure; Holm's family is the benchmarks that could be compared.

    Raises:
        UsageError: the runs have no benchmark in common.
    """
    ones, others = ({m.task: m for m in run.headline} for run in (before, after))
    if not ones.keys() & others.keys():
        raise UsageError(f"{folders[0]} and {folders[1]} have no finished task in common: nothing can be paired")
    cards = [{card.task: card for card in run.cards} for run in (before, after)]
    opens = []
    for name in [*others, *(name for name in ones if name not in others)]:
        one, other = ones.get(name), others.get(name)
        shown = other or one
        assert shown is not None
        blank = _blank(shown)
        if one is None or other is None:
            why = f"other tasks: only the run {'after' if one is None else 'before'} did it"
            opens.append(Open(msgspec.structs.replace(blank, why=why)))
        elif _for_blanks(one, other, (before, after)):
            why = "not measurable: exact_match is 0 in both for blanks around right answers; see the stripped scores"
            opens.append(Open(msgspec.structs.replace(blank, why=why)))
        elif unlike := _unlike(one, other, cards[0], cards[1]):
            opens.append(Open(msgspec.structs.replace(blank, why="; ".join(unlike))))
        else:
            opens.append(_benchmark(blank, one, other, rules))
    return decided(opens, rules)


def _blank(measured: MeasuredScore) -> Result:
    direction: Direction = "higher is better" if measured.higher_is_better else "lower is better"
    return Result(name=measured.task, measure=measured.metric, direction=direction)


def _for_blanks(one: MeasuredScore, other: MeasuredScore, runs: tuple[UtilityResult, UtilityResult]) -> bool:
    """Whether both figures are 0 only since the harness counts the blanks around an answer as a mistake."""
    if any(one.values) or any(other.values):
        return False
    parts = {*one.parts, *other.parts}
    return any(any(m.values) for run in runs for m in run.tasks if m.metric == STRIPPED and m.task in parts)


def _unlike(
    one: MeasuredScore, other: MeasuredScore, before: dict[str, TaskCard], after: dict[str, TaskCard]
) -> list[str]:
    """What makes the two figures two instruments."""
    if (one.metric, one.higher_is_better, one.average) != (other.metric, other.higher_is_better, other.average):
        return [f"other measure ({one.metric} before, {other.metric} after)"]
    parts = dict.fromkeys(one.parts), dict.fromkeys(other.parts)
    if parts[0].keys() != parts[1].keys():
        return [f"other parts ({len(parts[0])} tasks before, {len(parts[1])} after)"]
    found = []
    for field in _SAME:
        differ = [t for t in parts[0] if getattr(before[t], field) != getattr(after[t], field)]
        if differ:
            was, now = getattr(before[differ[0]], field), getattr(after[differ[0]], field)
            shown = "" if field in ("prompt_sha256", "source") else f" ({was} before, {now} after)"
            what = "prompt" if field == "prompt_sha256" else field.replace("_", " ")
            found.append(f"other {what}{shown}" + (f" in {len(differ)} tasks" if len(differ) > 1 else ""))
    return found


def _benchmark(blank: Result, one: MeasuredScore, other: MeasuredScore, rules: Rules) -> Open:
    was = dict(zip(one.items, one.values, strict=True))
    now = {item: (value, part) for item, value, part in zip(other.items, other.values, other.parts, strict=True)}
    both = [item for item in now if item in was]
    counts = Pairs(
        paired=len(both),
        scored=len(both),
        unscored_before=one.undefined,
        unscored_after=other.undefined,
        only_before=len(was) - len(both),
        only_after=len(now) - len(both),
        questions=len(both),
    )
    if not both:
        return Open(msgspec.structs.replace(blank, why="other items: no item was asked in both runs", pairs=counts))
    before, after = [was[item] for item in both], [now[item][0] for item in both]
    parts = [now[item][1] for item in both] if other.average == "parts" else None
    notes = _notes(counts)
    unit = min(*before, *after) > -ROUNDING and max(*before, *after) < 1 + ROUNDING
    if not unit:
        notes.append("its scores are no shares: the margin says nothing about them")
    right_or_wrong = parts is None and {0.0, 1.0}.issuperset((*before, *after))

    def change(confidence: float) -> Change:
        return _towards_worse(before, after, parts, blank, rules._replace(confidence=confidence))

    result = msgspec.structs.replace(
        blank,
        pairs=counts,
        before=_side(one, set(both)),
        after=_side(other, set(both)),
        non_inferiority=unkept(rules) if unit else None,
        provisional=counts.scored < PROVISIONAL_BELOW * (counts.scored + counts.only_before + counts.only_after),
        notes=tuple(notes),
    )
    return Open(result, Test(change, "tango" if right_or_wrong else MEANS))


def _towards_worse(
    before: Sequence[float], after: Sequence[float], parts: Sequence[str] | None, blank: Result, rules: Rules
) -> Change:
    """The change as after minus before, with the margin held against the direction that is the worse one."""
    if blank.direction == "lower is better":
        return paired_means(before, after, parts, margin=rules.margin, confidence=rules.confidence)
    fall = paired_means(after, before, parts, margin=rules.margin, confidence=rules.confidence)
    return fall._replace(
        difference=0.0 - fall.difference, low=0.0 - fall.high, high=0.0 - fall.low, gained=fall.lost, lost=fall.gained
    )


def _side(measured: MeasuredScore, paired: Collection[str]) -> Side:
    """One run's figure over the paired items."""
    kept = [position for position, item in enumerate(measured.items) if item in paired]
    whole = msgspec.structs.replace(
        measured,
        items=tuple(measured.items[i] for i in kept),
        values=tuple(measured.values[i] for i in kept),
        parts=tuple(measured.parts[i] for i in kept),
    )
    assert whole.mean is not None
    return Side(whole.mean, (whole.interval.low, whole.interval.high), whole.interval.method)


def _notes(counts: Pairs) -> list[str]:
    found = []
    if counts.only_before or counts.only_after:
        found.append(
            f"asked or defined in one run only, and left out: {counts.only_before:,} before, "
            f"{counts.only_after:,} after"
        )
    return found
