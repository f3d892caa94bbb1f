"""What a utility check found: per-item values, means and intervals, recomputed from the rows of its run.

Promised: a figure depends on the rows alone; a group's mean is the mean that its benchmark publishes (MMLU and BBH
weigh every question alike, HHH averages its four parts); the same question has the same id in every run over the same
data.
Not promised: anything about questions that depend on each other. Loads neither torch nor the harness.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Literal

import msgspec

from redinstruct.errors import ConfigError
from redinstruct.run import NAMED, Store, UtilityStore, UtilityTaskRow
from redinstruct.run.rows import from_json
from redinstruct.settings import Kept
from redinstruct.stats import Interval, grouped, mean_of_rates, wilson

Average = Literal["items", "parts"]
"""What a group's mean is of: all items alike, or its parts alike however many items they hold."""


class GroupPlan(msgspec.Struct, frozen=True):
    """Several tasks with one figure. ``of`` is how many the benchmark has; fewer ``members``: a part of it."""

    name: str
    average: Average
    members: tuple[str, ...]
    of: int


class UtilityConfig(msgspec.Struct, frozen=True):
    """What must be equal for two invocations to be the same check; a larger ``limit`` extends it.

    ``tasks`` are the single tasks, ``groups`` how they are put together. ``data`` names each task's source and, for
    local files, the sha256 of their content. ``margin`` is the loss of utility that counts as none: it is part of the
    digest, and so fixed before the first item is asked.
    """

    model: str
    tasks: Annotated[tuple[str, ...], Kept("--suite")]
    groups: Annotated[tuple[GroupPlan, ...], Kept("--suite's groups")]
    margin: float
    harness: Annotated[str, Kept("the harness's version")]
    chat_template: str
    data: Annotated[tuple[tuple[str, str], ...], Kept("the data (--data)")]
    shots: int | None = None
    limit: Annotated[int | None, Kept(grows=True)] = None

    @property
    def digest(self) -> str:
        """sha256 over all that may not change in a run; the limit is left out."""
        fixed = msgspec.structs.replace(self, limit=None)
        return hashlib.sha256(json.dumps(msgspec.to_builtins(fixed), sort_keys=True).encode()).hexdigest()


STRIPPED = "exact_match_stripped"
"""A score of ours beside the harness's ``exact_match``, which counts an answer wrong for the blanks around it."""


class Metric(msgspec.Struct, frozen=True):
    """One metric of a task. ``reported`` is the harness's own aggregate, None where it is not defined.

    ``per_item`` is False where the aggregate is no mean over items (a bias score, say): the store then holds no values.
    """

    name: str
    higher_is_better: bool
    filter: str = "none"
    reported: float | None = None
    per_item: bool = True


class TaskCard(msgspec.Struct, frozen=True):
    """How a task was carried out. ``metrics[0]`` is the one that counts; ``total`` the items that the task has."""

    task: str
    version: str
    harness: str
    output_type: str
    shots: int
    chat_template: str
    source: str
    total: int
    limit: int | None
    metrics: tuple[Metric, ...]
    prompt_sha256: str = ""
    generation: str = ""
    notes: tuple[str, ...] = ()


