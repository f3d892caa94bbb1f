"""What the demo on the real model measures beside attacks: perplexity on prose, and a slice of TruthfulQA.

Both are likelihoods of the checkpoint itself on bare text, no chat template; each is a stage that is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import folder_of
from redinstruct.errors import UsageError
from redinstruct.models import id_of
from redinstruct.policy import digest
from redinstruct.policy.subjects import prose
from redinstruct.rounds.ledger import Ledger
from redinstruct.rounds.run import Measured
from redinstruct.types import Json
from redinstruct.utility_check.data import read_local

TRUTHFUL = "truthfulqa_mc1"
SLICE = 48
"""Questions of TruthfulQA, evenly spread over the file, whose order is by category."""
ChoiceQuestions = list[tuple[str, list[str]]]
"""A question, and its answers, the true one first."""


def truthful_slice(folder: Path, count: int = SLICE) -> tuple[ChoiceQuestions, str]:
    """The questions, and the sha256 of the file ``TruthfulQA.csv`` in the folder.

    Raises:
        UsageError: there is no such file.
        BankError: it does not read.
    """
    found = read_local(folder, TRUTHFUL)
    if found is None:
        raise UsageError(f"--data {folder}: there is no TruthfulQA.csv in it")
    rows = found.splits["validation"]
    chosen = [rows[number * len(rows) // count] for number in range(min(count, len(rows)))]
    return [(str(row["question"]), list(row["mc1_targets"]["choices"])) for row in chosen], found.sha256


def truthful_share(checkpoint: str, questions: ChoiceQuestions) -> float:
    """MC1: the share of questions whose true answer is likelier than each false one."""
    from redinstruct.models.transformers import LocalModel

    model = LocalModel.load(folder_of(checkpoint), chat_template="none")
    right = 0
    for question, answers in questions:
        true, *false = model.likelihoods([(f"Q: {question}\nA:", f" {answer}") for answer in answers])
        right += true > max(false)
    return right / len(questions)


def word_perplexity(checkpoint: str) -> float:
    """Perplexity per word on the laboratory's prose, which is in no row of training."""
    from redinstruct.models.transformers import LocalModel

    halves = [text.partition(". ") for text in prose()]
    model = LocalModel.load(folder_of(checkpoint), chat_template="none")
    told = model.likelihoods([(f"{first}.", f" {rest}") for first, _, rest in halves])
    return math.exp(-math.fsum(told) / sum(len(rest.split()) for _, _, rest in halves))


def measured_beside(
    ledger: Ledger, model: Measured, asked: tuple[ChoiceQuestions, str] | None
) -> tuple[float, float | None]:
    """Perplexity, and MC1 where :func:`truthful_slice` read ``asked``: each a stage."""

    def stage(what: str, inputs: Mapping[str, str | int], measure: Callable[[str], float]) -> float:
        def work(place: Path) -> dict[str, Json]:
            place.mkdir(parents=True, exist_ok=True)
            return {what: measure(model.model)}

        done = ledger.stage(f"{model.name}-{what}", {"model": id_of(model.model), **inputs}, work)
        return msgspec.convert(done.figures[what], float)

    words = stage("perplexity", {"prose": digest()}, word_perplexity)
    if asked is None:
        return words, None
    questions, sha256 = asked
    inputs: Mapping[str, str | int] = {"data": sha256, "questions": len(questions)}
    return words, stage("truthful", inputs, lambda checkpoint: truthful_share(checkpoint, questions))
