"""The flags that verbs share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from redinstruct.cli import completing
from redinstruct.cli.env_file import env_file
from redinstruct.engine.choice import ENGINES, computing
from redinstruct.errors import UsageError
from redinstruct.models.placement import placed, placement
from redinstruct.models.registry import DTYPES

F = TypeVar("F", bound=Callable[..., Any])

MOST = 2**31 - 1
"""The largest count that a flag takes: far more than any run, and small enough for every format on the way."""


class RunFolder(click.Path):
    """A run's folder: any path that the file system can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Fails for a path that no file can have, a name of a thousand letters say."""
        path = Path(str(super().convert(value, param, ctx)))
        try:
            (path / "run.sqlite-journal").is_file()
        except OSError as error:
            self.fail(f"{str(path)[:40]}...: {error.strerror}", param, ctx)
        return path


RUN = RunFolder(path_type=Path)


class Whole(click.IntRange):
    """A whole number of at least ``least``, where that is said, and no larger than any run can hold."""

    name = "whole number"

    def __init__(self, least: int | None, most: int | None = None) -> None:
        super().__init__(min=least, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Fails for what is not a whole number, or is one that no run can have."""
        try:
            number = int(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if abs(number) > MOST:
            self.fail(f"{number} is not in the range up to {MOST}", param, ctx)
        found: int = super().convert(number, param, ctx)
        return found


def _stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def request_option(role: str, what: str) -> Callable[[Any], Any]:
    """A flag ``--<role>-option``."""
    return click.option(
        f"--{role}-option",
        f"{role}_options",
        multiple=True,
        metavar="KEY=JSON",
        help=f"A field {what}: set, or removed by null. Repeatable.",
    )


def _judge(required: bool) -> Callable[[Any], Any]:
    return click.option(
        "--judge",
        "-j",
        required=required,
        metavar="J",
        shell_complete=completing.judges,
        help="rubric, guard, policy (your own), paper, refusal (a keyword baseline), exact (the toy world's truth) or "
        "policy-lab.",
    )


_JUDGE: tuple[Callable[[Any], Any], ...] = (
    click.option("--judge-model", metavar="M2", help="The model that the judge asks."),
    click.option(
        "--rubric",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Your own rubric for --judge rubric: text with <question>, <answer> and <format>.",
    ),
    click.option(
        "--policy",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The written policy for --judge policy: any text that says what an answer must not do.",
    ),
    click.option(
        "--judge-format",
        type=click.Choice(["line", "json"]),
        default="line",
        show_default=True,
        help="How rubric and policy answer: a final line, or JSON under a schema, where the endpoint keeps to it.",
    ),
    click.option("--guard-kind", metavar="K", help="The classifier's family, where its name does not tell."),
    request_option("judge", "of the requests to the judge's model; a part of the judge's identity"),
)


def which_judge(*, required: bool = True) -> Callable[[F], F]:
    """The flags that name the judge."""
    return _stack(_judge(required), *_JUDGE)


bank_columns = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="PURPOSE=NAME",
    help="A bank's column by its own name: prompt, context (asked before it), topic, subtopic, language or label. "
    "Repeatable.",
)


def what_to_ask(*, required: bool = True) -> Callable[[F], F]:
    """The flags that decide what an evaluation asks: the run's configuration.

    Not ``required``: the verb itself asks for the model, the bank and the judge, where it needs them.
    """
    return _stack(
        click.option(
            "--model",
            "-m",
            required=required,
            metavar="M",
            shell_complete=completing.models,
            help="The target: openai/<m>, openai-api/<name>/<m>, hf/<path>, scripted/<b>.",
        ),
        click.option(
            "--bank",
            "-b",
            "banks",
            required=required,
            multiple=True,
            metavar="B",
            shell_complete=completing.banks,
            help="A question bank: a file, or a known name (`redinstruct banks`). Repeatable.",
        ),
        bank_columns,
        click.option(
            "--prompt",
            "prompts",
            multiple=True,
            metavar="P",
            shell_complete=completing.prompts,
            help="standard, cot, cou, a variant, or a file with one <question>. Repeatable; left out: the first three.",
        ),
        _judge(required=required),
        *_JUDGE,
        click.option(
            "--measure",
            default="attack_success",
            show_default=True,
            metavar="NAME",
            help="attack_success, or over_refusal on safe questions.",
        ),
        click.option(
            "--limit",
            type=Whole(1),
            metavar="N",
            help="N questions of each bank, spread over its topics. A larger N keeps a smaller one's and extends it.",
        ),
        click.option(
            "--epochs",
            type=Whole(1, 10_000),
            default=1,
            show_default=True,
            metavar="K",
            help="Ask everything K times. A larger K extends the run.",
        ),
        click.option("--dedupe", is_flag=True, help="Ask a question that stands twice in a bank once."),
        click.option(
            "--max-tokens",
            type=Whole(1),
            default=500,
            show_default=True,
            metavar="N",
            help="Tokens per answer.",
        ),
        click.option("--temperature", type=float, metavar="T", help="Sampling temperature; left out, the model's own."),
        click.option("--top-p", type=float, metavar="P", help="Nucleus sampling; left out, the model's own."),
        click.option("--seed", type=Whole(None), metavar="S", help="Sampling seed; epoch k asks with S + k - 1."),
        click.option(
            "--chat-template",
            type=click.Choice(["native", "none"]),
            default="native",
            show_default=True,
            help="For hf/ models; an endpoint applies its own.",
        ),
        click.option(
            "--protocol", metavar="paper-2023", help="The paper's protocol: fixes judge, tokens, sampling and template."
        ),
        click.option(
            "--system",
            metavar="TEXT|FILE",
            help="The system prompt under which everything is asked, as your deployment ships it.",
        ),
        request_option("model", "of the endpoint request"),
        dtype(),
    )


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


def dtype() -> Callable[[F], F]:
    """What the roles that are checkpoints compute in."""
    return click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        help="hf/ models: what they compute in. Left out, float32 on a CPU, else the checkpoint's.",
    )


def how_to_ask() -> Callable[[F], F]:
    """The flags that do not belong to the configuration: how fast, how much."""
    return _stack(
        env_file,
        click.option(
            "--concurrency",
            type=int,
            default=64,
            show_default=True,
            metavar="N",
            help="Attempts in flight at once, target and judge together.",
        ),
        click.option(
            "--timeout",
            type=float,
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="Deadline of one request.",
        ),
        click.option(
            "--max-calls",
            type=int,
            metavar="N",
            help="Stop before more than N requests of this invocation, retries and judge included (exit 11); 0 begins "
            "the run and asks nothing.",
        ),
        click.option(
            "--device",
            metavar="D,...",
            help="hf/ models: cpu, cuda:0, ...; a copy on each. Left out, the GPU if any.",
            callback=_place,
            expose_value=False,
        ),
        click.option(
            "--batch",
            type=Whole(1),
            metavar="N",
            help="hf/ models: prompts at once, at most.",
            callback=_place,
            expose_value=False,
        ),
        click.option(
            "--threads",
            type=Whole(1),
            metavar="N",
            help="hf/ models: threads of each on a CPU.",
            callback=_place,
            expose_value=False,
        ),
        click.option("--force", is_flag=True, help="Go on with a judge that failed its self-test."),
        click.option(
            "--patience",
            type=float,
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="Wait so long for a server that answered before and does not now.",
        ),
        click.option("--keep-errors", is_flag=True, help="Leave what ended as `error`; else it is asked again, once."),
        click.option("--retry-errors", is_flag=True, help="Ask what ended as `error` again: the default."),
    )


def on_engine(function: F) -> F:
    """The flags that say where the models compute, and the command carried out there."""

    @functools.wraps(function)
    def command(*args: Any, engine: str, ray_address: str | None, workers: int | None, **flags: Any) -> Any:
        with computing(engine, ray_address, workers):
            return function(*args, **flags)

    return _stack(
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="local",
            show_default=True,
            help="Where the models compute: in this process, or in Ray's workers. A run goes on with either.",
        ),
        click.option(
            "--ray-address",
            metavar="A",
            help="The Ray cluster: HOST:PORT, or auto on one of its nodes; left out, Ray is started on this machine.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="Ray's workers; left out, one on each GPU for models that compute there, else one on each node.",
        ),
    )(cast("F", command))


def money() -> Callable[[F], F]:
    """Prices and the budget. The project knows no prices of its own."""
    return _stack(
        click.option(
            "--price-in", type=click.FloatRange(min=0), metavar="X", help="US dollars per million tokens read."
        ),
        click.option(
            "--price-out", type=click.FloatRange(min=0), metavar="Y", help="US dollars per million tokens written."
        ),
        click.option(
            "--judge-price-in",
            type=click.FloatRange(min=0),
            metavar="X",
            help="The same for the judge's model; left out, as the target's.",
        ),
        click.option(
            "--judge-price-out",
            type=click.FloatRange(min=0),
            metavar="Y",
            help="The same for the judge's model; left out, as the target's.",
        ),
        click.option(
            "--budget", type=float, metavar="Z", help="Stop before the whole run costs more than Z dollars (exit 11)."
        ),
    )


stop_when_decided = click.option(
    "--stop-when-decided",
    type=float,
    metavar="RATE",
    help="Stop asking a bank under a prompt once its rate surely lies above, or below, RATE; asks in random order.",
)
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
show_content = click.option(
    "--show-content", is_flag=True, help="Show questions and answers; they may be harmful to read."
)


def parse_options(pairs: tuple[str, ...], flag: str = "--model-option") -> dict[str, object]:
    """``KEY=JSON`` pairs; a value that is no JSON is taken as text.

    Raises:
        UsageError: a pair without ``=``, a key given twice, a value that JSON cannot carry, or one of the fields that
            have a meaning of their own.
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            # The value is not shown: it may be a key.
            raise UsageError(f"{flag}: expected KEY=JSON, for example reasoning_effort=low")
        if key in ("model", "messages", "stream"):
            raise UsageError(f"{flag} {key}: this field is the tool's own")
        if key in options:
            raise UsageError(f"{flag} {key}: given twice")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
        except RecursionError:
            raise UsageError(f"{flag} {key}: the JSON is nested too deep") from None
        try:
            # NaN and infinity, lone surrogates: Python reads them, no endpoint would.
            json.dumps(options[key], allow_nan=False, ensure_ascii=False).encode()
        except ValueError:
            raise UsageError(f"{flag} {key}: its value is nothing that JSON can carry") from None
    return options


def columns_from(given: tuple[str, ...], several: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Purpose -> the columns that ``--column`` names; several only for the purposes that may have them.

    Raises:
        UsageError: an entry that is none, or a purpose given twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in given:
        role, sign, name = (part.strip() for part in entry.partition("="))
        if not sign or not name or (role in found and role not in several):
            repeated = "".join(f" ({purpose} once a person)" for purpose in several)
            raise UsageError(f"--column {entry}: expected PURPOSE=NAME, each purpose once{repeated}")
        found[role] = (*found.get(role, ()), name)
    return found
