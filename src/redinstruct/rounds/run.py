"""The closed loop: red-team a model, collect from it, align it, red-team it again, compare; round by round.

Every stage is what its verb carries out, in a folder of its own, and each can be gone on with by hand. What was done
for the same inputs is found done (:mod:`redinstruct.rounds.ledger`); a loop that was killed goes on with the same call,
and ends with the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.checkpoints.embedded import prompts_of
from redinstruct.engine import Limits
from redinstruct.errors import EndpointLost, RedInstructError
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import ResultFigures
from redinstruct.figures.scores import UtilityResult, read_utility
from redinstruct.harmfulqa import CollectSettings, collect, prepare_collection
from redinstruct.harmfulqa.files import write_rows
from redinstruct.harmfulqa.release import export as export_collection
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.models import id_of
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.prompts import DEFAULT_PROMPTS, load_template
from redinstruct.prompts.rows import MessagesRow
from redinstruct.rounds.alignment import COLLECTED, RecipeFigures, aligned
from redinstruct.rounds.asking import ask, identity
from redinstruct.rounds.config import SELF, AlignPart, CollectPart, EvalPart, LoopConfig, Recipe
from redinstruct.rounds.ledger import Ledger, Stage
from redinstruct.rounds.picking import Picker
from redinstruct.types import JsonObject, PromptTemplate

if TYPE_CHECKING:
    from redinstruct.figures.comparison import Comparison

BASE = "base"
Reform = Callable[[Sequence[MessagesRow]], Mapping[str, Sequence[MessagesRow]]]
"""Form -> rows: the exported answers again, in another form of asking."""


class Measured(msgspec.Struct, frozen=True):
    """One model of the loop: the folder of its checkpoint (or its id), and its runs by the evals' names.

    ``results`` are those of ``redinstruct.report`` for all its runs. ``before`` is the title of the model that it was
    made from, None for the first. ``utility`` is the folder of its utility check, ``useful`` what that found.
    """

    round: int
    title: str
    model: str
    runs: dict[str, Path]
    results: tuple[ResultFigures, ...]
    before: str | None = None
    figures: RecipeFigures = {}
    utility: Path | None = None
    useful: UtilityResult | None = None

    @property
    def name(self) -> str:
        """What tells it from the loop's other models."""
        return self.title if self.title == BASE else f"{self.round}-{self.title}"


class LoopResult(msgspec.Struct, frozen=True):
    """What a loop found: every model in order, the comparisons with the model each was made from, what it took.

    ``stopped``: the recipes that the guard stopped, or whose training failed, and why.
    """

    models: tuple[Measured, ...]
    comparisons: dict[str, list[Comparison]]
    stages: tuple[Stage, ...]
    stopped: dict[str, str] = {}


def carry_out(
    config: LoopConfig,
    *,
    on_progress: OnProgress | None = None,
    reform: Reform | None = None,
    force: bool = False,
    before: int = 0,
    after: int = 0,
) -> LoopResult:
    """Carry out every stage that is not done yet.

    ``reform`` puts the collected rows into more forms, for the recipes that want them. ``before`` and
    ``after``: how many parts of a longer work stand before the first stage and behind the last, for who listens.

    Raises:
        RedInstructError: a stage cannot be carried out; the stages before it stand.
    """
    ledger = Ledger(Path(config.folder), on_progress or unheard, stages_of(config) + after, before)
    return _LoopRun(config, ledger, reform, force).run()


def stages_of(config: LoopConfig) -> int:
    """How many stages a loop has, where no guard stops a recipe."""
    each = len(config.eval) + (config.utility is not None)
    recipes = () if config.align is None else config.align.recipes
    swept = sum(r.strategy == "resta" and len(r.coefficients) > 1 for r in recipes)
    if config.align is None or config.align.pick is None:
        swept = 0
    collected = 2 * (config.collect is not None)
    rounds = config.rounds if config.align is not None else min(config.rounds, 1)
    return each + rounds * (collected + swept + len(recipes) * (1 + each))


