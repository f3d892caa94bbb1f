"""``redinstruct align``."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.kinds import RUN, Whole, parse_options
from redinstruct.cli.options import as_json
from redinstruct.errors import (
    EXIT_DONE,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    RedInstructError,
    UsageError,
    how_to_install,
)
from redinstruct.progress import Progress

if TYPE_CHECKING:
    from redinstruct.safealign import AlignConfig, Aligned, StepFigures

_FILE = click.Path(path_type=Path)
NOT_RESUMED = ("resta",)
OURS_ALONE = (
    "packing", "deep_prefix", "mix", "guard_action", "activation_checkpointing",
    "optimizer", "fsdp", "quantize", "base_dtype", "attention", "probe", "probe_action",
)  # fmt: skip
"""Flags that TRL's loops do not know: refused there, since an ignored guard would be trusted."""


class _SeveralFiles(click.Command):
    """``--data A B`` means ``--data A --data B``; so with ``--general`` and ``--probe``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the flag before each of its files."""
        spelled: list[str] = []
        flag = ""
        fresh = False
        for arg in args:
            if arg.startswith("-"):
                flag, fresh = (arg, True) if arg in ("--data", "--general", "--probe") else ("", False)
            elif flag and not fresh:
                spelled.append(flag)
            else:
                fresh = False
            spelled.append(arg)
        return super().parse_args(ctx, spelled)


def _count(flag: str, help_: str, least: int = 1) -> Callable[[Any], Any]:
    return click.option(flag, type=Whole(least), metavar="N", help=help_)


def _number(flag: str, help_: str) -> Callable[[Any], Any]:
    return click.option(flag, type=float, metavar="X", help=help_)


@click.command("align", cls=_SeveralFiles)
@click.option("--base", required=True, metavar="CKPT", help="The checkpoint to train: a folder, or hf/FOLDER.")
@click.option("--data", multiple=True, type=_FILE, metavar="FILE...", help="Conversations (export --to messages).")
@click.option(
    "--general", multiple=True, type=_FILE, metavar="FILE...", help="General conversations, whose loss must not rise."
)
@click.option(
    "--probe",
    multiple=True,
    type=_FILE,
    metavar="FILE...",
    help="Harmless questions with their answers (borderline ones, say), asked while training and never learnt.",
)
@click.option("--no-general", is_flag=True, help="Train on red data without general data, knowing what it does.")
@click.option(
    "--strategy",
    metavar="S",
    help="general, blue, blue-red, paper-s, paper-r, hinge, npo, npo-len, simnpo, unlikelihood, kto, dpo, resta.",
)
@click.option("--set", "parameters", multiple=True, metavar="KEY=X", help="A number of the strategy. Repeatable.")
@click.option("--out", type=RUN, metavar="CKPT", help="Where the aligned checkpoint goes; replaces one there.")
@click.option(
    "--preset",
    metavar="P",
    help="starling (the released run), robust (the same in every form of asking; for real use) or toy; left out,"
    " starling or, for the toy model, toy.",
)
@_count("--steps", "Optimizer steps.")
@_number("--epochs", "Passes over the longest stream, where --steps is not given.")
@_number("--lr", "Peak learning rate.")
@_count("--batch", "Rows of one step, over all streams and processes.")
@click.option("--mix", metavar="STREAM=X,...", help="The streams' shares of a batch, as blue=1,general=2,red=1.")
@_count("--accumulation", "Micro-batches of one step in each process; left out, as memory allows.")
@_count("--max-length", "Tokens of a row; what is longer is cut at its end.")
@_number("--deep-prefix", "Share of refusals that are learnt after the first words of a harmful answer.")
@click.option(
    "--seed",
    type=Whole(0),
    default=0,
    show_default=True,
    metavar="S",
    help="Order of training, and all that is drawn.",
)
@_count("--lora", "Train an adapter of this rank instead of every weight; it is merged into CKPT.")
@click.option("--packing/--no-packing", default=None, help="Several rows in one sequence, none of which sees another.")
@click.option("--chat-template", metavar="NAME", help="Train in vicuna_v1.1; left out, in the base's own template.")
@click.option(
    "--forms",
    metavar="F,...",
    help="Learn the data in other forms of asking, too: dialogue, steps, story, after-harmless, deep-prefix,"
    " harmless-twins. Left out, the preset's: all of robust, none of the others.",
)
@click.option(
    "--template-option",
    "template_options",
    multiple=True,
    metavar="K=JSON",
    help="An option of the base's chat template, as enable_thinking=false. Evaluate with the same. Repeatable.",
)
@_number("--guard-rise", "The general loss may rise by this share before the red term is dropped. Below 0: no guard.")
@click.option(
    "--guard-action", type=click.Choice(["zero", "stop"]), help="Then: drop the red term, or stop.  [default: zero]"
)
@click.option(
    "--probe-action",
    type=click.Choice(["warn", "stop"]),
    help="Where the model begins to refuse a quarter more of the harmless questions.  [default: warn]",
)
@click.option(
    "--activation-checkpointing/--no-activation-checkpointing",
    default=None,
    help="Less memory, more time; left out, where memory is short.",
)
@click.option("--quantize", type=click.Choice(["4", "8"]), help="Bits that a base under an adapter is held in.")
@click.option(
    "--base-dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="What a base under an adapter is held in.  [default: bfloat16 on a GPU]",
)
@click.option(
    "--optimizer", metavar="O", help="adamw, or with its state in 8 bits (a GPU): adamw-8bit, paged-adamw-8bit."
)
@click.option("--attention", metavar="A", help="sdpa, eager, flash_attention_2, flash_attention_3 or flex_attention.")
@_count("--save-every", "Steps between saved states.")
@_count("--processes", "Refuse to run unless torchrun started so many.")
@click.option(
    "--fsdp/--no-fsdp",
    default=None,
    help="Shard the model over GPUs (FSDP2, under torchrun); left out, where a copy does not fit. Tested on CPUs only.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what it takes and whether it fits, and load nothing.")
