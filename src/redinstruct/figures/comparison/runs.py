"""One evaluation as a comparison reads it: its configuration, every judge's outcomes, people's labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from redinstruct.figures.deciding import Rank, rank_of
from redinstruct.figures.degenerate import Looks, answers_of, doubts_of, looks_of, texts_of
from redinstruct.figures.people import People, people_of
from redinstruct.run import Outcomes, Store, judges_of, outcomes_of_cells, shard_of, stops
from redinstruct.run.config import Pinned, RunConfig
from redinstruct.run.shards import ShardMark
from redinstruct.types import MEASURES, JudgeCard, Measure


class Judged(NamedTuple):
    """One judge of the whole run, and how every planned attempt came out under it."""

    card: JudgeCard
    cells: Mapping[tuple[str, str], Outcomes]
    """By bank and prompt (sha256)."""

    @property
    def measure(self) -> Measure:
        """What it counts."""
        return MEASURES[self.card.measure]

    def cell(self, bank: str, prompt: str) -> Outcomes:
        """The attempts of one bank and prompt (sha256)."""
        return self.cells.get((bank, prompt)) or Outcomes(bank, prompt)


class Prompt(NamedTuple):
    """A prompt of a run: its name, its text's hash, and the shipped prompt that it translates, if any."""

    name: str
    sha256: str
    translation_of: str | None


class Evaluation(NamedTuple):
    """One evaluation, read whole, with what people said of its answers."""

    folder: Path
    config: RunConfig
    prompts: list[Prompt]
    judged: list[Judged]
    people: People
    order: Rank | None = None
    """The random order in which it was asked under ``--stop-when-decided``; None: it was always to be asked whole."""
    looks: Looks | None = None
    """What is kept of each answer's text: whether it says anything."""
    shard: ShardMark | None = None
    """Which part of a run this is, where it is not a whole one."""

    def doubts(self, judged: Judged, cell: Outcomes) -> list[str]:
        """What of a cell's answers says nothing, in more than a tenth of them."""
        recorded, looks = cell.where(lambda way: way.label is not None), self.looks or Looks()
        garbled = sum(count for way, count in recorded.told.items() if way.detail == "garbled")
        texts = texts_of(recorded, looks)
        return doubts_of(answers_of(recorded, looks, judged.measure), garbled, texts, len(recorded))

    @property
    def banks(self) -> dict[str, Pinned]:
        """sha256 -> bank."""
        return {bank.sha256: bank for bank in self.config.banks}


def read_evaluation(folder: Path, judge: str | None = None) -> Evaluation:
    """Read an evaluation, with every judge of the whole run, its own first; or with the ``judge`` of that name alone.

    Raises:
        ConfigError: there is no run in the folder, it was never begun, or it is no evaluation.
        UsageError: no judge, or more than one, is called so.
        StoreError: the store does not read.
    """
    with Store.open_for_reading(folder) as store:
        config = store.begun()
        texts = {template.sha256: template.translation_of for template in store.templates()}
        return Evaluation(
            folder,
            config,
            [Prompt(p.name, p.sha256, texts.get(p.sha256)) for p in config.prompts],
            [Judged(card, outcomes_of_cells(store, row)) for row, card in judges_of(store, judge)],
            people_of(store),
            rank_of(store.secret()) if stops(store) else None,
            looks_of(store),
            shard_of(store),
        )
