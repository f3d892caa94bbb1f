"""Two evaluations over the same questions: cell by cell, what changed, and whether chance explains it.

Promised: a pair is one question under one prompt in one epoch, asked in both runs; swapping the runs mirrors every
figure. The verdict is about the topics that were asked: their questions are the sample, a question that was asked
several times is one. What has no verdict in either run is left out of the test and bounds the difference instead. Where
people labelled both runs, their labels decide.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.labelled import Half, Labelled, labelled_change
from redinstruct.figures.comparison.runs import Evaluation, Judged, Prompt
from redinstruct.figures.comparison.values import Pairs, Result, Side, TopicsChange
from redinstruct.figures.comparison.verdicts import Open, Rules, Test, decided, unkept
from redinstruct.figures.people import by_people
from redinstruct.questions import SENT
from redinstruct.run import Outcomes
from redinstruct.run.config import system_of
from redinstruct.stats import (
    PROVISIONAL_BELOW,
    Change,
    grouped,
    paired_by_cluster,
    paired_by_question,
    tallied,
    wilson,
    wilson_by_question,
)
from redinstruct.types import Measure, Sampling

FEWEST_TOPICS = 5
"""With fewer topics nothing is said of others: their differences cannot be told from chance."""
FEWEST_SUBTOPICS = 20
"""From so many on, subtopics are the sample of topics in general: they are more, and tell more."""

Pairing = tuple[Outcomes, Outcomes]
"""The attempts of both runs, place by place."""


def compare_evaluations(before: Evaluation, after: Evaluation, rules: Rules) -> list[Result]:
    """Every bank and prompt of either run, under one judge of both; Holm's family is all of them.

    The judge is the one that the run after was begun with, else the run before's, else any that both share.

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
    unlike = _unlike(before, after)
    one, other = _shared(before, after)
    if one.card.id != other.card.id:
        unlike = [_other_judge(one, other), *unlike]
    return decided(_cells((before, one), (after, other), unlike, rules), rules)


def _shared(before: Evaluation, after: Evaluation) -> tuple[Judged, Judged]:
    """The judge under whom the runs are compared, in each; two judges where they share none."""
    first = after.judged[0], before.judged[0]
    for wanted in (*first, *after.judged):
        both = [next((j for j in run.judged if j.card.id == wanted.card.id), None) for run in (before, after)]
        if both[0] is not None and both[1] is not None:
            return both[0], both[1]
    return before.judged[0], after.judged[0]


def _unlike(before: Evaluation, after: Evaluation) -> list[str]:
    """What makes the two runs two experiments: sampling (the seed apart), chat template, protocol, request options, the
    system prompt, and which columns of a bank were asked.
    """
    found = []
    for field in Sampling.__struct_fields__:
        was, now = getattr(before.config.sampling, field), getattr(after.config.sampling, field)
        if field != "seed" and was != now:
            found.append(f"other sampling ({field} {_shown(was)} before, {_shown(now)} after)")
    for field, name in (("chat_template", "chat template"), ("protocol", "protocol"), ("options", "request options")):
        was, now = getattr(before.config, field), getattr(after.config, field)
        if was != now:
            found.append(f"other {name} ({_shown(was)} before, {_shown(now)} after)")
    if before.config.system != after.config.system:
        was, now = (_shown(c.system and system_of(c.system)) for c in (before.config, after.config))
        found.append(f"other system prompt ({was} before, {now} after)")
    was, now = (tuple(one for one in c.columns if one[0] in SENT) for c in (before.config, after.config))
    if was != now:
        found.append(f"other columns of the bank ({_shown(was)} before, {_shown(now)} after)")
    return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join("=".join(v) if isinstance(v, tuple) else repr(v) for v in value) or "none"
    return "unset" if value is None else str(value)


def _other_judge(one: Judged, other: Judged) -> str:
    if one.measure.name != other.measure.name:
        return f"other measure ({one.measure.name} before, {other.measure.name} after)"
    return (
        f"other judge ({one.card.id} before, {other.card.id} after): `redinstruct judge` lets one judge read both runs"
    )


# ---- which cells there are -------------------------------------------------------------------------------------------


Read = tuple[Evaluation, Judged]