class MeasuredScore(msgspec.Struct, frozen=True):
    """One figure of one task or group, with the items behind it.

    ``items`` are stable ids (hex), ``values`` their values, ``parts`` the task that each is of. The mean is the
    weighted one: ``weights`` sum to 1. Items for which the metric is not defined are left out, and counted in
    ``undefined``. ``of`` is how many tasks the benchmark has, ``len(set(parts))`` how many were done.
    """

    task: str
    metric: str
    higher_is_better: bool
    items: tuple[str, ...]
    values: tuple[float, ...]
    parts: tuple[str, ...]
    average: Average = "items"
    of: int = 1
    undefined: int = 0
    primary: bool = True

    @property
    def n(self) -> int:
        """How many items count."""
        return len(self.values)

    @property
    def weights(self) -> tuple[float, ...]:
        """Each item's share of the mean."""
        if self.average == "items":
            return (1 / self.n,) * self.n if self.n else ()
        sizes = Counter(self.parts)
        return tuple(1 / (len(sizes) * sizes[part]) for part in self.parts)

    @property
    def mean(self) -> float | None:
        """The figure itself; None without an item."""
        if not self.n:
            return None
        if self.average == "items":
            return math.fsum(self.values) / self.n
        return math.fsum(weight * value for weight, value in zip(self.weights, self.values, strict=True))

    @property
    def stderr(self) -> float | None:
        """The standard error of the mean, items independent: the sample's deviation over the root of n, part by part.

        None where a part has fewer than two items.
        """
        strata = grouped(self.parts if self.average == "parts" else [""] * self.n, self.values)
        if not strata or any(len(values) < 2 for values in strata.values()):
            return None
        return math.sqrt(math.fsum(_variance(values) / len(values) for values in strata.values())) / len(strata)

    @property
    def interval(self) -> Interval:
        """95 %: Wilson's for right-or-wrong items, made of each part's for a mean of parts; else the normal one, kept
        within [0, 1] where the values lie there.

        Of no item: [0, 1], method ``none``.
        """
        mean, stderr = self.mean, self.stderr
        if mean is None:
            return Interval(None, 0.0, 1.0, "none")
        if set(self.values) <= {0.0, 1.0}:
            if self.average == "items":
                return wilson(round(math.fsum(self.values)), self.n)
            parts = grouped(self.parts, self.values).values()
            return mean_of_rates([(round(math.fsum(values)), len(values)) for values in parts])
        reach = NormalDist().inv_cdf(0.975) * stderr if stderr is not None else math.inf
        low, high = mean - reach, mean + reach
        if all(0 <= value <= 1 for value in self.values):
            low, high = max(0.0, low), min(1.0, high)
        return Interval(mean, low, high, "normal")


class UtilityResult(msgspec.Struct, frozen=True):
    """A whole check. ``headline`` holds one figure for each benchmark: the groups, and the tasks that are in none.

    ``tasks`` holds every metric of every task; ``missing`` the tasks that were not done yet.
    """

    config: UtilityConfig
    cards: tuple[TaskCard, ...]
    headline: tuple[MeasuredScore, ...]
    tasks: tuple[MeasuredScore, ...]
    missing: tuple[str, ...]

    @property
    def model(self) -> str:
        """The model's id."""
        return self.config.model

    @property
    def margin(self) -> float:
        """The loss that counts as none, fixed before the check."""
        return self.config.margin

    @property
    def digest(self) -> str:
        """Of the configuration, the margin included."""
        return self.config.digest

    @property
    def complete(self) -> bool:
        """Whether every task was done."""
        return not self.missing


class ScoreFigures(msgspec.Struct, frozen=True):
    """One figure as every JSON has it. ``tasks`` were done ``of`` the benchmark's."""

    task: str
    metric: str
    higher_is_better: bool
    average: Average
    value: float | None
    stderr: float | None
    low: float
    high: float
    method: str
    n: int
    undefined: int
    tasks: int
    of: int


class CheckFigures(msgspec.Struct, frozen=True):
    """One check in a report: what it was, and one figure for each benchmark."""

    model: str
    harness: str
    margin: float
    digest: str
    limit: int | None
    complete: bool
    missing: tuple[str, ...]
    results: tuple[ScoreFigures, ...]


def item_ids(task: str, contents: Iterable[str]) -> tuple[bytes, ...]:
    """Ids of a task's items by content (16 bytes each); an item that stands twice is told apart by its count."""
    seen: Counter[str] = Counter()
    found: list[bytes] = []
    for content in contents:
        seen[content] += 1
        name = json.dumps([task, content, seen[content]])
        found.append(hashlib.sha256(name.encode()).digest()[:16])
    return tuple(found)


def score_figures(measured: MeasuredScore) -> ScoreFigures:
    """One figure as every JSON has it."""
    interval = measured.interval
    return ScoreFigures(
        measured.task, measured.metric, measured.higher_is_better, measured.average, measured.mean, measured.stderr,
        interval.low, interval.high, interval.method, measured.n, measured.undefined, len(set(measured.parts)),
        measured.of,
    )  # fmt: skip


