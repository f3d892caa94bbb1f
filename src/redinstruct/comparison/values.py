"""What a comparison returns. Frozen values; nothing here computes."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = "redinstruct.comparison/1"
MARGIN = 0.02
"""The margin where neither a flag nor the runs name one: two points."""

Word = Literal["better", "worse", "no difference shown", "not comparable"]
WORDS: tuple[Word, ...] = ("worse", "not comparable", "no difference shown", "better")
"""The verdicts, those to read first coming first."""
Kind = Literal["evaluation", "utility"]
Direction = Literal["lower is better", "higher is better"]


class Corrected(msgspec.Struct, frozen=True):
    """A rate, or a difference of two, corrected by people's labels; how many labels there are."""

    estimate: float
    low: float
    high: float
    labels: int


class Side(msgspec.Struct, frozen=True):
    """One run's part of a result: its figure over the pairs that count.

    ``positive`` counts the pairs with the measure's first label (None for scores), ``corrected`` is the rate of all
    that the judge could label, corrected by people's labels, None where there are none.
    """

    figure: float
    positive: int | None = None
    corrected: Corrected | None = None


class Pairs(msgspec.Struct, frozen=True):
    """Which attempts could be paired.

    ``paired`` were planned in both runs, ``scored`` of them have a verdict in both. ``unscored_before`` and
    ``unscored_after`` count the paired ones without a verdict in either run; ``only_before`` and ``only_after`` what
    one run alone planned. ``questions`` counts different questions among the scored.
    """

    paired: int
    scored: int
    unscored_before: int
    unscored_after: int
    only_before: int
    only_after: int
    questions: int


class Unclustered(msgspec.Struct, frozen=True):
    """What a clustered difference would be if its pairs were independent: the change of these very topics."""

    low: float
    high: float
    p_value: float
    p_holm: float
    verdict: Word


class Difference(msgspec.Struct, frozen=True):
    """The figure after minus the figure before, over the scored pairs.

    ``p_value`` is two-sided; ``p_holm`` is it adjusted for the family of this comparison. ``gained`` and ``lost`` count
    the pairs that rose and fell. ``clustered_by`` is ``topic``, ``question`` or None, ``clusters`` their number,
    ``freedom`` the degrees of freedom that they leave. ``unclustered`` is None where nothing is clustered.
    """

    estimate: float
    low: float
    high: float
    method: str
    p_value: float
    p_holm: float
    gained: int
    lost: int
    clustered_by: str | None
    clusters: int | None
    design_effect: float
    freedom: float | None = None
    unclustered: Unclustered | None = None


class NonInferiority(msgspec.Struct, frozen=True):
    """Whether the figure got worse by less than the margin: one-sided, at half the level; Holm over the family."""

    margin: float
    p_value: float
    p_holm: float
    shown: bool


class Result(msgspec.Struct, frozen=True):
    """One bank and prompt under one judge, or one utility task, in two runs.

    ``why`` says in a sentence what the verdict rests on. Without a comparison everything after ``direction`` is None,
    except ``pairs`` and ``bounds`` where attempts were paired. ``bounds`` are the differences over all paired attempts,
    whatever those without a verdict were; None for utility scores. ``detectable`` is the smallest change
    that so many pairs show in four of five cases. ``provisional``: fewer than 95 % of the pairs have a verdict in both
    runs.
    """

    verdict: Word
    why: str
    name: str
    bank: str | None
    prompt: str | None
    measure: str
    judge_id: str | None
    direction: Direction
    pairs: Pairs | None = None
    before: Side | None = None
    after: Side | None = None
    difference: Difference | None = None
    bounds: tuple[float, float] | None = None
    corrected_difference: Corrected | None = None
    non_inferiority: NonInferiority | None = None
    detectable: float | None = None
    provisional: bool = False
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> bool:
        """Whether its figures are shares, and so its changes percentage points."""
        return self.non_inferiority is not None


class Comparison(msgspec.Struct, frozen=True):
    """Two runs over the same questions or tasks. ``margin_from`` is ``runs``, ``flag`` or ``default``."""

    kind: Kind
    before: str
    after: str
    confidence: float
    margin: float
    margin_from: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
