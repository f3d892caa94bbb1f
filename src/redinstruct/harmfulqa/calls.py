"""Every call once: what is committed is read, what is owed is asked and committed before it is used.

The pipeline is ordinary code that asks for calls by key. Run again, it finds its earlier calls in the store and goes on
where they end; run without models (:class:`Recorded`), it reads a collection as far as that went. So a step's owed keys
are a function of the configuration and of the committed rows alone, whatever the order in which calls came back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from redinstruct.engine import Calling, Worklist
from redinstruct.errors import CallFailed
from redinstruct.judges import Asking, Case, Judge
from redinstruct.models import Reply, Request
from redinstruct.run import CallRow, CollectionStore, StoredCall
from redinstruct.types import NoResponseReason

J = TypeVar("J")
R = TypeVar("R")

TEACHER, ANSWERER, JUDGE = "teacher", "answerer", "judge"


class NotRecorded(Exception):
    """The call is owed, and nobody is there to be asked."""


class CallsEnded(Exception):
    """A limit of calls or money ended the work."""


class CollectionCall(msgspec.Struct, frozen=True):
    """One thing to ask: the step, who is asked, what makes it this call and no other, and what is sent.

    ``send`` is called only when the call is owed; it is given the number of the try.
    """

    step: str
    role: str
    identity: tuple[str, ...]
    send: Callable[[int], Request]

    @property
    def key(self) -> bytes:
        """32 bytes, equal exactly for equal steps and identities."""
        return hashlib.sha256(json.dumps((self.step, *self.identity)).encode()).digest()


class Recorded:
    """A collection's committed calls, and nothing else. ``judge_id`` is there where its answers are judged."""

    def __init__(self, calls: Iterable[tuple[bytes, int, StoredCall]], judge_id: str | None = None) -> None:
        self.judge_id = judge_id
        self._known: dict[bytes, list[StoredCall]] = {}
        for key, _, call in calls:
            self._known.setdefault(key, []).append(call)

    def known(self, key: bytes) -> Sequence[StoredCall]:
        """The committed calls of a key, in their order."""
        return self._known.get(key, ())

    def may_ask_again(self, key: bytes) -> bool:  # noqa: ARG002 - nothing is asked here
        """Whether a call that failed for good may be asked once more (without ``--keep-errors``): never here."""
        return False

    async def call(self, ask: CollectionCall) -> StoredCall:
        """The next call of a key: asked, and committed. Raises :class:`NotRecorded` here, where nobody is asked."""
        raise NotRecorded(ask.step)

    async def judged(self, key: bytes, case: Case) -> StoredCall:  # noqa: ARG002 - nobody is asked
        """A verdict (JSON in ``reply``): asked of the judge, and committed. Raises :class:`NotRecorded` here."""
        raise NotRecorded("verdict")

    async def each(
        self,
        stage: str,  # noqa: ARG002 - nothing takes long here
        jobs: Sequence[J],
        name: Callable[[J], str],  # noqa: ARG002
        work: Callable[[J], Awaitable[R]],
    ) -> list[R | None]:
        """Do every job, one after the other; the results in the jobs' order, None where one is owed."""
        found: list[R | None] = []
        for job in jobs:
            try:
                found.append(await work(job))
            except NotRecorded:
                found.append(None)
        return found


