"""What an evaluation is to ask: read and checked, before anything is written or asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from redinstruct.banks import resolve_template_path
from redinstruct.checkpoints.embedded import LOCAL_KINDS, prompts_of
from redinstruct.errors import TemplateError, UsageError
from redinstruct.judges import Judge
from redinstruct.judges.exact import is_toy
from redinstruct.models import Model, recorded
from redinstruct.models.registry import check_dtype, model_of
from redinstruct.prompts import DEFAULT_PROMPTS, load_template
from redinstruct.questions import Selection, select, selection_words
from redinstruct.questions.packed import columns_of
from redinstruct.questions.spread import SPREAD
from redinstruct.redeval.narrowing import Narrowing, standing
from redinstruct.redeval.settings import EvalSettings
from redinstruct.run.config import PROTOCOL_2023, PROTOCOL_DEFAULT, AttemptKeys, Pinned, RunConfig
from redinstruct.run.lots import LOT, Lot
from redinstruct.settings import check_said
from redinstruct.types import Bank, Measure, PromptTemplate, Question, Sampling, measure_named

_SAMPLING_FIELDS = frozenset({"temperature", "top_p", "top_k", "min_p", "seed", "stop"})
"""Fields of an endpoint request by which an option could change the sampling."""


class Plan(msgspec.Struct, frozen=True):
    """A checked evaluation: nothing of it has been asked or written yet."""

    config: RunConfig
    banks: tuple[Bank, ...]
    questions: tuple[Sequence[Question], ...]
    templates: tuple[PromptTemplate, ...]
    measure: Measure
    judge: Judge
    model: Model
    judge_model: Model | None

    @property
    def total(self) -> int:
        """Attempts in all: questions x prompts x epochs."""
        return sum(map(len, self.questions)) * len(self.templates) * self.config.epochs

    def left_out(self) -> list[str]:
        """What of each bank is not asked, one line a bank."""
        asked = zip(self.banks, self.questions, self.config.selected, strict=True)
        lines = [selection_words(b.name, len(questions), of, self.measure) for b, questions, of in asked]
        return [line for line in lines if line is not None]

    def foreign(self) -> str | None:
        """That the judge can not judge a single one of these questions; None where it can."""
        if self.judge.card.name != "exact" or any(is_toy(q.text) for asked in self.questions for q in asked):
            return None
        return "--judge exact knows the toy world alone, and no question here is of it: nothing will have a verdict"

    def for_run(self, stored: RunConfig | None) -> Plan:
        """The plan as a run that stands already goes on with it: by the rule of ``--limit`` that it began with."""
        if stored is None or stored.limit_rule == self.config.limit_rule:
            return self
        c = msgspec.structs.replace(self.config, limit_rule=stored.limit_rule)
        questions = (
            select(bank, measure=self.measure, limit=c.limit, dedupe=c.dedupe, rule=c.limit_rule).questions
            for bank in self.banks
        )
        return msgspec.structs.replace(self, config=c, questions=tuple(questions))

    def lots(self) -> Iterator[Lot]:
        """Every attempt, epoch by epoch, prompt by prompt, in the banks' order."""
        for epoch in range(1, self.config.epochs + 1):
            for template in self.templates:
                keys = AttemptKeys(self.config, template, epoch)
                for questions in self.questions:
                    for start in range(0, len(questions), LOT):
                        columns = columns_of(questions[start : start + LOT])
                        yield Lot(columns, template.sha256, epoch, keys.keys(columns))


class ReadInputs(NamedTuple):
    """An evaluation's settings, by its protocol, with all that they name but the models."""

    asked: EvalSettings
    measure: Measure
    judge: Judge
    narrowing: Narrowing
    banks: tuple[Bank, ...]
    selections: tuple[Selection, ...]
    templates: tuple[PromptTemplate, ...]


