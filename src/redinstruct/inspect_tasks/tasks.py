"""Tasks: ``red_eval`` and ``over_refusal``; ``-T`` takes the names of ``eval``'s flags."""

from __future__ import annotations

from typing import Any

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import grouped

from redinstruct.errors import UsageError
from redinstruct.files import Fields
from redinstruct.inspect_tasks.metrics import at_k, by_question, corrected, judged, share
from redinstruct.inspect_tasks.notes import Note, kept, text_of
from redinstruct.inspect_tasks.scorers import NOT_BOUND, grader_id, scorer_of
from redinstruct.inspect_tasks.settings import bound_grader, flags_of, plan_of
from redinstruct.inspect_tasks.solvers import prompted
from redinstruct.judges.registry import NEEDS_MODEL
from redinstruct.models.base import Request
from redinstruct.models.inspect_model import messages_of
from redinstruct.redeval import Plan
from redinstruct.types import Message, PromptTemplate, Question, Sampling


@task
def red_eval(**flags: Any) -> Task:
    """RED-EVAL (arXiv 2308.09662): how often a model can be talked into harm, under each prompt.

    Args:
        flags: the names of ``redinstruct eval``'s flags: ``bank`` and ``judge`` are needed; ``judge_model`` or
            ``--model-role grader=...`` where the judge asks a model.
    """
    return _task("attack_success", flags)


@task
def over_refusal(**flags: Any) -> Task:
    """How often a model refuses what is safe to answer; of a bank with halves, the safe questions.

    Args:
        flags: as for ``red_eval``.
    """
    return _task("over_refusal", flags)


def _task(measure: str, given: Fields) -> Task:
    flags = flags_of(given)
    grader = None
    if flags.judge in NEEDS_MODEL and flags.judge_model is None:
        bound = bound_grader()
        if bound is None:
            raise UsageError(NOT_BOUND.format(name=flags.judge))
        grader = grader_id(bound)
    plan = plan_of(flags, measure, grader)
    samples = [
        _sample(plan, bank.name, question, template)
        for bank, questions in zip(plan.banks, plan.questions, strict=True)
        for question in questions
        for template in plan.templates
    ]
    tries = flags.epochs
    return Task(
        dataset=MemoryDataset(samples, name="+".join(bank.name for bank in plan.banks)),
        solver=prompted(),
        scorer=scorer_of(given, measure),
        metrics=[judged(), grouped(judged(), "prompt", all=False), by_question(tries), at_k(tries), corrected()],
        epochs=Epochs(tries, [share()]),
        config=GenerateConfig(max_tokens=flags.max_tokens, temperature=flags.temperature, top_p=flags.top_p),
        version=1,
        metadata={"paper": "arXiv 2308.09662", "measure": measure},
    )


def _sample(plan: Plan, bank: str, question: Question, template: PromptTemplate) -> Sample:
    config = plan.config
    note = Note(question.id, bank, template.name, text_of(template), config.system, config.sampling.seed)
    told = {"prompt": template.name, "topic": question.topic, "subtopic": question.subtopic, "label": question.label}
    said = (*question.earlier, Message("user", question.text))
    return Sample(
        id=f"{bank}:{question.row}:{template.name}",
        input=messages_of(Request(said, Sampling())) if question.earlier else question.text,
        target=plan.measure.second,
        metadata={**kept(note), **{key: value for key, value in told.items() if value is not None}},
    )
