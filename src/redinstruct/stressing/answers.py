"""Harmful answers to begin with: of this very run, of another run, or of a file of rows."""

from __future__ import annotations

from pathlib import Path

from redinstruct.errors import UsageError
from redinstruct.questions import same_text
from redinstruct.run import Store, is_run
from redinstruct.safealign.rows import read_rows
from redinstruct.types import MEASURES

AnswersByQuestion = dict[str, str]
"""A question, as :func:`redinstruct.questions.same_text` compares it -> an answer that gives what it asks for."""


def answers_in_run(run: Path) -> AnswersByQuestion:
    """The answers of a run that its first judge found to give what was asked for, the first of each question.

    In a run of ``over_refusal`` they are harmless, garbled ones left out.

    Raises:
        ConfigError, StoreError: there is no run in the folder, or it does not read.
    """
    with Store.open_for_reading(run) as store:
        measure = MEASURES[store.begun().measure]
        wanted = measure.first if measure.name == "attack_success" else measure.second
        row, _ = store.judges()[0]
        found: AnswersByQuestion = {}
        for view in store.attempts(row, label=wanted):
            text = view.completion.judged
            asked = same_text(view.question.text)
            if text and text.strip() and view.detail != "garbled" and asked not in found:
                found[asked] = text
    return found


def answers_in_rows(path: Path) -> AnswersByQuestion:
    """The red answers of a file of rows; of one without any red row the last answer of each.

    Raises:
        UsageError: the file cannot be read, or holds no row.
    """
    rows = read_rows([path]).rows
    red = [row for row in rows if row.stream == "red"]
    found: AnswersByQuestion = {}
    for row in red or rows:
        pairs = list(zip(row.messages, row.weights, strict=True))
        for at, (message, weight) in enumerate(pairs):
            if at and message.role == "assistant" and weight and (weight < 0 or not red):
                found[same_text(pairs[at - 1][0].content)] = message.content
    if not found:
        raise UsageError(f"--prefill-from {path.name}: holds no answer to begin with")
    return found


def given_answers(source: Path) -> AnswersByQuestion:
    """The answers of ``--prefill-from``: another run's harmful ones, or a file's red ones.

    Raises:
        UsageError: neither is there, or no answer is in it.
    """
    if is_run(source):
        found = answers_in_run(source)
        if not found:
            raise UsageError(f"--prefill-from {source}: no answer of this run was found harmful")
        return found
    if not source.is_file():
        raise UsageError(f"--prefill-from {source}: neither a run's folder nor a file of rows")
    return answers_in_rows(source)
