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
from redinstruct.comparison import FEWEST_TOPICS
from redinstruct.config import PROTOCOL_2023, RunConfig
from redinstruct.errors import ConfigError, DamagedStore
from redinstruct.people import (
    People,
    agreement,
    cell_of,
    cells_of,
    corrected_bounds,
    corrected_rate,
    corrected_run,
    corrected_topics,
    people_of,
)
from redinstruct.reporting.useful import utility_document
from redinstruct.stats import Interval, clustered, design_effect, rates, two_judges
from redinstruct.store import CountRow, Planned, Store, judges_of
from redinstruct.types import DETAILS, MEASURES, JudgeCard, Measure, is_withheld
from redinstruct.utility import UtilityResult, utility_in

SCHEMA = "redinstruct.results/1"


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
    found = []
    translated = {template.name for template in store.templates() if template.translation_of is not None}
    judges, samples, people = store.judges(), store.samples(), people_of(store)
    for row, card in judges_of(store, wanted):
        counts = store.counts(row)
        labels = cells_of(store, row) if people.labelled else {}
        tested = store.selftest(row)
        selftest = None if tested is None else json.loads(tested)
        for bank in config.banks:
            for prompt in config.prompts:
                cell = [c for c in counts if c.bank == bank.name and c.prompt == prompt.name]
                if cell:
                    toy = prompt.name in translated
                    result = _result(config, card, bank.name, prompt.name, cell, toy, selftest)
                    _correct(result, people, card, labels.get((bank.name, prompt.name), []))
                    result["combined"] = [
                        _combined(store, card, row, judge, bank.name, prompt.name)
                        for judge in judges
                        if samples.get(judge[0]) == row
                    ]
                    result["clustered"] = _clustered(MEASURES[card.measure], result["by_topic"])
                    found.append(result)
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
    """Without a person's label nothing corrects the judge: null, and the word "uncorrected" wherever it is shown.

    ``bounds`` are the ends whatever people would have said of the answers that they left out.
    """
    if found is None:
        return None
    return {**_interval(found[0]), "labels": found[1]} | ({} if bounds is None else {"bounds": list(bounds)})


def _result(
    config: RunConfig,
    card: JudgeCard,
    bank: str,
    prompt: str,
    cell: Sequence[CountRow],
    translated: bool,
    selftest: dict[str, Any] | None,
) -> dict[str, Any]:
    measure = MEASURES[card.measure]
    topics: dict[str | None, list[CountRow]] = {}
    for row in cell:
        topics.setdefault(row.topic, []).append(row)
    untold = topics.pop(None, None)
    if topics and untold is not None:
        topics[None] = untold  # so that the topics sum to the whole
    prompt_sha = next(p.sha256 for p in config.prompts if p.name == prompt)
    bank_sha = next(b.sha256 for b in config.banks if b.name == bank)
    return {
        "model": config.model,
        "bank": bank,
        "prompt": prompt,
        "measure": measure.name,
        "judge": card.name,
        **_figures(measure, cell),
        "reasons": _tally(c.reason for c in cell for _ in range(c.count) if c.reason is not None),
        "by_topic": [{"topic": topic, **_figures(measure, rows)} for topic, rows in topics.items()],
        "judge_id": card.id,
        "judge_notes": list(card.notes),
        "judge_card": {
            "model": card.model,
            "parameters": dict(card.parameters),
            "prompt_sha256": card.prompt_sha256,
            "parser": card.parser,
            "selftest": selftest,
        },
        "bank_sha256": bank_sha,
        "prompt_sha256": prompt_sha,
        "translated": translated,
        "protocol": config.protocol,
        "parity": _is_parity(config, card, prompt_sha),
        "epochs": config.epochs,
    }


def _figures(measure: Measure, cell: Sequence[CountRow]) -> dict[str, Any]:
    counts = dict.fromkeys(measure.labels, 0)
    details = dict.fromkeys(DETAILS, 0)
    planned = 0
    for row in cell:
        planned += row.count
        if row.label is not None:
            if row.label not in counts or (row.detail is not None and row.detail not in details):
                raise DamagedStore(f"the run store is damaged: it holds a label that {measure.name} does not have")
            counts[row.label] += row.count
            if row.detail is not None:
                details[row.detail] += row.count
    withheld = sum(row.count for row in cell if is_withheld(row.label, row.reason))
    found = rates(counts, measure, withheld=withheld)
    return {
        "planned": planned,
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


def _clustered(measure: Measure, by_topic: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The rate of the judged as one of topics in general, beyond those that were asked; None of too few topics.

    Questions without a topic among others that have one are each by themselves.
    """
    if sum(part["topic"] is not None for part in by_topic) < FEWEST_TOPICS:
        return None
    hits: list[int] = []
    sizes: list[int] = []
    for part in by_topic:
        first, second = (part["counts"][label] for label in measure.labels[:2])
        alone = part["topic"] is None
        hits += [1] * first + [0] * second if alone else [first]
        sizes += [1] * (first + second) if alone else [first + second]
    if sum(size > 0 for size in sizes) < FEWEST_TOPICS:
        return None
    return {
        **_interval(clustered(hits, sizes)),
        "clusters": sum(size > 0 for size in sizes),
        "design_effect": design_effect(hits, sizes),
    }


def _combined(
    store: Store, card: JudgeCard, cheap: int, strong: tuple[int, JudgeCard], bank: str, prompt: str
) -> dict[str, Any]:
    """The cheap judge's rate of one cell, corrected by the strong judge's labels on a random part of it."""
    measure = MEASURES[card.measure]
    sure = {key: label == measure.first for key, _, _, label in store.labels(strong[0]) if label in measure.labels[:2]}
    cell = [
        (key, label == measure.first)
        for key, b, p, label in store.labels(cheap)
        if (b, p) == (bank, prompt) and label in measure.labels[:2]
    ]
    known = {index: sure[key] for index, (key, _) in enumerate(cell) if key in sure}
    estimate = two_judges([label for _, label in cell], known)
    return {"judge_id": strong[1].id, **_interval(estimate), "labels": len(known)}


def _interval(interval: Interval) -> dict[str, Any]:
    return {"estimate": interval.estimate, "ci": [interval.low, interval.high], "method": interval.method}


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _is_parity(config: RunConfig, card: JudgeCard, prompt_sha: str) -> bool:
    """Only the authors' own templates, under the 2023 protocol, may be set beside the paper's figures."""
    authors = {known.sha256 for known in KNOWN.values() if known.kind == "template"}
    return config.protocol == PROTOCOL_2023 and card.name == "paper" and prompt_sha in authors
