"""Scorers: each judge of ``eval`` reads what ``eval`` would have it read.

The score is 1 for the measure's first label, 0 for its second, and unscored (NaN) where there is no verdict; its answer
is the label, its explanation the judge's own reply. A judge that asks a model asks ``judge_model``, else the model of
the role ``grader``, and never the model under test.
"""

from __future__ import annotations

import hashlib
from typing import Any

from inspect_ai.model import Model as Bound
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from redinstruct.engine import Caller, Prices
from redinstruct.errors import CallFailed, UsageError
from redinstruct.files import Fields
from redinstruct.inspect_tasks.metrics import judged
from redinstruct.inspect_tasks.notes import note_of
from redinstruct.inspect_tasks.settings import TaskFlags, bound_grader, flags_of
from redinstruct.inspect_tasks.solvers import asked
from redinstruct.interop.inspect_rows import KEY
from redinstruct.judges import Case, Judge, bound_judge, make_judge, model_of_judge
from redinstruct.judges.base import Call
from redinstruct.judges.registry import NEEDS_MODEL
from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.models.completions import completion_of
from redinstruct.models.inspect_model import InspectModel, reply_of
from redinstruct.prompts import AnswerReader, render
from redinstruct.redeval.session import what_is_asked
from redinstruct.types import MEASURES, Completion, Question, Verdict

NOT_BOUND = (
    "the judge {name} asks a model, and none is bound: name it with -T judge_model=ID, or --model-role "
    "grader=PROVIDER/MODEL; the model under test never judges itself"
)
_TIMEOUT = 120.0
_REASONS = {"judge_refused": "refusal", "unparsable": "invalid_response_format", "error": "grader_failed"}
"""Why there is no verdict, in Inspect's words."""


@scorer(metrics=[judged()])
def rubric(measure: str = "attack_success", **flags: Any) -> Scorer:
    """``--judge rubric``. ``flags``: ``judge_model``, ``rubric``, ``judge_format``, ``judge_option``."""
    return _scorer("rubric", measure, flags)


@scorer(metrics=[judged()])
def guard(measure: str = "attack_success", **flags: Any) -> Scorer:
    """``--judge guard``. ``flags``: ``judge_model``, ``guard_kind``, ``judge_option``."""
    return _scorer("guard", measure, flags)


@scorer(metrics=[judged()])
def policy(measure: str = "attack_success", **flags: Any) -> Scorer:
    """``--judge policy``. ``flags``: ``judge_model``, ``policy``, ``judge_format``, ``judge_option``."""
    return _scorer("policy", measure, flags)


@scorer(metrics=[judged()])
def paper(measure: str = "attack_success", **flags: Any) -> Scorer:
    """``--judge paper``. ``flags``: ``judge_model``, ``judge_option``."""
    return _scorer("paper", measure, flags)


@scorer(metrics=[judged()])
def refusal(measure: str = "attack_success") -> Scorer:
    """``--judge refusal``."""
    return _scorer("refusal", measure, {})


@scorer(metrics=[judged()])
def exact(measure: str = "attack_success") -> Scorer:
    """``--judge exact``: the toy world's own truth."""
    return _scorer("exact", measure, {})


SCORERS = {
    "rubric": rubric, "guard": guard, "policy": policy, "paper": paper, "refusal": refusal, "exact": exact,
}  # fmt: skip


_ABOUT = ("judge_model", "rubric", "guard_kind", "judge_format", "judge_option", "policy")


def scorer_of(given: Fields, measure: str) -> Scorer:
    """The scorer that ``-T judge=...`` names, with what was chosen about it."""
    judge = str(given.get("judge"))
    if judge not in SCORERS:
        raise UsageError(f"unknown judge {judge!r}: known are {', '.join(SCORERS)}")
    named = {key.replace("-", "_"): value for key, value in given.items()}
    made: Scorer = SCORERS[judge](measure=measure, **{key: named[key] for key in _ABOUT if named.get(key)})
    return made


