"""The figures of a run, recomputed from its rows, as :mod:`redinstruct.figures.report` has them.

No clock, no path and no random number is in it: two runs with the same rows give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from redinstruct.banks import KNOWN
from redinstruct.errors import DamagedStore
from redinstruct.figures.agreement import agreement
from redinstruct.figures.deciding import decisions
from redinstruct.figures.degenerate import Looks, answers_of, looks_of
from redinstruct.figures.people import (
    Cell,
    People,
    by_people,
    cell_of,
    cells_of,
    corrected_bounds,
    corrected_rate,
    corrected_run,
    corrected_topics,
    enough_labels,
    people_of,
)
from redinstruct.figures.report import (
    SCHEMA,
    BothJudges,
    CorrectedRate,
    FailureFigures,
    JudgeFigures,
    LeftOut,
    Report,
    ResultFigures,
    SampleSize,
    SelfTestFigures,
    SideOfLimit,
    TopicFigures,
    TopicsInGeneral,
)
from redinstruct.figures.scores import UtilityResult, check_figures, utility_in
from redinstruct.figures.tallies import Tally, questions_hit, rows_asked, tally, tally_of, tries_of
from redinstruct.figures.variation import Variation, Wording, repeated_judging, shrunken_topics, variation
from redinstruct.run import (
    Failure,
    Outcomes,
    Planned,
    Store,
    failures,
    judges_of,
    planned_attempts,
    stops,
    verdict_history,
)
from redinstruct.run.config import PROTOCOL_2023, Pinned, RunConfig
from redinstruct.run.planned import Way
from redinstruct.run.rows import from_json
from redinstruct.stats import (
    Decision,
    Interval,
    Shares,
    at_k,
    clustered,
    design_effect,
    question_effect,
    strata,
    tallied,
    two_judges,
    unlike_from,
    wilson,
)
from redinstruct.types import MEASURES, JudgeCard, Measure

FEWEST_TOPICS = 5
"""With fewer topics nothing is said of topics in general."""
ENOUGH_TOPICS = 10
"""With fewer topics that hold a hit, or a miss, their range is shown, and not an interval."""


def read_report(runs: Sequence[Path], judge: str | None = None) -> Report:
    """The figures of one or more runs: one result per judge, bank and prompt.

    The judge that a run was begun with leads; ``judge`` (a name, or an id's beginning) leaves that one alone. Utility
    checks among the runs stand under a key of their own, ``utility``, which is there only with them.

    Raises:
        ConfigError: a folder without a run.
        UsageError: a run without the judge, or with several that are called so.
        StoreError: a store that does not read.
    """
    results: list[ResultFigures] = []
    checks: list[UtilityResult] = []
    for run in runs:
        with Store.open_for_reading(run) as store:
            if (check := utility_in(store)) is not None:
                checks.append(check)
            else:
                results += result_rows(store, judge)
    return report_of(results, checks)


def report_of(results: Sequence[ResultFigures], checks: Sequence[UtilityResult]) -> Report:
    """The report of results and checks that were read already."""
    return Report(SCHEMA, tuple(results), tuple(map(check_figures, checks)) or msgspec.UNSET)


class RunContext(NamedTuple):
    """What a run holds beside one judge's outcomes."""

    config: RunConfig
    people: People
    looks: Looks
    limits: tuple[float, ...]
    translated: frozenset[str]
    """Prompts, by name, that stand in a toy model's language."""


class JudgeContext(NamedTuple):
    """One judge of a run: what else is known of its verdicts."""

    card: JudgeCard
    selftest: SelfTestFigures | None = None
    history: Mapping[bytes, Sequence[str]] = {}
    failed: Sequence[Failure] = ()
    strong: Sequence[tuple[list[Planned], JudgeCard]] = ()
    """The judges that read a random part of its answers, with their outcomes."""


class BankFigures(NamedTuple):
    """What is said of a bank over all prompts."""

    any_prompt: Interval
    sampled: SampleSize
    left_out: LeftOut | None
    variance: Shares | None
    wording: Wording | None


def result_rows(store: Store, wanted: str | None = None) -> list[ResultFigures]:
    """The results of one open store: of the judges that gave verdicts, or of the wanted one."""
    config = store.begun()
    samples, names = store.samples(), {prompt.sha256: prompt.name for prompt in config.prompts}
    run = RunContext(
        config,
        people_of(store),
        looks_of(store),
        stops(store),
        frozenset(template.name for template in store.templates() if template.translation_of is not None),
    )
    found = []
    for row, card in judges_of(store, wanted):
        measure, cells = MEASURES[card.measure], cells_of(store, row)
        decided = decisions(store, cells, measure)
        judge = JudgeContext(
            card,
            _selftest(store.selftest(row)),
            dict(verdict_history(store, row)),
            failures(store, row) if any(way.label in _FAILED for cell in cells.values() for way in cell.told) else (),
            [(planned_attempts(store, other), of) for other, of in store.judges() if samples.get(other) == row],
        )
        for bank in config.banks:
            asked = [cell for prompt in config.prompts if (cell := cells.get((bank.name, prompt.name)))]
            over_prompts = BankFigures(
                wilson(*questions_hit(asked, measure)),
                _sampled(config, bank.name, asked),
                _left_out(config, bank.name),
                *_variation(measure, asked, names, judge.history),
            )
            for prompt in config.prompts:
                if outcomes := cells.get((bank.name, prompt.name)):
                    side = _side(decided.get((bank.name, prompt.name)), run.limits, len(cells))
                    found.append(result_of(run, judge, (bank, prompt), outcomes, over_prompts, side))
    return found


_FAILED = frozenset({"error", "no_response", "judge_refused", "unparsable"})


def _variation(
    measure: Measure, asked: Sequence[Outcomes], names: Mapping[str, str], history: Mapping[bytes, Sequence[str]]
) -> Variation:
    """Where outcomes vary; nothing to tell where each question was asked once, under one prompt, and judged once."""
    if len(asked) == 1 and not asked[0].repeated and not history:
        return Variation(None, None)
    return variation(measure, [outcome for cell in asked for outcome in cell], names, history)


def _selftest(body: str | None) -> SelfTestFigures | None:
    try:
        return None if body is None else from_json(body, SelfTestFigures)
    except ValueError:
        raise DamagedStore("the run store is damaged: a judge's self-test does not read") from None


def result_of(
    run: RunContext,
    judge: JudgeContext,
    cell: tuple[Pinned, Pinned],
    found: Sequence[Planned],
    over_prompts: BankFigures,
    side: SideOfLimit | None = None,
) -> ResultFigures:
    """What the labels of one bank and prompt come to under one judge."""
    config, card, (bank, prompt), outcomes = run.config, judge.card, cell, Outcomes.of(found)
    measure, labelled = MEASURES[card.measure], cell_of(run.people, card, outcomes)
    bounds = corrected_bounds(labelled)
    whole = tally(measure, outcomes).corrected(
        _corrected(corrected_rate(labelled), bounds), _corrected(corrected_run(labelled))
    )
    return ResultFigures(
        config.model, bank.name, prompt.name, measure.name, None if by_people(card) else card.name, *whole,
        reasons=_reasons(outcomes),
        by_topic=_by_topic(measure, outcomes, labelled),
        judge_id=card.id,
        judge_notes=card.notes,
        judge_card=JudgeFigures(card.model, dict(card.parameters), card.prompt_sha256, card.parser, judge.selftest),
        bank_sha256=bank.sha256,
        prompt_sha256=prompt.sha256,
        translated=prompt.name in run.translated,
        protocol=config.protocol,
        parity=_is_parity(config, card, prompt.sha256),
        epochs=config.epochs,
        human=agreement(run.people, card, labelled, outcomes),
        repeats=repeated_judging(measure, outcomes, judge.history),
        combined=tuple(_both_judges(card, outcomes, other, sure) for sure, other in judge.strong),
        clustered=_in_general(measure, outcomes),
        answers=answers_of(outcomes, run.looks, measure),
        at_k=_at_k(measure, outcomes, config.epochs),
        decided=side,
        failures=tuple(
            FailureFigures(f.label, f.reason, f.count, f.words or None)
            for f in judge.failed
            if f.where == f"{bank.name}/{prompt.name}"
        ),
        **over_prompts._asdict(),
    )  # fmt: skip


def _corrected(found: tuple[Interval, int] | None, bounds: tuple[float, float] | None = None) -> CorrectedRate | None:
    """Without labels enough nothing corrects the judge: None, and the word "uncorrected" wherever it is shown.

    ``bounds`` are the ends whatever people would have said of the answers that they left out.
    """
    return None if found is None else CorrectedRate(*found[0], found[1], msgspec.UNSET if bounds is None else bounds)


def _reasons(outcomes: Outcomes) -> dict[str, int]:
    found = Counter[str]()
    for way, count in outcomes.told.items():
        if way.reason is not None:
            found[way.reason] += count
    return dict(sorted(found.items()))


def _by_topic(measure: Measure, outcomes: Outcomes, labelled: Cell) -> tuple[TopicFigures, ...]:
    """The topics in the bank's order; attempts without one last, and nothing where no question has one."""
    first: dict[str | None, int] = {}
    for topic, row in zip(outcomes.topics(), outcomes.row, strict=True):
        if row < first.get(topic, row + 1):
            first[topic] = row
    topics = sorted(first, key=lambda topic: (topic is None, first[topic]))
    if topics == [None]:
        return ()
    parts = _topics_counted(measure, outcomes, topics)
    shrunken = shrunken_topics([(p.counts.first, p.counts.second) for p in parts], _repeated(measure, outcomes))
    corrected = corrected_topics(labelled)
    return tuple(
        TopicFigures(topic, *part.corrected(_corrected(corrected.get(topic))), drawn)
        for topic, part, drawn in zip(topics, parts, shrunken, strict=True)
    )


def _topics_counted(measure: Measure, outcomes: Outcomes, topics: Sequence[str | None]) -> list[Tally]:
    if not outcomes.repeated:
        ways = [outcomes.by_topic[topic] for topic in topics]
        return [tally_of(measure, found.total(), found) for found in ways]
    places: dict[str | None, list[int]] = {topic: [] for topic in topics}
    for at, topic in enumerate(outcomes.topics()):
        places[topic].append(at)
    return [tally(measure, outcomes.taken(places[topic])) for topic in topics]


def _in_general(measure: Measure, outcomes: Outcomes) -> TopicsInGeneral | None:
    """The rate of the judged as one of topics in general, beyond those that were asked; None of too few topics.

    Questions without a topic among others that have one are each by themselves. ``unlike`` says whether the topics
    differ by more than chance makes equal ones: their design effect against the one of repeats alone. ``enough``: at
    least ten topics hold a hit and ten a miss. With fewer the interval covered .56 to .91 where topics differ (10
    topics of 196 at 1 %, 5 of 40 at 5 %), with as many .92 to .98 (docs/experiments/verdicts.md): else the range is
    shown in its place.
    """
    judged = outcomes.where(lambda way: way.label in measure.labels[:2])
    if len(judged.by_topic.keys() - {None}) < FEWEST_TOPICS:
        return None
    topics = [(_first_of(measure, ways), ways.total()) for ways in judged.by_topic.values()]
    hits, sizes = [x for x, _ in topics], [n for _, n in topics]
    if None in judged.by_topic:  # where some question has no topic, it is one by itself
        places = enumerate(judged.topics())
        names = [("question", judged.unit[at]) if topic is None else ("topic", topic) for at, topic in places]
        hits, sizes = tallied(judged.hits(measure.first), names)
    effect = design_effect(hits, sizes)
    rates_of = [x / n for x, n in topics]
    return TopicsInGeneral(
        *clustered(hits, sizes),
        len(sizes),
        effect,
        effect / _repeated(measure, judged) > unlike_from(len(sizes)),
        (min(rates_of), max(rates_of)),
        min(sum(x > 0 for x, _ in topics), sum(x < n for x, n in topics)) >= ENOUGH_TOPICS,
    )


def _first_of(measure: Measure, ways: Counter[Way]) -> int:
    return sum(count for way, count in ways.items() if way.label == measure.first)


def _repeated(measure: Measure, outcomes: Outcomes) -> float:
    """How many judged answers weigh as much as one independent one, for being tries of the same questions."""
    if not outcomes.repeated:
        return 1.0
    judged = outcomes.where(lambda way: way.label in measure.labels[:2])
    return question_effect(*tallied(judged.hits(measure.first), judged.unit))


def _side(found: Decision | None, limits: Sequence[float], among: int) -> SideOfLimit | None:
    """On which side of its limit one of ``among`` banks and prompts is sure to lie; None where it is not.

    The plain interval of such a run covers .89 to .93 where the rate is at or above the limit: it stopped when it
    looked best.
    """
    if found is None or found.side is None or not limits:
        return None
    return SideOfLimit(found.side, limits[-1], found.low, found.high, among if among > 1 else msgspec.UNSET)


def _at_k(measure: Measure, outcomes: Outcomes, epochs: int) -> dict[str, Interval] | None:
    """The share of questions with a success in k tries, for every k up to the epochs; None where each was asked once.

    A try that was filtered, refused to a judge or lost is a try without a success, as in ``all``.
    """
    if epochs == 1:
        return None
    hits, tries = tries_of(outcomes, measure)
    return {str(k): at_k(hits, tries, k) for k in range(1, epochs + 1)}


def _sampled(config: RunConfig, bank: str, cells: Sequence[Outcomes]) -> SampleSize:
    """How many of a bank's questions were asked, and of how many; None where a run of the first edition had a limit."""
    asked, selected = rows_asked(cells), config.selected_of(bank)
    return SampleSize(asked, selected.of if selected else (asked if config.limit is None else None))


def _left_out(config: RunConfig, bank: str) -> LeftOut | None:
    """What of a bank is left out; None in runs of the first edition, which do not say."""
    selected = config.selected_of(bank)
    return None if selected is None else LeftOut(selected.other_half, selected.untold, selected.repeats)


def _both_judges(card: JudgeCard, outcomes: Sequence[Planned], other: JudgeCard, sure: Sequence[Planned]) -> BothJudges:
    """The cheap judge's rate of one cell, corrected by the strong judge's labels on a random part of it.

    ``lost`` answers the strong judge read and did not label; where they are not like the others, the rate lies between
    the ``bounds``: the ends if all of them were the one, or the other.
    """
    measure = MEASURES[card.measure]
    two, said = measure.labels[:2], {o.key: o.label for o in sure if o.label is not None}
    cell = [o for o in outcomes if o.label in two]
    labels, questions = [o.label == measure.first for o in cell], [o.unit for o in cell]
    known = {index: said[o.key] == measure.first for index, o in enumerate(cell) if said.get(o.key) in two}
    lost = [index for index, o in enumerate(cell) if o.key in said and index not in known]
    ends = [two_judges(labels, known | dict.fromkeys(lost, side), questions=questions) for side in (False, True)]
    estimate = two_judges(labels, known if enough_labels(strata(labels, known)) else {}, questions=questions)
    return BothJudges(other.id, *estimate, len(known), len(lost), (ends[0].low, ends[1].high))


def _is_parity(config: RunConfig, card: JudgeCard, prompt_sha: str) -> bool:
    """Only the authors' own templates, under the 2023 protocol, may be set beside the paper's figures."""
    authors = {known.sha256 for known in KNOWN.values() if known.kind == "template"}
    return config.protocol == PROTOCOL_2023 and card.name == "paper" and prompt_sha in authors
