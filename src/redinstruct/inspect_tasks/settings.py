"""What ``-T`` may say: the names of ``eval``'s flags, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from inspect_ai.model import Model, get_model

from redinstruct.errors import UsageError
from redinstruct.files import Fields
from redinstruct.files.opening import NOT_JSON
from redinstruct.judges import JudgeOptions
from redinstruct.models.base import Reply, Request
from redinstruct.redeval import EvalSettings, Plan, prepare, read_system

Several = str | list[str]


class TaskFlags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``eval``'s flags, as Inspect hands them on. Several of one are a list (``-T prompt=standard,cou``)."""

    bank: Several
    judge: str
    judge_model: str | None = None
    prompt: Several = []
    column: Several = []
    rubric: str | None = None
    policy: str | None = None
    judge_format: str = "line"
    guard_kind: str | None = None
    judge_option: Several = []
    limit: int | None = None
    epochs: int = 1
    dedupe: bool = False
    max_tokens: int = 500
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    system: str | None = None


def flags_of(given: Fields) -> TaskFlags:
    """The flags, by their names in ``eval`` (``judge-model`` and ``judge_model`` are one).

    Raises:
        UsageError: a name that ``eval`` does not have, a value of another kind, no bank, or no judge.
    """
    named = {key.replace("-", "_"): value for key, value in given.items()}
    missing = next((key for key in ("bank", "judge") if named.get(key) in (None, "", [])), None)
    if missing is not None:
        raise UsageError(f"-T {missing}=... is needed, as --{missing} is for `redinstruct eval`")
    try:
        return msgspec.convert(named, type=TaskFlags, strict=False)
    except msgspec.ValidationError as odd:
        raise UsageError(f"-T: {odd}") from None


def plan_of(flags: TaskFlags, measure: str, grader: str | None) -> Plan:
    """The checked evaluation. ``grader`` is the id of the model that the judge asks, where Inspect binds one.

    Raises:
        UsageError: anything that is wrong with the flags, in one line.
    """
    return prepare(
        EvalSettings(
            model=_Asked(),
            banks=tuple(_listed(flags.bank)),
            judge=flags.judge,
            judge_model=flags.judge_model if grader is None else _Asked(grader),
            prompts=tuple(_listed(flags.prompt)),
            measure=measure,
            limit=flags.limit,
            epochs=flags.epochs,
            dedupe=flags.dedupe,
            max_tokens=flags.max_tokens,
            temperature=flags.temperature,
            top_p=flags.top_p,
            seed=flags.seed,
            system=read_system(flags.system),
            columns=dict(pair.split("=", 1) for pair in _listed(flags.column) if "=" in pair),
        ).with_judge_how(judge_options(flags))
    )


def judge_options(flags: TaskFlags) -> JudgeOptions:
    """What was chosen about the judge."""
    request: list[tuple[str, object]] = []
    for pair in _listed(flags.judge_option):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError("-T judge_option=KEY=JSON, for example max_tokens=64")
        try:
            request.append((key, msgspec.json.decode(value)))
        except NOT_JSON:
            request.append((key, value))
    rubric, policy = (None if given is None else Path(given) for given in (flags.rubric, flags.policy))
    return JudgeOptions(rubric, flags.judge_format == "json", flags.guard_kind, dict(request), policy)


def bound_grader() -> Model | None:
    """The model of the role ``grader``; None where none is bound: never the model under test."""
    from inspect_ai._util.error import PrerequisiteError

    try:
        return get_model(role="grader", required=True)
    except PrerequisiteError:
        return None


def _listed(value: Several) -> list[str]:
    return [value] if isinstance(value, str) else value


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
