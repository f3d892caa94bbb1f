"""From a configuration to all that training needs, checked; nothing is written and no weight is loaded."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from msgspec.structs import replace as replace_fields
from transformers import PreTrainedTokenizerBase

from redinstruct.alignment import PRESETS, RESTA, TRL_STRATEGIES, AlignConfig, TrainingFigures
from redinstruct.checkpoints import chats, loading
from redinstruct.errors import UsageError, how_to_install
from redinstruct.files.words import Fields
from redinstruct.prompts.forms import NEED_RED, made
from redinstruct.safealign.batches import allot
from redinstruct.safealign.card import ModelCard, StreamLosses, check_replaceable, versions
from redinstruct.safealign.exports import check_base
from redinstruct.safealign.fidelity import Exporter, Fidelity
from redinstruct.safealign.losses import STRATEGIES, Strategy
from redinstruct.safealign.mask_picture import Picture, picture
from redinstruct.safealign.masks import EncodedRows, augment_deep_prefix, deep_prefixes, encode_rows
from redinstruct.safealign.probe import Probe, probe_of
from redinstruct.safealign.rows import STREAMS, Row, Rows, Stream, read_rows, row_of
from redinstruct.safealign.steps import Process, Steps
from redinstruct.safealign.templates import Template, choose, told_of
from redinstruct.safetext import terminal
from redinstruct.settings import rule_of

_TEXTS = {"name", "red", "pooled", "needs_reference", "reads"}
_NUMBERS = {
    name: rule_of(name, kind)
    for name, kind in get_type_hints(Strategy, include_extras=True).items()
    if name not in _TEXTS
}


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from, encoded. ``base`` is the checkpoint's name; ``digest`` says when two runs are one."""

    config: AlignConfig
    base: str
    tokenizer: PreTrainedTokenizerBase
    template: Template
    read: Rows
    encoded: EncodedRows
    digest: str

    @property
    def counts(self) -> dict[Stream, int]:
        """Encoded rows per stream."""
        return {stream: len(self.encoded.of(stream)) for stream in STREAMS}

    @property
    def dropped(self) -> dict[str, int]:
        """Rows that are not trained on, by reason, from reading and from encoding."""
        return added(self.read.dropped, self.encoded.dropped)

    @property
    def masked(self) -> dict[str, int]:
        """Answers that are not trained on although their row asked for it, by reason."""
        return added(self.read.masked, self.encoded.masked)

    @property
    def pad_id(self) -> int:
        """The token that padding is made of; it has no weight and is not attended to."""
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return int(eos if pad is None else pad)

    @property
    def exporter(self) -> Exporter:
        """What writes this run's checkpoints."""
        text = None if self.template.own else self.template.text
        return Exporter(self.config.base, self.encoded.rows, self.pad_id, dtype=self.config.dtype, template=text)

    def card(
        self,
        fidelity: Fidelity,
        stops: Collection[int],
        *,
        settings: Fields,
        device: str,
        figures: TrainingFigures,
        **own: Any,
    ) -> ModelCard:
        """The card of a checkpoint that was made of this; ``own`` is what else the trainer knows better."""
        config = self.config
        known = ModelCard(
            digest=self.digest, base=self.base, strategy=config.strategy, preset=str(config.preset), settings=settings,
            parameters=dict(config.parameters), seed=config.seed, lora=config.lora, processes=1, device=device,
            files=self.read.files, rows={str(stream): count for stream, count in self.counts.items()},
            dropped=self.dropped, masked=self.masked, dtype=fidelity.dtype,
            loss=StreamLosses(fidelity.trained, fidelity.written, fidelity.parts),
            template=told_of(self.template, self.tokenizer, stops), figures=figures, versions=versions(),
        )  # fmt: skip
        return replace_fields(known, **own)


@dataclass(frozen=True)
class Prepared(TrainingData):
    """What a run will do. ``steps`` and ``batch`` are final."""

    strategy: Strategy
    batch: dict[Stream, int]
    steps: int
    warnings: tuple[str, ...] = ()
    probe: Probe | None = None

    def data(self, rank: int = 0, world: int = 1) -> Steps:
        """The micro-batches of one process."""
        config, rows = self.config, self.encoded.rows
        return Steps(
            rows, self.batch, config.chosen, steps=self.steps, seed=config.seed, pad_id=self.pad_id,
            process=Process(rank, world),
        )  # fmt: skip


