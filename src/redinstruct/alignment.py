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
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec

from redinstruct.errors import UsageError, did_you_mean
from redinstruct.files.words import Fields
from redinstruct.prompts.forms import check_forms, forms_of
from redinstruct.safetext import terminal
from redinstruct.settings import Bounds, Setting, check_said, flag_of, is_given, setting_of, with_plain

Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]
"""The last two keep their state in 8 bits (Dettmers et al. 2022, arXiv 2110.02861): bitsandbytes, on a GPU."""
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
DTYPES = ("float32", "bfloat16", "float16")
"""Precisions that a checkpoint can be written in."""
RESTA = "resta"
_OF_RESTA = (f"strategy={RESTA}",)
TRL_STRATEGIES = ("kto", "dpo")
WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(TRL_STRATEGIES, (
        "packing", "deep_prefix", "deep_prefix_tokens", "mix", "action", "activation_checkpointing", "optimizer",
        "fsdp", "quantize", "base_dtype", "attention", "probe", "refused_action",
    )),
    RESTA: ("mix", "action", "refused_action"),
}  # fmt: skip
"""What a strategy's training does not know, by its field: refused there, since an ignored guard would be trusted."""
_TRAINED_BY = {**dict.fromkeys(TRL_STRATEGIES, "is trained by TRL's own loop"), RESTA: "learns red answers alone"}
NEUTRAL = ("save_every", "threads", "processes", "memory")
"""What may differ between a run and its resumption: it changes no figure."""


HarmlessQuestions = TypedDict(
    "HarmlessQuestions",
    {"questions": dict[str, int], "at the start": Mapping[str, float], "at the end": Mapping[str, float]},
)
"""How many of each kind there are, and :data:`redinstruct.safealign.probe.ProbeFigures`."""
TrainingFigures = TypedDict(
    "TrainingFigures",
    {
        # Of every run of our own, where a candidate was looked at, of TRL's, of RESTA.
        "steps": int, "rows per step": dict[str, int], "first": Fields, "last": Fields,
        "general loss at the start": float, "red term dropped at step": int | None, "dropped rows": int,
        "truncated rows": int, "memory": dict[str, bool | int | str | None],
        "harmless questions while training": HarmlessQuestions,
        # A figure of somebody's own may be no number: JSON has null for it.
        "base": Mapping[str, float | None], "chosen step": int, "front": dict[str, Mapping[str, float | None]],
        "candidates": dict[str, Mapping[str, float | None]],
        "pairs or answers": int, "first loss": float, "last loss": float,
        "coefficient": float, "dropped share (DARE)": float, "steps on red answers": int,
        "loss on red answers at the start": float, "loss on red answers at the end": float,
    },
    total=False,
)  # fmt: skip
"""What a card says of the training: which of them, that depends on how the checkpoint was made."""


