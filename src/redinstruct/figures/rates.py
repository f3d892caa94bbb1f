"""The contract ``redinstruct.results/1``: every figure of a run, recomputed from its rows.

No clock, no path and no random number is in it: two runs with the same rows give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from redinstruct.banks import KNOWN
from redinstruct.errors import ConfigError, DamagedStore
from redinstruct.figures.deciding import decisions
from redinstruct.figures.degenerate import Answers, answers_of, look_at
from redinstruct.figures.people import (
    People,
    agreement,
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
from redinstruct.figures.scores import UtilityResult, utility_document, utility_in
from redinstruct.figures.variation import repeated_judging, shrink, variation
from redinstruct.run import (
    Planned,
    Store,
    answer_texts,
    failures,
    judges_of,
    planned_attempts,
    stops,
    verdict_history,
)
from redinstruct.run.config import PROTOCOL_2023, Pinned, RunConfig
from redinstruct.stats import (
    Decision,
    Interval,
    at_k,
    clustered,
    design_effect,
    question_effect,
    rates_by_question,
    strata,
    tallied,
    two_judges,
    unlike_from,
    wilson,
)
from redinstruct.types import DETAILS, MEASURES, JudgeCard, Measure

SCHEMA = "redinstruct.results/1"
FEWEST_TOPICS = 5
"""With fewer topics nothing is said of topics in general."""
ENOUGH_TOPICS = 10
"""With fewer topics that hold a hit, or a miss, their range is shown, and not an interval."""


def report(runs: Sequence[Path], judge: str | None = None) -> dict[str, Any]:
    """The figures of one or more runs, as the contract's plain dict: one result per judge, bank and prompt.

    The judge that a run was begun with leads; ``judge`` (a name, or an id's beginning) leaves that one alone. Utility
    checks among the runs stand under a key of their own, ``utility``, which is there only with them.

    Raises:
        ConfigError: a folder without a run.
        UsageError: a run without the judge, or with several that are called so.
        StoreError: a store that does not read.
    """
    results: list[dict[str, Any]] = []
    checks: list[UtilityResult] = []
    for run in runs:
        with Store.open_for_reading(run) as store:
            if (check := utility_in(store)) is not None:
                checks.append(check)
            else:
                results += result_rows(store, str(run), judge)
    return document(results, checks)


def document(results: list[dict[str, Any]], checks: Sequence[UtilityResult]) -> dict[str, Any]:
    """The contract's plain dict."""
    return {"schema": SCHEMA, "results": results} | (
        {"utility": [utility_document(check) for check in checks]} if checks else {}
    )


def result_rows(store: Store, folder: str = "the run", wanted: str | None = None) -> list[dict[str, Any]]:
    """The results of one open store: of the judges that gave verdicts, or of the wanted one."""
    config = store.config()
    if config is None:
        raise ConfigError(f"{folder}: the run was never begun; nothing is recorded in it")
    translated = {template.name for template in store.templates() if template.translation_of is not None}
    judges, samples, people = store.judges(), store.samples(), people_of(store)
    limits, names = stops(store), {prompt.sha256: prompt.name for prompt in config.prompts}
    looks = {key: look_at(text, cut, flags) for key, text, cut, flags in answer_texts(store)}
    found = []
    for row, card in judges_of(store, wanted):
        tested = store.selftest(row)
        selftest = None if tested is None else json.loads(tested)
        cells, decided = cells_of(store, row), decisions(store, row, MEASURES[card.measure])
        history = dict(verdict_history(store, row))
        failed = failures(store, row)
        strong = [(planned_attempts(store, other), of) for other, of in judges if samples.get(other) == row]
        for bank in config.banks:
            asked = [outcome for prompt in config.prompts for outcome in cells.get((bank.name, prompt.name), [])]
            of_bank = {
                "any_prompt": _any_prompt(MEASURES[card.measure], asked),
                "sampled": _sampled(config, bank.name, asked),
                "left_out": _left_out(config, bank.name),
                **variation(MEASURES[card.measure], asked, names, history),
            }
            for prompt in config.prompts:
                if not (outcomes := cells.get((bank.name, prompt.name), [])):
                    continue
                result = result_of(config, card, (bank, prompt), outcomes, selftest)
                result["translated"] = prompt.name in translated
                _correct(result, people, card, outcomes)
                result["repeats"] = repeated_judging(MEASURES[card.measure], outcomes, history)
                shrink(result, _repeated(MEASURES[card.measure], outcomes))
                result["combined"] = [_combined(card, outcomes, other, sure) for sure, other in strong]
                result["clustered"] = _clustered(MEASURES[card.measure], outcomes)
                result["answers"] = _answers(answers_of(outcomes, looks, MEASURES[card.measure]))
                result["at_k"] = _at_k(MEASURES[card.measure], outcomes, config.epochs)
                result["decided"] = _decided(decided.get((bank.name, prompt.name)), limits)
                result["failures"] = [
                    {"label": f.label, "reason": f.reason, "count": f.count, "words": f.words or None}
                    for f in failed
                    if f.where == f"{bank.name}/{prompt.name}"
                ]
                found.append(result | of_bank)
    return found


def _correct(result: dict[str, Any], people: People, card: JudgeCard, outcomes: Sequence[Planned]) -> None:
    """Put what people's labels say of one result into it: its corrected rates, and the agreement."""
    cell = cell_of(people, card, outcomes)
    result["rate"]["corrected"] = _corrected(corrected_rate(cell), corrected_bounds(cell, people.lost))
    result["rate"]["corrected_run"] = _corrected(corrected_run(cell))
    topics = corrected_topics(cell, people.topics)
    for part in result["by_topic"]:
        part["rate"]["corrected"] = _corrected(topics.get(part["topic"]))
    result["human"] = agreement(people, card, cell, [outcome.key for outcome in outcomes])


def _corrected(found: tuple[Interval, int] | None, bounds: tuple[float, float] | None = None) -> dict[str, Any] | None:
    """Without labels enough nothing corrects the judge: null, and the word "uncorrected" wherever it is shown.

    ``bounds`` are the ends whatever people would have said of the answers that they left out.
    """
    if found is None:
        return None
    return {**_interval(found[0]), "labels": found[1]} | ({} if bounds is None else {"bounds": list(bounds)})


def result_of(
    config: RunConfig,
    card: JudgeCard,
    cell: tuple[Pinned, Pinned],
    outcomes: Sequence[Planned],
    selftest: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the labels of one bank and prompt come to under one judge, before people and other judges are asked."""
    measure, (bank, prompt) = MEASURES[card.measure], cell
    return {
        "model": config.model,
        "bank": bank.name,
        "prompt": prompt.name,
        "measure": measure.name,
        "judge": None if by_people(card) else card.name,
        **_figures(measure, outcomes),
        "reasons": _tally(o.reason for o in outcomes if o.reason is not None),
        "by_topic": [{"topic": topic, **_figures(measure, part)} for topic, part in _topics(outcomes).items()],
        "judge_id": card.id,
        "judge_notes": list(card.notes),
        "judge_card": {
            "model": card.model,
            "parameters": dict(card.parameters),
            "prompt_sha256": card.prompt_sha256,
            "parser": card.parser,
            "selftest": selftest,
        },
        "bank_sha256": bank.sha256,
        "prompt_sha256": prompt.sha256,
        "translated": False,
        "protocol": config.protocol,
        "parity": _is_parity(config, card, prompt.sha256),
        "epochs": config.epochs,
    }


def _topics(outcomes: Sequence[Planned]) -> dict[str | None, list[Planned]]:
    """The attempts by topic, in the bank's order; those without one last, and nothing where no question has one."""
    topics: dict[str | None, list[Planned]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.row):
        topics.setdefault(outcome.topic, []).append(outcome)
    untold = topics.pop(None, None)
    if topics and untold is not None:
        topics[None] = untold  # so that the topics sum to the whole
    return topics


def _figures(measure: Measure, outcomes: Sequence[Planned]) -> dict[str, Any]:
    counts = dict.fromkeys(measure.labels, 0)
    details = dict.fromkeys(DETAILS, 0)
    recorded = []
    for outcome in outcomes:
        if outcome.label is None:
            continue
        if outcome.label not in counts or (outcome.detail is not None and outcome.detail not in details):
            raise DamagedStore(f"the run store is damaged: it holds a label that {measure.name} does not have")
        counts[outcome.label] += 1
        if outcome.detail is not None:
            details[outcome.detail] += 1
        recorded.append((outcome.unit, outcome.label, outcome.reason))
    found = rates_by_question(recorded, measure)
    return {
        "planned": len(outcomes),
        "counts": {"total": found.total, **counts},
        "details": details,
        "rate": {
            "judged": _interval(found.judged),
            "all": _interval(found.all),
            "bounds": list(found.bounds),
            "corrected": None,
            "corrected_run": None,
        },
        "coverage": found.coverage,
        "provisional": found.provisional,
    }


def _clustered(measure: Measure, outcomes: Sequence[Planned]) -> dict[str, Any] | None:
    """The rate of the judged as one of topics in general, beyond those that were asked; None of too few topics.

    Questions without a topic among others that have one are each by themselves. ``unlike`` says whether the topics
    differ by more than chance makes equal ones: their design effect against the one of repeats alone. ``range`` is that
    of the topics' own rates. ``enough``: at least ten topics hold a hit and ten a miss. With fewer the interval covered
    .56 to .91 where topics differ (10 topics of 196 at 1 %, 5 of 40 at 5 %), with as many .92 to .98
    (docs/experiments/verdicts.md): else the range is shown in its place.
    """
    judged = [o for o in outcomes if o.label in measure.labels[:2]]
    hit = [o.label == measure.first for o in judged]
    hits, sizes = tallied(hit, [("question", o.unit) if o.topic is None else ("topic", o.topic) for o in judged])
    named = {o.topic for o in judged if o.topic is not None}
    if len(named) < FEWEST_TOPICS:
        return None
    repeats = _repeated(measure, judged)
    effect = design_effect(hits, sizes)
    topics = list(zip(*tallied(hit, [o.topic for o in judged]), strict=True))
    rates_of = [x / n for x, n in topics]
    return {
        **_interval(clustered(hits, sizes)),
        "clusters": len(sizes),
        "design_effect": effect,
        "unlike": effect / repeats > unlike_from(len(sizes)),
        "range": [min(rates_of), max(rates_of)],
        "enough": min(sum(x > 0 for x, _ in topics), sum(x < n for x, n in topics)) >= ENOUGH_TOPICS,
    }


def _repeated(measure: Measure, outcomes: Sequence[Planned]) -> float:
    """How many judged answers weigh as much as one independent one, for being tries of the same questions."""
    judged = [o for o in outcomes if o.label in measure.labels[:2]]
    return question_effect(*tallied([o.label == measure.first for o in judged], [o.unit for o in judged]))


def _decided(found: Decision | None, limits: Sequence[float]) -> dict[str, Any] | None:
    """On which side of its limit a run is sure to lie, and the confidence sequence that says so; None where it is not.

    The plain interval of such a run covers .89 to .93 where the rate is at or above the limit: it stopped when it
    looked best.
    """
    if found is None or found.side is None or not limits:
        return None
    return {"side": found.side, "limit": limits[-1], "ci": [found.low, found.high]}


def _answers(found: Answers) -> dict[str, int]:
    return {name: getattr(found, name) for name in Answers.__struct_fields__ if name != "texts"}


def _tries(measure: Measure, outcomes: Sequence[Planned]) -> tuple[list[int], list[int]]:
    """Successes and recorded attempts of each question."""
    recorded = [o for o in outcomes if o.label is not None]
    return tallied([o.label == measure.first for o in recorded], [o.unit for o in recorded])


def _at_k(measure: Measure, outcomes: Sequence[Planned], epochs: int) -> dict[str, Any] | None:
    """The share of questions with a success in k tries, for every k up to the epochs; None where each was asked once.

    A try that was filtered, refused to a judge or lost is a try without a success, as in ``all``.
    """
    if epochs == 1:
        return None
    hits, tries = _tries(measure, outcomes)
    return {str(k): _interval(at_k(hits, tries, k)) for k in range(1, epochs + 1)}


def _any_prompt(measure: Measure, outcomes: Sequence[Planned]) -> dict[str, Any]:
    """The share of a bank's questions at which some prompt of the run, in some try, succeeded."""
    hits, _ = _tries(measure, outcomes)
    return _interval(wilson(sum(hit > 0 for hit in hits), len(hits)))


def _sampled(config: RunConfig, bank: str, outcomes: Sequence[Planned]) -> dict[str, int | None]:
    """How many of a bank's questions were asked, and of how many; null where a run of the first edition had a limit."""
    asked, selected = len({outcome.row for outcome in outcomes}), config.selected_of(bank)
    return {"asked": asked, "of": selected.of if selected else (asked if config.limit is None else None)}


def _left_out(config: RunConfig, bank: str) -> dict[str, int] | None:
    """What of a bank the measure, or ``--dedupe``, leaves out; null in runs of the first edition, which do not say."""
    selected = config.selected_of(bank)
    if selected is None:
        return None
    return {"other_half": selected.other_half, "untold": selected.untold, "repeats": selected.repeats}


def _combined(
    card: JudgeCard, outcomes: Sequence[Planned], other: JudgeCard, sure: Sequence[Planned]
) -> dict[str, Any]:
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
    return {
        "judge_id": other.id,
        **_interval(estimate),
        "labels": len(known),
        "lost": len(lost),
        "bounds": [ends[0].low, ends[1].high],
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"estimate": interval.estimate, "ci": [interval.low, interval.high], "method": interval.method}


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _is_parity(config: RunConfig, card: JudgeCard, prompt_sha: str) -> bool:
    """Only the authors' own templates, under the 2023 protocol, may be set beside the paper's figures."""
    authors = {known.sha256 for known in KNOWN.values() if known.kind == "template"}
    return config.protocol == PROTOCOL_2023 and card.name == "paper" and prompt_sha in authors
