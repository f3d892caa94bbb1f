"""A loop's configuration: one TOML file, checked as a whole before anything is asked.

Paths in it are relative to the file. Every table is optional but ``[[eval]]``; a stage without its table is left out.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args

import msgspec

from redinstruct.errors import UsageError, did_you_mean
from redinstruct.files.words import Fields
from redinstruct.harmfulqa import CollectSettings
from redinstruct.harmfulqa.settings import Near
from redinstruct.judges import JudgeSettings
from redinstruct.prompts import read_text_file
from redinstruct.prompts.forms import UNFRAMED, forms_of
from redinstruct.redeval import AskSettings
from redinstruct.safetext import terminal
from redinstruct.types import MEASURES

MOST_BYTES = 1 << 20
Refuse = Callable[[str, str], NoReturn]
NOT_PICKED = ("resta", "kto", "dpo")
"""Strategies of which no checkpoint on the way can be measured: RESTA's are the unsafe model's, the others TRL's."""
SELF = "self"
"""As the collection's answerer: the model that is to become safer, whichever round's that is."""


class EvalPart(AskSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One RED-EVAL of every model of the loop: the settings of ``redinstruct eval`` without the model."""

    name: str
    banks: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    judge: str
    judge_model: str | None = None
    template_options: Fields = msgspec.field(default_factory=dict)
    concurrency: int = 64


class CollectPart(CollectSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The collection: the settings of ``redinstruct collect``, and of ``export``: ``against`` are banks to be kept out.

    Red conversations are collected unless it says otherwise; the answerer is the model that is to become safer.
    """

    teacher: str
    answerer: str = SELF
    judge: str | None = None
    judge_model: str | None = None
    topics: Path | None = None
    red: bool = True
    concurrency: int = 64
    near: Near = None
    against: tuple[str, ...] = ()


class MemoryPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an alignment is fitted into memory: the flags of ``redinstruct align`` of these names; left out, by its plan.

    ``processes`` of this machine, one for each GPU, are started by the loop itself. ``gb`` is ``--memory``.
    """

    activation_checkpointing: bool | None = None
    quantize: Literal[4, 8] | None = None
    base_dtype: Literal["float32", "bfloat16"] | None = None
    attention: str | None = None
    fsdp: bool | None = None
    processes: int = 1
    gb: float | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One alignment of the round's model: the flags of ``redinstruct align``. ``name`` is the row in the tables.

    ``settings`` and ``parameters`` are what the preset and the strategy leave open, by their names there. ``forms`` are
    the other forms of asking in which the data is learnt too (:mod:`redinstruct.prompts.forms`); left out, the
    preset's. ``lora`` is a rank, or true for 16. ``coefficients`` are RESTA's; of several, and of the checkpoints of
    every ``pick_every`` steps, ``[align.pick]`` chooses.
    """

    strategy: str
    name: str | None = None
    preset: str | None = None
    settings: Fields = msgspec.field(default_factory=dict)
    parameters: Mapping[str, float] = msgspec.field(default_factory=dict)
    lora: bool | int = False
    memory: MemoryPart | None = None
    guard: bool = True
    forms: tuple[str, ...] | None = None
    coefficients: tuple[float, ...] = (1.0,)
    drop: float = 0.0
    pick_every: int | None = None

    @property
    def title(self) -> str:
        """What its row is called."""
        return self.name or self.strategy

    @property
    def framed(self) -> tuple[str, ...]:
        """The forms of asking, with the preset's where none are named."""
        return forms_of(self.forms, self.preset, self.strategy)


class PickPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one of several checkpoints is chosen: the safest of those that lose at most ``margin`` of utility.

    ``safety`` is one minus the attack success rate (of all attempts, the mean over prompts), ``utility`` the share of
    harmless questions that are answered. Name other banks than in ``[[eval]]``: these figures make the choice.
    """

    safety: EvalPart
    utility: EvalPart
    margin: float = 0.02


class AlignPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The alignments, each from the round's model with the round's data; ``carry`` is the one that the next round has.

    ``general`` are files of harmless conversations, ``probe`` those that are asked while training and never learnt
    (``align --probe``), ``data`` safety data beside what was collected.
    ``template_options`` go to the model's chat template, in every ``[[eval]]`` alike.
    """

    recipes: tuple[Recipe, ...]
    general: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    carry: str | None = None
    template_options: Fields = msgspec.field(default_factory=dict)
    seed: int = 0
    pick: PickPart | None = None


class UtilityPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The utility check of every model: the flags of ``redinstruct utility``."""

    suite: str
    data: str | None = None
    limit: int | None = None
    margin: float = 0.02


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides what a loop does. ``model`` is an id; to be aligned it must be ``hf/<folder>``."""

    model: str
    eval: tuple[EvalPart, ...]
    folder: str = "loop"
    rounds: int = 1
    margin: float = 0.02
    collect: CollectPart | None = None
    align: AlignPart | None = None
    utility: UtilityPart | None = None


class SweepPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sweep varies: every recipe of ``[align]`` with each of these, once a seed of the alignment.

    ``settings`` and ``parameters`` name what a recipe may hold, each with its values; ``strategies`` stand in the place
    of the recipe's own.
    """

    seeds: tuple[int, ...] = (0,)
    strategies: tuple[str, ...] = ()
    settings: Mapping[str, tuple[Any, ...]] = msgspec.field(default_factory=dict)
    parameters: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict)


class SweepConfig(LoopConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A loop's file of one round with a table ``[sweep]``."""

    sweep: SweepPart = SweepPart()


def digest_of(*parts: object) -> str:
    """16 hex digits over plain values: equal inputs, equal digest."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted", enc_hook=str)).hexdigest()[:16]


def read_config(path: Path) -> LoopConfig:
    """Read a loop's file; its paths become absolute.

    Raises:
        UsageError: it cannot be read, is no TOML, has a key or a value that no loop has, or contradicts itself.
    """
    return _read(path, LoopConfig)


def read_sweep(path: Path) -> SweepConfig:
    """Read a sweep's file; its paths become absolute.

    Raises:
        UsageError: as :func:`read_config`; or there is no round to sweep, or nothing that a front could be made of.
    """
    config = _read(path, SweepConfig)
    sweep, measures = config.sweep, {part.measure for part in config.eval}

    def refuse(where: str, why: str) -> NoReturn:
        raise UsageError(f"{terminal(str(path))}: {where}: {why}")

    if config.align is None:
        refuse("align", "there is nothing to sweep: name recipes")
    if config.rounds != 1:
        refuse("rounds", "a sweep has one round")
    if config.align.seed or config.align.carry is not None:
        refuse("align", "seed and carry are a loop's: a sweep's seeds stand in [sweep], and nothing is carried on")
    if missing := [name for name in MEASURES if name not in measures]:
        refuse("eval", f"a front needs both sides: name an [[eval]] with measure = {missing[0]}")
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds) or min(sweep.seeds) < 0:
        refuse("sweep.seeds", "name seeds from 0, each once")
    _check_names(list(sweep.strategies), "sweep.strategies", refuse)
    for kind in ("settings", "parameters"):
        for name, values in getattr(sweep, kind).items():
            if not values:
                refuse(f"sweep.{kind}.{name}", "names no value")
    return config


ConfigKind = TypeVar("ConfigKind", bound=LoopConfig)
JudgedPart = TypeVar("JudgedPart", bound=JudgeSettings)


def _read(path: Path, kind: type[ConfigKind]) -> ConfigKind:
    shown = terminal(str(path))
    try:
        document = tomllib.loads(read_text_file(path, "configuration", MOST_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{shown}: is no TOML: {terminal(str(error))}") from None
    try:
        # Options are whatever TOML holds; paths are texts.
        config = msgspec.convert(document, kind, dec_hook=lambda of, value: value if of is object else of(value))
    except msgspec.ValidationError as error:
        raise UsageError(f"{shown}: {terminal(str(error))}{_nearest(str(error), kind)}") from None
    check(config, shown)
    return absolute(config, path.parent)


def _nearest(error: str, table: type[msgspec.Struct]) -> str:
    """Of a key that a table does not have, which ones it has."""
    found = re.match(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?$", error, re.DOTALL)
    if found is None:
        return ""
    for key in re.findall(r"\.(\w+)", found[2] or ""):
        kind = next((field.type for field in msgspec.structs.fields(table) if field.name == key), None)
        parts = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        if not parts:
            return ""
        table = parts[0]
    known = [field.encode_name for field in msgspec.structs.fields(table)]
    return did_you_mean(found[1], known) or f"; known are {', '.join(known)}"


def check(config: LoopConfig, shown: str) -> None:
    """Pass a configuration that does not contradict itself.

    Raises:
        UsageError: naming the table and the key.
    """

    def refuse(where: str, why: str) -> NoReturn:
        raise UsageError(f"{shown}: {where}: {why}")

    if not config.folder.strip():
        refuse("folder", "is empty")
    if not config.eval:
        refuse("eval", "name at least one [[eval]]")
    names = [part.name for part in config.eval]
    _check_names(names, "eval.name", refuse)
    for part in config.eval:
        _check_part(part, f"eval {part.name}", refuse)
    if config.rounds < 1:
        refuse("rounds", "must be at least 1")
    if config.rounds > 1 and config.align is None:
        refuse("rounds", "without [align] a second round would measure the same model again")
    if not 0 <= config.margin < 1:
        refuse("margin", "must lie between 0 and 1")
    if config.utility is not None and config.utility.margin != config.margin:
        refuse("utility.margin", "must equal margin: one of the two was fixed before, and it is not known which")
    if config.align is not None:
        _check_align(config, config.align, refuse)


def _check_part(part: EvalPart, where: str, refuse: Refuse, measure: str | None = None) -> None:
    if part.measure not in MEASURES:
        refuse(f"{where}: measure", f"there are {', '.join(MEASURES)}")
    if measure is not None and part.measure != measure:
        refuse(f"{where}: measure", f"must be {measure}, which is what this figure counts")
    if not part.banks:
        refuse(f"{where}: banks", "name at least one bank")


def _check_align(config: LoopConfig, align: AlignPart, refuse: Refuse) -> None:
    if not config.model.startswith("hf/"):
        refuse("model", "only a local checkpoint (hf/FOLDER) can be aligned")
    if not align.recipes:
        refuse("align.recipes", "name at least one [[align.recipes]]")
    picked = () if align.pick is None else (align.pick.safety, align.pick.utility)
    for part in (*config.eval, *picked):
        if dict(part.template_options) != dict(align.template_options):
            refuse(
                f"eval {part.name}: template_options", "must be those of [align]: a model is asked as it was trained"
            )
    titles = [recipe.title for recipe in align.recipes]
    _check_names(titles, "align.recipes.name", refuse)
    if align.carry is not None and align.carry not in titles:
        refuse("align.carry", f"is none of the recipes: {', '.join(titles)}")
    for recipe in align.recipes:
        _check_choice(recipe, align.pick, refuse)
    if align.probe and all(recipe.strategy in UNFRAMED for recipe in align.recipes):
        refuse("align.probe", f"no recipe asks it while it trains: {', '.join(titles)}")
    if (pick := align.pick) is not None:
        if not 0 <= pick.margin < 1:
            refuse("align.pick: margin", "must lie between 0 and 1")
        _check_part(pick.safety, "align.pick.safety", refuse, "attack_success")
        _check_part(pick.utility, "align.pick.utility", refuse, "over_refusal")
    if config.collect is None and not align.data and set(titles) != {"general"}:
        refuse("align", "there is nothing to learn from: give [collect] or align.data")


def _check_choice(recipe: Recipe, pick: PickPart | None, refuse: Refuse) -> None:
    where = f"align.recipes {recipe.title}"
    if pick is None and (len(recipe.coefficients) > 1 or recipe.pick_every is not None):
        refuse(where, "to choose among checkpoints it needs [align.pick]")
    if not recipe.coefficients:
        refuse(f"{where}: coefficients", "name at least one")
    if recipe.strategy != "resta" and recipe.coefficients != (1.0,):
        refuse(f"{where}: coefficients", "are RESTA's alone")
    if len(recipe.coefficients) > 1 and not all(recipe.coefficients):
        refuse(f"{where}: coefficients", "0 adds nothing; the base is compared with anyway")
    if recipe.lora is not False and int(recipe.lora) < 1:
        refuse(f"{where}: lora", "a rank is at least 1; true is 16")
    if (memory := recipe.memory) is not None:
        if memory.processes < 1:
            refuse(f"{where}: memory.processes", "must be at least 1")
        if memory.processes > 1 and (recipe.pick_every is not None or recipe.strategy in NOT_PICKED):
            refuse(f"{where}: memory.processes", "checkpoints are picked, and resta, kto and dpo run, in one process")
    if recipe.forms and recipe.strategy == "general":
        refuse(f"{where}: forms", "general learns the general rows alone, as they stand")
    if recipe.pick_every is not None:
        if recipe.pick_every < 1:
            refuse(f"{where}: pick_every", "must be at least 1")
        if recipe.strategy in NOT_PICKED:
            refuse(f"{where}: pick_every", f"{recipe.strategy} has no checkpoints on its way to choose among")


def chosen_on_what_is_measured(config: LoopConfig) -> tuple[str, ...]:
    """The banks on which checkpoints are chosen, and which the chosen ones are then measured on: selection on test."""
    if config.align is None or config.align.pick is None:
        return ()
    if all(recipe.pick_every is None and len(recipe.coefficients) == 1 for recipe in config.align.recipes):
        return ()
    measured = {bank for part in config.eval for bank in part.banks}
    parts = (config.align.pick.safety, config.align.pick.utility)
    return tuple(dict.fromkeys(bank for part in parts for bank in part.banks if bank in measured))


def _check_names(names: list[str], where: str, refuse: Refuse) -> None:
    for name in names:
        if not name or not all(c.isalnum() or c in "-_.+" for c in name) or name.startswith("."):
            refuse(where, "must be of letters, digits and - _ . +, since folders are named by it")
    if len(set(names)) != len(names):
        refuse(where, "the same name stands twice")


class _Beside(msgspec.Struct, frozen=True):
    """Names as they are seen from a folder."""

    base: Path

    def path(self, value: str) -> str:
        return str((self.base / Path(value).expanduser()).resolve())

    def file(self, value: Path | None) -> Path | None:
        return None if value is None else Path(self.path(str(value)))

    def model(self, value: str) -> str:
        near = self.base / Path(value.removeprefix("hf/")).expanduser()
        return f"hf/{near.resolve()}" if value.startswith("hf/") and near.is_dir() else value

    def text(self, value: str) -> str:
        near = self.base / Path(value).expanduser()
        return str(near.resolve()) if near.is_file() else value

    def judged(self, part: JudgedPart) -> JudgedPart:
        asked = self.model(part.judge_model) if isinstance(part.judge_model, str) else part.judge_model
        return msgspec.structs.replace(
            part, judge_model=asked, rubric=self.file(part.rubric), policy=self.file(part.policy)
        )

    def asked(self, part: EvalPart) -> EvalPart:
        banks, prompts = tuple(map(self.text, part.banks)), tuple(map(self.text, part.prompts))
        system = None if part.system is None else self.text(part.system)
        return msgspec.structs.replace(self.judged(part), banks=banks, prompts=prompts, system=system)


def absolute(config: ConfigKind, base: Path) -> ConfigKind:
    """The same with every path made absolute, seen from ``base``."""
    near, replace = _Beside(base), msgspec.structs.replace
    collect, align, utility = config.collect, config.align, config.utility
    if collect is not None:
        collect = replace(
            near.judged(collect),
            teacher=near.model(collect.teacher),
            answerer=near.model(collect.answerer),
            topics=near.file(collect.topics),
            against=tuple(map(near.text, collect.against)),
        )
    if align is not None:
        files = {name: tuple(map(near.path, getattr(align, name))) for name in ("general", "probe", "data")}
        align = replace(align, **files)
        if (pick := align.pick) is not None:
            align = replace(align, pick=replace(pick, safety=near.asked(pick.safety), utility=near.asked(pick.utility)))
    if utility is not None and utility.data is not None:
        utility = replace(utility, data=near.path(utility.data))
    return replace(
        config,
        model=near.model(config.model),
        folder=near.path(config.folder),
        eval=tuple(map(near.asked, config.eval)),
        collect=collect,
        align=align,
        utility=utility,
    )