class GuardRule(msgspec.Struct, frozen=True, kw_only=True):
    """When the watched loss counts as running away, and what is done then.

    The limit is ``start + max(rise * start, floor)``, in nats per token; ``start`` is the mean of the first
    ``start_steps`` steps, and what is held against the limit is a moving average with weight ``smoothing`` on the past.
    ``floor`` keeps a model with a tiny loss from tripping over noise. ``rise`` of None watches nothing.

    ``refused_rise``: by how much the refused share of the harmless questions (:mod:`redinstruct.safealign.probe`) may
    rise over the start's. Where it is higher at the end, the run warns; where ``refused_action`` is ``stop``, it stops
    once two looks in a row find it higher, since a model may refuse too much for a while and come back.
    """

    rise: Annotated[
        float | None,
        Setting(
            "The general loss may rise by this share before the red term is dropped. Below 0: no guard.",
            "X",
            flag="--guard-rise",
        ),
    ] = 0.5
    floor: float = 0.2
    action: Annotated[
        Literal["zero", "stop"],
        Setting("Then: drop the red term, or stop.  [default: zero]", flag="--guard-action"),
    ] = "zero"
    start_steps: int = 5
    smoothing: float = 0.8
    refused_rise: float | None = 0.25
    refused_action: Annotated[
        Literal["warn", "stop"],
        Setting(
            "Where the model begins to refuse a quarter more of the harmless questions.  [default: warn]",
            flag="--probe-action",
        ),
    ] = "warn"


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """A low-rank adapter on every linear layer but the head (Hu et al. 2021; QLoRA's choice of layers)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    @classmethod
    def of(cls, rank: int | None) -> Lora | None:
        """The adapter of a rank, its alpha twice that; None trains every weight."""
        return cls(rank=rank, alpha=2 * rank) if rank else None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run trains: every number that a preset fills in.

    ``batch`` is the number of rows of one optimizer step, over all streams, micro-batches and processes; ``mix`` are
    the streams' shares of it, among those that the run has. ``warm_up`` below 1 is a share of the steps, else a number.
    ``accumulation`` None is planned (:mod:`redinstruct.safealign.plan`).
    """

    steps: Annotated[int | None, Setting("Optimizer steps.", "N", least=1)] = None
    epochs: Annotated[float, Setting("Passes over the longest stream, where --steps is not given.", "X", above=0)] = 3.0
    learning_rate: Annotated[float, Setting("Peak learning rate.", "X", flag="--lr", above=0)] = 1e-5
    batch: Annotated[int, Setting("Rows of one step, over all streams and processes.", "N", least=1)] = 64
    mix: Annotated[
        Mapping[str, float], Setting("The streams' shares of a batch, as blue=1,general=2,red=1.", "STREAM=X,...")
    ] = msgspec.field(default_factory=lambda: {"blue": 1.0, "general": 1.0, "red": 1.0})
    accumulation: Annotated[
        int | None, Setting("Micro-batches of one step in each process; left out, as memory allows.", "N", least=1)
    ] = None
    max_length: Annotated[int, Setting("Tokens of a row; what is longer is cut at its end.", "N", least=1)] = 1280
    deep_prefix: Annotated[
        float,
        Setting("Share of refusals that are learnt after the first words of a harmful answer.", "X", least=0, most=1),
    ] = 0.5
    deep_prefix_tokens: Annotated[int, Setting("The most tokens that these first words are.", "N", least=1)] = 100
    betas: Annotated[tuple[float, float], Bounds(least=0, below=1)] = (0.9, 0.999)
    weight_decay: Annotated[float, Bounds(least=0)] = 0.0
    warm_up: Annotated[float, Bounds(least=0)] = 1e-4
    schedule: Schedule = "cosine"
    final_rate_share: Annotated[float, Bounds(least=0, most=1)] = 0.0
    clip: Annotated[float, Bounds(above=0)] = 1.0
    packing: Annotated[bool, Setting("Several rows in one sequence, none of which sees another.")] = False
    optimizer: Annotated[
        Optimizer, Setting("adamw, or with its state in 8 bits (a GPU): adamw-8bit, paged-adamw-8bit.", "O")
    ] = "adamw"
    save_every: Annotated[int, Setting("Steps between saved states.", "N", least=1)] = 200


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

    base: Annotated[Path, Setting("The checkpoint to train: a folder, or hf/FOLDER.", "CKPT", checkpoint=True)]
    data: Annotated[tuple[Path, ...], Setting("Conversations (export --to messages).", "FILE...")]
    general: Annotated[tuple[Path, ...], Setting("General conversations, whose loss must not rise.", "FILE...")] = ()
    probe: Annotated[
        tuple[Path, ...],
        Setting(
            "Harmless questions with their answers (borderline ones, say), asked while training and never learnt.",
            "FILE...",
        ),
    ] = ()
    no_general: Annotated[bool, Setting("Train on red data without general data, knowing what it does.")] = False
    strategy: Annotated[
        str,
        Setting(
            "general, blue, blue-red, paper-s, paper-r, hinge, npo, npo-len, simnpo, unlikelihood, kto, dpo, resta.",
            "S",
        ),
    ]
    parameters: Annotated[
        Mapping[str, float], Setting("A number of the strategy. Repeatable.", "KEY=X", flag="--set")
    ] = msgspec.field(default_factory=dict)
    out: Annotated[Path, Setting("Where the aligned checkpoint goes; replaces one there.", "CKPT")]
    preset: Annotated[
        str | None,
        Setting(
            "starling (the released run), robust (the same in every form of asking; for real use) or toy; left out, "
            "starling or, for the toy model, toy.",
            "P",
        ),
    ] = None
    seed: Annotated[int, Setting("Order of training, and all that is drawn.", "S", least=0)] = 0
    lora: Annotated[
        Lora | None,
        Setting("Train an adapter of this rank instead of every weight; it is merged into CKPT.", "N", least=1),
    ] = None
    chat_template: Annotated[
        str | None, Setting("Train in vicuna_v1.1; left out, in the base's own template.", "NAME")
    ] = None
    forms: Annotated[
        tuple[str, ...] | None,
        Setting(
            "Learn the data in other forms of asking, too: dialogue, steps, story, after-harmless, deep-prefix, "
            "harmless-twins. Left out, the preset's: all of robust, none of the others.",
            "F,...",
        ),
    ] = None
    template_options: Annotated[
        Fields,
        Setting(
            "An option of the base's chat template, as enable_thinking=false. Evaluate with the same. Repeatable.",
            "K=JSON",
            flag="--template-option",
        ),
    ] = msgspec.field(default_factory=dict)
    activation_checkpointing: Annotated[
        bool | None, Setting("Less memory, more time; left out, where memory is short.")
    ] = None
    quantize: Annotated[Literal[4, 8] | None, Setting("Bits that a base under an adapter is held in.")] = None
    base_dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        Setting("What a base under an adapter is held in.  [default: bfloat16 on a GPU]"),
    ] = None
    settings: Settings | None = None
    attention: Annotated[
        Attention | None, Setting("sdpa, eager, flash_attention_2, flash_attention_3 or flex_attention.", "A")
    ] = None
    memory: Annotated[
        float | None,
        Setting(
            "GB of each GPU (with --gpus 0: of the host) that may be used; left out, what there is.",
            "X",
            above=0,
            below=1_000_000,
        ),
    ] = None
    guard: GuardRule = GuardRule()
    utility_margin: Annotated[float, Bounds(least=0, below=1)] = 0.02
    evaluate_every: Annotated[int | None, Bounds(least=1)] = None
    processes: Annotated[int | None, Setting("Refuse to run unless torchrun started so many.", "N", least=1)] = None
    fsdp: Annotated[
        bool | None,
        Setting(
            "Shard the model over GPUs (FSDP2, under torchrun); left out, where a copy does not fit. Tested on CPUs "
            "only."
        ),
    ] = None
    threads: Annotated[int | None, Setting("Threads of torch on a CPU.", "N", least=1)] = None
    dtype: Annotated[
        str | None,
        Setting(
            "Precision of what is written. Left out, the base's, or float32 where that would lose what was learnt.",
            names=DTYPES,
        ),
    ] = None
    coefficient: Annotated[
        float, Setting("resta: how much of the safety vector is added.  [default: 1]", "X", needs=_OF_RESTA)
    ] = 1.0
    drop: Annotated[
        float,
        Setting("resta: share of the vector that DARE drops.  [default: 0]", "X", least=0, below=1, needs=_OF_RESTA),
    ] = 0.0
    safe: Annotated[
        Path | None,
        Setting(
            "resta: the safe model that the unsafe one is made of; left out, the base.",
            "CKPT",
            checkpoint=True,
            needs=_OF_RESTA,
        ),
    ] = None
    make_unsafe_model: Annotated[
        bool, Setting("resta: agree that an unsafe model is made, merged and deleted.", needs=_OF_RESTA)
    ] = False

    def resolved(self) -> AlignConfig:
        """The same with preset and settings filled in, and checked.

        Raises:
            UsageError: a number that no run can have.
        """
        said = _of_its_kinds(self)
        name = said.preset or preset_for(said.base)
        if name not in PRESETS:
            raise UsageError(f"--preset {name}: expected one of {', '.join(PRESETS)}")
        forms = forms_of(said.forms, name, said.strategy)
        # A preset's forms are refused by its name: nobody named them.
        where = "--forms" if said.forms is not None else f"--preset {name} (--forms names others)"
        check_forms(forms, general=bool(said.general), red=True, where=where)
        made = msgspec.structs.replace(said, preset=name, settings=said.settings or PRESETS[name], forms=forms)
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
        # Which of the files are learnt as what: a file given as --general is another run than as --probe.
        roles = len(self.data), len(self.general), len(self.probe)
        text = json.dumps([plain, base, files, roles], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _of_its_kinds(config: AlignConfig) -> AlignConfig:
    """The same with every value as its field has it: Python may have said it otherwise (a list, numpy's number).

    Raises:
        UsageError: a value is of another kind.
    """
    config = with_plain(config)
    check_said(config)
    parts = (("settings", config.settings or Settings(), Settings), ("guard", config.guard, GuardRule))
    for name, part, kind in parts:
        if not isinstance(part, kind):
            raise UsageError(f"{name} must be a redinstruct.alignment.{kind.__name__}, not a {type(part).__name__}")
        check_said(part)
    try:
        plain = msgspec.to_builtins(config, enc_hook=str)
        return msgspec.convert(
            plain, AlignConfig, dec_hook=lambda kind, value: value if kind is object else kind(value)
        )
    except msgspec.ValidationError as error:
        raise UsageError(f"a setting is of another kind: {terminal(str(error))}") from None


def preset_for(base: Path) -> str:
    """The preset of a base for which none is named: ``toy`` for the toy world's model, aligned or not."""
    # A real model of the policy laboratory has prompts of its own, too.
    own = (base / "prompts" / "cou.txt").is_file() and not (base / "policy-lab.json").is_file()
    toy = (base / "toyworld.json").is_file() or own
    return "toy" if toy else "starling"


def with_settings(preset: str, **given: Any) -> Settings:
    """A preset's settings with those that were given (not None) in their place.

    Raises:
        UsageError: no such preset or setting, or a value of another kind.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: expected one of {', '.join(PRESETS)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    if "epochs" in chosen and "steps" not in chosen:
        chosen["steps"] = None
    known = Settings.__struct_fields__
    if unknown := next((name for name in chosen if name not in known), None):
        raise UsageError(f"there is no setting {terminal(unknown)}{did_you_mean(unknown, known)}")
    made = msgspec.structs.replace(PRESETS[preset], **chosen)
    check_said(made)
    try:
        msgspec.convert(msgspec.to_builtins(made), Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"a setting is of another kind: {terminal(str(error))}") from None
    return made


def check(config: AlignConfig) -> None:
    """Pass a configuration whose numbers make sense.

    Raises:
        UsageError: naming the flag.
    """
    parts = ((config.chosen, PRESETS[str(config.preset)]), (config.guard, GuardRule()), (config, None))
    for part, _ in parts:
        check_said(part)
    if config.probe and config.strategy == RESTA:
        raise UsageError(f"--probe: --strategy {config.strategy} does not look at it while it trains; leave it out")
    for part, plain in parts:
        check_effect(config.strategy, _given(part, plain))
    if config.no_general and config.strategy == "general":
        raise UsageError("--no-general: --strategy general learns from nothing else; leave it out")
    if config.no_general and config.general and not config.forms:
        raise UsageError("--no-general and --general: give one of them")
    if config.lora is not None and config.lora.rank < 1:
        raise UsageError(f"--lora {config.lora.rank}: a rank is at least 1")
    _check_memory(config)


def check_effect(strategy: str, given: Mapping[str, str]) -> None:
    """Pass what was ``given``, field -> flag, of which the strategy's training knows everything.

    Raises:
        UsageError: naming the flag.
    """
    if name := next((name for name in WITHOUT_EFFECT.get(strategy, ()) if name in given), None):
        raise UsageError(
            f"--strategy {strategy} {_TRAINED_BY[strategy]}, and {given[name]} has no effect there; leave it out"
        )


def _given(part: msgspec.Struct, plain: msgspec.Struct | None) -> dict[str, str]:
    """The fields that hold something else than where nobody says anything, each with its flag."""
    return {
        field.name: flag_of(field.name, setting_of(field))
        for field in msgspec.structs.fields(type(part))
        if getattr(part, field.name)
        and (is_given(part, field) if plain is None else getattr(part, field.name) != getattr(plain, field.name))
    }


def _check_memory(config: AlignConfig) -> None:
    if config.lora is None and config.quantize is not None:
        raise UsageError(f"--quantize {config.quantize}: weights in so few bits can not be trained; give --lora R")
    if config.lora is None and config.base_dtype == "bfloat16":
        raise UsageError("--base-dtype bfloat16: rounds away most steps of weights that are trained; give --lora R")
    if config.quantize is not None and config.base_dtype is not None:
        raise UsageError("--quantize and --base-dtype: give one of them")
    if config.quantize is not None and config.fsdp:
        raise UsageError(f"--quantize {config.quantize}: is not sharded here; leave --fsdp out, each GPU has a copy")