def _cells(one: Read, other: Read, unlike: Sequence[str], rules: Rules) -> list[Open]:
    (before, was_judged), (after, judged) = one, other
    found: list[Open] = []
    banks = {**after.banks, **{sha: bank for sha, bank in before.banks.items() if sha not in after.banks}}
    for sha, bank in banks.items():
        blank = _blank(bank.name, None, judged)
        if sha not in before.banks or sha not in after.banks:
            where = "after" if sha in after.banks else "before"
            found.append(Open(msgspec.structs.replace(blank, why=f"other bank: only the run {where} asked it")))
            continue
        for was, now in paired_prompts(before.prompts, after.prompts):
            name = (now or was or Prompt("", "", None)).name
            blank = _blank(bank.name, name, judged)
            reasons = list(unlike)
            if was is None or now is None:
                reasons.insert(0, _other_prompt(name, was, before, after))
            if reasons:
                found.append(Open(msgspec.structs.replace(blank, why="; ".join(reasons))))
            elif was is not None and now is not None:
                cells = was_judged.cell(sha, was.sha256), judged.cell(sha, now.sha256)
                halves = Half(before, was_judged, cells[0]), Half(after, judged, cells[1])
                found.append(_cell(blank, cells, halves, rules))
    return found


def paired_prompts(before: Sequence[Prompt], after: Sequence[Prompt]) -> list[tuple[Prompt | None, Prompt | None]]:
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
    return Result(name=name, bank=bank, prompt=prompt, measure=judged.measure.name, judge_id=judged.card.id)


# ---- one cell --------------------------------------------------------------------------------------------------------


def _cell(blank: Result, cells: Pairing, halves: tuple[Half, Half], rules: Rules) -> Open:
    """One bank and prompt, before Holm has seen the others: its verdict is still open."""
    measure = halves[1].judged.measure
    pairs = _paired(*cells)
    two = measure.labels[:2]
    scored = _scored(pairs, two)
    counts = _counted(cells, pairs, scored, two)
    if not scored[0]:
        why = "no pair has a verdict in both runs" if pairs[0] else "no question was asked in both runs"
        return Open(msgspec.structs.replace(blank, why=why, pairs=counts, bounds=_bounds(pairs, measure)))
    hits = [half.hits(measure.first) for half in scored]
    units = scored[1].unit if scored[1].repeated else None

    def judge(confidence: float) -> Change:
        return paired_by_question(hits[0], hits[1], units, margin=rules.margin, confidence=confidence)

    same = counts.only_before == counts.only_after == 0
    people = labelled_change(*halves, scored, rules) if same else None
    own = [_side(of, units, rules.confidence) for of in hits]
    if people is not None:  # their rates, with the judge's own shares beside them
        beside = zip((people.before, people.after), own, strict=True)
        own = [msgspec.structs.replace(said, judged=of.judged, positive=of.positive) for said, of in beside]
    result = msgspec.structs.replace(
        blank,
        pairs=counts,
        before=own[0],
        after=own[1],
        run_difference=None if people is None else people.run,
        bounds=_bounds(pairs, measure),
        non_inferiority=unkept(rules),
        provisional=counts.scored < PROVISIONAL_BELOW * counts.paired,
        notes=tuple(_notes(counts, halves, people, same)),
    )
    alone = by_people(halves[1].judged.card)  # the labels are people's, and there is no judge of whom to speak
    test = Test(judge, "tango, people's labels", "people", counts.scored) if alone else Test(judge, "tango", "judge")
    topics = _topics(scored[1], hits, rules)
    if people is None:
        return Open(result, test, None, topics)
    return Open(result, people.test, None if alone else test, topics)


def _counted(cells: Pairing, pairs: Pairing, scored: Pairing, two: Sequence[str]) -> Pairs:
    """How many attempts of the two cells are pairs, and how many of these are scored in both runs."""
    return Pairs(
        paired=len(pairs[0]),
        scored=len(scored[0]),
        unscored_before=_unscored(pairs[0], two),
        unscored_after=_unscored(pairs[1], two),
        only_before=len(cells[0]) - len(pairs[0]),
        only_after=len(cells[1]) - len(pairs[0]),
        questions=len(set(scored[0].unit)) if scored[0].repeated else len(scored[0]),
        topics=len(scored[1].by_topic.keys() - {None}),
    )


