"""Two evaluations over the same questions: cell by cell, what changed, and whether chance explains it.

Promised: a pair is one question under one prompt in one epoch, asked in both runs; swapping the runs mirrors every
figure. What has no verdict in either run is left out of the test and bounds the difference instead. Not promised: that
the judge is right; where people labelled both runs, the difference of the corrected rates stands beside the judge's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import msgspec

from redinstruct.comparison.runs import Evaluation, Judged, Prompt
from redinstruct.comparison.values import Corrected, Difference, NonInferiority, Pairs, Result, Side, Unclustered, Word
from redinstruct.comparison.words import clusters_in_words, people_in_words, why_in_words
from redinstruct.errors import UsageError
from redinstruct.stats import PROVISIONAL_BELOW, Change, Interval, detectable, detectable_mean, holm, paired_by_cluster
from redinstruct.store import Planned
from redinstruct.types import Measure, Sampling

FEWEST_TOPICS = 5
"""With fewer topics their differences cannot be told from chance: the questions then count as independent."""

MEANS = "paired t"
"""The method of a difference of mean scores."""

Pair = tuple[Planned, Planned]


class Rules(NamedTuple):
    """What was fixed before: the margin and the confidence."""

    margin: float
    confidence: float

    @property
    def level(self) -> float:
        """One minus the confidence."""
        return 1.0 - self.confidence


def compare_evaluations(before: Evaluation, after: Evaluation, rules: Rules) -> list[Result]:
    """Every bank and prompt of either run, under every judge that both share; Holm's family is a judge's cells.

    Raises:
        UsageError: the runs have no bank in common.
    """
    if not before.banks.keys() & after.banks.keys():
        names = ["+".join(bank.name for bank in run.config.banks) for run in (before, after)]
        same = " (another file of the same name)" if names[0] == names[1] else ""
        raise UsageError(
            f"{before.folder} and {after.folder} asked different banks, {names[0]} and {names[1]}{same}: "
            "nothing can be paired"
        )
    shared = [
        (one, other) for other in after.judged for one in before.judged if one.card.id == other.card.id
    ]  # in the order of the run after
    unlike = _unlike(before, after)
    if not shared:
        shared, unlike = [(before.judged[0], after.judged[0])], [_other_judge(before, after), *unlike]
    results: list[Result] = []
    for one, other in shared:
        results += decided(_cells(before, after, one, other, unlike, rules), rules)
    return results


def _unlike(before: Evaluation, after: Evaluation) -> list[str]:
    """What makes the two runs two experiments: sampling (the seed apart), chat template, protocol, request options."""
    found = []
    for field in Sampling.__struct_fields__:
        was, now = getattr(before.config.sampling, field), getattr(after.config.sampling, field)
        if field != "seed" and was != now:
            found.append(f"other sampling ({field} {_shown(was)} before, {_shown(now)} after)")
    for field, name in (("chat_template", "chat template"), ("protocol", "protocol"), ("options", "request options")):
        was, now = getattr(before.config, field), getattr(after.config, field)
        if was != now:
            found.append(f"other {name} ({_shown(was)} before, {_shown(now)} after)")
    return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join("=".join(v) if isinstance(v, tuple) else repr(v) for v in value) or "none"
    return "unset" if value is None else str(value)


def _other_judge(before: Evaluation, after: Evaluation) -> str:
    one, other = before.judged[0], after.judged[0]
    if one.measure.name != other.measure.name:
        return f"other measure ({one.measure.name} before, {other.measure.name} after)"
    return (
        f"other judge ({one.card.id} before, {other.card.id} after): `redinstruct judge` lets one judge read both runs"
    )


# ---- which cells there are -------------------------------------------------------------------------------------------


def _cells(
    before: Evaluation, after: Evaluation, one: Judged, other: Judged, unlike: Sequence[str], rules: Rules
) -> list[Result]:
    found: list[Result] = []
    banks = {**after.banks, **{sha: bank for sha, bank in before.banks.items() if sha not in after.banks}}
    for sha, bank in banks.items():
        blank = _blank(bank.name, None, other)
        if sha not in before.banks or sha not in after.banks:
            where = "after" if sha in after.banks else "before"
            found.append(msgspec.structs.replace(blank, why=f"other bank: only the run {where} asked it"))
            continue
        for was, now in _prompts(before.prompts, after.prompts):
            name = (now or was or Prompt("", "", None)).name
            blank = _blank(bank.name, name, other)
            reasons = list(unlike)
            if was is None or now is None:
                reasons.insert(0, _other_prompt(name, was, before, after))
            if reasons:
                found.append(msgspec.structs.replace(blank, why="; ".join(reasons)))
            elif was is not None and now is not None:
                cells = one.cell(sha, was.sha256), other.cell(sha, now.sha256)
                people = [
                    judged.corrected(cell.values(), run.people, rules.confidence)
                    for judged, cell, run in zip((one, other), cells, (before, after), strict=True)
                ]
                found.append(_cell(blank, cells, other.measure, people, rules))
    return found


def _prompts(before: Sequence[Prompt], after: Sequence[Prompt]) -> list[tuple[Prompt | None, Prompt | None]]:
    """The same text in both runs; else each model's own translation of one shipped text; else one side alone."""
    left = list(before)
    found: list[tuple[Prompt | None, Prompt | None]] = []
    for now in after:
        same = [p for p in left if p.sha256 == now.sha256] or [
            p for p in left if now.translation_of is not None and (p.name, p.translation_of) == (now.name, now[2])
        ]
        found.append((same[0] if same else None, now))
        if same:
            left.remove(same[0])
    return [*found, *((was, None) for was in left)]