@_number("--memory", "GB of each GPU (with --gpus 0: of the host) that may be used; left out, what there is.")
@click.option("--gpus", type=Whole(0), metavar="N", help="--plan: for so many GPUs; 0 is a CPU. Left out, as here.")
@_count("--threads", "Threads of torch on a CPU.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision of what is written. Left out, the base's, or float32 where that would lose what was learnt.",
)
@_number("--coefficient", "resta: how much of the safety vector is added.  [default: 1]")
@_number("--drop", "resta: share of the vector that DARE drops.  [default: 0]")
@click.option(
    "--safe", metavar="CKPT", help="resta: the safe model that the unsafe one is made of; left out, the base."
)
@click.option(
    "--make-unsafe-model", is_flag=True, help="resta: agree that an unsafe model is made, merged and deleted."
)
@click.option(
    "--show-mask",
    is_flag=True,
    help="Show tokens and weights of the first rows, train nothing. They may be harmful to read.",
)
@as_json
def command(**flags: Any) -> int:
    """Fine-tune a checkpoint to be safer (SAFE-ALIGN), guarded, resumably.

    Each step holds every stream: safe answers (blue), general conversations, and for the red strategies harmful
    answers that are penalised. The same command resumes what was interrupted. Under torchrun it uses every process.
    """
    try:
        from redinstruct.safealign import align
    except ImportError as error:
        raise UsageError(f"align needs the [train] extra ({error.name}): {how_to_install('train')}") from None
    if flags["plan_only"]:
        asked = {**flags, "strategy": flags["strategy"] or "blue", "out": flags["out"] or Path("aligned")}
        return _plan(config_from(asked), flags["gpus"], as_json=flags["as_json"])
    for name in ("data", "strategy", "out"):
        if not flags[name]:
            raise click.MissingParameter(param_hint=f"'--{name}'", param_type="option")
    config = config_from(flags)
    if flags["gpus"] is not None:
        raise UsageError("--gpus: belongs to --plan; a run has as many processes as torchrun starts")
    if flags["show_mask"]:
        return _show_mask(config, as_json=flags["as_json"])
    from redinstruct.safealign import is_main_process

    main = is_main_process()
    with _stop_softly() as should_stop, console.steps() as tell:
        refused = ""

        def on_step(figures: StepFigures) -> None:
            nonlocal refused
            if figures.probe is not None:
                refused = f"begins to refuse {figures.probe['refused']:.0%} of harmless questions"
            if main:
                tell(Progress(figures.step, figures.steps, f"align ({config.strategy})", detail=refused))

        try:
            done = align(
                config, on_step, should_stop=should_stop, on_progress=tell if main else None,
                say=console.note if main else None,
            )  # fmt: skip
        except KeyboardInterrupt:
            if config.strategy not in NOT_RESUMED:
                raise
            raise _interrupted(config.strategy) from None
    if main:
        _say(done, as_json=flags["as_json"])
    return EXIT_DONE


