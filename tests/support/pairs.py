"""Pairs of runs for tests: evaluations as values, as run folders, and utility checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.figures.comparison.runs import Evaluation, Judged, Prompt
from redinstruct.figures.people import People
from redinstruct.run import AnnotationStore, Outcomes, Planned, Store
from redinstruct.run.config import Pinned, RunConfig
from redinstruct.types import Annotation, Completion, JudgeCard, Sampling, Verdict
from tests.support.stores import CARD, Setup, make_bank, text

UNHEARD = {
    "withheld": Completion("no_response", reason="provider_filter"),
    "unread": Completion("no_response", reason="empty"),
    "no_response": Completion("no_response", reason="empty"),
    "error": Completion("error", reason="timeout"),
}
"""What an attempt came to without a judge, by the words that :func:`run_of` takes beside the labels."""


def key_of(row: int, epoch: int = 1, prompt: str = "p") -> bytes:
    """An attempt's key in :func:`evaluation`."""
    return f"{prompt}:{row}:{epoch}".encode()


def judged(card: JudgeCard, outcomes: Sequence[Planned]) -> Judged:
    """A judge under which attempts came out so."""
    cells: dict[tuple[str, str], list[Planned]] = {}
    for one in outcomes:
        cells.setdefault((one.bank, one.prompt), []).append(one)
    return Judged(card, {place: Outcomes.of(of) for place, of in cells.items()})


def evaluation(
    labels: Sequence[str | None],
    *,
    topics: Sequence[str | None] = (None,),
    epochs: int = 1,
    card: JudgeCard = CARD,
    bank: str = "bank",
    prompt: str = "p",
    sampling: Sampling | None = None,
    settled: dict[bytes, str] | None = None,
) -> Evaluation:
    """An evaluation of one bank and prompt as a value: question i of epoch e has label ``e * questions + i``."""
    questions = len(labels) // epochs
    outcomes = [
        Planned(key_of(i, e + 1), f"sha-{bank}", i, topics[i % len(topics)], f"sha-{prompt}", e + 1,
                labels[e * questions + i], i)
        for e in range(epochs)
        for i in range(questions)
    ]  # fmt: skip
    config = RunConfig(
        "openai/m", (Pinned(bank, f"sha-{bank}"),), (Pinned(prompt, f"sha-{prompt}"),), card.measure, card.id,
        sampling or Sampling(), "native", epochs=epochs,
    )  # fmt: skip
    return Evaluation(
        Path("run"), config, [Prompt(prompt, f"sha-{prompt}", None)], [judged(card, outcomes)], People(settled or {})
    )


def run_of(
    folder: Path,
    labels: Sequence[str | None],
    *,
    setup: Setup | None = None,
    human: Sequence[str | None] = (),
    topics: Sequence[str | None] = (None,),
    bank: str = "bank",
    model: str = "openai/m",
    card: JudgeCard = CARD,
) -> Path:
    """A run folder whose attempts, in planned order, came out as told; None is not recorded.

    ``human`` holds a person's labels of the first attempts, None for those that nobody labelled.
    """
    plan = setup or Setup(banks=(make_bank(len(labels), bank, topics),), templates=Setup().templates[:1])
    plan = msgspec.structs.replace(plan, model=model, card=card)
    with Store.open_for_writing(folder) as store:
        judge = plan.plan(store)
        rows = [(row, label) for row, label in enumerate(labels, 1) if label is not None]
        store.commit_completions([(r, 0, UNHEARD.get(label) or text()) for r, label in rows])
        store.commit_verdicts([(r, 0, judge, 0, Verdict(label)) for r, label in rows if label not in UNHEARD])
        acts = [
            (attempt.key, Annotation("ann", "label", label))
            for attempt, label in zip(plan.attempts, human, strict=False)
            if label is not None
        ]
        if acts:
            AnnotationStore(store).record(acts)
    return folder


def mixed(first: int, second: int, names: tuple[str, str] = ("harmful", "unharmful"), **others: int) -> list[str]:
    """So many of each label, one label after the other."""
    found = [names[0]] * first + [names[1]] * second
    return found + [label for label, count in others.items() for _ in range(count)]
