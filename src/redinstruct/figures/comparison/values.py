"""What a comparison returns. Frozen values; nothing here computes."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = "redinstruct.comparison/2"
MARGIN = 0.02
"""The margin where neither a flag nor the runs name one: two points."""

Word = Literal["better", "worse", "no difference shown", "not comparable"]
WORDS: tuple[Word, ...] = ("worse", "not comparable", "no difference shown", "better")
"""The verdicts, those to read first coming first."""
ComparisonKind = Literal["evaluation", "utility"]
Direction = Literal["lower is better", "higher is better"]
By = Literal["judge", "people"]
Beyond = Literal["shown", "not shown", "too few"]


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """An estimate with its interval, as every contract writes one (F); ``labels`` counts people's labels behind it."""

    estimate: float
    ci: tuple[float, float]
    method: str
    labels: int | None = None

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.ci[0]

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.ci[1]


class Side(Estimate, frozen=True, omit_defaults=True):
    """One run's part of a result.

    The rate over the scored pairs, or, where people decide, the rate corrected by their labels; the mean of a utility
    task. ``judged`` is the judge's own share of the scored pairs, ``positive`` counts those with the measure's first
    label; both are left out for scores.
    """

    judged: float | None = None
    positive: int | None = None


class Pairs(msgspec.Struct, frozen=True):
    """Which attempts could be paired.

    ``paired`` were planned in both runs, ``scored`` of them have a verdict in both. ``unscored_before`` and
    ``unscored_after`` count the paired ones without a verdict in either run; ``only_before`` and ``only_after`` what
    one run alone planned. ``questions`` and ``topics`` count different ones among the scored.
    """

    paired: int
    scored: int
    unscored_before: int
    unscored_after: int
    only_before: int
    only_after: int
    questions: int
    topics: int = 0


class Difference(Estimate, frozen=True, omit_defaults=False):
    """The figure after minus the figure before.

    ``confidence`` is the interval's: one minus the level of Holm's step that decided this result; it holds 0 exactly
    where that step did not reject. ``p_value`` is two-sided; ``p_holm`` is it adjusted for the family of this
    comparison. ``gained`` and ``lost`` count the pairs that rose and fell, None where no pairs were counted.
    ``questions`` is the number of questions where some were asked several times, else None: ``design_effect`` samples
    then weigh as much as one independent pair, with ``freedom`` degrees of freedom.
    """

    confidence: float = 0.95
    p_value: float = 1.0
    p_holm: float = 1.0
    gained: int | None = None
    lost: int | None = None
    questions: int | None = None
    design_effect: float = 1.0
    freedom: float | None = None


class TopicsChange(Estimate, frozen=True, omit_defaults=False):
    """The judge's difference as one of topics in general: the topics that were asked are the sample.

    ``clustered_by`` is ``topic`` or ``subtopic``, ``clusters`` their number, ``freedom`` the degrees of freedom of
    their variance, ``spread`` the least and the largest change of a topic.
    """

    clustered_by: str = "topic"
    clusters: int = 0
    spread: tuple[float, float] = (-1.0, 1.0)
    p_value: float = 1.0
    p_holm: float = 1.0
    design_effect: float = 1.0
    freedom: float | None = None


class NonInferiority(msgspec.Struct, frozen=True):
    """Whether the figure got worse by less than the margin: one-sided, at half the level; Holm over the family.

    ``worst`` is the largest loss inside the interval at the comparison's own confidence: under the margin exactly where
    ``p_value`` is under half the level.
    """

    margin: float
    worst: float
    p_value: float
    p_holm: float
    shown: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One bank and prompt under one judge, or one utility task, in two runs.

    The verdict is about these topics, their questions being the sample; ``why`` says in a sentence what it rests on.
    ``by`` says whose labels gave it: the judge's, or people's where they labelled both runs; ``judge_difference`` is
    then the judge's own, and ``run_difference`` how far these very answers differ as people would label them, which
    says nothing of other questions. ``beyond`` says whether it holds for topics in general, ``topics`` by which test
    (None where the topics are too few); never the verdict. Without a comparison all of these are None, except ``pairs``
    and ``bounds`` where attempts were paired. ``bounds`` are the differences over all paired attempts, whatever those
    without a verdict were; None for utility scores. ``detectable`` is the smallest change that so many pairs show in
    four of five cases. ``provisional``: fewer than 95 % of the pairs have a verdict in both runs.
    """

    name: str
    bank: str | None = None
    prompt: str | None = None
    measure: str
    verdict: Word = "not comparable"
    why: str = ""
    by: By | None = None
    before: Side | None = None
    after: Side | None = None
    difference: Difference | None = None
    judge_difference: Difference | None = None
    beyond: Beyond | None = None
    pairs: Pairs | None = None
    notes: tuple[str, ...] = ()
    judge_id: str | None = None
    direction: Direction = "lower is better"
    topics: TopicsChange | None = None
    run_difference: Estimate | None = None
    bounds: tuple[float, float] | None = None
    non_inferiority: NonInferiority | None = None
    detectable: float | None = None
    provisional: bool = False

    @property
    def points(self) -> bool:
        """Whether its figures are shares, and so its changes percentage points."""
        return self.non_inferiority is not None


class Comparison(msgspec.Struct, frozen=True):
    """Two runs over the same questions or tasks. ``margin_from`` is ``runs``, ``flag`` or ``default``."""

    kind: ComparisonKind
    before: str
    after: str
    confidence: float
    margin: float
    margin_from: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