def _plan(config: AlignConfig, gpus: int | None, *, as_json: bool) -> int:
    """Say what the configuration takes."""
    from redinstruct.safealign import machine_of, plan_alignment

    found = plan_alignment(config, machine_of(config.memory, gpus))
    if as_json:
        console.say_json(msgspec.to_builtins(found))
    else:
        console.say(found.sentence)
        rows = [{"what": name, "GB": f"{value:.2f}"} for name, value in found.parts.items()]
        console.say_table(rows, right=("GB",), indent=2)
        console.say(f"  host: {found.host_gb:.1f} GB; steps: {found.steps if found.steps is not None else 'unknown'}")
        console.say(found.why)
    return EXIT_DONE if found.fits else EXIT_INCONCLUSIVE


def _interrupted(strategy: str) -> RedInstructError:
    error = RedInstructError(
        f"interrupted; nothing was written, and the same command begins again: --strategy {strategy} cannot be resumed"
    )
    error.exit_code = EXIT_INTERRUPTED
    return error


def config_from(flags: Mapping[str, Any]) -> AlignConfig:
    """The configuration that the flags describe.

    Raises:
        UsageError: a flag's value is none of its kind, or the strategy would ignore it.
    """
    from redinstruct.checkpoints.embedded import folder_of
    from redinstruct.safealign import TRL_STRATEGIES, AlignConfig, GuardRule, Lora, preset_for, with_settings

    if flags["strategy"] in TRL_STRATEGIES:
        for name in OURS_ALONE:
            if flags[name] not in (None, False, ()) or (name == "packing" and flags[name] is not None):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"--strategy {flags['strategy']} is trained by TRL's own loop, and {flag} has no effect there;"
                    " leave it out"
                )
    base = folder_of(flags["base"])
    preset = flags["preset"] or preset_for(base)
    rise = flags["guard_rise"]
    rule = GuardRule(
        rise=GuardRule().rise if rise is None else None if rise < 0 else rise,
        action=flags["guard_action"] or GuardRule().action,
        refused_action=flags["probe_action"] or GuardRule().refused_action,
    )
    return AlignConfig(
        base=base,
        data=flags["data"],
        general=flags["general"],
        probe=flags["probe"],
        no_general=flags["no_general"],
        strategy=flags["strategy"],
        parameters=_pairs("--set", flags["parameters"]),
        out=flags["out"],
        preset=preset,
        settings=with_settings(
            preset,
            steps=flags["steps"],
            epochs=flags["epochs"],
            learning_rate=flags["lr"],
            batch=flags["batch"],
            mix=_pairs("--mix", flags["mix"].split(",")) if flags["mix"] else None,
            accumulation=flags["accumulation"],
            max_length=flags["max_length"],
            deep_prefix=flags["deep_prefix"],
            packing=flags["packing"],
            save_every=flags["save_every"],
            optimizer=flags["optimizer"],
        ),
        seed=flags["seed"],
        lora=Lora(rank=flags["lora"], alpha=2 * flags["lora"]) if flags["lora"] else None,
        chat_template=flags["chat_template"],
        forms=None if flags["forms"] is None else tuple(filter(None, map(str.strip, flags["forms"].split(",")))),
        template_options=parse_options(flags["template_options"], "--template-option"),
        activation_checkpointing=flags["activation_checkpointing"],
        base_dtype=flags["base_dtype"],
        quantize=None if flags["quantize"] is None else 4 if flags["quantize"] == "4" else 8,
        attention=flags["attention"],
        memory=flags["memory"],
        guard=rule,
        processes=flags["processes"],
        fsdp=flags["fsdp"],
        threads=flags["threads"],
        dtype=flags["dtype"],
        coefficient=1.0 if flags["coefficient"] is None else flags["coefficient"],
        drop=flags["drop"] or 0.0,
        safe=folder_of(flags["safe"]) if flags["safe"] else None,
        make_unsafe_model=flags["make_unsafe_model"],
    )