def read_inputs(asked: EvalSettings, run: Path | None = None) -> ReadInputs:
    """Read and check all that an evaluation's settings say and name, but its models. Writes nothing, asks nothing.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    measure = measure_named(asked.measure)
    check_said(asked)
    if not asked.banks:
        raise UsageError("no question bank: name one with --bank")
    check_dtype(asked.dtype, asked.model)
    asked = _by_protocol(asked)
    judge = asked.judge_of(measure)
    if judge.measure != measure:
        raise UsageError(f"the judge measures {judge.measure.name}, not {measure.name}")
    narrowing = Narrowing(measure, asked.limit, asked.dedupe, tuple(sorted(asked.columns.items())))
    read = [narrowing.read(bank, standing(run)) for bank in asked.banks]
    banks, selections = tuple(bank for bank, _ in read), tuple(selection for _, selection in read)
    _check_distinct("banks", [(b.name, b.sha256) for b in banks])
    templates = _templates(asked.prompts, asked.model if isinstance(asked.model, str) else None)
    return ReadInputs(asked, measure, judge, narrowing, banks, selections, templates)


def prepare(asked: EvalSettings, timeout: float = 120.0, run: Path | None = None) -> Plan:
    """Read and check everything an evaluation needs. Writes nothing, asks nothing. ``timeout``: seconds of a request.

    A bank that ``run`` holds already is told by its hash, and its rows are not read.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    asked, measure, judge, narrowing, banks, selections, templates = read_inputs(asked, run)
    target = model_of(asked.model, options=asked.request, timeout=timeout, chat_template=asked.chat_template)
    config = RunConfig(
        model=target.id,
        banks=tuple(Pinned(b.name, b.sha256) for b in banks),
        prompts=tuple(Pinned(t.name, t.sha256) for t in templates),
        measure=measure.name,
        judge=judge.card.id,
        sampling=asked.sampling,
        chat_template=asked.chat_template,
        protocol=asked.protocol or PROTOCOL_DEFAULT,
        dedupe=asked.dedupe,
        options=recorded(asked.request),
        system=asked.system,
        columns=narrowing.columns,
        limit=asked.limit,
        epochs=asked.epochs,
        limit_rule=SPREAD,
        selected=tuple(selection.selected for selection in selections),
    )
    questions = tuple(selection.questions for selection in selections)
    return Plan(config, banks, questions, templates, measure, judge, target, asked.judge_model_of(judge, timeout))


def _by_protocol(asked: EvalSettings) -> EvalSettings:
    """The 2023 protocol leaves nothing to choose: its judge, 500 tokens, the model's own sampling, no chat template."""
    if asked.protocol is None:
        return asked
    if asked.protocol != PROTOCOL_2023:
        raise UsageError(f"unknown --protocol {asked.protocol!r}: known is {PROTOCOL_2023}")
    if (asked.judge if isinstance(asked.judge, str) else asked.judge.card.name) != "paper":
        raise UsageError(f"--protocol {PROTOCOL_2023} is judged by --judge paper")
    if asked.sampling != Sampling(max_tokens=500) or not _SAMPLING_FIELDS.isdisjoint(asked.model_options):
        raise UsageError(
            f"--protocol {PROTOCOL_2023} fixes 500 tokens and the model's own sampling: leave those flags out"
        )
    if asked.system is not None:
        raise UsageError(f"--protocol {PROTOCOL_2023} has an empty system prompt: leave --system out")
    is_local = isinstance(asked.model, str) and asked.model.startswith(LOCAL_KINDS)
    return msgspec.structs.replace(asked, chat_template="none") if is_local else asked


def _check_distinct(what: str, named: Sequence[tuple[str, str]]) -> None:
    for position, column in enumerate(("name", "content")):
        seen: set[str] = set()
        for entry in named:
            if entry[position] in seen:
                raise UsageError(f"two {what} have the same {column} ({entry[0]}): name each once")
            seen.add(entry[position])


def _templates(prompts: Sequence[str | PromptTemplate], model: str | None) -> tuple[PromptTemplate, ...]:
    own = None if model is None else prompts_of(model)
    found: list[PromptTemplate] = []
    for prompt in dict.fromkeys(prompts or DEFAULT_PROMPTS):
        if isinstance(prompt, PromptTemplate):
            found.append(prompt)
            continue
        try:
            fetched = None if Path(prompt).exists() else resolve_template_path(prompt)
            found.append(load_template(prompt if fetched is None else str(fetched), own_folder=own))
        except OSError as error:
            raise TemplateError(f"--prompt {prompt[:40]}: cannot be read ({error.strerror})") from None
    _check_distinct("prompts", [(t.name, t.sha256) for t in found])
    return tuple(found)