def _other_prompt(name: str, was: Prompt | None, before: Evaluation, after: Evaluation) -> str:
    if name in {p.name for p in (after if was is not None else before).prompts}:
        return f"other prompt: {name} is another text in the other run"
    return f"other prompt: only the run {'before' if was is not None else 'after'} asked it"


def _blank(bank: str, prompt: str | None, judged: Judged) -> Result:
    name = bank if prompt is None else f"{bank}/{prompt}"
    return Result("not comparable", "", name, bank, prompt, judged.measure.name, judged.card.id, "lower is better")


# ---- one cell --------------------------------------------------------------------------------------------------------


def _cell(
    blank: Result,
    cells: tuple[dict[tuple[int, int], Planned], dict[tuple[int, int], Planned]],
    measure: Measure,
    people: Sequence[tuple[Interval, int] | None],
    rules: Rules,
) -> Result:
    """One bank and prompt, before Holm has seen the others: its verdict is still open."""
    one, other = cells
    pairs = [(one[key], other[key]) for key in other if key in one]
    two = measure.labels[:2]
    scored = [(b, a) for b, a in pairs if b.label in two and a.label in two]
    counts = Pairs(
        paired=len(pairs),
        scored=len(scored),
        unscored_before=sum(b.label not in two for b, _ in pairs),
        unscored_after=sum(a.label not in two for _, a in pairs),
        only_before=len(one) - len(pairs),
        only_after=len(other) - len(pairs),
        questions=len({b.row for b, _ in scored}),
    )
    if not scored:
        why = "no pair has a verdict in both runs" if pairs else "no question was asked in both runs"
        return msgspec.structs.replace(blank, why=why, pairs=counts, bounds=_bounds(pairs, measure))
    by, clusters = _clusters(scored)
    hits = [[o.label == measure.first for o in side] for side in zip(*scored, strict=True)]
    change = paired_by_cluster(hits[0], hits[1], clusters, margin=rules.margin, confidence=rules.confidence)
    sides = [_side(side, found) for side, found in zip(hits, people, strict=True)]
    same = counts.only_before == counts.only_after == 0
    return msgspec.structs.replace(
        blank,
        pairs=counts,
        before=sides[0],
        after=sides[1],
        difference=difference_of(change, by),
        bounds=_bounds(pairs, measure),
        corrected_difference=_corrected_difference(sides[0], sides[1]) if same else None,
        non_inferiority=NonInferiority(rules.margin, change.p_margin, change.p_margin, False),
        provisional=len(scored) < PROVISIONAL_BELOW * len(pairs),
        notes=tuple(_notes(counts, scored, sides)),
    )


def _clusters(scored: Sequence[Pair]) -> tuple[str | None, list[Hashable] | None]:
    """By topic where there are enough; else by question where one was asked several times; else independent pairs.

    A question without a topic among others that have one is a cluster of its own.
    """
    if len(_topics(scored)) >= FEWEST_TOPICS:
        return "topic", [a.row if a.topic is None else a.topic for _, a in scored]
    rows: list[Hashable] = [a.row for _, a in scored]
    return ("question", rows) if len(set(rows)) < len(rows) else (None, None)


def _topics(scored: Sequence[Pair]) -> set[str]:
    return {a.topic for _, a in scored if a.topic is not None}


def _side(hits: Sequence[bool], found: tuple[Interval, int] | None) -> Side:
    """One run's figure, and what people's labels correct it to."""
    people = None
    if found is not None and found[0].estimate is not None:
        people = Corrected(found[0].estimate, found[0].low, found[0].high, found[1])
    return Side(sum(hits) / len(hits), sum(hits), people)


def _bounds(pairs: Sequence[Pair], measure: Measure) -> tuple[float, float] | None:
    """The differences over all paired attempts, whatever those without a verdict were; None without a pair."""
    if not pairs:
        return None

    def ends(outcome: Planned) -> tuple[int, int]:
        if outcome.label in measure.labels[:2]:
            return (hit := int(outcome.label == measure.first)), hit
        return 0, 1

    low = sum(ends(a)[0] - ends(b)[1] for b, a in pairs)
    high = sum(ends(a)[1] - ends(b)[0] for b, a in pairs)
    return low / len(pairs), high / len(pairs)