class _LoopRun:
    def __init__(self, config: LoopConfig, ledger: Ledger, reform: Reform | None, force: bool) -> None:
        self._config = config
        self._reform = reform
        self._force = force
        self._folder = Path(config.folder)
        self._ledger = ledger
        self._own_prompts = own_prompts_of(config.model)
        self._data: list[Path] = []

    def run(self) -> LoopResult:
        models: list[Measured] = []
        comparisons: dict[str, list[Comparison]] = {}
        stopped: dict[str, str] = {}
        current = self._measured(1, BASE, self._config.model, None)
        models.append(current)
        for number in range(1, self._config.rounds + 1):
            if self._config.collect is not None:
                self._data.append(self._collected(number, current, self._config.collect))
            align = self._config.align
            if align is None:
                break
            made = {}
            for recipe in align.recipes:
                folder, figures = self._aligned(number, current, align, recipe)
                if folder is None:
                    stopped[f"{number}-{recipe.title}"] = figures["stopped"]
                    continue
                after = self._measured(number, recipe.title, f"hf/{folder}", current, figures)
                made[recipe.title] = after
                models.append(after)
                comparisons[after.name] = list(self._compared(current, after))
            carry = align.carry or align.recipes[-1].title
            if number < self._config.rounds and carry not in made:
                raise RedInstructError(
                    f"round {number}: {carry} has no model to go on with: {stopped[f'{number}-{carry}']}"
                )
            current = made.get(carry, current)
        return LoopResult(tuple(models), comparisons, tuple(self._ledger.stages), stopped)

    # ---- stages --------------------------------------------------------------------------------------------------

    def _measured(
        self, number: int, title: str, model: str, before: Measured | None, figures: RecipeFigures | None = None
    ) -> Measured:
        runs = {}
        for part in self._config.eval:
            name, what = f"{number}-{title}-{part.name}", f"asking {title}: {part.name}"
            stage = self._evaluated(name, model, part, what)
            runs[part.name] = Path(stage.place)
        utility = self._useful(number, title, model)
        results = read_report(list(runs.values())).results
        return Measured(
            round=number,
            title=title,
            model=model,
            runs=runs,
            results=results,
            before=None if before is None else before.name,
            figures=figures or {},
            utility=utility,
            useful=None if utility is None else read_utility(utility),
        )

    def _evaluated(self, name: str, model: str, part: EvalPart, what: str) -> Stage:
        templates = self._templates(part.prompts)
        inputs = {"model": id_of(model), "part": identity(part, templates)}

        def work(place: Path) -> JsonObject:
            def on_progress(state: Progress) -> None:
                self._ledger.tell(state.staged("asking"))

            outcome = ask(model, place, part, templates, on_progress, force=self._force)
            return {"calls": outcome.calls, "attempts": outcome.planned}

        return self._ledger.stage(name, inputs, work, what)

    def _templates(self, names: Sequence[str]) -> list[PromptTemplate]:
        """The prompts; a toy model's own translations also for what was made from it."""
        return [load_template(name, own_folder=self._own_prompts) for name in names or DEFAULT_PROMPTS]

    def _collected(self, number: int, current: Measured, part: CollectPart) -> Path:
        """Collect from the round's model; the export with everything in it."""
        answerer = current.model if part.answerer == SELF else part.answerer
        given = {name: getattr(part, name) for name in CollectSettings.__struct_fields__}
        plan = prepare_collection(CollectSettings(**given | {"answerer": answerer}))

        def gather(place: Path) -> JsonObject:
            def on_progress(state: Progress) -> None:
                step = (state.stage or "asking").partition(":")[0]
                self._ledger.tell(state.staged(step))

            limits = Limits(concurrency=part.concurrency, force=self._force)
            done = collect(plan, place, limits, on_progress, until_covered=part.until_covered)
            if done.stopped is not None:
                raise EndpointLost(done.stopped)
            cells = done.collection.coverage()
            counts = {name: sum(getattr(cell, name) for cell in cells) for name in ("questions", "blue", "red")}
            return {"calls": done.calls, **counts}

        made_of = {"plan": msgspec.to_builtins(plan.config)}
        run = self._ledger.stage(f"{number}-collect", made_of, gather, f"collecting from {current.title}")
        banks = [resolve_bank(bank) for bank in part.against]

        def export(place: Path) -> JsonObject:
            place.mkdir(mode=0o700, exist_ok=True)
            wanted = ExportSettings(to="messages", include_red=part.red, banks=tuple(banks), near=part.near)
            made = export_collection(Path(run.place), wanted, place / COLLECTED)
            if self._reform is not None:
                for form, rows in self._reform(made.rows).items():
                    write_rows(place / f"{form}.jsonl", rows)
            return {"rows": len(made.rows), "left_out": made.dropped}

        inputs = {"collection": run.digest, "near": part.near, "banks": [bank.sha256 for bank in banks]}
        return Path(self._ledger.stage(f"{number}-data", inputs, export, "writing the rows to learn from").place)

    def _aligned(
        self, number: int, current: Measured, align: AlignPart, recipe: Recipe
    ) -> tuple[Path | None, RecipeFigures]:
        picker = None
        if (pick := align.pick) is not None:
            folder = self._folder / f"{number}-pick-{recipe.title}"
            parts = {"safety": pick.safety, "utility": pick.utility}
            asked = {what: (part, self._templates(part.prompts)) for what, part in parts.items()}
            picker = Picker(pick.margin, folder, asked, self._ledger.tell, force=self._force)
        formed = self._reform is not None
        return aligned(self._ledger, number, align, recipe, current.model, self._data, picker, own_forms=formed)

    def _useful(self, number: int, title: str, model: str) -> Path | None:
        """The run folder of the model's utility check."""
        if (part := self._config.utility) is None:
            return None

        def work(place: Path) -> JsonObject:
            from redinstruct.utility_check.runs import check_utility

            return {"tasks": len(check_utility(part.of_model(model), place, self._ledger.tell).asked)}

        inputs, what = {"model": id_of(model), "part": msgspec.to_builtins(part)}, f"is {title} still useful?"
        return Path(self._ledger.stage(f"{number}-{title}-utility", inputs, work, what).place)

    def _compared(self, before: Measured, after: Measured) -> Iterator[Comparison]:
        from redinstruct.figures.comparison import CompareSettings, compare

        asked = CompareSettings(margin=self._config.margin)
        for name, run in after.runs.items():
            yield compare(before.runs[name], run, asked)
        if before.utility is not None and after.utility is not None:
            yield compare(before.utility, after.utility, asked)


def own_prompts_of(model: str) -> Path | None:
    """Where a toy model keeps its own translations of the prompts; None where it has none."""
    folder = prompts_of(model)
    return folder if folder is not None and folder.is_dir() else None
