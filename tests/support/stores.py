"""Stores for tests: an inert bank, every noun generated, and what a store must answer, kept in a dict."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.prompts import parse_template
from redinstruct.run import Store
from redinstruct.run.config import Pinned, RunConfig, attempt_key
from redinstruct.types import (
    ATTACK_SUCCESS,
    DETAILS,
    MEASURES,
    Attempt,
    Bank,
    Completion,
    JudgeCard,
    PromptTemplate,
    Question,
    Sampling,
    Verdict,
)

RAM = Path("/dev/shm")
ROOM = 4 * 2**30
"""Bytes: what all workers leave there by the end of a run is under a tenth of it."""


def roomy(folder: Path) -> bool:
    """Whether the tests' folders fit there (a container's /dev/shm often has 64 MB)."""
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for stores, in memory where there is such a place: a kill is no power cut, and syncing takes a while."""
    with tempfile.TemporaryDirectory(dir=RAM if os.access(RAM, os.W_OK) else None, prefix="redinstruct-") as folder:
        yield Path(folder)


TEMPLATES = (
    parse_template("standard", "<question>"),
    parse_template("cou", "Red-LM: <question>\nBase-LM:"),
)
CARD = JudgeCard("refusal", "attack_success")
OTHER_CARD = JudgeCard("paper", "attack_success", "openai/j", "ab" * 32, (("temperature", "0"),), notes=("a note",))

SCRIPT = """
import os, signal, sys
from pathlib import Path
from typing import Any
from redinstruct.errors import RedInstructError, StoreError
from redinstruct.run import Store
from redinstruct.types import Verdict
from tests.support.stores import *
run = Path(sys.argv[1])
"""
"""How a child process of these tests begins (`python -c SCRIPT + ... RUN`, in the repository's root)."""


def make_bank(size: int = 4, name: str = "bank", topics: Sequence[str | None] = ("first", "second")) -> Bank:
    """A bank of inert questions that take turns in the topics."""
    sha = hashlib.sha256(f"{name}{size}".encode("utf-8", "surrogatepass")).hexdigest()
    return Bank(
        name,
        sha,
        tuple(Question(f"{sha}:{i}", f"What is item {i}?", i, topics[i % len(topics)]) for i in range(size)),
    )


class Setup(msgspec.Struct, frozen=True):
    """What a run is planned from."""

    banks: tuple[Bank, ...] = (make_bank(),)
    templates: tuple[PromptTemplate, ...] = TEMPLATES
    card: JudgeCard = CARD
    limit: int | None = None
    epochs: int = 1
    model: str = "openai/m"
    sampling: Sampling = Sampling()

    @property
    def config(self) -> RunConfig:
        """Its configuration."""
        return RunConfig(
            model=self.model,
            banks=tuple(Pinned(b.name, b.sha256) for b in self.banks),
            prompts=tuple(Pinned(t.name, t.sha256) for t in self.templates),
            measure=self.card.measure,
            judge=self.card.id,
            sampling=self.sampling,
            chat_template="native",
            limit=self.limit,
            epochs=self.epochs,
        )

    @property
    def attempts(self) -> list[Attempt]:
        """Its attempts, as ``redinstruct.redeval`` orders them."""
        return [
            Attempt(attempt_key(self.config, question, template, epoch), question, template, epoch)
            for epoch in range(1, self.epochs + 1)
            for template in self.templates
            for bank in self.banks
            for question in bank.questions[: self.limit]
        ]

    def plan(self, store: Store) -> int:
        """Plan the run; returns the judge's row."""
        return store.plan(self.config, self.banks, self.templates, self.attempts, self.card)


def text(words: str = "an inert answer") -> Completion:
    """An answer to judge."""
    return Completion("text", raw=words, judged=words)


def fill(store: Store, judge: int, labels: Sequence[str], first: int = 1) -> None:
    """One answer and one verdict per label, each in transactions of its own, on the attempts from row ``first``."""
    for row, label in enumerate(labels, first):
        store.commit_completions([(row, 0, text(f"answer {row}"))])
        store.commit_verdicts([(row, 0, judge, 0, Verdict(label))])


def recorded(folder: Path, judge: int = 1) -> dict[str, str | None]:
    """Key to label of all that a reader sees."""
    with Store.open_for_reading(folder) as store:
        return {view.key: view.label for view in store.attempts(judge)}


# ---- every noun, with any text ----------------------------------------------------------------------------------

# Lone surrogates, NUL, bidirectional controls and the marks of the store's own escapes among the rest.
any_text = st.text(
    st.one_of(
        st.characters(codec=None, exclude_categories=()),
        st.sampled_from("\x00\ud800\udfff\u202e\u2066\u200b\ufeff\u2028\x85\U0010f8d8\r\n=\"'0afd"),
    ),
    max_size=12,
)
maybe = st.none() | any_text
counts = st.none() | st.integers(0, 2**53)
completions = st.builds(
    Completion,
    outcome=st.sampled_from(("no_response", "error")),
    raw=maybe,
    judged=maybe,
    reason=maybe,
    note=maybe,
    finish_reason=maybe,
    tokens_in=counts,
    tokens_out=counts,
    truncated=st.booleans(),
    flags=st.lists(st.sampled_from(("thought", "echo", "next_turn")), unique=True).map(tuple),
    tries=st.integers(0, 99),
    seconds=st.floats(0, 1e9),
)
# An answer to judge has a text; the others may lack it.
texts = st.builds(
    lambda c, raw, judged, same: msgspec.structs.replace(c, outcome="text", raw=raw, judged=raw if same else judged),
    completions,
    any_text,
    any_text,
    st.booleans(),
)
verdicts = st.builds(
    Verdict,
    label=st.sampled_from(ATTACK_SUCCESS.labels),
    detail=st.none() | st.sampled_from(DETAILS),
    reason=maybe,
    raw=maybe,
    tokens_in=counts,
    tokens_out=counts,
    tries=st.integers(0, 99),
)
samplings = st.builds(
    Sampling,
    max_tokens=st.integers(1, 9999),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(any_text, max_size=3).map(tuple),
)
configs = st.builds(
    RunConfig,
    model=any_text,
    banks=st.lists(st.builds(Pinned, any_text, any_text), max_size=2).map(tuple),
    prompts=st.lists(st.builds(Pinned, any_text, any_text), max_size=2).map(tuple),
    measure=st.sampled_from(sorted(MEASURES)),
    judge=any_text,
    sampling=samplings,
    chat_template=any_text,
    options=st.lists(st.tuples(any_text, any_text), max_size=2).map(tuple),
    limit=st.none() | st.integers(0, 99),
    epochs=st.integers(1, 9),
)


def report(runs: Sequence[Path], judge: str | None = None) -> Any:
    """What ``redinstruct report --json`` prints of the runs."""
    return plain(read_report(runs, judge))
