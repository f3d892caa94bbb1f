"""The contract ``redinstruct.results/1`` as values: what a report holds, and how it is written, once, at the edge.

A figure is whatever has an estimate and a ``low`` and a ``high`` end, all proportions: :func:`plain` writes the ends as
``ci``. Field names are the contract's keys, in its order. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from redinstruct.figures.agreement import Agreement
from redinstruct.figures.degenerate import Answers
from redinstruct.figures.scores import CheckFigures
from redinstruct.figures.variation import Rereading, Wording
from redinstruct.stats import Interval, Shares
from redinstruct.types import MEASURES, Json

SCHEMA = "redinstruct.results/1"


class Counts(msgspec.Struct, frozen=True):
    """The recorded attempts by the six labels of a measure, which ``first`` and ``second`` stand for the two of."""

    measure: str
    total: int
    first: int
    second: int
    no_response: int
    judge_refused: int
    unparsable: int
    error: int

    @property
    def judged(self) -> int:
        """How many have one of the two labels."""
        return self.first + self.second

    @property
    def unscored(self) -> int:
        """How many answers were read and have no verdict."""
        return self.judge_refused + self.unparsable + self.error

    def by_label(self) -> dict[str, int]:
        """The measure's labels, in the order of every table, and their counts."""
        six = (self.first, self.second, self.no_response, self.judge_refused, self.unparsable, self.error)
        return dict(zip(MEASURES[self.measure].labels, six, strict=True))


class Details(msgspec.Struct, frozen=True):
    """How many verdicts have a detail (:data:`redinstruct.types.DETAILS`)."""

    refused: int = 0
    complied: int = 0
    partial: int = 0
    garbled: int = 0
    # Only where there is one: most judges know none.
    promise: int | UnsetType = UNSET

    @property
    def promised(self) -> int:
        """How many say that they will help, and no more."""
        return 0 if self.promise is UNSET else self.promise


class CorrectedRate(msgspec.Struct, frozen=True):
    """A rate corrected by so many labels; ``bounds`` hold it whatever people would have said of what they left out."""

    estimate: float | None
    low: float
    high: float
    method: str
    labels: int
    bounds: tuple[float, float] | UnsetType = UNSET


class Rate(msgspec.Struct, frozen=True):
    """A rate by every convention. ``bounds`` hold it whatever the attempts without a verdict were."""

    judged: Interval
    all: Interval
    bounds: tuple[float, float]
    corrected: CorrectedRate | None = None
    corrected_run: CorrectedRate | None = None
    calibrated: Interval | UnsetType | None = UNSET


class TopicFigures(msgspec.Struct, frozen=True):
    """One topic of a result; None are the questions without one. ``shrunken``: drawn to the other topics."""

    topic: str | None
    planned: int
    counts: Counts
    details: Details
    rate: Rate
    coverage: float
    provisional: bool
    shrunken: Interval | None


class SelfTestFigures(msgspec.Struct, frozen=True):
    """A judge's self-test, as its run keeps it. ``by_family`` holds right and asked."""

    balanced_accuracy: float
    sensitivity: float
    specificity: float
    cases: int
    repeats: int
    repeats_equal: int
    battery: str
    forced: bool
    by_family: dict[str, tuple[int, int]]


class JudgeFigures(msgspec.Struct, frozen=True):
    """What a judge is, and how it did where the truth was known."""

    model: str | None
    parameters: dict[str, str]
    prompt_sha256: str | None
    parser: str
    selftest: SelfTestFigures | None


class BothJudges(msgspec.Struct, frozen=True):
    """A cheap judge's rate corrected by a strong one's labels. ``lost`` ones it read and did not label: ``bounds``."""

    judge_id: str
    estimate: float | None
    low: float
    high: float
    method: str
    labels: int
    lost: int
    bounds: tuple[float, float]


class TopicsInGeneral(msgspec.Struct, frozen=True):
    """The rate of the judged as one of topics in general. ``unlike``: they differ by more than chance makes equal ones.

    ``range`` is that of the topics' own rates; ``enough``: the interval may be shown.
    """

    estimate: float | None
    low: float
    high: float
    method: str
    clusters: int
    design_effect: float
    unlike: bool
    range: tuple[float, float]
    enough: bool


class SideOfLimit(msgspec.Struct, frozen=True):
    """On which side of its limit a rate is sure to lie, and the confidence sequence that says so.

    ``among``, where there are several: so many banks and prompts were decided together, and the lower end holds for all
    of them at once, as the gate would have it.
    """

    side: Literal["above", "below"]
    limit: float
    low: float
    high: float
    among: int | msgspec.UnsetType = msgspec.UNSET


class FailureFigures(msgspec.Struct, frozen=True):
    """Attempts without a verdict that failed alike, and the endpoint's own words."""

    label: str
    reason: str
    count: int
    words: str | None


class SampleSize(msgspec.Struct, frozen=True):
    """How many of a bank's questions were asked; ``of`` is None where the run does not say."""

    asked: int
    of: int | None


class LeftOut(msgspec.Struct, frozen=True):
    """What of a bank the measure, or ``--dedupe``, leaves out."""

    other_half: int
    untold: int
    repeats: int


class ResultFigures(msgspec.Struct, frozen=True):
    """One bank and prompt under one judge; ``judge`` is None where people labelled and no judge did.

    From ``any_prompt`` on the figures are the bank's, over all its prompts.
    """

    model: str
    bank: str
    prompt: str
    measure: str
    judge: str | None
    planned: int
    counts: Counts
    details: Details
    rate: Rate
    coverage: float
    provisional: bool
    reasons: dict[str, int]
    by_topic: tuple[TopicFigures, ...]
    judge_id: str
    judge_notes: tuple[str, ...]
    judge_card: JudgeFigures
    bank_sha256: str
    prompt_sha256: str
    translated: bool
    protocol: str
    parity: bool
    epochs: int
    human: Agreement | None
    repeats: Rereading | None
    combined: tuple[BothJudges, ...]
    clustered: TopicsInGeneral | None
    answers: Answers
    at_k: dict[str, Interval] | None
    decided: SideOfLimit | None
    failures: tuple[FailureFigures, ...]
    any_prompt: Interval
    sampled: SampleSize
    left_out: LeftOut | None
    variance: Shares | None
    wording: Wording | None


class Report(msgspec.Struct, frozen=True):
    """The figures of one or more runs; ``utility`` is there only with utility checks."""

    schema: str
    results: tuple[ResultFigures, ...]
    utility: tuple[CheckFigures, ...] | UnsetType = UNSET


FiguresOf = ResultFigures | TopicFigures
"""What a line of a table or a plot is about."""


def best_figure(part: FiguresOf) -> Interval | CorrectedRate:
    """The figure that a sentence may rest on: corrected by people's labels where there are any, else of the judged."""
    by_people_alone = isinstance(part, ResultFigures) and part.judge is None  # their labels correct nobody
    return (not by_people_alone and part.rate.corrected) or part.rate.judged


_AS_IT_IS = (str, float, int, NoneType)


def plain(value: object) -> Any:
    """A value as plain JSON: structs as objects, ``low`` and ``high`` as ``ci``, labels by their names."""
    if isinstance(value, Counts):
        return {"total": value.total, **value.by_label()}
    names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None)
    if names is not None:
        found: dict[str, Json] = {}
        for name in names:
            item = getattr(value, name)
            if name == "low":
                found["ci"] = [item, getattr(value, "high")]  # noqa: B009  (whatever has a low end)
            elif name != "high" and item is not UNSET:
                found[name] = item if isinstance(item, _AS_IT_IS) else plain(item)
        return found
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
