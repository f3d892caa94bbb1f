"""One RED-EVAL of a loop: a part of its configuration carried out in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.engine import Limits
from redinstruct.errors import EndpointLost
from redinstruct.judges import JudgeOptions
from redinstruct.models.registry import TEMPLATE_OPTIONS
from redinstruct.progress import OnProgress
from redinstruct.redeval import Outcome, evaluate, prepare, read_system
from redinstruct.rounds.config import EvalPart
from redinstruct.types import PromptTemplate, Sampling


def identity(part: EvalPart, templates: Sequence[PromptTemplate]) -> dict[str, Any]:
    """Plain values that decide a part's figures: contents by name and hash, no path, and not how many at once."""
    plain: dict[str, Any] = msgspec.to_builtins(part)
    del plain["concurrency"]
    if not plain["template_options"]:
        del plain["template_options"]
    plain["system"] = read_system(part.system)
    # What earlier versions did not know is left out where it says nothing: a loop that was begun goes on.
    plain = {name: value for name, value in plain.items() if name not in ("system", "judge_options") or value}
    banks = [resolve_bank(bank) for bank in part.banks]
    return plain | {
        "banks": [[bank.name, bank.sha256] for bank in banks],
        "prompts": [[template.name, template.sha256] for template in templates],
    }


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
    plan = prepare(
        model=model,
        banks=[resolve_bank(bank) for bank in part.banks],
        judge=part.judge,
        judge_model=part.judge_model,
        prompts=templates,
        measure=part.measure,
        limit=part.limit,
        epochs=part.epochs,
        sampling=Sampling(part.max_tokens, part.temperature, seed=part.seed),
        chat_template=part.chat_template,
        options={TEMPLATE_OPTIONS: dict(part.template_options)} if part.template_options else {},
        system=read_system(part.system),
        judge_options=JudgeOptions(request=part.judge_options),
    )
    outcome = evaluate(plan, run, Limits(concurrency=part.concurrency, force=force), on_progress)
    if outcome.stopped is not None:
        # What comes after rests on this run: the loop goes on when it is whole.
        raise EndpointLost(outcome.stopped)
    return outcome
