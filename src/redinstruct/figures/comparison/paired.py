"""Two evaluations over the same questions: cell by cell, what changed, and whether chance explains it.

Promised: a pair is one question under one prompt in one epoch, asked in both runs; swapping the runs mirrors every
figure. The verdict is about the topics that were asked: their questions are the sample, a question that was asked
several times is one. What has no verdict in either run is left out of the test and bounds the difference instead. Where
people labelled both runs, their labels decide.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.comparison.labelled import Half, Labelled, labelled_change
from redinstruct.figures.comparison.runs import Evaluation, Judged, Prompt
from redinstruct.figures.comparison.values import Pairs, Result, Side, Topics
from redinstruct.figures.comparison.verdicts import Open, Rules, Test, decided, unkept
from redinstruct.figures.people import by_people
from redinstruct.run import Planned
from redinstruct.run.config import system_of
from redinstruct.stats import PROVISIONAL_BELOW, Change, paired_by_cluster, paired_by_question, wilson_by_question
from redinstruct.types import Measure, Sampling

FEWEST_TOPICS = 5
"""With fewer topics nothing is said of others: their differences cannot be told from chance."""
FEWEST_SUBTOPICS = 20
"""From so many on, subtopics are the sample of topics in general: they are more, and tell more."""

Pair = tuple[Planned, Planned]


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
    if before.config.system != after.config.system:
        was, now = (_shown(c.system and system_of(c.system)) for c in (before.config, after.config))
        found.append(f"other system prompt ({was} before, {now} after)")
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
        for was, now in _prompts(before.prompts, after.prompts):
            name = (now or was or Prompt("", "", None)).name
            blank = _blank(bank.name, name, judged)
            reasons = list(unlike)
            if was is None or now is None:
                reasons.insert(0, _other_prompt(name, was, before, after))
            if reasons:
                found.append(Open(msgspec.structs.replace(blank, why="; ".join(reasons))))
            elif was is not None and now is not None:
                cells = was_judged.cell(sha, was.sha256), judged.cell(sha, now.sha256)
                halves = (
                    Half(before, was_judged, list(cells[0].values())),
                    Half(after, judged, list(cells[1].values())),
                )
                found.append(_cell(blank, cells, halves, rules))
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
    return Result(name=name, bank=bank, prompt=prompt, measure=judged.measure.name, judge_id=judged.card.id)


# ---- one cell --------------------------------------------------------------------------------------------------------


def _cell(
    blank: Result,
    cells: tuple[dict[tuple[int, int], Planned], dict[tuple[int, int], Planned]],
    halves: tuple[Half, Half],
    rules: Rules,
) -> Open:
    """One bank and prompt, before Holm has seen the others: its verdict is still open."""
    one, other = cells
    measure = halves[1].judged.measure
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
        questions=len({b.unit for b, _ in scored}),
        topics=len({a.topic for _, a in scored if a.topic is not None}),
    )
    if not scored:
        why = "no pair has a verdict in both runs" if pairs else "no question was asked in both runs"
        return Open(msgspec.structs.replace(blank, why=why, pairs=counts, bounds=_bounds(pairs, measure)))
    hits = [[o.label == measure.first for o in half] for half in zip(*scored, strict=True)]
    units = [a.unit for _, a in scored]

    def judge(confidence: float) -> Change:
        return paired_by_question(hits[0], hits[1], units, margin=rules.margin, confidence=confidence)

    same = counts.only_before == counts.only_after == 0
    people = labelled_change(*halves, scored, rules) if same else None
    own = [_side(of, units, rules.confidence) for of in hits]
    sides = own if people is None else [_judged(s, j) for s, j in zip((people.before, people.after), own, strict=True)]
    result = msgspec.structs.replace(
        blank,
        pairs=counts,
        before=sides[0],
        after=sides[1],
        bounds=_bounds(pairs, measure),
        non_inferiority=unkept(rules),
        provisional=len(scored) < PROVISIONAL_BELOW * len(pairs),
        notes=tuple(_notes(counts, halves, people, same)),
    )
    if people is not None:
        result = msgspec.structs.replace(result, run_difference=people.run)
    alone = by_people(halves[1].judged.card)  # the labels are people's, and there is no judge of whom to speak
    test = Test(judge, "tango, people's labels", "people", len(scored)) if alone else Test(judge, "tango", "judge")
    topics = _topics(scored, hits, rules)
    if people is None:
        return Open(result, test, None, topics, True)
    return Open(result, people.test, None if alone else test, topics, True)


def _side(hits: Sequence[bool], units: Sequence[int], confidence: float) -> Side:
    """The judge's own rate over the scored pairs."""
    of: dict[int, list[bool]] = {}
    for hit, unit in zip(hits, units, strict=True):
        of.setdefault(unit, []).append(hit)
    found = wilson_by_question([sum(x) for x in of.values()], [len(x) for x in of.values()], confidence)
    share = sum(hits) / len(hits)
    return Side(share, (found.low, found.high), found.method, None, share, sum(hits))


def _judged(people: Side, judge: Side) -> Side:
    """People's rate, with the judge's own share beside it."""
    return msgspec.structs.replace(people, judged=judge.judged, positive=judge.positive)


def _topics(scored: Sequence[Pair], hits: Sequence[Sequence[bool]], rules: Rules) -> Topics | None:
    """The change of topics in general, by subtopic where there are enough; None of too few topics.

    A question without a topic among others that have one is a cluster of its own.
    """
    for by, fewest in (("subtopic", FEWEST_SUBTOPICS), ("topic", FEWEST_TOPICS)):
        names: list[Hashable] = [_topic(a, by) for _, a in scored]
        of: dict[Hashable, list[int]] = {}
        for name, was, now in zip(names, *hits, strict=True):
            if name is not None:
                of.setdefault(name, []).append(int(now) - int(was))
        if len(of) >= fewest:
            break
    else:
        return None
    clusters = [a.unit if name is None else name for name, (_, a) in zip(names, scored, strict=True)]
    change = paired_by_cluster(hits[0], hits[1], clusters, confidence=rules.confidence)
    means = [sum(x) / len(x) for x in of.values()]
    return Topics(
        change.difference, (change.low, change.high), f"tango, clustered by {by}", None, by, len(of),
        (min(means), max(means)), change.p_value, change.p_value, change.design_effect, change.freedom,
    )  # fmt: skip


def _topic(outcome: Planned, by: str) -> Hashable | None:
    """The name of the cluster, None where the bank gives none; two topics may have subtopics of one name."""
    if by == "topic":
        return outcome.topic
    return None if outcome.subtopic is None else (outcome.topic, outcome.subtopic)


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
        lost = sum(key in half.run.people.lost for key in half.people.keys)
        if people is not None and lost:
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
