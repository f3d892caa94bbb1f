"""What each micro-batch holds: the step's rows, augmented, as tensors, with what the whole step is divided by.

Everything is a function of (seed, step, rank): a resumed run goes on exactly, and no process has to ask another.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from redinstruct.alignment import Settings
from redinstruct.safealign.batches import Batch, Cut, StreamSampler, collate, cut, deal, pack
from redinstruct.safealign.losses import Totals, totals
from redinstruct.safealign.masks import Encoded, Prefixes, augment_deep_prefix, deep_prefixes
from redinstruct.safealign.rows import Stream

ONE_LINE = 1024
"""Tokens of a packed line, where its rows and the memory allow it."""


class Process(NamedTuple):
    """Which of the processes that train together this one is."""

    rank: int = 0
    world: int = 1


class Steps(Dataset[dict[str, int]]):
    """The optimizer steps of one process; each of its items is the number of one.

    ``references`` holds, by index into ``rows``, the base model's log-probability of each token of a row.

    Raises:
        UsageError: the batch cannot be dealt evenly to the processes, or a stream has no rows.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        batch: Mapping[Stream, int],
        settings: Settings,
        *,
        steps: int,
        seed: int,
        pad_id: int,
        process: Process = Process(),  # noqa: B008 - immutable
    ) -> None:
        self.rows = rows
        self.steps = steps
        self.references: Mapping[int, torch.Tensor] | None = None
        self._sampler = StreamSampler(rows, batch, seed)
        self._rank, self._world = process
        self.pad_id, self._settings = pad_id, settings
        self._prefixes: Prefixes = deep_prefixes(rows) if settings.deep_prefix else {}
        self._now: tuple[int, dict[int, Encoded], Totals] = (-1, {}, Totals())
        deal([1] * self._sampler.batch_size, process.world)  # it refuses what cannot be dealt

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, int]:
        return {"step": step}

    @property
    def rows_here(self) -> int:
        """Rows of a step in this process."""
        return self._sampler.batch_size // self._world

    @property
    def longest(self) -> int:
        """Tokens of the longest row, as augmented at most."""
        return max(map(self._reach, self.rows))

    def _reach(self, row: Encoded) -> int:
        if row.stream == "red":
            return len(row)
        twins = (len(red) for one in row.answers if one.weight > 0 for red in self._prefixes.get(one.asked, ()))
        longer = len(row) + min(self._settings.deep_prefix_tokens, max(twins, default=0))
        return max(len(row), min(longer, self._settings.max_length))

    def of_step(self, step: int) -> tuple[dict[int, Encoded], Totals]:
        """The step's rows as they are trained on (index -> row), and what its sums are divided by."""
        if self._now[0] != step:
            made = {i: self._augmented(step, i) for i in self._sampler.step(step)}
            # A stream that is shorter than its share of a batch stands in it more than once.
            self._now = (step, made, totals(made[i] for i in self._sampler.step(step)))
        return self._now[1], self._now[2]

    def _augmented(self, step: int, index: int) -> Encoded:
        row = self.rows[index]
        if not self._prefixes or (self.references and index in self.references):
            return row  # the base was asked about the row as it is
        rng: random.Random = self._sampler.rng(step, index)
        return augment_deep_prefix(
            row,
            self._prefixes,
            rng,
            share=self._settings.deep_prefix,
            max_tokens=self._settings.deep_prefix_tokens,
            max_length=self._settings.max_length,
        )

    def micro_batches(self, step: int, most: Cut) -> list[list[int]]:
        """The rows of this process in a step, as micro-batches; every process has as many of them."""
        numbers = self._sampler.step(step)
        made, _ = self.of_step(step)
        lengths = [len(made[i]) for i in numbers]
        capacity = self._capacity(lengths, most)
        found: list[list[list[int]]] = []
        for shares in deal(lengths, self._world):
            own = [lengths[i] for i in shares]
            lines = pack(own, capacity) if self._settings.packing else [[at] for at in range(len(own))]
            found.append([[shares[at] for at in line] for line in lines])
        parts = max(len(cut(lines, lengths, most)) for lines in found)
        return [[numbers[at] for at in part] for part in cut(found[self._rank], lengths, most, parts)]

    def _capacity(self, lengths: Sequence[int], most: Cut) -> int:
        return max(max(lengths), min(ONE_LINE, most.positions))

    def batch(self, step: int, numbers: Sequence[int], most: Cut) -> Batch:
        """The tensors of one micro-batch, the references with them."""
        made, _ = self.of_step(step)
        rows = [made[i] for i in numbers]
        capacity = self._capacity([len(row) for row in made.values()], most)
        batch = collate(rows, self.pad_id, packing=self._settings.packing, capacity=capacity)
        batch["reference"] = None if self.references is None else reference_of(batch, numbers, self.references)
        return batch


def reference_of(batch: Batch, numbers: Sequence[int], references: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The base's log-probabilities [N] of a batch's labelled tokens, in its order; 0 for rows without a reference."""
    weights, sequences = torch.as_tensor(batch["token_weights"]), torch.as_tensor(batch["sequence_ids"])
    full = torch.zeros(weights.shape)
    for sequence, number in enumerate(numbers):
        if number in references:
            full[sequences == sequence] = references[number]
    wanted = weights != 0
    wanted[:, 0] = False
    return full[wanted]
