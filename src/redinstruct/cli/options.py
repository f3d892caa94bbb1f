"""The flags that verbs share and that are no verb's settings: how a run is carried out, where, and what is shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import click
import msgspec

from redinstruct.cli.derived import Listed, flags_of, stack
from redinstruct.cli.env_file import env_file
from redinstruct.cli.kinds import FILE, Whole
from redinstruct.engine import Limits
from redinstruct.engine.choice import ENGINES, computing
from redinstruct.models.placement import placed, placement
from redinstruct.settings import FAILED, HERE, LIMITS, Columns

F = TypeVar("F", bound=Callable[..., Any])


def _place(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Where the models of this invocation compute: known to whoever loads one, and to no configuration."""
    if value is None:
        return
    now = placement()
    if param.name == "device":
        now = replace(now, devices=tuple(part.strip() for part in value.split(",") if part.strip()))
    elif param.name == "batch":
        now = replace(now, batch=value)
    else:
        now = replace(now, threads=value)
    ctx.with_resource(placed(now))


def _placing(flag: str, metavar: str, text: str, kind: click.ParamType[Any] | None = None) -> Callable[[F], F]:
    return click.option(
        flag, cls=Listed, group=HERE, type=kind, metavar=metavar, help=text, callback=_place, expose_value=False
    )


def how_to_ask() -> Callable[[F], F]:
    """The flags that do not belong to the configuration: how fast, how much."""
    return stack(
        env_file,
        flags_of(Limits, without=("budget", "stop_when_decided")),
        _placing("--device", "D,...", "hf/ models: cpu, cuda:0, ...; a copy on each. Left out, the GPU if any."),
        _placing("--batch", "N", "hf/ models: prompts at once, at most.", Whole(1)),
        _placing("--threads", "N", "hf/ models: threads of each on a CPU.", Whole(1)),
        click.option("--retry-errors", is_flag=True, cls=Listed, group=FAILED,
                     help="Ask what ended as `error` again: the default."),
    )  # fmt: skip


def on_engine(function: F) -> F:
    """The flags that say where the models compute, and the command carried out there."""

    @functools.wraps(function)
    def command(*args: Any, engine: str, ray_address: str | None, workers: int | None, **flags: Any) -> Any:
        with computing(engine, ray_address, workers):
            return function(*args, **flags)

    where: Callable[..., Any] = functools.partial(click.option, cls=Listed, group=LIMITS)
    flags: Callable[[F], F] = stack(
        where("--engine", type=click.Choice(ENGINES), default="local", show_default=True,
              help="Where the models compute: in this process, or in Ray's workers. A run goes on with either."),
        where("--ray-address", metavar="A",
              help="The Ray cluster: HOST:PORT, or auto on one of its nodes; left out, Ray is started on this "
                   "machine."),
        where("--workers", type=click.IntRange(1, 10_000), metavar="N",
              help="Ray's workers; left out, one on each GPU for models that compute there, else one on each node."),
    )  # fmt: skip
    return flags(cast("F", command))


def prices(*, judge: bool = True) -> Callable[[F], F]:
    """What tokens cost, a judge's apart. The project knows no prices of its own."""
    told = [
        ("--price-in", "X", "US dollars per million tokens read."),
        ("--price-out", "Y", "US dollars per million tokens written."),
    ]
    if judge:
        told += [(f"--judge{flag[1:]}", metavar, "The same for the judge's model; left out, as the target's.")
                 for flag, metavar, _ in told]  # fmt: skip
    return stack(
        *(
            click.option(flag, cls=Listed, group=LIMITS, type=click.FloatRange(min=0), metavar=metavar, help=text)
            for flag, metavar, text in told
        )
    )


def money() -> Callable[[F], F]:
    """Prices and the budget."""
    return stack(prices(), flags_of(Limits, only=("budget",)))


class _Columns(msgspec.Struct):
    columns: Columns = msgspec.field(default_factory=dict)


bank_columns = flags_of(_Columns)
stop_when_decided = flags_of(Limits, only=("stop_when_decided",))
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, nothing else there.")


def _sealing(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from redinstruct.run.encryption import sealing

        context.with_resource(sealing())


seal_option = click.option(
    "--seal",
    is_flag=True,
    expose_value=False,
    callback=_sealing,
    help="Encrypt questions and answers on the disk, by the key in REDINSTRUCT_SEAL_KEY(_FILE).",
)
seed_option = click.option(
    "--seed", type=Whole(0), default=0, show_default=True, metavar="S", help="Initialisation and order of training."
)
show_content = click.option(
    "--show-content", is_flag=True, help="Show questions and answers; they may be harmful to read."
)
markdown_file = click.option(
    "--md", "md_file", type=FILE, metavar="FILE",
    help="Also Markdown, for a pull request's summary.",
)  # fmt: skip