def _paired(one: Outcomes, other: Outcomes) -> Pairing:
    """What both runs asked, in the order of the run after: the same row in the same epoch."""
    if one.row == other.row and one.epoch == other.epoch:
        return one, other
    places = {place: at for at, place in enumerate(zip(one.row, one.epoch, strict=True))}
    both = [(places.get(place), at) for at, place in enumerate(zip(other.row, other.epoch, strict=True))]
    return one.taken([b for b, _ in both if b is not None]), other.taken([a for b, a in both if b is not None])


def _scored(pairs: Pairing, two: Sequence[str]) -> Pairing:
    """The pairs that have a verdict in both runs."""
    good = [[way.label in two for way in half.ways] for half in pairs]
    ways = zip(pairs[0].way, pairs[1].way, strict=True)
    places = array("I", (at for at, (b, a) in enumerate(ways) if good[0][b] and good[1][a]))
    return pairs if len(places) == len(pairs[0]) else (pairs[0].taken(places), pairs[1].taken(places))


def _unscored(half: Outcomes, two: Sequence[str]) -> int:
    return len(half) - sum(count for way, count in half.told.items() if way.label in two)


def _side(hits: Sequence[bool], units: Sequence[int] | None, confidence: float) -> Side:
    """The judge's own rate over the scored pairs."""
    if units is None:
        found = wilson(sum(hits), len(hits), confidence)
    else:
        found = wilson_by_question(*tallied(hits, units), confidence)
    share = sum(hits) / len(hits)
    return Side(share, (found.low, found.high), found.method, None, share, sum(hits))


def _topics(scored: Outcomes, hits: Sequence[Sequence[bool]], rules: Rules) -> TopicsChange | None:
    """The change of topics in general, by subtopic where there are enough; None of too few topics.

    A question without a topic among others that have one is a cluster of its own.
    """
    for by, fewest in (("subtopic", FEWEST_SUBTOPICS), ("topic", FEWEST_TOPICS)):
        named = [_topic(group, by) for group in scored.groups]
        names = list(map(named.__getitem__, scored.group))
        of = grouped(names, [int(now) - int(was) for was, now in zip(*hits, strict=True)])
        of.pop(None, None)
        if len(of) >= fewest:
            break
    else:
        return None
    clusters = [unit if name is None else name for name, unit in zip(names, scored.unit, strict=True)]
    change = paired_by_cluster(hits[0], hits[1], clusters, confidence=rules.confidence)
    means = [sum(x) / len(x) for x in of.values()]
    return TopicsChange(
        change.difference, (change.low, change.high), f"tango, clustered by {by}", None, by, len(of),
        (min(means), max(means)), change.p_value, change.p_value, change.design_effect, change.freedom,
    )  # fmt: skip


def _topic(group: tuple[str | None, str | None], by: str) -> Hashable | None:
    """The name of the cluster, None where the bank gives none; two topics may have subtopics of one name."""
    if by == "topic":
        return group[0]
    return None if group[1] is None else group


def _bounds(pairs: Pairing, measure: Measure) -> tuple[float, float] | None:
    """The differences over all paired attempts, whatever those without a verdict were; None without a pair."""
    total = len(pairs[0])
    if not total:
        return None
    hits = [sum(count for way, count in half.told.items() if way.label == measure.first) for half in pairs]
    open_ = [_unscored(half, measure.labels[:2]) for half in pairs]
    return (hits[1] - hits[0] - open_[0]) / total, (hits[1] + open_[1] - hits[0]) / total


def _notes(counts: Pairs, halves: Sequence[Half], people: Labelled | None, same: bool) -> list[str]:
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
    for word, half in zip(("before", "after"), halves, strict=True):
        if doubts := half.run.doubts(half.judged, half.cell):
            found.append(f"{word}: {', '.join(doubts)}")
        if people is not None and (lost := len(half.people.lost)):
            found.append(f"{word}: {lost:,} answers that people saw and did not settle are left out")
    if by_people(halves[1].judged.card):
        return found
    labelled = [word for word, half in zip(("before", "after"), halves, strict=True) if half.people.human]
    if len(labelled) == 1:
        found.append(f"people labelled only the run {labelled[0]}: the difference is the judge's, uncorrected")
    elif labelled and people is None:
        found.append(
            "people labelled both runs, but other questions were asked: the difference is the judge's, uncorrected"
            if not same
            else "people labelled too few answers to correct by (5 of each of the judge's labels, or all, in both runs)"
            ": the difference is the judge's, uncorrected"
        )
    return found
