"""One RED-EVAL of a loop: a part of its configuration carried out in a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.engine import Limits
from redinstruct.errors import EndpointLost
from redinstruct.models.registry import TEMPLATE_OPTIONS
from redinstruct.progress import OnProgress
from redinstruct.redeval import EvalSettings, Outcome, evaluate, prepare, read_system
from redinstruct.rounds.config import EvalPart
from redinstruct.types import Json, JsonObject, PromptTemplate

_FIRST = frozenset({
    "name", "banks", "judge", "judge_model", "prompts", "measure", "limit", "epochs", "max_tokens", "temperature",
    "seed", "chat_template",
})  # fmt: skip
"""The settings that every loop's identity holds, whatever they say."""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def identity(part: EvalPart, templates: Sequence[PromptTemplate]) -> JsonObject:
    """Plain values that decide a part's figures: contents by name and hash, no path, and not how many at once."""
    plain: dict[str, Json] = msgspec.to_builtins(part, enc_hook=str)
    del plain["concurrency"]
    plain["system"] = read_system(part.system)
    plain |= {
        name: _digest(file) if file else None for name, file in (("rubric", part.rubric), ("policy", part.policy))
    }
    # What earlier versions did not know is left out where it says nothing: a loop that was begun goes on.
    defaults = {field.name: field.default for field in msgspec.structs.fields(EvalPart)}
    plain = {name: value for name, value in plain.items() if name in _FIRST or (value and value != defaults[name])}
    banks = [resolve_bank(bank, part.columns) for bank in part.banks]
    return plain | {
        "banks": [[bank.name, bank.sha256] for bank in banks],
        "prompts": [[template.name, template.sha256] for template in templates],
    }


def settings_of(model: str, part: EvalPart, templates: Sequence[PromptTemplate]) -> EvalSettings:
    """The evaluation of a model that a part means.

    Raises:
        UsageError: a bank or the system prompt cannot be read.
    """
    asked = msgspec.structs.replace(
        part.of_model(model),
        banks=tuple(resolve_bank(bank, part.columns) for bank in part.banks),
        prompts=tuple(templates),
        system=read_system(part.system),
    )
    if not part.template_options:
        return asked
    options = {**part.model_options, TEMPLATE_OPTIONS: dict(part.template_options)}
    return msgspec.structs.replace(asked, model_options=options)


def ask(
    model: str,
    run: Path,
    part: EvalPart,
    templates: Sequence[PromptTemplate],
    on_progress: OnProgress | None = None,
    *,
    force: bool = False,
) -> Outcome:
    """Begin or go on with the run. ``templates`` are the part's prompts, as they are read for the loop's first model.

    Raises:
        UsageError: bad input; nothing was written.
        EndpointLost: the endpoint fails; what is recorded stays.
    """
    plan = prepare(settings_of(model, part, templates))
    outcome = evaluate(plan, run, Limits(concurrency=part.concurrency, force=force), on_progress)
    if outcome.stopped is not None:
        # What comes after rests on this run: the loop goes on when it is whole.
        raise EndpointLost(outcome.stopped)
    return outcome