def strategy_of(config: AlignConfig) -> Strategy:
    """The strategy with the numbers that were given for it.

    Raises:
        UsageError: there is none of this name, or it has no such number.
    """
    if unknown := next((name for name in config.parameters if name not in _NUMBERS), None):
        raise UsageError(f"--set {terminal(unknown)}: expected one of {', '.join(_NUMBERS)}")
    if (strategy := STRATEGIES.get(config.strategy)) is None:
        known = ", ".join([*STRATEGIES, *TRL_STRATEGIES, RESTA])
        raise UsageError(f"--strategy {terminal(config.strategy)}: expected one of {known}")
    if unread := next((name for name in config.parameters if name not in strategy.numbers), None):
        known = ", ".join(strategy.numbers)
        raise UsageError(f"--set {unread}: --strategy {config.strategy} does not read it; it reads {known}")
    changed: dict[str, Any] = {name: _number(name, value) for name, value in config.parameters.items()}
    return replace(strategy, **changed)


def _number(name: str, value: float) -> float:
    """A number of a strategy, of the kind and within the bounds that its field says."""
    rule = _NUMBERS[name]
    said = int(value) if float not in rule.numbers and value.is_integer() else value
    if (why := rule.why_not(said)) is not None:
        raise UsageError(f"--set {name} must {why}")
    return said


def prepare(config: AlignConfig, *, world: int = 1) -> Prepared:
    """Read, encode and check everything. ``config`` is resolved.

    Raises:
        UsageError: bad input, in one line; nothing was written.
    """
    strategy = strategy_of(config)
    base = check_base(config.base)
    check_out(config.out, config.base)
    if (wanted := config.chosen.optimizer) != "adamw" and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"--optimizer {wanted} needs bitsandbytes: {how_to_install('quantize')}")
    read = read_all(config, "general" if strategy.name == "general" else "blue")
    asked = _harmless("--probe", config.probe) if config.probe else Rows((), {}, {}, ())
    read = replace_fields(read, files=read.files + asked.files)
    data = training_data(config, read, base)
    streams, warnings = streams_of(config, strategy, data.encoded)
    settings = config.chosen
    unknown = [name for name in settings.mix if name not in STREAMS]
    if unknown:
        raise UsageError(f"--mix {terminal(unknown[0])}: expected {', '.join(STREAMS)}")
    try:
        batch = allot(settings.batch, {stream: settings.mix[stream] for stream in streams})
    except KeyError as error:
        raise UsageError(f"--mix: it names no share for {error.args[0]}, which {strategy.name} trains on") from None
    steps = settings.steps or steps_in(settings.epochs, data.counts, batch)
    # Where nobody watches, the harmless questions are not asked: on a CPU they cost as much as several steps.
    watched = config.guard.refused_rise is not None or bool(asked.rows)
    probe = (
        probe_of(read.rows, asked.rows, data.encoded, data.tokenizer, data.template, settings.max_length, config.seed)
        if watched
        else None
    )
    prepared = Prepared(
        **vars(data), strategy=strategy, batch=batch, steps=steps, warnings=tuple(warnings), probe=probe
    )
    prepared.data(0, world)  # it refuses what cannot be cut
    return prepared


def check_out(out: Path, base: Path) -> None:
    """Pass a place where the checkpoint can be put.

    Raises:
        UsageError: it would replace something else, or the base, or cannot be written.
    """
    check_replaceable(out)
    if out.exists() and out.resolve() == base.resolve():
        raise UsageError("--out: is the base itself; name another folder")
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {terminal(str(out))}: nothing can be written there")


def read_all(config: AlignConfig, stream: Stream) -> Rows:
    """The rows of ``--data`` and ``--general``, the latter all of the general stream.

    Raises:
        UsageError: no file is named, or one cannot be read.
    """
    if not config.data:
        raise UsageError("--data: name at least one file of conversations")
    data = read_rows(config.data, stream=stream)
    if not config.general:
        return in_forms(data, (), config)
    general = _harmless("--general", config.general)
    return Rows(
        in_forms(data, general.rows, config).rows + general.rows,
        added(data.dropped, general.dropped),
        added(data.masked, general.masked),
        data.files + general.files,
    )


def _harmless(flag: str, files: tuple[Path, ...]) -> Rows:
    rows = read_rows(files, stream="general")
    if strangers := sum(row.stream != "general" for row in rows.rows):
        raise UsageError(f"{flag}: {strangers} rows there are blue or red; give them with --data")
    return rows


