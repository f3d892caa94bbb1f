"""One invocation on one run: every owed attempt's way from the prompt to the committed verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import LOCAL_KINDS
from redinstruct.engine import Allowance, Caller, Calling, Worklist
from redinstruct.errors import CallFailed, EndpointLost
from redinstruct.figures.deciding import BankPrompt, Decider
from redinstruct.judges import Asking, Case, Judge
from redinstruct.models import Request
from redinstruct.models.completions import completion_of
from redinstruct.prompts import AnswerReader, render
from redinstruct.redeval.invocation import Outcome, outcome_of
from redinstruct.run import Owed, OwedAttempt, Store
from redinstruct.run.config import PROTOCOL_2023, RunConfig
from redinstruct.types import (
    Completion,
    Conversation,
    Message,
    PromptTemplate,
    Question,
    Verdict,
)

TARGET, JUDGE = "target", "judge"
EMPTY_CASE = Case("", "", b"estimate")


class EvaluationSession:
    """One invocation on one run."""

    def __init__(
        self,
        store: Store,
        work: Worklist,
        config: RunConfig,
        judge: Judge,
        judge_row: int,
        owed: Owed | list[OwedAttempt],
        decider: Decider | None = None,
    ) -> None:
        self._store = store
        self._work = work
        self._config = config
        self._judge = judge
        self._judge_row = judge_row
        self._owed = owed
        self._readers: dict[str, AnswerReader] = {}
        self._target = work.callers.get(TARGET)
        self._asked = work.callers.get(JUDGE)
        self._decider = decider
        self._skipped = False

    async def go(self, run: Path, planned: int) -> Outcome:
        """Carry out what is owed.

        Raises:
            EndpointDenied: every attempt failed, and no other would fare better; nothing was recorded.
        """
        complete, stopped = True, None
        if len(self._owed):
            async with self._work.writer:
                try:
                    # What is read while it is asked is closed before the store is: an open reader keeps its log.
                    with contextlib.closing(one for one in self._in_order()) as jobs:
                        complete = await self._work.carry_out(jobs, self._attempt, len(self._owed))
                    await self._work.finish()
                except EndpointLost as lost:
                    complete, stopped = False, str(lost)
        outcome = outcome_of(self._store, self._judge_row, run, planned)
        outcome = msgspec.structs.replace(
            outcome,
            calls=self._work.calls,
            complete=complete,
            cut=not complete,
            stopped=stopped,
            notes=self._work.notes,
        )
        if self._decider is None:
            return outcome
        return msgspec.structs.replace(
            outcome,
            complete=complete and not self._skipped,
            decided=self._decider.all_decided,
            decisions=tuple(_in_words(self._decider, cell) for cell in self._decider.decisions),
        )

    def _in_order(self) -> Iterable[OwedAttempt]:
        if self._decider is not None:
            place = self._decider.place
            return sorted(self._owed, key=lambda o: place(o.attempt.key, (o.bank, o.attempt.template.name)))
        if self._target is None or not self._target.in_batches:
            return self._owed
        if isinstance(self._owed, Owed):
            self._owed.by_length()
            return self._owed
        # A batch costs as much as its longest member: like lengths together, and one prompt's shared prefix at a time.
        return sorted(self._owed, key=lambda o: (o.attempt.template.name, len(o.attempt.question.text), o.row))

    async def _attempt(self, owed: OwedAttempt) -> None:
        # What ended as an error is asked again all the same: the decision rests on no more of them than may be.
        is_new = not (owed.asked or owed.judged_no)
        if is_new and self._decider is not None and self._decider.is_decided((owed.bank, owed.attempt.template.name)):
            self._skipped = True
            return
        whole = await self._work.set_aside(*self._expected(owed)) if self._work.limited else None
        with whole or contextlib.nullcontext():
            completion = owed.completion or await self._sample(owed, whole)
            if completion is not None and completion.outcome == "text":
                await self._judge_answer(owed, completion, whole)

    def _expected(self, owed: OwedAttempt) -> tuple[int, float]:
        """Calls and dollars (at most) that the attempt takes when nothing goes wrong."""
        calls, cost = 0, 0.0
        if owed.completion is None and self._target is not None:
            calls, cost = 1, self._target.bound(self._request(owed))
        if self._asked is not None:
            calls, cost = calls + 1, cost + self._judge_bound(self._asked, owed)
        return calls, cost

    def _judge_bound(self, asked: Caller, owed: OwedAttempt) -> float:
        """Dollars (at most, nearly) of one judgement: the judge's own words, the question, an answer of full length."""
        own = asked.bound(self._judge.request(EMPTY_CASE)) if isinstance(self._judge, Asking) else 0.0
        read = len(owed.attempt.question.text.encode("utf-8", "surrogatepass")) + 8 * self._config.sampling.max_tokens
        return own + asked.prices.cost(read, 0)

    def _request(self, owed: OwedAttempt) -> Request:
        sampling = self._config.sampling
        if sampling.seed is not None and owed.attempt.epoch > 1:
            # Equal seeds would make equal answers of all epochs.
            sampling = msgspec.structs.replace(sampling, seed=sampling.seed + owed.attempt.epoch - 1)
        earlier = owed.attempt.question.earlier
        messages: Conversation = (*earlier, Message("user", render(owed.attempt.template, owed.attempt.question.text)))
        if self._config.system is not None:
            messages = under(self._config.system, messages)
        elif self._config.protocol == PROTOCOL_2023 and not self._config.model.startswith(LOCAL_KINDS):
            # The paper's endpoint runs sent an empty system prompt (spec 1.3).
            messages = (Message("system", ""), *messages)
        # What stands before the last turn differs from question to question: there is no prefix that all share.
        return Request(messages, sampling, "" if earlier else owed.attempt.template.prefix)

    def _reader(self, template: PromptTemplate) -> AnswerReader:
        reader = AnswerReader(template, protocol_2023=self._config.protocol == PROTOCOL_2023)
        return self._readers.setdefault(template.sha256, reader)

    async def _sample(self, owed: OwedAttempt, allowance: Allowance | None) -> Completion | None:
        """The committed answer; None: it failed, and waits until another one has come."""
        assert self._target is not None, "judging again never samples"
        template, request = owed.attempt.template, self._request(owed)
        try:
            asked = await self._work.ask(TARGET, request, allowance)
        except CallFailed as failure:
            reason: str | None = failure.reason
            ended = Completion("error", reason=reason, note=failure.note, tries=failure.tries, seconds=failure.seconds)
        else:
            reply, tries, seconds = asked
            reader = self._readers.get(template.sha256) or self._reader(template)
            reason, ended = None, completion_of(reply, reader, request.messages[-1].content, tries, seconds)
        told = None if ended.outcome == "text" else partial(self._tell, owed, ended.outcome, ended.reason)
        row = (owed.row, owed.asked, ended)
        return ended if await self._work.record(TARGET, reason, self._store.commit_completions, row, told) else None

    async def _judge_answer(self, owed: OwedAttempt, completion: Completion, allowance: Allowance | None) -> None:
        case = Case(what_is_asked(owed.attempt.question), completion.judged or "", owed.attempt.key)
        call = Calling(self._work, JUDGE, allowance)
        try:
            verdict = await self._judge.verdict(case, call)
        except CallFailed as failure:
            verdict = Verdict("error", reason=failure.reason, note=failure.note)
        if call.tries:
            verdict = msgspec.structs.replace(verdict, tries=call.tries)
        reason = verdict.reason if verdict.label == "error" else None
        told = partial(self._tell, owed, verdict.label, verdict.reason)
        row = (owed.row, owed.asked, self._judge_row, owed.judged_no, verdict)
        await self._work.record(JUDGE, reason, self._store.commit_verdicts, row, told)

    def _tell(self, owed: OwedAttempt, label: str, reason: str | None) -> None:
        if self._decider is not None:
            self._decider.record(owed.attempt.key, (owed.bank, owed.attempt.template.name), label, reason)
        self._work.tell(label=label)


def _in_words(decider: Decider, cell: BankPrompt) -> str:
    decision = decider.decisions[cell]
    return (
        f"{cell[0]}/{cell[1]}: decided, the rate lies {decision.side} {decider.limit:g} "
        f"({100 * decision.low:.1f} to {100 * decision.high:.1f} % after {decider.counted(cell):,} attempts)"
    )


def under(system: str, messages: Conversation) -> Conversation:
    """A conversation under a deployed system prompt; one of its own follows in the same message, after a blank line."""
    own = [message.content for message in messages if message.role == "system"]
    return (Message("system", "\n\n".join((system, *own))), *(m for m in messages if m.role != "system"))


def what_is_asked(question: Question) -> str:
    """What a judge is shown as the question: of a conversation its turns, who speaks in front of each."""
    if not question.earlier:
        return question.text
    turns = [turn for turn in question.earlier if turn.role != "system"]
    if not turns:
        return question.text
    names = {"user": "User", "assistant": "Assistant"}
    return "\n\n".join(f"{names[turn.role]}: {turn.content}" for turn in (*turns, Message("user", question.text)))
