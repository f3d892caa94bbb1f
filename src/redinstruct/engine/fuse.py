"""When to stop asking an endpoint that will not answer: the rule about failing attempts (design 5).

*Failing* is what no other attempt will fare better with: a key or a name that is refused, a quota that is spent, nobody
who answers, a server that fails through all tries. A provider's filter is an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from redinstruct.errors import CallFailed, EndpointDenied, EndpointLost, RedInstructError
from redinstruct.types import FailureReason

FUSE_ATTEMPTS = 20
FAILING = frozenset(
    {
        FailureReason.UNAUTHORIZED,
        FailureReason.FORBIDDEN,
        FailureReason.NOT_FOUND,
        FailureReason.QUOTA,
        FailureReason.UNREACHABLE,
        FailureReason.CONNECTION,
        FailureReason.TIMEOUT,
        FailureReason.SERVER_ERROR,
    }
)


def is_failing(reason: str | None) -> bool:
    """Whether an attempt that ended so says that the endpoint, not the question, is at fault."""
    return reason in FAILING


class Fuse:
    """Counts the attempts of one model that end failing, one after another, in the order of their ends.

    ``streak`` is how many stand at the end of the line now; ``broken`` counts how often such a line was ended by an
    answer. A failing attempt should be recorded once its line is broken, and not before: 20 in a line stop the run, and
    stay owed. ``begun``: other work of the run stands already, so that it is never denied, only lost.
    """

    def __init__(self, who: str, address_from: str = "the endpoint's address", begun: bool = False) -> None:
        self.streak = 0
        self.broken = 0
        self.answered = False
        self._begun = begun
        self._who = who
        self._address_from = address_from
        self._ends: Counter[tuple[str, str]] = Counter()

    def ended(self, failure: CallFailed | None) -> None:
        """Tell the fuse how one attempt ended.

        Raises:
            EndpointDenied: it was the twentieth, and no other attempt has ended in another way.
            EndpointLost: it was the twentieth in a line.
        """
        if failure is None or not is_failing(failure.reason):
            self.answered = True
            if self.streak:
                self.streak = 0
                self.broken += 1
                self._ends.clear()
            return
        self.streak += 1
        self._ends[failure.reason, failure.note or ""] += 1
        if self.streak >= FUSE_ATTEMPTS:
            raise self.stop()

    def stop(self) -> RedInstructError:
        """What to raise when the line at the end is the last that will be: denied, or lost."""
        if not (self.answered or self._begun):
            first = f"the first {self.streak} attempts" if self.streak > 1 else "the first attempt"
            return EndpointDenied(
                f"{self._who}: {first} ended as {self._said()}. {self._advice()}; none of them was recorded."
            )
        last = f"the last {self.streak} attempts" if self.streak > 1 else "the last attempt"
        return EndpointLost(
            f"{self._who}: {last}, one after another, ended as {self._said()}: stopped, they stay owed. "
            f"{self._advice()}, and run the same command again."
        )

    def gave_up(self, patience: float) -> EndpointLost:
        """Nobody answers any more."""
        return EndpointLost(
            f"{self._who}: nobody has answered at the address in {self._address_from} for {patience:g} s: stopped, "
            "what was in flight stays owed. Is the server up? The same command goes on; --patience waits longer."
        )

    def _said(self) -> str:
        """Each distinct end with its count and the endpoint's own words."""
        return ", ".join(
            f"{reason} {count}{f' ({words})' if words else ''}" for (reason, words), count in self._ends.most_common(5)
        )

    def _advice(self) -> str:
        reasons = {reason for reason, _ in self._ends}
        if FailureReason.UNREACHABLE in reasons:
            return f"Nobody answers at the address in {self._address_from}: is the server up"
        if FailureReason.QUOTA in reasons:
            return "The quota or credit is spent: add to it, or use another key"
        if reasons & {FailureReason.SERVER_ERROR, FailureReason.CONNECTION}:
            return f"Look at the server at the address in {self._address_from}"
        if FailureReason.TIMEOUT in reasons:
            return "Give it a longer --timeout, or a smaller --concurrency"
        return "Check the key, the model's name and the address"


class Held:
    """Failing ends that wait to be recorded until their line is broken by an answer."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Fuse, int, Callable[[], Awaitable[None]]]] = []
        """Each with its model's fuse, and how often that line was broken when it came."""

    def add(self, fuse: Fuse, record: Callable[[], Awaitable[None]]) -> None:
        """Keep what ``record`` would write down."""
        self.waiting.append((fuse, fuse.broken, record))

    def check(self) -> None:
        """At the end of the work, or of a part that the next one builds on.

        Raises:
            EndpointDenied, EndpointLost: a model has answered nothing at all.
        """
        for fuse, _, _ in self.waiting:
            if not fuse.answered:
                raise fuse.stop()

    async def release(self, *, ended: bool = False) -> None:
        """Record what stands in a line that was broken; at the end of the work, also what was not answered any more.

        Raises:
            EndpointDenied, EndpointLost: at the end, as :meth:`check`.
        """
        if ended:
            self.check()
        ready = [record for fuse, line, record in self.waiting if ended or line < fuse.broken]
        self.waiting = [] if ended else [entry for entry in self.waiting if entry[1] >= entry[0].broken]
        for record in ready:
            await record()