class Live(Recorded):
    """The committed calls, and the models for those that are owed."""

    def __init__(self, store: CollectionStore, work: Worklist, *, judge: Judge | None = None) -> None:
        super().__init__(store.calls(), None if judge is None else judge.card.id)
        self._judge = judge
        self._store = store
        self._work = work
        # What failed before this invocation may be asked again; what fails in it has had its tries.
        failed = (key for key, calls in self._known.items() if calls[-1].outcome == "error")
        self._again = set[bytes]() if work.limits.keep_errors else set(failed)

    def may_ask_again(self, key: bytes) -> bool:
        """Once for every call that had failed before this invocation."""
        return key in self._again

    async def call(self, ask: CollectionCall) -> StoredCall:
        """Ask the model of that role."""
        number = len(self.known(ask.key))
        request = ask.send(number)
        encoded = msgspec.json.encode(_plain(request))
        try:
            call = _read(*await self._work.ask(ask.role, request))
        except CallFailed as failure:
            call = _failed(failure, failure.tries, failure.seconds)
        digest = hashlib.sha256(encoded).digest()
        await self._keep(CallRow(ask.key, number, ask.step, ask.role, digest, len(encoded), call))
        return call

    async def judged(self, key: bytes, case: Case) -> StoredCall:
        """Ask the judge; its verdict is one row, however many calls it took."""
        assert self._judge is not None
        calling = Calling(self._work, JUDGE)
        started = time.perf_counter()
        try:
            verdict = await self._judge.verdict(case, calling)
        except CallFailed as failure:
            call = _failed(failure, calling.tries, time.perf_counter() - started)
        else:
            told = json.dumps(msgspec.to_builtins(verdict))
            seconds = time.perf_counter() - started
            call = StoredCall(
                "text", told, tokens_in=verdict.tokens_in, tokens_out=verdict.tokens_out, tries=calling.tries,
                seconds=seconds,
            )  # fmt: skip
            if verdict.label == "error":
                call = msgspec.structs.replace(
                    call, outcome="error", reply=None, reason=verdict.reason, note=verdict.note
                )
        sent = self._judge.request(case) if isinstance(self._judge, Asking) else None
        encoded = msgspec.json.encode(_plain(sent) if sent else [ascii(case.question), ascii(case.answer)])
        digest = hashlib.sha256(encoded).digest()
        await self._keep(CallRow(key, len(self.known(key)), "verdict", JUDGE, digest, len(encoded), call))
        return call

    async def _keep(self, row: CallRow) -> None:
        """Commit a call, and only then let it be known. A failing one waits until another answer has come."""
        self._again.discard(row.key)
        reason = row.call.reason if row.call.outcome == "error" else None
        await self._work.record(row.role, reason, self._store.commit, row)
        self._known.setdefault(row.key, []).append(row.call)

    async def each(
        self, stage: str, jobs: Sequence[J], name: Callable[[J], str], work: Callable[[J], Awaitable[R]]
    ) -> list[R | None]:
        """Do every job, as many at once as there are workers."""
        found: list[R | None] = [None] * len(jobs)
        progress = self._work.progress
        progress.total, progress.done = len(jobs), 0

        async def one(entry: tuple[int, J]) -> None:
            number, job = entry
            found[number] = await work(job)
            self._work.tell(f"{stage}: {name(job)}")

        if not await self._work.carry_out(enumerate(jobs), one, len(jobs)):
            raise CallsEnded
        await asyncio.sleep(0)  # a stage whose calls were all recorded still lets Ctrl-C in
        self._work.check()
        progress.labels[stage] = sum(result is not None for result in found)
        return found


def _failed(failure: CallFailed, tries: int, seconds: float) -> StoredCall:
    return StoredCall("error", None, failure.reason, failure.note, tries=tries, seconds=seconds)


def _plain(request: Request) -> list[object]:
    return [[[m.role, ascii(m.content)] for m in request.messages], msgspec.to_builtins(request.sampling)]


def _read(reply: Reply, tries: int, seconds: float) -> StoredCall:
    outcome, reason = "text", None
    if reply.filtered:
        outcome, reason = "no_response", NoResponseReason.PROVIDER_FILTER
    elif not reply.answer.strip():
        thought = reply.thought or (reply.text or "").strip()
        outcome, reason = "no_response", NoResponseReason.EMPTY_AFTER_THOUGHTS if thought else NoResponseReason.EMPTY
    return StoredCall(
        outcome, reply.text, reason, reply.note, reply.finish_reason, reply.tokens_in, reply.tokens_out, tries, seconds
    )
