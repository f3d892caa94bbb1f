"""``redinstruct align``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import msgspec

from redinstruct.alignment import (
    AlignConfig,
    GuardRule,
    Lora,
    Settings,
    check_effect,
    preset_for,
    with_settings,
)
from redinstruct.checkpoints.embedded import folder_of
from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.kinds import Whole
from redinstruct.cli.options import as_json
from redinstruct.errors import (
    EXIT_DONE,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    RedInstructError,
    UsageError,
    from_extra,
)
from redinstruct.progress import Progress
from redinstruct.settings import Flags, flag_of, setting_of, settings_from

if TYPE_CHECKING:
    from redinstruct.safealign import Aligned, StepFigures

NOT_RESUMED = ("resta",)
_FLAGS = {
    field.name: flag_of(field.name, setting_of(field))
    for kind in (AlignConfig, Settings, GuardRule)
    for field in msgspec.structs.fields(kind)
}


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


@click.command("align", cls=_SeveralFiles)
@flags_of(AlignConfig, only=("base",))
@flags_of(AlignConfig, without=("base", "coefficient", "drop"), required=False)
@flags_of(AlignConfig, only=("coefficient", "drop"), left_out=True)
@flags_of(Settings, left_out=True)
@flags_of(GuardRule, left_out=True)
@click.option("--plan", "plan_only", is_flag=True, help="Say what it takes and whether it fits, and load nothing.")
@click.option("--gpus", type=Whole(0), metavar="N", help="--plan: for so many GPUs; 0 is a CPU. Left out, as here.")
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
    with from_extra("train", "align"):
        from redinstruct.safealign import align
    if flags["plan_only"] and flags["show_mask"]:
        raise UsageError("--plan and --show-mask: one at a time")
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


def config_from(flags: Flags) -> AlignConfig:
    """The configuration that the flags describe.

    Raises:
        UsageError: a flag's value is none of its kind, or the strategy would ignore it.
    """
    said = {name: flag for name, flag in _FLAGS.items() if flags.get(name) not in (None, False, ())}
    if flags.get("packing") is not None:
        said["packing"] = _FLAGS["packing"]
    check_effect(flags["strategy"], said)
    base = folder_of(flags["base"])
    preset = flags["preset"] or preset_for(base)
    numbers = {name: flags[name] for name in Settings.__struct_fields__ if name in flags}
    guard = settings_from(GuardRule, flags)
    return settings_from(
        AlignConfig,
        flags,
        base=base,
        preset=preset,
        settings=with_settings(preset, **numbers),
        guard=msgspec.structs.replace(guard, rise=None) if guard.rise is not None and guard.rise < 0 else guard,
        lora=Lora.of(flags["lora"]),
        safe=folder_of(flags["safe"]) if flags["safe"] else None,
    )


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
        rows = msgspec.to_builtins(shown)
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