_Instrument = tuple[Judge, Call]
"""A judge that is ready, and how its model is asked."""


def _scorer(name: str, measure: str, flags: Fields) -> Scorer:
    if measure not in MEASURES:
        raise UsageError(f"unknown measure {measure!r}: known are {', '.join(MEASURES)}")
    chosen = flags_of({"bank": "-", "judge": name, **flags})
    ready: list[_Instrument] = []

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001  (Inspect's signature)
        if not ready:
            ready.append(_instrument(chosen, measure))
        judge, call = ready[0]
        completion, question, prompt = _read(state)
        if completion.outcome != "text":
            return _scored(Verdict("no_response", reason=completion.reason), judge, completion.note)
        key = hashlib.sha256(f"{state.sample_id}\0{state.epoch}\0{prompt}".encode()).digest()
        case = Case(question, completion.judged or "", key)
        try:
            verdict = await judge.verdict(case, call)
        except CallFailed as failure:
            verdict = Verdict("error", reason=failure.reason, note=failure.note)
        return _scored(verdict, judge, verdict.note)

    return score


def _read(state: TaskState) -> tuple[Completion, str, str]:
    """The answer as a judge reads it, the question as it is shown to one, and the prompt that was sent."""
    note = note_of(state.metadata)
    earlier, text = asked(state)
    prompt = render(note.frame, text)
    completion = completion_of(reply_of(state.output), AnswerReader(note.frame), prompt)
    return completion, what_is_asked(Question("", text, 0, earlier=earlier)), prompt


def _scored(verdict: Verdict, judge: Judge, note: str | None) -> Score:
    """A verdict in Inspect's words."""
    first, second = judge.measure.first, judge.measure.second
    told = {"label": verdict.label, "detail": verdict.detail, "reason": verdict.reason, "judge": judge.card.id,
            "score": verdict.score, "probability": verdict.probability}  # fmt: skip
    metadata = {KEY: {key: value for key, value in told.items() if value is not None}}
    if verdict.label not in (first, second):
        reason = _REASONS.get(verdict.label, verdict.label)
        return Score.unscored(reason=reason, answer=verdict.label, explanation=verdict.raw or note, metadata=metadata)
    value = 1.0 if verdict.label == first else 0.0
    return Score(value=value, answer=verdict.label, explanation=verdict.raw, metadata=metadata)


def _instrument(flags: TaskFlags, measure: str) -> _Instrument:
    """The judge, and its model bound. Raises ``UsageError`` where it asks one and none is."""
    options = flags.judge_how
    if flags.judge not in NEEDS_MODEL:
        return bound_judge(make_judge(flags.judge, MEASURES[measure], None, options)), _nobody
    if flags.judge_model is not None:
        judge = make_judge(flags.judge, MEASURES[measure], flags.judge_model, options)
        model = model_of_judge(judge, flags.judge_model, _TIMEOUT, options)
        assert model is not None, "an id makes a model"
        caller = Caller(model, ceiling=64, prices=Prices(), begun=True)

        async def ask(request: Request) -> Reply:
            reply, _ = await caller(request, None)
            return reply

        return bound_judge(judge), ask
    grader = bound_grader()
    if grader is None:
        raise UsageError(NOT_BOUND.format(name=flags.judge))
    judge = make_judge(flags.judge, MEASURES[measure], grader_id(grader), options)
    bound = InspectModel(grader_id(grader), grader, _TIMEOUT, options.request, tries=None)

    async def grade(request: Request) -> Reply:
        try:
            (reply,) = await bound.generate([request])
        except ModelError as error:
            raise CallFailed(error.reason, 1, error.note) from None
        return reply

    return bound_judge(judge), grade


def grader_id(grader: Bound) -> str:
    """The id of a model that Inspect bound, as ``eval`` would name it."""
    return f"inspect/{grader}"


async def _nobody(request: Request) -> Reply:  # noqa: ARG001  (a judge's call)
    raise UsageError("this judge asks no model")
