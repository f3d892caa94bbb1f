"""A loop's configuration: one TOML file, checked as a whole before anything is asked.

Paths in it are relative to the file. Every table is optional but ``[[eval]]``; a stage without its table is left out.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from redinstruct.errors import UsageError, did_you_mean
from redinstruct.files.words import Fields
from redinstruct.harmfulqa import CollectSettings
from redinstruct.harmfulqa.settings import Near
from redinstruct.prompts import read_text_file
from redinstruct.prompts.forms import UNFRAMED, forms_of
from redinstruct.redeval import AskSettings
from redinstruct.safetext import terminal
from redinstruct.types import MEASURES
from redinstruct.utility_check.settings import UtilitySettings

MOST_BYTES = 1 << 20
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

    def of_model(self, model: str) -> UtilitySettings:
        """The check of a model that is meant."""
        data = None if self.data is None else Path(self.data)
        return UtilitySettings(model=model, suite=self.suite, margin=self.margin, limit=self.limit, data=data)


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
    _refuse(_sweeps(config), terminal(str(path)))
    return config


def _sweeps(config: SweepConfig) -> TableRules:
    sweep, align, measures = config.sweep, config.align, {part.measure for part in config.eval}
    yield align is None, "align", "there is nothing to sweep: name recipes"
    yield config.rounds != 1, "rounds", "a sweep has one round"
    told = align is not None and (align.seed or align.carry is not None)
    yield (
        bool(told),
        "align",
        "seed and carry are a loop's: a sweep's seeds stand in [sweep], and nothing is carried on",
    )
    for name in MEASURES:
        yield name not in measures, "eval", f"a front needs both sides: name an [[eval]] with measure = {name}"
    each = len(set(sweep.seeds)) == len(sweep.seeds)
    yield not sweep.seeds or not each or min(sweep.seeds) < 0, "sweep.seeds", "name seeds from 0, each once"
    yield from _names(sweep.strategies, "sweep.strategies")
    for kind, swept in (("settings", sweep.settings), ("parameters", sweep.parameters)):
        for name, values in swept.items():
            yield not values, f"sweep.{kind}.{name}", "names no value"


ConfigKind = TypeVar("ConfigKind", bound=msgspec.Struct)
LoopKind = TypeVar("LoopKind", bound=LoopConfig)


def _read(path: Path, kind: type[LoopKind]) -> LoopKind:
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
    _refuse(_rules(config), shown)


TableRules = Iterator[tuple[bool, str, str]]
"""Whether a rule is broken, the table and the key that it is about, and what must be; each read after those before."""


def _refuse(rules: TableRules, shown: str) -> None:
    for broken, where, why in rules:
        if broken:
            raise UsageError(f"{shown}: {where}: {why}")


def _rules(config: LoopConfig) -> TableRules:
    yield not config.folder.strip(), "folder", "is empty"
    yield not config.eval, "eval", "name at least one [[eval]]"
    yield from _names([part.name for part in config.eval], "eval.name")
    for part in config.eval:
        yield from _asks(part, f"eval {part.name}")
    yield config.rounds < 1, "rounds", "must be at least 1"
    again = config.rounds > 1 and config.align is None
    yield again, "rounds", "without [align] a second round would measure the same model again"
    yield not 0 <= config.margin < 1, "margin", "must lie between 0 and 1"
    other = config.utility is not None and config.utility.margin != config.margin
    yield other, "utility.margin", "must equal margin: one of the two was fixed before, and it is not known which"
    if config.align is not None:
        yield from _aligns(config, config.align)


def _asks(part: EvalPart, where: str, measure: str | None = None) -> TableRules:
    yield part.measure not in MEASURES, f"{where}: measure", f"there are {', '.join(MEASURES)}"
    named = f"must be {measure}, which is what this figure counts"
    yield part.measure != (measure or part.measure), f"{where}: measure", named
    yield not part.banks, f"{where}: banks", "name at least one bank"


def _aligns(config: LoopConfig, align: AlignPart) -> TableRules:
    pick, titles = align.pick, [recipe.title for recipe in align.recipes]
    known = ", ".join(titles)
    yield not config.model.startswith("hf/"), "model", "only a local checkpoint (hf/FOLDER) can be aligned"
    yield not titles, "align.recipes", "name at least one [[align.recipes]]"
    for part in (*config.eval, *(() if pick is None else (pick.safety, pick.utility))):
        same = dict(part.template_options) == dict(align.template_options)
        where = f"eval {part.name}: template_options"
        yield not same, where, "must be those of [align]: a model is asked as it was trained"
    yield from _names(titles, "align.recipes.name")
    yield align.carry not in (None, *titles), "align.carry", f"is none of the recipes: {known}"
    for recipe in align.recipes:
        yield from _chooses(recipe, f"align.recipes {recipe.title}", picking=pick is not None)
    unasked = bool(align.probe) and all(recipe.strategy in UNFRAMED for recipe in align.recipes)
    yield unasked, "align.probe", f"no recipe asks it while it trains: {known}"
    if pick is not None:
        yield not 0 <= pick.margin < 1, "align.pick: margin", "must lie between 0 and 1"
        yield from _asks(pick.safety, "align.pick.safety", "attack_success")
        yield from _asks(pick.utility, "align.pick.utility", "over_refusal")
    nothing = config.collect is None and not align.data and set(titles) != {"general"}
    yield nothing, "align", "there is nothing to learn from: give [collect] or align.data"


def _chooses(recipe: Recipe, where: str, *, picking: bool) -> TableRules:
    many, every, strategy = recipe.coefficients, recipe.pick_every, recipe.strategy
    choice = len(many) > 1 or every is not None
    processes = 1 if recipe.memory is None else recipe.memory.processes
    yield choice and not picking, where, "to choose among checkpoints it needs [align.pick]"
    yield not many, f"{where}: coefficients", "name at least one"
    yield strategy != "resta" and many != (1.0,), f"{where}: coefficients", "are RESTA's alone"
    none = len(many) > 1 and not all(many)
    yield none, f"{where}: coefficients", "0 adds nothing; the base is compared with anyway"
    rank = recipe.lora is False or int(recipe.lora) >= 1
    yield not rank, f"{where}: lora", "a rank is at least 1; true is 16"
    yield processes < 1, f"{where}: memory.processes", "must be at least 1"
    alone = processes > 1 and (every is not None or strategy in NOT_PICKED)
    where_alone = "checkpoints are picked, and resta, kto and dpo run, in one process"
    yield alone, f"{where}: memory.processes", where_alone
    formed = bool(recipe.forms) and strategy == "general"
    yield formed, f"{where}: forms", "general learns the general rows alone, as they stand"
    yield every is not None and every < 1, f"{where}: pick_every", "must be at least 1"
    unpicked = every is not None and strategy in NOT_PICKED
    yield unpicked, f"{where}: pick_every", f"{strategy} has no checkpoints on its way to choose among"


def _names(names: Sequence[str], where: str) -> TableRules:
    for name in names:
        plain = name and all(c.isalnum() or c in "-_.+" for c in name) and not name.startswith(".")
        yield not plain, where, "must be of letters, digits and - _ . +, since folders are named by it"
    yield len(set(names)) != len(names), where, "the same name stands twice"


def chosen_on_what_is_measured(config: LoopConfig) -> tuple[str, ...]:
    """The banks on which checkpoints are chosen, and which the chosen ones are then measured on: selection on test."""
    if config.align is None or config.align.pick is None:
        return ()
    if all(recipe.pick_every is None and len(recipe.coefficients) == 1 for recipe in config.align.recipes):
        return ()
    measured = {bank for part in config.eval for bank in part.banks}
    parts = (config.align.pick.safety, config.align.pick.utility)
    return tuple(dict.fromkeys(bank for part in parts for bank in part.banks if bank in measured))


_PATHS = ("folder", "topics", "rubric", "policy", "general", "probe", "data")
_MODELS = ("model", "teacher", "answerer", "judge_model")
_FILES_OR_NAMES = ("banks", "prompts", "against", "system")
"""The keys of paths, of models (``hf/FOLDER`` among them), and of what is a file where there is one of that name."""


def absolute(config: ConfigKind, base: Path) -> ConfigKind:
    """The same with every path made absolute, seen from ``base``."""
    held = ((name, getattr(config, name)) for name in config.__struct_fields__)
    return msgspec.structs.replace(config, **{name: _seen(value, name, base) for name, value in held})


def _seen(value: Any, key: str, base: Path) -> Any:
    """What stands under a key. A model or a name may be a path, too: where there is such a folder, or file."""
    if isinstance(value, msgspec.Struct):
        return absolute(value, base)
    if isinstance(value, tuple):
        return tuple(_seen(one, key, base) for one in value)
    if not isinstance(value, str | Path) or key not in (*_PATHS, *_MODELS, *_FILES_OR_NAMES):
        return value
    folder = key in _MODELS
    near = (base / Path(str(value).removeprefix("hf/" if folder else "")).expanduser()).resolve()
    if folder:
        return f"hf/{near}" if str(value).startswith("hf/") and near.is_dir() else value
    return type(value)(near) if key in _PATHS or near.is_file() else value