def in_forms(data: Rows, general: Sequence[Row], config: AlignConfig) -> Rows:
    """The data with its questions again in the wished forms of asking.

    Raises:
        UsageError: nothing of the data can be put into a form.
    """
    found = list(data.rows)
    for form in config.forms or ():
        more = made([row.plain for row in data.rows], form, general=[row.plain for row in general], seed=config.seed)
        if not more:
            lacks = (
                "harmful answers to its questions (red rows)" if form in NEED_RED else "questions with their answers"
            )
            raise UsageError(f"--forms {form}: nothing in the data can be put into it, for want of {lacks}")
        found += map(row_of, more)
    return replace_fields(data, rows=tuple(found))


def added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Two counts by reason as one."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def training_data(config: AlignConfig, read: Rows, base: str) -> TrainingData:
    """The rows encoded by the base's tokenizer and template.

    Raises:
        UsageError: no row is left.
    """
    chats.check_options(config.template_options, "--template-option")
    tokenizer = loading.load_tokenizer(config.base, terminal(config.base.name))
    try:
        template = choose(tokenizer, config.chat_template, config.template_options)
    except UsageError as error:
        raise UsageError(f"--base {terminal(config.base.name)}: {error}") from None
    encoded = encode_rows(read.rows, tokenizer, template, config.chosen.max_length)
    if not encoded.rows:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in encoded.dropped.items())
        raise UsageError(f"no row is left to train on: {reasons}")
    digest = config.digest(f"{base} {template.identity}", read.files)
    return TrainingData(config, base, tokenizer, template, read, encoded, digest)


def streams_of(config: AlignConfig, strategy: Strategy, encoded: EncodedRows) -> tuple[list[Stream], list[str]]:
    """The streams of every batch, and what the user should know about them.

    Raises:
        UsageError: a stream that the strategy trains on has no rows.
    """
    streams, warnings = list(strategy.streams), []
    if "general" in streams and (config.no_general or not encoded.of("general")):
        if "red" in streams and not config.no_general:
            raise UsageError(
                f"--strategy {config.strategy} penalises red rows and there are no general ones to hold the model:"
                " give --general FILE, or --no-general to do without, knowingly"
            )
        if strategy.name != "general":
            streams.remove("general")
            warnings.append("without general data a model forgets the rest of what it can do; give --general FILE")
    for stream in streams:
        if not encoded.of(stream):
            raise UsageError(f"--strategy {config.strategy} trains on {stream} rows, and there are none in the data")
    if not streams:
        raise UsageError(f"--strategy {config.strategy}: nothing is left to train on")
    mix = config.chosen.mix
    idle = [name for name in mix if name not in streams] if mix != PRESETS[str(config.preset)].mix else []
    if idle:
        warnings.append(
            f"--mix names {' and '.join(map(terminal, idle))}, which no batch holds: the others share its part"
        )
    if config.chosen.deep_prefix and "blue" in streams and not encoded.of("red"):
        warnings.append("no red rows: no refusal is learnt after the beginning of a harmful answer (deep prefix)")
    return streams, warnings


def steps_in(epochs: float, counts: Mapping[Stream, int], batch: Mapping[Stream, int]) -> int:
    """Steps in which every row of the longest-lasting stream has been seen ``epochs`` times."""
    return max(1, max(round(epochs * counts[stream] / count + 0.499) for stream, count in batch.items()))


def pictures(config: AlignConfig, each: int = 2) -> tuple[list[Picture], Prepared]:
    """The first rows of each stream as pictures of their tokens and weights, one refusal behind a red prefix with them.

    Raises:
        UsageError: as :func:`prepare`.
    """
    config = config.resolved()
    if config.strategy in (*TRL_STRATEGIES, RESTA):
        config = replace_fields(config, strategy="blue", no_general=True, parameters={})
    prepared = prepare(config)
    rows = [row for stream in STREAMS for row in prepared.encoded.of(stream)[:each]]
    prefixes, chosen = deep_prefixes(prepared.encoded.rows), prepared.config.chosen
    for row in prepared.encoded.of("blue") if chosen.deep_prefix else ():
        turned = augment_deep_prefix(
            row, prefixes, random.Random(config.seed), share=1.0, max_tokens=chosen.deep_prefix_tokens
        )
        if turned.prefixed:
            rows.append(turned)
            break
    return [picture(row, prepared.tokenizer) for row in rows], prepared
