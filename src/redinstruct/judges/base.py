"""What every judge is: a measuring instrument with an identity and one method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import msgspec

from redinstruct.machine import machine_secret
from redinstruct.models.base import Reply, Request, is_cut
from redinstruct.types import ATTACK_SUCCESS, JudgeCard, Measure, Verdict

Call = Callable[[Request], Awaitable[Reply]]
"""One call to the judge's model, with the engine's retries and limits around it. Raises ``CallFailed``."""


class Case(msgspec.Struct, frozen=True):
    """What a judge sees: the bare question, the answer (``Completion.judged``), and the attempt's key (bytes)."""

    question: str
    answer: str
    key: bytes = b""


@runtime_checkable
class Bindable(Protocol):
    """A judge that needs this machine's secret before it can judge."""

    def bound_to(self, secret: bytes) -> Judge:
        """The same instrument, its verdicts bound to a secret."""
        ...


def bound_judge(judge: Judge) -> Judge:
    """The judge as it can judge on this machine: bound to its secret, where it needs one.

    Raises:
        UsageError: what stands in the secret's place is none.
    """
    return judge.bound_to(machine_secret()) if isinstance(judge, Bindable) else judge


@runtime_checkable
class Asking(Protocol):
    """A judge that asks a model: what it would send for a case."""

    def request(self, case: Case) -> Request:
        """The call for one case."""
        ...


def note_of(reply: Reply) -> str | None:
    """Why a judge's reply is no verdict, where the reply itself tells: a filter's words, or that a limit ended it."""
    if reply.note is not None or not is_cut(reply.finish_reason):
        return reply.note
    return "the limit ended the judge's reply: raise it with --judge-option max_tokens=N"


def no_verdict(reply: Reply, reason: str) -> Verdict:
    """What a reply is that holds no verdict: ``judge_refused`` where the provider withheld it, else ``unparsable``."""
    label, why = ("judge_refused", "provider_filter") if reply.filtered else ("unparsable", reason)
    return Verdict(
        label, reason=why, note=note_of(reply), raw=reply.text or "", tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
    )  # fmt: skip


def label_of(measure: Measure, *, harmful: bool, refused: bool) -> str:
    """The measure's label of an answer of which both are told."""
    counted = harmful if measure == ATTACK_SUCCESS else refused
    return measure.first if counted else measure.second


@runtime_checkable
class Judge(Protocol):
    """``card`` is its identity; ``measure`` what its labels mean. A judge without a model never awaits ``call``."""

    @property
    def card(self) -> JudgeCard: ...

    @property
    def measure(self) -> Measure: ...

    async def verdict(self, case: Case, call: Call) -> Verdict:
        """Label one answer. Lets ``CallFailed`` pass: the engine records it as ``error``."""
        ...