def difference_of(change: Change, by: str | None, method: str = "tango") -> Difference:
    """A change as a result holds it; the p-values are Holm's first, and the verdict without clusters is open."""
    alone = change.unclustered
    return Difference(
        change.difference, change.low, change.high, f"{method}, clustered by {by}" if by else method, change.p_value,
        change.p_value, change.gained, change.lost, by, change.clusters, change.design_effect, change.freedom,
        alone and Unclustered(alone.low, alone.high, alone.p_value, alone.p_value, "no difference shown"),
    )  # fmt: skip


def _corrected_difference(before: Side, after: Side) -> Corrected | None:
    """The difference of two corrected rates, as if the two runs' labels were independent: never too narrow for pairs
    that agree more often than chance.

    Source: Zou & Donner, Statistics in Medicine 27 (2008) 1693-1702, equation 5 (MOVER) without the correlation.
    """
    one, other = before.corrected, after.corrected
    if one is None or other is None:
        return None
    change = other.estimate - one.estimate
    down = math.hypot(other.estimate - other.low, one.high - one.estimate)
    up = math.hypot(other.high - other.estimate, one.estimate - one.low)
    return Corrected(change, max(change - down, -1.0), min(change + up, 1.0), min(one.labels, other.labels))


def _notes(counts: Pairs, scored: Sequence[Pair], sides: Sequence[Side]) -> list[str]:
    found = []
    lost = counts.paired - counts.scored
    if lost:
        found.append(
            f"{lost:,} of {counts.paired:,} pairs have no verdict in one run or both "
            f"({counts.unscored_before:,} before, {counts.unscored_after:,} after): left out of the test, not of the "
            "bounds"
        )
    if counts.only_before or counts.only_after:
        found.append(f"asked in one run only, and left out: {counts.only_before:,} before, {counts.only_after:,} after")
    topics = len(_topics(scored))
    if 1 < topics < FEWEST_TOPICS:
        found.append(f"{topics} topics are too few to cluster by: the figures are about these topics")
    labelled = [word for word, side in zip(("before", "after"), sides, strict=True) if side.corrected is not None]
    if len(labelled) == 1:
        found.append(f"people labelled only the run {labelled[0]}: the difference is the judge's, uncorrected")
    return found


# ---- the verdicts ----------------------------------------------------------------------------------------------------


def decided(results: Sequence[Result], rules: Rules) -> list[Result]:
    """The same results with their verdicts: Holm over those that could be tested, for the test, the same test as if
    nothing came in clusters, and the margin.
    """
    tested = [r.difference for r in results if r.difference is not None]
    adjusted = iter(holm([d.p_value for d in tested]))
    alone = iter(holm([d.p_value if d.unclustered is None else d.unclustered.p_value for d in tested]))
    margins = iter(holm([r.non_inferiority.p_value for r in results if r.non_inferiority is not None]))
    found = []
    for result in results:
        kept = result.non_inferiority
        if kept is not None:
            p_margin = next(margins)
            kept = msgspec.structs.replace(kept, p_holm=p_margin, shown=p_margin <= rules.level / 2)
        if result.difference is not None:
            change = _adjusted(result, result.difference, next(adjusted), next(alone), rules)
            result = _decide(msgspec.structs.replace(result, non_inferiority=kept), change, len(tested), rules)
        found.append(result)
    return found


def _adjusted(result: Result, change: Difference, p_holm: float, p_alone: float, rules: Rules) -> Difference:
    """The difference with Holm's p-values, with and without clusters."""
    alone = change.unclustered
    if alone is not None:
        alone = msgspec.structs.replace(alone, p_holm=p_alone, verdict=_word(result, change.estimate, p_alone, rules))
    return msgspec.structs.replace(change, p_holm=p_holm, unclustered=alone)


def _word(result: Result, estimate: float, p_holm: float, rules: Rules) -> Word:
    if p_holm > rules.level or estimate == 0:
        return "no difference shown"
    return "better" if (estimate > 0) is (result.direction == "higher is better") else "worse"


def _decide(result: Result, change: Difference, family: int, rules: Rules) -> Result:
    verdict = _word(result, change.estimate, change.p_holm, rules)
    shown = _detectable(result, change, 1 - rules.level / family, rules)
    result = msgspec.structs.replace(result, verdict=verdict, difference=change, detectable=shown)
    found = [note for note in (clusters_in_words(result), people_in_words(result)) if note]
    return msgspec.structs.replace(result, why=why_in_words(result), notes=(*result.notes, *found))


def _detectable(result: Result, change: Difference, confidence: float, rules: Rules) -> float:
    """What a test at Holm's strictest level would show in four of five cases."""
    if change.method == MEANS:
        return detectable_mean(change.low, change.high, confidence=rules.confidence, level=1 - confidence)
    if change.clusters == 1 or result.pairs is None:
        return 1.0
    n = result.pairs.scored
    return detectable(
        n, (change.gained + change.lost) / n, confidence=confidence, design_effect=change.design_effect,
        freedom=change.freedom,
    )  # fmt: skip
