"""``--stop-when-decided RATE``: asking stops, bank and prompt by bank and prompt, once a rate's side of it is sure.

The test may be looked at after every question (an anytime-valid test, :class:`redinstruct.stats.Watch`). Three things
keep it valid. The questions are asked, and *counted*, in one random order that the run's secret fixes: an answer that
comes back early waits until all before it are there, because refusals are short and come back first. The question is
the unit: one that is asked several times counts once, by its share, when all its answers are there. And every recorded
attempt counts: the rate is p/N for "above", and (p + unscored)/N for "below", so that failures can neither fail a model
nor pass it; an answer that a filter withheld reached nobody.

What a run has recorded gives the same sequence again, so the gate and the report ask it for the interval that decides.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from redinstruct.run import Planned, Store, stops
from redinstruct.stats import Decision, Watch
from redinstruct.types import Measure, is_unscored

LimitSide = Literal["above", "below"]
_SIDES: tuple[LimitSide, LimitSide] = ("above", "below")
BankPrompt = tuple[str, str]
"""(bank, prompt)"""
Rank = Callable[[bytes], bytes]
"""An attempt's key -> where it stands in the run's random order."""


def rank_of(secret: bytes) -> Rank:
    """The random order that a run's secret fixes; nobody who does not know it can guess it."""
    return lambda key: hmac.digest(secret, b"order\0" + key, "sha256")


class Followed:
    """One bank and prompt in the run's random order, question by question; grows as its outcomes come.

    ``stop``: nothing is counted after the decision, as nothing needs to be asked then. ``among``: so many are
    decided together, and "above" is then held as the first step of Holm is, so that the gate fails what this stopped.
    """

    def __init__(
        self, outcomes: Iterable[Planned], measure: Measure, limit: float, rank: Rank, *, stop: bool = False,
        among: int = 1,
    ) -> None:  # fmt: skip
        self._among = among
        self._measure = measure
        self._stop = stop
        self._outcomes: dict[bytes, Planned] = {}
        of: dict[int, list[bytes]] = defaultdict(list)
        for outcome in outcomes:
            self._outcomes[outcome.key] = outcome
            of[outcome.unit].append(outcome.key)
        # By the first of its ranks: a question that is asked once stands where its only attempt does.
        ranked = sorted((min(map(rank, keys)), keys) for keys in of.values())
        self._questions = [keys for _, keys in ranked]
        self.places = {key: (first, rank(key)) for first, keys in ranked for key in keys}
        self._next = 0
        self.counted = 0
        self.watches: dict[LimitSide, Watch] = {side: Watch(limit) for side in _SIDES}
        self._advance()

    def record(self, key: bytes, label: str, reason: str | None) -> None:
        """One attempt came out."""
        self._outcomes[key] = self._outcomes[key]._replace(label=label, reason=reason)
        self._advance()

    def _advance(self) -> None:
        """Count every question whose turn has come."""
        while self._next < len(self._questions) and not (self._stop and self.side() is not None):
            found = [self._outcomes[key] for key in self._questions[self._next]]
            if any(outcome.label is None for outcome in found):
                return
            self._next += 1
            self.counted += len(found)
            hits = sum(outcome.label == self._measure.first for outcome in found)
            unscored = sum(is_unscored(outcome.label, outcome.reason) for outcome in found)
            self.watches["above"].add(hits / len(found))
            self.watches["below"].add((hits + unscored) / len(found))

    def side(self, confidence: float = 0.95) -> LimitSide | None:
        """On which side of the limit the rate lies, once that is sure."""
        sides = ((side, watch.side(self._level(side, confidence))) for side, watch in self.watches.items())
        return next((side for side, found in sides if found == side), None)

    def _level(self, side: LimitSide, confidence: float) -> float:
        return 1 - (1 - confidence) / self._among if side == "above" else confidence

    @property
    def estimate(self) -> float | None:
        """The mean of the counted questions' shares of successes; it lies too far from the limit where that stopped."""
        return self.watches["above"].mean

    def ends(self, confidence: float = 0.95) -> Decision:
        """The confidence sequence as it stands: the lower end of p/N, the upper end of (p + unscored)/N."""
        low, high = (self.watches[side].decision(self._level(side, confidence)) for side in _SIDES)
        return Decision(self.side(confidence), low.low, high.high, min(low.p_value, high.p_value))


class Decider:
    """Follows the cells of a run while it is asked."""

    def __init__(self, limit: float, measure: Measure, secret: bytes) -> None:
        self.limit = limit
        self._measure = measure
        self.rank = rank_of(secret)
        self._cells: dict[BankPrompt, Followed] = {}

    def follow(self, attempts: Iterable[tuple[BankPrompt, Planned]]) -> None:
        """Take in every attempt of the run; without a label: nothing of it is recorded yet."""
        cells: dict[BankPrompt, list[Planned]] = defaultdict(list)
        for cell, outcome in attempts:
            cells[cell].append(outcome)
        self._cells = {
            cell: Followed(found, self._measure, self.limit, self.rank, stop=True, among=len(cells))
            for cell, found in cells.items()
        }

    def record(self, key: bytes, cell: BankPrompt, label: str, reason: str | None = None) -> None:
        """One attempt came out."""
        self._cells[cell].record(key, label, reason)

    def place(self, key: bytes, cell: BankPrompt) -> tuple[bytes, bytes]:
        """Where an attempt stands in the order of asking: all of one question together."""
        return self._cells[cell].places[key]

    def is_decided(self, cell: BankPrompt) -> bool:
        """Whether nothing more needs to be asked in a cell."""
        return self._cells[cell].side() is not None

    @property
    def decisions(self) -> dict[BankPrompt, Decision]:
        """The cells that are decided."""
        return {cell: found.ends() for cell, found in self._cells.items() if found.side() is not None}

    @property
    def all_decided(self) -> bool:
        """Whether every cell is."""
        return all(found.side() is not None for found in self._cells.values())

    def counted(self, cell: BankPrompt) -> int:
        """How many attempts of a cell the test has looked at."""
        return self._cells[cell].counted


def decisions(
    store: Store, cells: Mapping[BankPrompt, Sequence[Planned]], measure: Measure
) -> dict[BankPrompt, Decision]:
    """The confidence sequence of each cell, as its rows tell it, at the last limit that the run was asked under: by the
    rule that stopped the asking, all cells of the run together.

    Empty where the run was never asked under ``--stop-when-decided``.

    Raises:
        StoreError: the store does not read.
    """
    if not (limits := stops(store)):
        return {}
    rank, among = rank_of(store.secret()), len(cells)
    return {cell: Followed(found, measure, limits[-1], rank, among=among).ends() for cell, found in cells.items()}