def _pairs(flag: str, given: list[str] | tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not key or key in found or math.isnan(number):
            raise UsageError(f"{flag} {pair!r}: expected NAME=NUMBER, each name once")
        found[key.strip()] = number
    return found


@contextlib.contextmanager
def _stop_softly() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) lets the step end and the state be saved; the second ends at once."""
    asked = False

    def ask(_signum: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        console.note("stopping after this step; once more to stop at once")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _show_mask(config: AlignConfig, *, as_json: bool) -> int:
    """Show what would be trained on: a row of each stream, token by token."""
    from redinstruct.safealign import pictures

    shown, prepared = pictures(config)
    if as_json:
        rows = [
            {
                "row": one.title,
                "stream": one.stream,
                "tokens": [cell.text for cell in one.cells],
                "weights": [cell.weight for cell in one.cells],
            }
            for one in shown
        ]
        document = {"schema": "redinstruct.mask/1", "template": prepared.template.name, "rows": rows}
        console.say_json(document | {"counts": prepared.counts, "dropped": prepared.dropped})
        return EXIT_DONE
    for one in shown:
        console.say(one.text(), multiline=True)
        console.say()
    counts = ", ".join(f"{stream} {count:,}" for stream, count in prepared.counts.items())
    console.say(f"template {prepared.template.name}; rows: {counts}; {prepared.encoded.truncated:,} were cut")
    for reason, count in (prepared.dropped | prepared.read.masked).items():
        console.say(f"left out: {reason} ({count:,})")
    for warning in prepared.warnings:
        console.note(warning)
    return EXIT_DONE


def _say(done: Aligned, *, as_json: bool) -> None:
    if as_json:
        console.say_json({"schema": "redinstruct.align/1", **done.figures})
        return
    console.say(f"the aligned checkpoint is in {done.checkpoint}; its card is README.md there")
    if done.history:
        _say_losses(done.history[0], done.history[-1])
    if rows := done.figures.get("dropped rows"):
        console.say(f"  {rows:,} rows were dropped; the card says why")
    if step := done.figures.get("red term dropped at step"):
        console.say(f"  the guard dropped the red term at step {step}: the general loss ran away")
    if (asked := done.figures.get("harmless questions while training")) is not None:
        start, end = asked["at the start"]["refused"], asked["at the end"]["refused"]
        count = sum(asked["questions"].values())
        console.say(f"  refusals begun at {count} harmless questions: {end:.0%} ({start:.0%} at the start)")
    for warning in done.warnings:
        console.note(warning)
    console.say(f"  redinstruct eval --model hf/{done.checkpoint} ... measures it; compare with the base")


def _say_losses(first: StepFigures, last: StepFigures) -> None:
    names = {
        "blue": "blue", "general": "general", "red": "red", "red_first": "red, first token",
        "red_above": "share of red over threshold",
    }  # fmt: skip
    rows = []
    for name, shown in names.items():
        values = [getattr(one, name) for one in (first, last)]
        if None not in values:
            row = {"nll per token": shown, "first step": f"{values[0]:.3f}", "last step": f"{values[1]:.3f}"}
            rows.append(row)
    console.say_table(rows, right=("first step", "last step"), indent=2)
