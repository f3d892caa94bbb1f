"""One run's configuration: what must be equal for two invocations to be the same run.

Concurrency, limits of spending and progress are not part of it. ``limit`` and ``epochs`` are, but may grow: a larger
one extends the run.
"""

from __future__ import annotations

import hashlib
import json

import msgspec

from redinstruct.errors import ConfigError
from redinstruct.questions.spread import FIRST, LimitRule, Selected
from redinstruct.types import PromptTemplate, Question, Sampling

ChatTemplate = str
PROTOCOL_DEFAULT = "default"
PROTOCOL_2023 = "paper-2023"


class Pinned(msgspec.Struct, frozen=True):
    """A bank or template by name and content."""

    name: str
    sha256: str


class RunConfig(msgspec.Struct, frozen=True):
    """Everything that decides what a run's attempts are and what judges them first.

    ``judge`` is the judge's id (:attr:`redinstruct.types.JudgeCard.id`). ``limit`` counts questions per bank, None
    means all; ``limit_rule`` says which, and stays what the run began with. ``selected`` tells of each bank, in their
    order, what was left out (empty in runs of the first edition). ``options`` are extra fields of the endpoint request,
    as (name, JSON text). ``system`` is the system prompt under which everything is asked, None where there is none.
    ``columns`` are the banks' columns that the user named, as (purpose, column).
    """

    model: str
    banks: tuple[Pinned, ...]
    prompts: tuple[Pinned, ...]
    measure: str
    judge: str
    sampling: Sampling
    chat_template: ChatTemplate
    protocol: str = PROTOCOL_DEFAULT
    dedupe: bool = False
    options: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    epochs: int = 1
    limit_rule: LimitRule = FIRST
    selected: tuple[Selected, ...] = ()
    system: str | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over all that may not change in a run; limit and epochs are left out."""
        fixed = msgspec.to_builtins(msgspec.structs.replace(self, limit=None, epochs=1))
        unset = [name for name in ("system", "columns") if not getattr(self, name)]  # older runs have neither
        left_out = ("limit_rule", "selected", *unset)
        fixed = {name: value for name, value in fixed.items() if name not in left_out}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def selected_of(self, bank: str) -> Selected | None:
        """What was asked for of the bank of that name, and left out; None where the run does not say."""
        names = [pinned.name for pinned in self.banks]
        return self.selected[names.index(bank)] if bank in names and len(self.selected) == len(names) else None


def system_of(system: str) -> str:
    """A system prompt by its size and hash: what a deployment says is its owner's, and not shown unasked."""
    digest = hashlib.sha256(system.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{len(system):,} characters, sha256 {digest}"


_FLAGS = {
    "model": "--model",
    "banks": "--bank",
    "prompts": "--prompt",
    "measure": "--measure",
    "judge": "--judge/--judge-model",
    "chat_template": "--chat-template",
    "protocol": "--protocol",
    "dedupe": "--dedupe",
    "options": "--model-option",
    "system": "--system",
    "columns": "--column",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "seed": "--seed",
    "stop": "--stop",
}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(_shown(item) for item in value) or "none"
    if isinstance(value, Pinned):
        return f"{value.name}@{value.sha256[:12]}"
    return "unset" if value is None else str(value)


def attempt_key(config: RunConfig, question: Question, template: PromptTemplate, epoch: int) -> bytes:
    """The attempt's content hash (32 bytes): question x template x model x sampling x epoch."""
    identity: tuple[object, ...] = (
        question.id, question.text, template.sha256, config.model, config.chat_template,
        msgspec.to_builtins(config.sampling), config.options, config.protocol, epoch,
    )  # fmt: skip
    if question.earlier:
        identity = (*identity, [(turn.role, turn.content) for turn in question.earlier])
    if config.system is not None:
        identity = (*identity, "system", config.system)
    try:
        encoded = msgspec.json.encode(identity)
    except UnicodeError:
        encoded = repr(identity).encode()
    return hashlib.sha256(encoded).digest()


def check_same_run(stored: RunConfig, asked: RunConfig, folder: str) -> None:
    """Pass when ``asked`` resumes or extends ``stored``.

    Raises:
        ConfigError: anything else differs, or limit or epochs would shrink the run; every difference is named.
    """
    differences: list[str] = []
    for field in ("model", "banks", "prompts", "measure", "judge", "chat_template", "protocol", "dedupe", "options",
                  "columns"):  # fmt: skip
        here, there = getattr(asked, field), getattr(stored, field)
        if here != there:
            differences.append(f"{_FLAGS[field]} was {_shown(there)}, is {_shown(here)}")
    if asked.system != stored.system:
        was, now = (None if text is None else system_of(text) for text in (stored.system, asked.system))
        differences.append(f"{_FLAGS['system']} was {_shown(was)}, is {_shown(now)}")
    for field in Sampling.__struct_fields__:
        here, there = getattr(asked.sampling, field), getattr(stored.sampling, field)
        if here != there:
            differences.append(f"{_FLAGS[field]} was {_shown(there)}, is {_shown(here)}")
    if asked.limit is not None and (stored.limit is None or asked.limit < stored.limit):
        was = "all" if stored.limit is None else str(stored.limit)
        differences.append(f"--limit was {was} and cannot shrink to {asked.limit}")
    if asked.epochs < stored.epochs:
        differences.append(f"--epochs was {stored.epochs} and cannot shrink to {asked.epochs}")
    if differences:
        hint = " (to judge the same answers again: redinstruct judge)" if "--judge/" in "".join(differences) else ""
        raise ConfigError(
            f"{folder} holds a run with another configuration: {'; '.join(differences)}. "
            f"Use the same flags to resume it, or another --run{hint}."
        )
