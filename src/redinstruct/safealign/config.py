"""One alignment's configuration, its presets, and what is refused before anything is loaded. Pure.

A preset fills in what was left out. ``starling`` is the released run (Bhardwaj & Poria 2023, arXiv 2308.09662; the
README of their training code: batch 64, 3 epochs, learning rate 1e-5, cosine, warm-up ratio 1e-4, no weight decay,
clip 1, 1280 tokens). ``robust`` is that with what carries the demo's result: the data again in every form of asking,
harmless twins among them, and two general rows for each blue and red one. ``toy`` was measured on the toy
world's model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from redinstruct.errors import UsageError
from redinstruct.prompts.forms import check_forms, forms_of
from redinstruct.safealign.guards import GuardRule

Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]
"""The last two keep their state in 8 bits (Dettmers et al. 2022, arXiv 2110.02861): bitsandbytes, on a GPU."""
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
DTYPES = ("float32", "bfloat16", "float16")
"""Precisions that a checkpoint can be written in."""
RESTA = "resta"
TRL_STRATEGIES = ("kto", "dpo")
NEUTRAL = ("save_every", "threads", "reference_cache", "processes", "memory")
"""What may differ between a run and its resumption: it changes no figure."""


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """A low-rank adapter on every linear layer but the head (Hu et al. 2021; QLoRA's choice of layers)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run trains: every number that a preset fills in.

    ``batch`` is the number of rows of one optimizer step, over all streams, micro-batches and processes; ``mix`` are
    the streams' shares of it, among those that the run has. ``warm_up`` below 1 is a share of the steps, else a number.
    ``accumulation`` None is planned (:mod:`redinstruct.safealign.plan`).
    """

    epochs: float = 3.0
    steps: int | None = None
    batch: int = 64
    mix: Mapping[str, float] = msgspec.field(default_factory=lambda: {"blue": 1.0, "general": 1.0, "red": 1.0})
    accumulation: int | None = None
    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warm_up: float = 1e-4
    schedule: Schedule = "cosine"
    final_rate_share: float = 0.0
    clip: float = 1.0
    max_length: int = 1280
    deep_prefix: float = 0.5
    packing: bool = False
    optimizer: Optimizer = "adamw"
    save_every: int = 200


PRESETS: Mapping[str, Settings] = {
    "starling": Settings(),
    "robust": Settings(mix={"blue": 1.0, "general": 2.0, "red": 1.0}),
    "toy": Settings(
        steps=120,
        batch=64,
        mix={"blue": 1.0, "general": 2.0, "red": 1.0},
        learning_rate=5e-4,
        betas=(0.9, 0.98),
        warm_up=10.0,
        schedule="linear",
        final_rate_share=0.1,
        max_length=1024,
        packing=True,
        save_every=25,
    ),
}


class AlignConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What ``redinstruct align`` is asked to do. ``settings`` None is the preset's; so is ``preset`` None, by the base.

    ``parameters`` go to the strategy (its threshold, say); ``lora`` None trains every weight. ``dtype``: the
    precision of what is written; None is the base's, or float32 where rounding to that would lose what was learnt.
    ``coefficient``, ``drop``, ``safe`` and ``make_unsafe_model`` are RESTA's. ``processes``: how many the run
    must find itself to be (torchrun).

    ``forms``: the forms of asking in which the data is learnt too (:mod:`redinstruct.prompts.forms`); None is the
    preset's. ``probe``: files
    of harmless questions with their answers, asked while training and never learnt (:mod:`.probe`).

    What memory decides may be left open (None) and is planned: ``activation_checkpointing``, ``fsdp``, ``base_dtype``
    (of a frozen base). ``quantize`` holds a frozen base in so many bits. ``memory``: GB of a GPU, or the host.
    """

    base: Path
    data: tuple[Path, ...]
    strategy: str
    out: Path
    general: tuple[Path, ...] = ()
    no_general: bool = False
    preset: str | None = None
    settings: Settings | None = None
    parameters: Mapping[str, float] = msgspec.field(default_factory=dict)
    seed: int = 0
    lora: Lora | None = None
    forms: tuple[str, ...] | None = None
    probe: tuple[Path, ...] = ()
    chat_template: str | None = None
    template_options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    activation_checkpointing: bool | None = None
    base_dtype: Literal["float32", "bfloat16"] | None = None
    quantize: Literal[4, 8] | None = None
    attention: Attention | None = None
    memory: float | None = None
    guard: GuardRule = GuardRule()
    utility_margin: float = 0.02
    evaluate_every: int | None = None
    processes: int | None = None
    fsdp: bool | None = None
    threads: int | None = None
    reference_cache: Path | None = None
    dtype: str | None = None
    coefficient: float = 1.0
    drop: float = 0.0
    safe: Path | None = None
    make_unsafe_model: bool = False

    def resolved(self) -> AlignConfig:
        """The same with preset and settings filled in, and checked.

        Raises:
            UsageError: a number that no run can have.
        """
        name = self.preset or preset_for(self.base)
        if name not in PRESETS:
            raise UsageError(f"--preset {name}: expected one of {', '.join(PRESETS)}")
        forms = forms_of(self.forms, name, self.strategy)
        # A preset's forms are refused by its name: nobody named them.
        where = "--forms" if self.forms is not None else f"--preset {name} (--forms names others)"
        check_forms(forms, general=bool(self.general), red=True, where=where)
        made = msgspec.structs.replace(self, preset=name, settings=self.settings or PRESETS[name], forms=forms)
        check(made)
        return made

    @property
    def chosen(self) -> Settings:
        """The settings of a resolved configuration."""
        assert self.settings is not None, "resolved() fills them in"
        return self.settings

    def digest(self, base: str, files: tuple[tuple[str, str], ...]) -> str:
        """sha256 over all that decides the result: two equal ones are one run. Paths do not count, contents do."""
        plain = msgspec.to_builtins(self, enc_hook=str)
        for name in ("base", "data", "general", "probe", "out", "safe", *NEUTRAL):
            plain.pop(name, None)
            plain["settings"].pop(name, None)
        text = json.dumps([plain, base, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def preset_for(base: Path) -> str:
    """The preset of a base for which none is named: ``toy`` for the toy world's model, aligned or not."""
    # A real model of the policy laboratory has prompts of its own, too.
    own = (base / "prompts" / "cou.txt").is_file() and not (base / "policy-lab.json").is_file()
    toy = (base / "toyworld.json").is_file() or own
    return "toy" if toy else "starling"


def with_settings(preset: str, **given: Any) -> Settings:
    """A preset's settings with those that were given (not None) in their place."""
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: expected one of {', '.join(PRESETS)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    if "epochs" in chosen and "steps" not in chosen:
        chosen["steps"] = None
    return msgspec.structs.replace(PRESETS[preset], **chosen)


def check(config: AlignConfig) -> None:
    """Pass a configuration whose numbers make sense.

    Raises:
        UsageError: naming the flag.
    """
    s = config.chosen
    if s.schedule not in get_args(Schedule):
        raise UsageError(f"--schedule {s.schedule}: expected one of {', '.join(get_args(Schedule))}")
    over_zero = {"--lr": s.learning_rate, "--clip": s.clip, "--epochs": s.epochs, "--max-length": s.max_length}
    for flag, value in over_zero.items():
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag} {value}: must be above 0")
    for flag, count in {"--batch": s.batch, "--accumulation": s.accumulation, "--save-every": s.save_every}.items():
        if count is not None and count < 1:
            raise UsageError(f"{flag} {count}: must be at least 1")
    if s.steps is not None and s.steps < 1:
        raise UsageError(f"--steps {s.steps}: must be at least 1")
    shares = {"--deep-prefix": s.deep_prefix, "--drop": config.drop, "--final-rate": s.final_rate_share}
    for flag, share in shares.items():
        if not 0 <= share <= 1 or (flag == "--drop" and share == 1):
            raise UsageError(f"{flag} {share}: must be a share, from 0 to 1")
    for name, value in {"weight decay": s.weight_decay, "warm-up": s.warm_up}.items():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} {value}: must be 0 or more")
    if config.guard.rise is not None and not math.isfinite(config.guard.rise):
        raise UsageError(f"--guard-rise {config.guard.rise}: must be a finite number; below 0 there is no guard")
    if not math.isfinite(config.coefficient):
        raise UsageError("--coefficient: must be a finite number")
    if config.probe and config.strategy in (RESTA, *TRL_STRATEGIES):
        raise UsageError(f"--probe: --strategy {config.strategy} does not look at it while it trains; leave it out")
    if config.dtype is not None and config.dtype not in DTYPES:
        raise UsageError(f"--dtype {config.dtype}: expected one of {', '.join(DTYPES)}")
    if config.lora is not None and config.lora.rank < 1:
        raise UsageError(f"--lora {config.lora.rank}: a rank is at least 1")
    _check_memory(config)


def _check_memory(config: AlignConfig) -> None:
    if config.lora is None and config.quantize is not None:
        raise UsageError(f"--quantize {config.quantize}: weights in so few bits can not be trained; give --lora R")
    if config.lora is None and config.base_dtype == "bfloat16":
        raise UsageError("--base-dtype bfloat16: rounds away most steps of weights that are trained; give --lora R")
    if config.quantize is not None and config.base_dtype is not None:
        raise UsageError("--quantize and --base-dtype: give one of them")
    if config.quantize is not None and config.fsdp:
        raise UsageError(f"--quantize {config.quantize}: is not sharded here; leave --fsdp out, each GPU has a copy")
    if config.chosen.optimizer not in get_args(Optimizer):
        raise UsageError(f"--optimizer {config.chosen.optimizer}: expected one of {', '.join(get_args(Optimizer))}")
    if config.attention is not None and config.attention not in get_args(Attention):
        raise UsageError(f"--attention {config.attention}: expected one of {', '.join(get_args(Attention))}")
    if config.memory is not None and not 0 < config.memory < 1e6:
        raise UsageError(f"--memory {config.memory}: expected gigabytes, above 0")