def check_figures(check: UtilityResult) -> CheckFigures:
    """One check in a report."""
    return CheckFigures(
        check.model, check.config.harness, check.margin, check.digest, check.config.limit, check.complete,
        check.missing, tuple(map(score_figures, check.headline)),
    )  # fmt: skip


def is_utility(run: Path) -> bool:
    """Whether the folder holds a utility check (and not an evaluation or a collection)."""
    try:
        with Store.open_for_reading(run) as store:
            return UtilityStore(store).config() is not None
    except ConfigError:
        return False


def read_utility(run: Path) -> UtilityResult:
    """All that a utility check has found so far.

    Raises:
        ConfigError: there is no run in the folder, or a run of another kind.
        StoreError: it is damaged.
    """
    with Store.open_for_reading(run, NAMED["utility check"]) as store:
        found = _found(store)
    if found is None:
        raise ConfigError(f"{run}: the run was never begun; nothing is recorded in it")
    return found


def utility_in(store: Store) -> UtilityResult | None:
    """All that the utility check in an open store has found so far; None where the store holds something else."""
    try:
        return _found(store)
    except ConfigError:
        return None


def _found(store: Store) -> UtilityResult | None:
    rows = UtilityStore(store)
    body = rows.config()
    return None if body is None else assemble(from_json(body, UtilityConfig), rows.tasks())


def assemble(config: UtilityConfig, rows: Sequence[UtilityTaskRow]) -> UtilityResult:
    """The result that these rows hold."""
    cards: dict[str, TaskCard] = {}
    measured: dict[str, list[MeasuredScore]] = {}
    for row in rows:
        if row.name in config.tasks:
            card = cards[row.name] = from_json(row.card, TaskCard)
            measured[row.name] = _of_task(card, row)
    missing = tuple(task for task in config.tasks if task not in cards or is_short(cards[task], config.limit))
    return UtilityResult(
        config=config,
        cards=tuple(cards.values()),
        headline=tuple(_headline(config, measured)),
        tasks=tuple(one for task in config.tasks for one in measured.get(task, ())),
        missing=missing,
    )


def _headline(config: UtilityConfig, measured: dict[str, list[MeasuredScore]]) -> list[MeasuredScore]:
    """One figure for each benchmark, in the order in which the suite names them."""
    group_of = {name: group for group in config.groups for name in group.members}
    found: dict[str, MeasuredScore | None] = {}
    for task in config.tasks:
        group = group_of.get(task)
        if group is None:
            found[task] = measured[task][0] if measured.get(task) else None
        elif group.name not in found:
            found[group.name] = _of_group(group, measured)
    return [one for one in found.values() if one is not None]


def is_short(card: TaskCard, limit: int | None) -> bool:
    """Whether the task was done with a smaller limit, and has more items than that."""
    if card.limit is None or card.limit >= card.total:
        return False
    return limit is None or limit > card.limit


def _of_task(card: TaskCard, row: UtilityTaskRow) -> list[MeasuredScore]:
    found: list[MeasuredScore] = []
    kept = [metric for metric in card.metrics if metric.per_item]
    for number, (metric, values) in enumerate(zip(kept, row.values, strict=True)):
        pairs = [(item.hex(), v) for item, v in zip(row.items, values, strict=True) if v is not None]
        found.append(
            MeasuredScore(
                task=card.task,
                metric=metric.name if metric.filter == "none" else f"{metric.name},{metric.filter}",
                higher_is_better=metric.higher_is_better,
                items=tuple(item for item, _ in pairs),
                values=tuple(value for _, value in pairs),
                parts=(card.task,) * len(pairs),
                undefined=len(values) - len(pairs),
                primary=number == 0,
            )
        )
    return found


def _of_group(group: GroupPlan, measured: dict[str, list[MeasuredScore]]) -> MeasuredScore | None:
    members = [measured[name][0] for name in group.members if measured.get(name)]
    if not members:
        return None
    return MeasuredScore(
        task=group.name,
        metric=members[0].metric,
        higher_is_better=members[0].higher_is_better,
        items=tuple(item for member in members for item in member.items),
        values=tuple(value for member in members for value in member.values),
        parts=tuple(part for member in members for part in member.parts),
        average=group.average,
        of=group.of,
        undefined=sum(member.undefined for member in members),
    )


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
