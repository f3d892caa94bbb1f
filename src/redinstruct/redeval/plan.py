"""What an evaluation is to ask: read and checked, before anything is written or asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from redinstruct.banks import resolve_bank, resolve_template_path
from redinstruct.checkpoints.embedded import LOCAL_KINDS, prompts_of
from redinstruct.errors import TemplateError, UsageError, did_you_mean
from redinstruct.judges import Judge, JudgeOptions, judge_named, model_of_judge
from redinstruct.judges.exact import is_toy
from redinstruct.models import Model, make_model, recorded
from redinstruct.prompts import DEFAULT_PROMPTS, load_template, read_text_file
from redinstruct.prompts.templates import MAX_TEMPLATE_BYTES
from redinstruct.questions import select, selection_words
from redinstruct.questions.spread import SPREAD
from redinstruct.run.config import PROTOCOL_2023, PROTOCOL_DEFAULT, Pinned, RunConfig, attempt_key
from redinstruct.safetext import terminal
from redinstruct.types import MEASURES, Attempt, Bank, Measure, PromptTemplate, Question, Sampling

_SAMPLING_FIELDS = frozenset({"temperature", "top_p", "top_k", "min_p", "seed", "stop"})
"""Fields of an endpoint request by which an option could change the sampling."""


class Plan(msgspec.Struct, frozen=True):
    """A checked evaluation: nothing of it has been asked or written yet."""

    config: RunConfig
    banks: tuple[Bank, ...]
    questions: tuple[tuple[Question, ...], ...]
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

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt, epoch by epoch, prompt by prompt, in the banks' order."""
        for epoch in range(1, self.config.epochs + 1):
            for template in self.templates:
                for questions in self.questions:
                    for question in questions:
                        yield Attempt(attempt_key(self.config, question, template, epoch), question, template, epoch)


def prepare(
    *,
    model: str | Model,
    banks: Sequence[str | Path | Bank],
    judge: str | Judge,
    judge_model: str | Model | None = None,
    judge_options: JudgeOptions | None = None,
    prompts: Sequence[str | PromptTemplate] = (),
    measure: str = "attack_success",
    limit: int | None = None,
    epochs: int = 1,
    dedupe: bool = False,
    sampling: Sampling | None = None,
    chat_template: str = "native",
    protocol: str | None = None,
    options: Mapping[str, object] | None = None,
    system: str | None = None,
    columns: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> Plan:
    """Read and check everything an evaluation needs. Writes nothing, asks nothing.

    ``banks`` are files or known names, ``prompts`` shipped names or files (all three defaults when empty), ``model``
    and ``judge_model`` ids or models.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    if measure not in MEASURES:
        near = did_you_mean(measure, MEASURES)
        raise UsageError(f"unknown --measure {measure!r}: known are {', '.join(MEASURES)}{near}")
    if epochs < 1:
        raise UsageError("--epochs must be at least 1")
    if not banks:
        raise UsageError("no question bank: name one with --bank")
    sampling = sampling or Sampling()
    _check_sampling(sampling)
    paper_2023 = _check_protocol(protocol, judge, sampling, options or {}, system)
    what = MEASURES[measure]
    instrument = judge_named(judge, what, judge_model, judge_options)
    if instrument.measure != what:
        raise UsageError(f"the judge measures {instrument.measure.name}, not {what.name}")
    read = tuple(b if isinstance(b, Bank) else resolve_bank(str(b), columns) for b in banks)
    _check_distinct("banks", [(b.name, b.sha256) for b in read])
    selections = [select(bank, measure=what, limit=limit, dedupe=dedupe) for bank in read]
    if paper_2023 and isinstance(model, str) and model.startswith(LOCAL_KINDS):
        chat_template = "none"
    templates = _templates(prompts, model if isinstance(model, str) else None)
    target = (
        make_model(model, options=options, timeout=timeout, chat_template=chat_template)
        if isinstance(model, str)
        else model
    )
    asked = model_of_judge(instrument, judge_model, timeout, judge_options)
    config = RunConfig(
        model=target.id,
        banks=tuple(Pinned(b.name, b.sha256) for b in read),
        prompts=tuple(Pinned(t.name, t.sha256) for t in templates),
        measure=measure,
        judge=instrument.card.id,
        sampling=sampling,
        chat_template=chat_template,
        protocol=protocol or PROTOCOL_DEFAULT,
        dedupe=dedupe,
        options=recorded(options),
        system=system,
        columns=tuple(sorted((columns or {}).items())),
        limit=limit,
        epochs=epochs,
        limit_rule=SPREAD,
        selected=tuple(selection.selected for selection in selections),
    )
    questions = tuple(selection.questions for selection in selections)
    return Plan(config, read, questions, templates, what, instrument, target, asked)


def _check_sampling(sampling: Sampling) -> None:
    if sampling.max_tokens < 1:
        raise UsageError("--max-tokens must be at least 1")
    if sampling.temperature is not None and not (0 <= sampling.temperature <= 2):
        raise UsageError("--temperature must lie between 0 and 2")
    if sampling.top_p is not None and not (0 < sampling.top_p <= 1):
        raise UsageError("--top-p must lie between 0 and 1")


def _check_protocol(
    protocol: str | None, judge: str | Judge, sampling: Sampling, options: Mapping[str, object], system: str | None
) -> bool:
    """The 2023 protocol leaves nothing to choose: its judge, 500 tokens, the model's own sampling."""
    if protocol is None:
        return False
    if protocol != PROTOCOL_2023:
        raise UsageError(f"unknown --protocol {protocol!r}: known is {PROTOCOL_2023}")
    if (judge if isinstance(judge, str) else judge.card.name) != "paper":
        raise UsageError(f"--protocol {PROTOCOL_2023} is judged by --judge paper")
    if sampling != Sampling(max_tokens=500) or not _SAMPLING_FIELDS.isdisjoint(options):
        raise UsageError(
            f"--protocol {PROTOCOL_2023} fixes 500 tokens and the model's own sampling: leave those flags out"
        )
    if system is not None:
        raise UsageError(f"--protocol {PROTOCOL_2023} has an empty system prompt: leave --system out")
    return True


def read_system(given: str | None) -> str | None:
    """The system prompt that ``--system TEXT|FILE`` names: a file's text if there is such a file, else the text itself.

    Raises:
        UsageError: a file that cannot be read, a path without a file, or nothing but blanks.
    """
    if given is None:
        return None
    try:
        is_file = Path(given).is_file()
    except (OSError, ValueError):  # too long for a name: it is a text
        is_file = False
    if not is_file and given.strip() and not any(map(str.isspace, given)) and ("/" in given or Path(given).suffix):
        raise UsageError(f"--system {terminal(given)[:60]}: there is no such file")
    text = read_text_file(Path(given), "system prompt", MAX_TEMPLATE_BYTES) if is_file else given
    if not text.strip():
        raise UsageError("--system: the system prompt is empty")
    return text


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
