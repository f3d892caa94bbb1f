"""From ``--judge NAME`` to a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import LOCAL_KINDS
from redinstruct.errors import ModelSpecError, did_you_mean
from redinstruct.judges.base import Judge
from redinstruct.judges.exact import ExactJudge
from redinstruct.judges.guard import KINDS, GuardJudge
from redinstruct.judges.paper import PaperJudge
from redinstruct.judges.policy import PolicyJudge, read_policy_file
from redinstruct.judges.policy_lab import PolicyLabJudge
from redinstruct.judges.refusal import RefusalJudge
from redinstruct.judges.rubric import RubricJudge, read_rubric_file
from redinstruct.models import Model, recorded
from redinstruct.models.registry import model_of
from redinstruct.types import ATTACK_SUCCESS, Measure

JUDGES: dict[str, str] = {
    "rubric": "one structured call on --judge-model, its verdict bound to a nonce that the target cannot know",
    "guard": f"a safety classifier as --judge-model: {', '.join(KINDS)}",
    "policy": "any written policy (--policy FILE) on --judge-model: is it violated? bound as rubric is",
    "paper": "the 2023 protocol on --judge-model, with its known holes",
    "refusal": "a keyword baseline: does the answer open like a refusal?",
    "exact": "the toy world's own truth",
    "policy-lab": "the policy laboratory's own rules: is the subject talked about that the model must not talk about?",
}
_BY_RULES: Mapping[str, Callable[[Measure], Judge]] = {
    "refusal": RefusalJudge, "exact": ExactJudge, "policy-lab": PolicyLabJudge,
}  # fmt: skip
NEEDS_MODEL = frozenset(JUDGES) - _BY_RULES.keys()
TESTED = frozenset({"rubric", "guard"})
"""The judges that carry this project's promises, and take the self-test before a run."""


class JudgeOptions(msgspec.Struct, frozen=True):
    """What can be chosen about a judge: the user's own rubric or policy, JSON under a schema, the classifier's family.

    ``request`` are further fields of the request to the judge's model; they belong to its identity.
    """

    rubric: Path | None = None
    constrained: bool = False
    guard_kind: str | None = None
    request: dict[str, object] = {}
    policy: Path | None = None


def make_judge(name: str, measure: Measure, model: str | None = None, options: JudgeOptions | None = None) -> Judge:
    """The judge of that name for a measure; ``model`` is the id of the model that it asks, where it asks one.

    Raises:
        ModelSpecError: an unknown judge, a missing or superfluous model, a measure that the judge cannot take.
        TemplateError: a rubric file that is none.
    """
    options = options or JudgeOptions()
    if name not in JUDGES:
        raise ModelSpecError(f"unknown judge {name!r}: known are {', '.join(JUDGES)}{did_you_mean(name, JUDGES)}")
    _check_model(name, model)
    _check_options(name, options)
    if model is not None:
        return _asking(name, measure, model, options)
    if options.request:
        raise ModelSpecError(f"--judge-option is for a judge that asks a model, not for {name}")
    return _BY_RULES[name](measure)


def _asking(name: str, measure: Measure, model: str, options: JudgeOptions) -> Judge:
    """A judge that asks a model, with what its requests hold besides in its identity."""
    judge: GuardJudge | RubricJudge | PaperJudge
    if name == "guard":
        judge = GuardJudge(model, options.guard_kind, measure)
    elif name == "rubric":
        rubric = None if options.rubric is None else read_rubric_file(options.rubric)
        judge = RubricJudge(model, measure, rubric=rubric, constrained=options.constrained)
    elif options.policy is not None:
        judge = PolicyJudge(model, measure, read_policy_file(options.policy), constrained=options.constrained)
    elif measure is ATTACK_SUCCESS:
        judge = PaperJudge(model)
    else:
        raise ModelSpecError(f"--judge paper rates harm only: it has no labels for --measure {measure.name}")
    named = tuple((f"option {field}", value) for field, value in recorded(options.request))
    judge.card = msgspec.structs.replace(judge.card, parameters=(*judge.card.parameters, *named))
    return judge


def model_of_judge(
    judge: Judge, judge_model: str | Model | None, timeout: float, options: JudgeOptions | None = None
) -> Model | None:
    """The model that the judge asks. A classifier on this machine gets its whole prompt from us, without a template."""
    if judge_model is None:
        return None
    raw = isinstance(judge_model, str) and judge.card.name == "guard" and judge_model.startswith(LOCAL_KINDS)
    request = None if options is None else options.request
    return model_of(judge_model, options=request, timeout=timeout, chat_template="none" if raw else "native")


def _check_options(name: str, options: JudgeOptions) -> None:
    if name != "rubric" and options.rubric is not None:
        raise ModelSpecError(f"--rubric is for --judge rubric, not for {name}")
    if name not in ("rubric", "policy") and options.constrained:
        raise ModelSpecError(f"--judge-format is for --judge rubric and policy, not for {name}")
    if name != "guard" and options.guard_kind is not None:
        raise ModelSpecError(f"--guard-kind is for --judge guard, not for {name}")
    if (name == "policy") is (options.policy is None):
        given = "needs a policy: --policy FILE" if name == "policy" else "takes no --policy: that is --judge policy's"
        raise ModelSpecError(f"--judge {name} {given}")


def _check_model(name: str, model: str | None) -> None:
    if name in NEEDS_MODEL and model is None:
        hint = " (in the paper it was GPT-4)" if name == "paper" else ""
        raise ModelSpecError(f"--judge {name} asks a model: name it with --judge-model{hint}")
    if name not in NEEDS_MODEL and model is not None:
        raise ModelSpecError(f"--judge {name} asks no model: leave out --judge-model")
