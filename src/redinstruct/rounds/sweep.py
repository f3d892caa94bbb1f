"""A sweep: strategies x settings x seeds of one alignment, each measured, in one table and on one front.

It is the loop, once a seed, with a recipe for every point of the grid: one ledger, so that the base is measured once,
the data collected once, and a sweep that was killed goes on with the same call. What is compared are two figures of a
model: how often it gives in under its worst prompt, and how many harmless questions it answers under its worst. A
rate of one prompt is easily bought by another's, and by refusing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.report import ResultFigures
from redinstruct.files.atomic import write_file
from redinstruct.progress import OnProgress
from redinstruct.rounds.checks import check_recipe
from redinstruct.rounds.config import Recipe, SweepConfig, SweepPart
from redinstruct.rounds.plot import Axes, front_svg
from redinstruct.rounds.run import BASE, LoopResult, Measured, carry_out
from redinstruct.stats import Interval, wilson
from redinstruct.types import OVER_REFUSAL

SCHEMA, PLOT = "redinstruct.sweep/1", "sweep.svg"
AXES = Axes(
    "Safer, and still useful: a sweep",
    "attack success under the worst prompt",
    "harmless questions answered, worst prompt",
)


class SeedFigures(msgspec.Struct, frozen=True):
    """One model: its worst prompts, by ``bank/prompt``, with what they came to, as counts and shares."""

    seed: int | None
    asr: float
    worst: str
    hits: int
    asked: int
    useful: float
    least_useful: str
    answered: int
    harmless: int


class Spread(msgspec.Struct, frozen=True):
    """A share over seeds: their mean, the interval of the pooled answers, and the lowest and highest seed."""

    estimate: float | None
    low: float
    high: float
    method: str
    lowest: float | None
    highest: float | None


class SweepRow(msgspec.Struct, frozen=True):
    """One point of the grid. ``front``: none other is both at least as safe and as useful, and better in one.

    ``stopped`` counts the seeds that have no model: the guard stopped them, or their training failed.
    """

    recipe: str
    strategy: str | None
    settings: dict[str, str]
    asr: Spread
    useful: Spread
    front: bool
    by_seed: tuple[SeedFigures, ...]
    stopped: int
    seconds: float


class SweepResult(msgspec.Struct, frozen=True):
    """The base first, then every point of the grid in its order."""

    schema: str
    seeds: tuple[int, ...]
    rows: tuple[SweepRow, ...]
    folder: Path

    @property
    def front(self) -> list[SweepRow]:
        """The rows that are on the front, the safest first."""
        return sorted((row for row in self.rows if row.front), key=lambda row: row.asr.estimate or 0.0)


class SweepPoint(NamedTuple):
    """One recipe of the grid, and what was varied in it."""

    recipe: Recipe
    varied: dict[str, str]


def grid(config: SweepConfig) -> list[SweepPoint]:
    """Every recipe of ``[align]`` with every strategy, setting and parameter of the sweep, named by what was varied.

    Raises:
        UsageError: two points have one name.
    """
    assert config.align is not None
    sweep = config.sweep
    named: list[tuple[str, str, Sequence[Any]]] = []
    if sweep.strategies:
        named.append(("strategy", "strategy", sweep.strategies))
    named += [("settings", name, values) for name, values in sweep.settings.items()]
    named += [("parameters", name, values) for name, values in sweep.parameters.items()]
    points = []
    for recipe in config.align.recipes:
        for values in itertools.product(*(values for _, _, values in named)):
            chosen = list(zip(named, values, strict=True))
            points.append(_point(recipe, [(kind, name, value) for (kind, name, _), value in chosen]))
    titles = [point.recipe.title for point in points]
    if twice := next((title for title in titles if titles.count(title) > 1), None):
        raise UsageError(f"sweep: two points are called {twice}: give the recipes of [align] names")
    return points


def check_points(config: SweepConfig) -> None:
    """Pass a grid whose every alignment can be configured, before the first stage has cost anything.

    Raises:
        UsageError: a strategy, a setting or a parameter that there is not.
    """
    align = config.align
    assert align is not None
    read = set[str]()
    for point in grid(config):
        recipe = as_read(point.recipe, config.sweep)
        read.update(recipe.parameters)
        try:
            check_recipe(config, align, recipe)
        except UsageError as error:
            raise UsageError(f"sweep: {point.recipe.title}: {error}") from None
    if unread := next((name for name in config.sweep.parameters if name not in read), None):
        raise UsageError(f"sweep.parameters: no strategy of the sweep reads {unread}; leave it out")


def _point(recipe: Recipe, chosen: Sequence[tuple[str, str, Any]]) -> SweepPoint:
    found = {kind: {n: v for k, n, v in chosen if k == kind} for kind in ("strategy", "settings", "parameters")}
    strategy = found["strategy"].get("strategy", recipe.strategy)
    own = [recipe.name] if recipe.name else []
    told = [strategy] if "strategy" in found["strategy"] or not own else []
    told += [f"{name}-{_text(value)}" for kind, name, value in chosen if kind != "strategy"]
    made = msgspec.structs.replace(
        recipe,
        name="+".join([*own, *told]),
        strategy=strategy,
        settings={**recipe.settings, **found["settings"]},
        parameters={**recipe.parameters, **found["parameters"]},
    )
    return SweepPoint(made, {name: _text(value) for _, name, value in chosen})


def as_read(recipe: Recipe, sweep: SweepPart) -> Recipe:
    """A point's recipe without the swept numbers that its strategy does not read: in one sweep ``blue`` may stand
    beside ``npo-len`` at any weight of the red term. What a recipe says itself of its own strategy stays, and is
    refused there.
    """
    from redinstruct.safealign.losses import STRATEGIES

    if (strategy := STRATEGIES.get(recipe.strategy)) is None:
        return recipe
    known = {name for one in STRATEGIES.values() for name in one.numbers}
    swept = set(recipe.parameters) if sweep.strategies else set(sweep.parameters)
    unread = (swept & known).difference(strategy.numbers)
    kept = {name: value for name, value in recipe.parameters.items() if name not in unread}
    return msgspec.structs.replace(recipe, parameters=kept)


def _text(value: object) -> str:
    """As it stands in a folder's name."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def carry_out_sweep(config: SweepConfig, *, on_progress: OnProgress | None = None, force: bool = False) -> SweepResult:
    """Carry out every stage that is not done yet, and compare.

    Raises:
        RedInstructError: a stage cannot be carried out; the stages before it stand.
    """
    points, sweep = grid(config), config.sweep
    assert config.align is not None
    results: dict[int, LoopResult] = {}
    for seed in sweep.seeds:
        align = msgspec.structs.replace(
            config.align, recipes=tuple(as_read(point.recipe, sweep) for point in points), seed=seed, carry=None
        )
        once = msgspec.structs.replace(config, align=align)
        results[seed] = carry_out(once, on_progress=on_progress, force=force)
    found = summed_up(points, sweep, results, Path(config.folder))
    write_file(found.folder / PLOT, front_svg(_pictured(found), found.rows[0].by_seed[0].asked, AXES))
    return found


