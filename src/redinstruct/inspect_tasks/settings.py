"""What ``-T`` may say: the names of ``eval``'s flags, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from inspect_ai.model import Model, get_model

from redinstruct.errors import UsageError
from redinstruct.files import Fields
from redinstruct.files.opening import NOT_JSON
from redinstruct.models.base import Reply, Request
from redinstruct.redeval import AskSettings, Plan, prepare, read_system

_SEVERAL = {"bank": "banks", "prompt": "prompts", "column": "columns", "judge_option": "judge_options"}
"""Flags that may be given several times, as a list (``-T prompt=standard,cou``), and their fields."""
_NOT_HERE = ("measure", "protocol", "chat_template", "stop", "model_options", "dtype")
"""Settings of ``eval`` that the task says, or Inspect itself."""


class TaskFlags(AskSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``eval``'s flags, as Inspect hands them on."""

    banks: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    judge: str
    judge_model: str | None = None


def flags_of(given: Fields) -> TaskFlags:
    """The flags, by their names in ``eval`` (``judge-model`` and ``judge_model`` are one).

    Raises:
        UsageError: a name that ``eval`` does not have, a value of another kind, no bank, or no judge.
    """
    spelled = {key.replace("-", "_"): value for key, value in given.items()}
    named = {
        _SEVERAL.get(name, name): [value] if name in _SEVERAL and isinstance(value, str) else value
        for name, value in spelled.items()
    }
    for field, flag in (("banks", "bank"), ("judge", "judge")):
        if named.get(field) in (None, "", [], [""]):
            raise UsageError(f"-T {flag}=... is needed, as --{flag} is for `redinstruct eval`")
    if (other := next((name for name in _NOT_HERE if name in named), None)) is not None:
        raise UsageError(f"-T {other}: the task says it, or Inspect's own flags")
    for field in ("columns", "judge_options"):
        if field in named:
            named[field] = _pairs(named[field], json=field == "judge_options")
    if "system" in named:
        named["system"] = read_system(str(named["system"]))
    try:
        return msgspec.convert(named, type=TaskFlags, strict=False, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as odd:
        raise UsageError(f"-T: {odd}") from None


def _pairs(given: object, *, json: bool) -> Fields:
    pairs = [str(pair).partition("=") for pair in (given if isinstance(given, list) else ())]
    if not all(key and sign for key, sign, _ in pairs):
        example = "judge_option=KEY=JSON, for example max_tokens=64" if json else "column=PURPOSE=NAME"
        raise UsageError(f"-T {example}")
    return {key: _value(value) if json else value for key, _, value in pairs}


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except NOT_JSON:
        return text


def plan_of(flags: TaskFlags, measure: str, grader: str | None) -> Plan:
    """The checked evaluation. ``grader`` is the id of the model that the judge asks, where Inspect binds one.

    Raises:
        UsageError: anything that is wrong with the flags, in one line.
    """
    asked = msgspec.structs.replace(flags.of_model(_Asked()), measure=measure)
    return prepare(asked if grader is None else msgspec.structs.replace(asked, judge_model=_Asked(grader)))


def bound_grader() -> Model | None:
    """The model of the role ``grader``; None where none is bound: never the model under test."""
    from inspect_ai._util.error import PrerequisiteError

    try:
        return get_model(role="grader", required=True)
    except PrerequisiteError:
        return None


class _Asked:
    """A model whose calls Inspect makes: here it is a name."""

    batch_size = 1

    def __init__(self, name: str = "inspect") -> None:
        self.id = name

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Never called."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to let go of."""
