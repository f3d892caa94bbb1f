"""A model asked directly: answers, and log-probabilities of given answers. Needs no harness.

Calls, limits and progress are the engine's. A local model, here or in a worker, computes log-probabilities itself; an
endpoint gives them through ``/completions``, if it has it: an answer's is the sum over the tokens that begin in it (a
blank between it and the question counts to the answer, as in the harness). The first token of all has no probability
there, so that an answer to an empty question lacks its first token. A call that fails for good ends the task, and one
that the limits leave no room for is not begun: utility is not measured on what happened to arrive.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence

import msgspec

from redinstruct.engine import LimitReached, Limits, Party, Spending, Worklist, in_a_loop, is_failing, scoring
from redinstruct.engine.opening import closing
from redinstruct.errors import CallFailed, RedInstructError
from redinstruct.models import Model, Request
from redinstruct.models.base import Reply, TokenChoice
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.types import FailureReason, Message, Sampling

_PROBE = "The sky is blue."
# Azure says so of its chat models with a 400: "The completion operation does not work with the specified model".
_OTHER_WAY = re.compile(r"\boperation\b|chat (?:completions? )?models?\b|/completions\b", re.IGNORECASE)
TARGET = "target"


class TaskTally(msgspec.Struct):
    """What one task took: texts ``seen``, of them ``cut`` without their beginnings; tokens ``read`` and ``written``.

    ``on_progress`` is told how far the task is; ``notes`` are for its card.
    """

    on_progress: OnProgress = unheard
    seen: int = 0
    cut: int = 0
    read: int = 0
    written: int = 0
    notes: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """What the card says of texts that lost their beginnings, and the notes."""
        cut = f"{self.cut:,} of {self.seen:,} requests were longer than the model reads: their beginnings were cut"
        return (cut, *self.notes) if self.cut else self.notes


class Asker:
    """A model, and the limits of all that it is asked. ``tally`` is that of the task at work, at first of trying it."""

    def __init__(self, model: Model, limits: Limits | None = None, spending: Spending | None = None) -> None:
        self._model = scoring.answering(model)
        self._limits = limits or Limits()
        self._spending = spending
        self._answered = False
        self._failing: RedInstructError | None = None
        self.computes = scoring.computes(model)
        self.tally = TaskTally()

    def say(self, requests: Sequence[Request]) -> list[Reply]:
        """Every reply, in order.

        Raises:
            EndpointDenied: the endpoint fails at the first call already (refused, nobody there).
            EndpointLost: it fails later on; tasks before this one are recorded.
            LimitReached: so many calls, or so much money, are not left.
            RedInstructError: a call failed for good.
        """
        try:
            return in_a_loop(self._say(requests))
        except CallFailed as error:
            raise (self._failing or self._gave_up(error)) from error

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The natural log-probability of each answer to its question, in order.

        Raises:
            RedInstructError: a call failed for good, or the endpoint gives none for one of the texts.
        """
        return [found for found, _ in self.echoed(pairs)]

    def echoed(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """``(log-probability, whether each token is the likeliest)`` of each answer to its question, in order.

        Who computes them says nothing of other tokens: each is False.

        Raises:
            RedInstructError: a call failed for good, or the endpoint gives none for one of the texts.
        """
        self.tally.seen += len(pairs)
        if self.computes:
            replies = self.say([scoring.asked_for(*pair) for pair in pairs])
            self.tally.cut += sum(reply.finish_reason == scoring.CUT for reply in replies)
            return [(scoring.told(reply), False) for reply in replies]
        replies = self.say([_echo(context + continuation) for context, continuation in pairs])
        return [likelihood(reply.choices, *pair) for reply, pair in zip(replies, pairs, strict=True)]

    def takes(self, request: Request) -> bool:
        """Whether the endpoint knows such a call at all; it is asked once.

        Raises:
            RedInstructError: the call failed for another reason.
        """
        try:
            in_a_loop(self._say([request]))
        except CallFailed as error:
            if error.reason in (FailureReason.NOT_FOUND, FailureReason.HTTP_STATUS):
                return False
            if error.reason == FailureReason.BAD_REQUEST and _OTHER_WAY.search(error.note or ""):
                return False
            raise self._gave_up(error) from error
        return True

    def why_no_probabilities(self) -> str | None:
        """Why log-probabilities cannot be had, None if they can; an endpoint is asked once, if it may be asked."""
        if self.computes:
            return None
        try:
            (reply,) = in_a_loop(self._say([_echo(_PROBE)]))
        except LimitReached:
            return None
        except CallFailed as error:
            return _said(error)
        return None if reply.choices else "its answer holds none"

    async def _say(self, requests: Sequence[Request]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        party = Party(self._model, self._limits.prices, begun=self._answered)
        progress, tally = Progress(0, len(requests)), self.tally
        work = Worklist({TARGET: party}, self._limits, self._spending, tally.on_progress, progress)
        cost = sum(map(work.callers[TARGET].bound, requests))
        whole = await work.set_aside(len(requests), cost) if work.limited else None

        async def one(number: int) -> None:
            try:
                reply, _, _ = await work.ask(TARGET, requests[number], whole)
            except CallFailed as failure:
                # One is enough: a task is measured whole or not at all.
                self._failing = work.callers[TARGET].fuse.stop() if is_failing(failure.reason) else None
                raise
            replies[number] = reply
            tally.read, tally.written = tally.read + (reply.tokens_in or 0), tally.written + (reply.tokens_out or 0)
            self._answered = True
            work.tell()

        async with closing(self._model):
            with whole or contextlib.nullcontext():
                if not await work.carry_out(range(len(requests)), one, len(requests)):
                    raise LimitReached
        return [replies[number] for number in range(len(requests))]

    def _gave_up(self, error: CallFailed) -> RedInstructError:
        return RedInstructError(
            f"{self._model.id}: a call failed for good ({_said(error)}); the task was not recorded, run again"
        )


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