def summed_up(
    points: Sequence[SweepPoint], sweep: SweepPart, results: Mapping[int, LoopResult], folder: Path
) -> SweepResult:
    """The rows of the grid, from what the loops of its seeds found."""
    first = results[sweep.seeds[0]]
    base = next(model for model in first.models if model.title == BASE)
    rows = [_row(BASE, None, {}, [_figures(base, None)], 0, 0.0)]
    for point in points:
        title = point.recipe.title
        made = [(seed, model) for seed, result in results.items() for model in result.models if model.title == title]
        took = [
            stage.seconds for result in results.values() for stage in result.stages if stage.name == f"1-align-{title}"
        ]
        rows.append(
            _row(
                title, point.recipe.strategy, point.varied, [_figures(model, seed) for seed, model in made],
                len(results) - len(made), sum(took),
            )
        )  # fmt: skip
    return SweepResult(SCHEMA, tuple(sweep.seeds), tuple(_on_front(rows)), folder)


def _row(
    title: str, strategy: str | None, varied: dict[str, str], seeds: Sequence[SeedFigures], stopped: int, seconds: float
) -> SweepRow:
    asr = _spread([one.asr for one in seeds], sum(one.hits for one in seeds), sum(one.asked for one in seeds))
    useful = _spread(
        [one.useful for one in seeds], sum(one.answered for one in seeds), sum(one.harmless for one in seeds)
    )
    return SweepRow(title, strategy, varied, asr, useful, False, tuple(seeds), stopped, round(seconds, 1))


def _spread(shares: Sequence[float], hits: int, asked: int) -> Spread:
    if not shares:
        return Spread(None, 0.0, 1.0, "wilson, pooled", None, None)
    pooled: Interval = wilson(hits, asked)
    mean = sum(shares) / len(shares)
    return Spread(mean, min(pooled.low, mean), max(pooled.high, mean), "wilson, pooled", min(shares), max(shares))


def _figures(model: Measured, seed: int | None) -> SeedFigures:
    """The worst prompt of the attacks, and of the harmless questions."""
    attacks = [one for one in model.results if one.measure != OVER_REFUSAL.name and one.counts.total]
    harmless = [one for one in model.results if one.measure == OVER_REFUSAL.name and one.counts.total]
    worst = max(attacks, key=lambda one: one.counts.first / one.counts.total)
    least = min(harmless, key=lambda one: _answered(one) / one.counts.total)
    return SeedFigures(
        seed, worst.counts.first / worst.counts.total, f"{worst.bank}/{worst.prompt}", worst.counts.first,
        worst.counts.total, _answered(least) / least.counts.total, f"{least.bank}/{least.prompt}", _answered(least),
        least.counts.total,
    )  # fmt: skip


def _answered(result: ResultFigures) -> int:
    """What is neither refused nor garbled."""
    return result.counts.second - result.details.garbled


def _on_front(rows: Sequence[SweepRow]) -> Iterator[SweepRow]:
    places = [(row.asr.estimate, row.useful.estimate) for row in rows]
    for row, (asr, useful) in zip(rows, places, strict=True):
        beaten = asr is None or useful is None or any(
            a is not None and u is not None and a <= asr and u >= useful and (a < asr or u > useful) for a, u in places
        )  # fmt: skip
        yield msgspec.structs.replace(row, front=not beaten)


def _pictured(found: SweepResult) -> list[tuple[str, float, float, tuple[float, float]]]:
    """The base and the front, by name; the others as points without one."""
    return [
        (row.recipe if row.front or row.recipe == BASE else "", row.asr.estimate, row.useful.estimate,
         (row.asr.low, row.asr.high))
        for row in found.rows
        if row.asr.estimate is not None and row.useful.estimate is not None
    ]  # fmt: skip
