"""A loop's alignment stage: one recipe, on the data of all rounds so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import msgspec

from redinstruct.alignment import AlignConfig, GuardRule, Lora, TrainingFigures, preset_for, with_settings
from redinstruct.checkpoints.embedded import folder_of
from redinstruct.errors import ConfigError, RedInstructError, TrainingFailed, how_to_install
from redinstruct.files.words import Fields
from redinstruct.models import id_of
from redinstruct.progress import OnProgress, Progress
from redinstruct.prompts.forms import UNFRAMED
from redinstruct.rounds.config import AlignPart, LoopConfig, MemoryPart, Recipe
from redinstruct.rounds.ledger import Ledger, Stage
from redinstruct.rounds.picking import Picker
from redinstruct.types import Json, JsonObject

if TYPE_CHECKING:
    from redinstruct.safealign import MemoryPlan

COLLECTED = "collected.jsonl"


class RecipeFigures(TypedDict, total=False):
    """What a recipe's stage says: of a training, of one that the guard stopped, or of RESTA's coefficients."""

    figures: TrainingFigures
    warnings: list[str]
    stopped: str
    coefficient: float
    kept_utility: bool
    dev: dict[str, dict[str, float | None]]


def aligned(
    ledger: Ledger,
    number: int,
    align: AlignPart,
    recipe: Recipe,
    base: str,
    data: Sequence[Path],
    picker: Picker | None = None,
    *,
    own_forms: bool = False,
) -> tuple[Path | None, RecipeFigures]:
    """A recipe carried out as a stage: the aligned checkpoint's folder, and what the stage says of it.

    ``data`` are the rounds' export folders; ``picker`` chooses where the recipe leaves a choice. ``own_forms``: the
    loop has put the data into forms of its own, a file each; else :mod:`redinstruct.prompts.forms` does. There is no
    folder where the guard stopped the training, or it failed; the figures say why under ``stopped``. One that failed
    is no stage that is done: the same call tries it again, from its last saved state.

    Raises:
        RedInstructError: [train] is missing, or the disk is full; what was saved of it stays.
    """
    own = recipe.framed if own_forms else ()
    safety = [folder / f for folder in data for f in (COLLECTED, *(f"{form}.jsonl" for form in own))]
    safety += map(Path, align.data)
    general = [Path(path) for path in align.general]
    if recipe.strategy == "general":
        safety = general
    inputs: Fields = {
        "base": id_of(base),
        **_said(align, recipe),
        "data": [_sha256(path) for path in safety],
        "general": [_sha256(path) for path in general],
        "picked": None if recipe.pick_every is None or picker is None else picker.identity,
    }

    def work(place: Path) -> JsonObject:
        asked = msgspec.structs.replace(recipe, forms=()) if own_forms else recipe
        config = config_of(folder_of(base), safety, general, align, asked, place)
        return _carried_out(config, recipe, None if recipe.pick_every is None else picker, ledger.tell)

    try:
        stage = ledger.stage(f"{number}-align-{recipe.title}", inputs, work, f"aligning: {recipe.title}")
    except TrainingFailed as failed:
        return None, {"stopped": str(failed)}
    figures = msgspec.convert(stage.figures, RecipeFigures)
    if "stopped" in figures:
        return None, figures
    if recipe.strategy == "resta" and picker is not None and len(recipe.coefficients) > 1:
        return _swept(ledger, number, recipe, base, stage, picker)
    return Path(stage.place), figures


def _carried_out(config: AlignConfig, recipe: Recipe, picker: Picker | None, tell: OnProgress) -> JsonObject:
    """One alignment: its figures and warnings, or why the guard stopped it."""
    try:
        from redinstruct.safealign import GuardStopped, align, align_in_processes
    except ImportError as error:
        raise RedInstructError(f"aligning needs the [train] extra ({error.name}): {how_to_install('train')}") from None
    processes = recipe.memory.processes if recipe.memory is not None else 1
    try:
        if processes > 1:
            done = align_in_processes(config, processes, lambda state: tell(state.staged("training")))
        else:
            done = align(config, lambda at: tell(Progress(at.step, at.steps, "training")), picker, on_progress=tell)
    except GuardStopped as stopped:
        config.out.mkdir()  # empty: the stage is done, and there is no model
        return {"stopped": str(stopped)}
    return {"figures": msgspec.to_builtins(done.figures), "warnings": list(done.warnings)}


def _swept(
    ledger: Ledger, number: int, recipe: Recipe, base: str, merged: Stage, picker: Picker
) -> tuple[Path, RecipeFigures]:
    """The best coefficient's checkpoint. ``merged`` has the first one's vector: the others need no unsafe model.

    merged = base + c1 v, so base + c v = base + (c / c1) (merged - base); what DARE dropped is the same for all.
    """

    def work(place: Path) -> JsonObject:
        from redinstruct.safealign.exports import base_dtype, copy_others, say_precision
        from redinstruct.safealign.front import best, candidate
        from redinstruct.safealign.resta import Merge, merge_weights

        home, made = folder_of(base), Path(merged.place)
        figures = {0.0: picker.named(home, "base")}
        for at, coefficient in enumerate(recipe.coefficients):
            ledger.tell(Progress(at, len(recipe.coefficients), f"coefficient {coefficient:g}"))
            folder = place / f"{coefficient:g}"
            folder.mkdir(parents=True, exist_ok=True)
            kind = base_dtype(made)  # the precision that kept the first one's vector
            merge_weights(home, made, home, folder, Merge(coefficient / recipe.coefficients[0]), dtype=kind)
            copy_others(home, folder)
            say_precision(folder, kind)
            figures[coefficient] = picker.named(folder, f"coefficient-{coefficient:g}")
        candidates = [candidate(at, found) for at, found in enumerate(figures.values())]
        chosen = best(candidates[0], candidates[1:], picker.margin)
        # None keeps enough utility: the one that keeps the most, and it is said.
        kept = chosen or max(candidates[1:], key=lambda one: (one.utility, one.safety))
        return {
            "coefficient": list(figures)[kept.step],
            "kept_utility": chosen is not None,
            "dev": {f"{coefficient:g}": dict(found) for coefficient, found in figures.items()},
        }

    inputs = {"merged": merged.digest, "coefficients": recipe.coefficients, "picked": picker.identity}
    stage = ledger.stage(f"{number}-sweep-{recipe.title}", inputs, work, f"choosing how much: {recipe.title}")
    found = msgspec.convert(stage.figures, RecipeFigures)
    return Path(stage.place) / f"{found['coefficient']:g}", found


def plans(config: LoopConfig) -> Iterator[tuple[str, MemoryPlan]]:
    """What each recipe's alignment takes on this machine, by its title: of rows as long as may be.

    Raises:
        UsageError: a recipe's settings are none, or the model's architecture is not known.
    """
    from redinstruct.safealign import machine_of, plan_alignment

    if (align := config.align) is None:
        return
    for recipe in align.recipes:
        processes = recipe.memory.processes if recipe.memory is not None else 1
        made = config_of(
            folder_of(config.model), (), tuple(map(Path, align.general)), align, recipe, Path(config.folder)
        )
        yield recipe.title, plan_alignment(made, machine_of(made.memory, processes if processes > 1 else None))


def _said(align: AlignPart, recipe: Recipe) -> Fields:
    """What of the file decides a recipe's checkpoint, its general rows and the base aside."""
    return {
        "recipe": _deciding(recipe),
        "seed": align.seed,
        **({"template_options": dict(align.template_options)} if align.template_options else {}),
        **({"probe": [_sha256(Path(path)) for path in align.probe]} if align.probe else {}),
    }


