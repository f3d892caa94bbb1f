"""What a loop, or a sweep, would find wrong in one of its stages: found before the first one has cost anything.

Each stage's settings are held to what its own verb holds them to; no checkpoint is loaded, and nobody is asked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from redinstruct.banks import resolve_bank
from redinstruct.checkpoints.embedded import folder_of
from redinstruct.engine import Limits
from redinstruct.engine.limits import check_limits
from redinstruct.errors import RedInstructError, UsageError, how_to_install
from redinstruct.harmfulqa import CollectSettings
from redinstruct.harmfulqa.plan import read_collecting
from redinstruct.judges import Judge, JudgeSettings
from redinstruct.models import make_model
from redinstruct.prompts import DEFAULT_PROMPTS, load_template
from redinstruct.prompts.forms import check_forms
from redinstruct.redeval.plan import read_inputs
from redinstruct.rounds.asking import settings_of
from redinstruct.rounds.config import SELF, AlignPart, CollectPart, EvalPart, LoopConfig, Recipe, UtilityPart
from redinstruct.rounds.run import own_prompts_of
from redinstruct.run import check_outside
from redinstruct.safetext import terminal
from redinstruct.settings import check_said
from redinstruct.utility_check.suites import Catalogue, needs_harness, select

_ELSEWHERE = ("hf/", "vllm/", "inspect/")
"""Models that are loaded to be made: whether they are there is seen when they are."""


def check_inputs(config: LoopConfig) -> None:
    """Pass a loop whose every stage could begin: its settings, and every bank, prompt and file that it will read.

    Raises:
        UsageError: one of them is wrong, is not there, or cannot be read as what it is; it names the table.
    """
    if Path(config.folder).exists() and not Path(config.folder).is_dir():
        raise UsageError(f"folder: {terminal(config.folder)} is no folder")
    check_outside(Path(config.folder), "folder")
    align, collect = config.align, config.collect
    for recipe in () if align is None else align.recipes:
        where = f"align.recipes {recipe.title}: " + (
            f"preset {recipe.preset} (forms names others)" if recipe.forms is None else "forms"
        )
        red = collect is None or collect.red
        check_forms(recipe.framed, general=align is not None and bool(align.general), red=red, where=where)
    _check_model(config.model)
    for part in config.eval:
        _named(f"eval {part.name}", _check_asking, config.model, part)
    if collect is not None:
        _named("collect", _check_collecting, collect)
    if align is not None:
        _check_aligning(config, align)
    if config.utility is not None:
        _named("utility", _check_useful, config.model, config.utility)


def _named(where: str, check: Any, *given: Any) -> None:
    try:
        check(*given)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _check_model(model: object) -> None:
    """An id that names nothing, or an endpoint whose address or key is missing."""
    if isinstance(model, str) and not model.startswith(_ELSEWHERE):
        make_model(model)


def _check_judge(part: JudgeSettings, judge: Judge | None) -> None:
    if judge is not None and not (isinstance(part.judge_model, str) and part.judge_model.startswith(_ELSEWHERE)):
        part.judge_model_of(judge, Limits().timeout)


def _check_asking(model: str, part: EvalPart) -> None:
    check_limits(Limits(concurrency=part.concurrency))
    own = own_prompts_of(model)
    templates = [load_template(name, own_folder=own) for name in part.prompts or DEFAULT_PROMPTS]
    _check_judge(part, read_inputs(settings_of(model, part, templates)).judge)


def _check_collecting(part: CollectPart) -> None:
    check_said(part)
    check_limits(Limits(concurrency=part.concurrency))
    given = {name: getattr(part, name) for name in CollectSettings.__struct_fields__}
    _, judge = read_collecting(CollectSettings(**given))
    _check_judge(part, judge)
    for model in (part.teacher, None if part.answerer == SELF else part.answerer):
        _check_model(model)
    for bank in part.against:
        resolve_bank(bank)


def _check_aligning(config: LoopConfig, align: AlignPart) -> None:
    if align.pick is not None:
        for part in (align.pick.safety, align.pick.utility):
            _named(f"align.pick {part.name}", _check_asking, config.model, part)
    for name in (*align.data, *align.general, *align.probe):
        if not Path(name).is_file():
            raise UsageError(f"{terminal(str(name))}: no such file, and a later stage reads it")
    for recipe in align.recipes:
        _named(f"align.recipes {recipe.title}", check_recipe, config, align, recipe)


def check_recipe(config: LoopConfig, align: AlignPart, recipe: Recipe) -> None:
    """Pass a recipe that can be configured, whatever the data.

    Raises:
        UsageError: a strategy, a setting or a parameter that there is not, or a number that none can have.
    """
    from redinstruct.rounds.alignment import config_of
    from redinstruct.safealign import TRL_STRATEGIES
    from redinstruct.safealign.prepare import strategy_of

    general = tuple(map(Path, align.general))
    made = config_of(folder_of(config.model), (), general, align, recipe, Path(config.folder)).resolved()
    own = recipe.strategy not in (*TRL_STRATEGIES, "resta")
    learns_red = "red" in strategy_of(made).streams if own else recipe.strategy != "kto"
    # What stands in files is seen when they are read; without any there is only what is collected.
    if learns_red and not align.data and config.collect is not None and not config.collect.red:
        raise UsageError(
            f"--strategy {recipe.strategy} trains on red rows, and [collect] red = false leaves none:"
            " say red = true, or name files of them (data in [align])"
        )


def _check_useful(model: str, part: UtilityPart) -> None:
    from redinstruct.utility_check.runs import check_settings

    check_settings(part.of_model(model))
    select(part.suite, None, Catalogue())


def check_extras(config: LoopConfig) -> None:
    """Say what is missing before the first stage has cost anything.

    Raises:
        RedInstructError: a stage needs an extra that is not installed.
    """
    wanted: dict[str, tuple[str, ...]] = (
        {"local": ("torch", "transformers")} if config.model.startswith("hf/") or config.align else {}
    )
    if config.utility is not None and needs_harness(config.utility.suite):
        wanted["utility"] = ("lm_eval",)
    for extra, modules in wanted.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            raise RedInstructError(
                f"this loop needs the [{extra}] extra ({', '.join(missing)}): {how_to_install(extra)}"
            )
