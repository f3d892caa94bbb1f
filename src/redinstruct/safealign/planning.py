"""A plan (:mod:`redinstruct.safealign.plan`) of a configuration, or of a run that is prepared."""

from __future__ import annotations

from collections import Counter

from redinstruct.alignment import RESTA, TRL_STRATEGIES, AlignConfig
from redinstruct.safealign.batches import allot
from redinstruct.safealign.plan import Machine, MemoryPlan, RowsToFit, plan
from redinstruct.safealign.prepare import Prepared, read_all, steps_in, strategy_of, streams_of, training_data
from redinstruct.safealign.rows import STREAMS, Stream
from redinstruct.safealign.sizes import config_of
from redinstruct.safealign.steps import Steps

_TOKENIZERS = ("tokenizer*", "*.model", "vocab*", "tekken.json")


def plan_of(prepared: Prepared, machine: Machine) -> MemoryPlan:
    """The plan of a prepared run."""
    rows = prepared.encoded.rows
    compared = sum(len(row) for row in rows if row.stream in prepared.strategy.compared)
    batch = sum(prepared.batch.values())
    found = RowsToFit(longest=prepared.data().longest, batch=batch, steps=prepared.steps, compared_tokens=compared)
    return plan(prepared.config, found, machine)


def plan_alignment(config: AlignConfig, machine: Machine) -> MemoryPlan:
    """The plan of a configuration whose base may be a folder with a ``config.json`` alone.

    Without a tokenizer every row is taken to be as long as may be; without data the number of steps is unknown, unless
    it is set.

    Raises:
        UsageError: bad input.
    """
    config = config.resolved()
    architecture = config_of(config.base)
    settings = config.chosen
    longest = min(settings.max_length, getattr(architecture, "max_position_embeddings", None) or settings.max_length)
    unknown = RowsToFit(longest=longest, batch=settings.batch, steps=settings.steps, exact=False)
    if not config.data:
        return plan(config, unknown, machine)
    own = config.strategy not in (*TRL_STRATEGIES, RESTA)
    strategy = strategy_of(config) if own else None
    read = read_all(config, "general" if config.strategy == "general" else "blue")
    if not any(path for pattern in _TOKENIZERS for path in config.base.glob(pattern)):
        counts: dict[Stream, int] = dict(Counter(row.stream for row in read.rows))
        wanted: list[Stream] = [one for one in (strategy.streams if strategy else STREAMS) if counts.get(one)]
        shares: dict[Stream, float] = {stream: settings.mix.get(stream, 1.0) for stream in wanted}
        batch = allot(settings.batch, shares or {"general": 1.0})
        steps = settings.steps or steps_in(settings.epochs, counts, batch)
        return plan(config, RowsToFit(longest=longest, batch=settings.batch, steps=steps, exact=False), machine)
    data = training_data(config, read, "")
    rows = data.encoded.rows
    if strategy is None:
        known = RowsToFit(longest=max(map(len, rows)), batch=settings.batch, steps=settings.steps)
        return plan(config, known, machine)
    names, _ = streams_of(config, strategy, data.encoded)
    batch = allot(settings.batch, {stream: settings.mix.get(stream, 1.0) for stream in names})
    steps = settings.steps or steps_in(settings.epochs, data.counts, batch)
    cut = Steps(rows, batch, settings, steps=steps, seed=config.seed, pad_id=data.pad_id)
    return plan(config, RowsToFit(longest=cut.longest, batch=settings.batch, steps=steps), machine)
