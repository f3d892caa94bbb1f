"""A model asked directly: answers, and log-probabilities of given answers. Needs no harness.

Retries, the gate and the fuse are the engine's. A local model computes log-probabilities itself; an endpoint gives them
through ``/completions``, if it has it: an answer's is the sum over the tokens that begin in it (a blank between it and
the question counts to the answer, as in the harness). The first token of all has no probability there, so that an
answer to an empty question lacks its first token. A call that fails for good ends the task: utility is not measured on
what happened to arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from redinstruct.engine import PATIENCE, Caller, in_a_loop, is_failing, run_pool
from redinstruct.errors import CallFailed, RedInstructError
from redinstruct.models import Model, Request
from redinstruct.models.base import ModelError, Reply, TokenChoice
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.types import FailureReason, Message, Sampling

_PROBE = "The sky is blue."


@runtime_checkable
class Scoring(Protocol):
    """A model that computes log-probabilities in this process."""

    cut: int

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        """The natural log-probability of each answer to its question, in order; ``cut`` counts those cut to fit."""
        ...


class Asker:
    """A model, and how many calls it gets at once."""

    def __init__(self, model: Model, concurrency: int = 16, patience: float = PATIENCE) -> None:
        self._model = model
        # A model that answers in batches is given the next one while it computes.
        self._concurrency = concurrency if model.batch_size == 1 else max(concurrency, 2 * model.batch_size)
        self._patience = patience
        self._answered = False
        self._failing: RedInstructError | None = None
        self.on_progress: OnProgress = unheard

    def say(self, requests: Sequence[Request]) -> list[Reply]:
        """Every reply, in order.

        Raises:
            EndpointDenied: the endpoint fails at the first call already (refused, nobody there).
            EndpointLost: it fails later on; tasks before this one are recorded.
            RedInstructError: a call failed for good.
        """
        try:
            return self._say(requests)
        except CallFailed as error:
            raise (self._failing or self._gave_up(error)) from error

    @property
    def cut(self) -> int:
        """Texts so far that a local model could read only without their beginnings."""
        return self._model.cut if isinstance(self._model, Scoring) else 0

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        """The natural log-probability of each answer to its question, in order.

        With ``cut``, a local model reads what is too long for it without its beginning.

        Raises:
            RedInstructError: a call failed for good, or the endpoint gives none for one of the texts.
        """
        if isinstance(self._model, Scoring):
            return self._computed(self._model, pairs, cut=cut)
        return [found for found, _ in self.echoed(pairs)]

    def echoed(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """``(log-probability, whether each token is the likeliest)`` of each continuation of a text, by an endpoint.

        Raises:
            RedInstructError: a call failed for good, or the endpoint gives none for one of the texts.
        """
        replies = self.say([_echo(context + continuation) for context, continuation in pairs])
        return [likelihood(reply.choices, *pair) for reply, pair in zip(replies, pairs, strict=True)]

    def takes(self, request: Request) -> bool:
        """Whether the endpoint knows such a call at all; it is asked once.

        Raises:
            RedInstructError: the call failed for another reason.
        """
        try:
            self._say([request])
        except CallFailed as error:
            if error.reason in (FailureReason.NOT_FOUND, FailureReason.HTTP_STATUS):
                return False
            raise self._gave_up(error) from error
        return True

    def why_no_probabilities(self) -> str | None:
        """Why log-probabilities cannot be had, None if they can; an endpoint is asked once."""
        if isinstance(self._model, Scoring):
            return None
        try:
            (reply,) = self._say([_echo(_PROBE)])
        except CallFailed as error:
            return _said(error)
        return None if reply.choices else "its answer holds none"

    def _say(self, requests: Sequence[Request]) -> list[Reply]:
        replies: dict[int, Reply] = {}

        async def every() -> None:
            caller = Caller(self._model, ceiling=self._concurrency, patience=self._patience, begun=self._answered)

            async def work(number: int) -> None:
                try:
                    replies[number] = (await caller(requests[number])).reply
                except CallFailed as error:
                    # One is enough: a task is measured whole or not at all.
                    self._failing = caller.fuse.stop() if is_failing(error.reason) else None
                    raise
                self._answered = True
                self.on_progress(Progress(len(replies), len(requests)))

            try:
                await run_pool(range(len(requests)), work, self._concurrency)
            finally:
                await caller.aclose()

        in_a_loop(every())
        return [replies[number] for number in range(len(requests))]

    def _computed(self, model: Scoring, pairs: Sequence[tuple[str, str]], *, cut: bool) -> list[float]:
        found: list[float] = []
        try:
            for start in range(0, len(pairs), self._model.batch_size):
                found += model.likelihoods(pairs[start : start + self._model.batch_size], cut=cut)
                self.on_progress(Progress(len(found), len(pairs)))
        except ModelError as error:
            raise self._gave_up(CallFailed(error.reason, note=error.note)) from error
        return found

    def _gave_up(self, error: CallFailed) -> RedInstructError:
        return RedInstructError(
            f"{self._model.id}: a call failed for good ({_said(error)}); the task was not recorded, run again"
        )


def cut_note(cut: int, asked: int) -> tuple[str, ...]:
    """What a card says of texts that lost their beginnings."""
    told = f"{cut:,} of {asked:,} requests were longer than the model reads: their beginnings were cut"
    return (told,) if cut else ()


def _said(error: CallFailed) -> str:
    return f"{error.reason}{f': {error.note}' if error.note else ''}"


def _echo(text: str) -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=1, temperature=0.0), echo=True)


def likelihood(tokens: Sequence[TokenChoice], context: str, continuation: str) -> tuple[float, bool]:
    """The log-probability of ``continuation`` after ``context``, and whether each of its tokens is the likeliest.

    Raises:
        RedInstructError: the endpoint gave none for this text.
    """
    if "".join(token.token for token in tokens) != context + continuation:
        raise RedInstructError("the endpoint gave no log-probabilities for one of the texts; the task was not recorded")
    start, at, found, greedy = len(context.rstrip()), 0, [], True
    for token in tokens:
        end = at + len(token.token)
        if end > start and token.alternatives:
            own = token.alternatives[0][1]
            found.append(own)
            greedy = greedy and all(own >= other for _, other in token.alternatives[1:])
        at = end
    return math.fsum(found), greedy