def _deciding(recipe: Recipe) -> JsonObject:
    """What of a recipe decides its checkpoint: not how it was fitted into memory, unless that rounds the base.

    The first coefficient is the merged checkpoint's own; the others are the sweep's.
    """
    found: dict[str, Json] = msgspec.to_builtins(recipe)
    del found["memory"]
    rounding = {name: value for name in ("quantize", "base_dtype") if (value := getattr(recipe.memory, name, None))}
    return found | {"coefficients": recipe.coefficients[:1], "forms": recipe.framed} | rounding


def config_of(
    base: Path, safety: Sequence[Path], general: Sequence[Path], align: AlignPart, recipe: Recipe, place: Path
) -> AlignConfig:
    """The alignment that a recipe describes.

    Raises:
        UsageError: its settings are none.
    """
    memory = recipe.memory or MemoryPart()
    rank = Lora().rank if recipe.lora is True else int(recipe.lora)
    preset = recipe.preset or preset_for(base)
    return AlignConfig(
        base=base,
        data=tuple(safety),
        general=() if recipe.strategy == "general" else tuple(general),
        no_general=not general and recipe.strategy != "general",
        probe=() if recipe.strategy in UNFRAMED else tuple(map(Path, align.probe)),
        strategy=recipe.strategy,
        forms=() if recipe.strategy == "general" else recipe.framed,
        template_options=dict(align.template_options),
        out=place,
        preset=preset,
        settings=with_settings(preset, **recipe.settings),
        parameters=dict(recipe.parameters),
        seed=align.seed,
        lora=Lora.of(rank),
        memory=memory.gb,
        **{name: value for name, value in msgspec.structs.asdict(memory).items() if name not in ("processes", "gb")},
        guard=GuardRule() if recipe.guard else GuardRule(rise=None, refused_rise=None),
        # A tiny model gains nothing from a second thread, and loses much where the cores are busy.
        threads=1 if preset == "toy" else None,
        coefficient=recipe.coefficients[0],
        evaluate_every=recipe.pick_every,
        utility_margin=align.pick.margin if align.pick is not None else 0.02,
        drop=recipe.drop,
        make_unsafe_model=recipe.strategy == "resta",
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
