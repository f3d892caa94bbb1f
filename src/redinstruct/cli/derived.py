"""Flags from a struct of settings, and the struct from the flags."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import click
import msgspec

from redinstruct.cli import completing
from redinstruct.cli.kinds import Flags, Whole, columns_from, parse_options
from redinstruct.models import Options
from redinstruct.settings import GROUPS, REST, Setting, flag_of, noted

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=msgspec.Struct)

_COMPLETED = {
    "model": completing.models, "banks": completing.banks, "prompts": completing.prompts, "judge": completing.judges,
}  # fmt: skip


class Listed(click.Option):
    """A flag that knows under which heading it stands; ``first`` orders those of one heading."""

    def __init__(self, *args: Any, group: str = REST, first: int = 9, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place = (GROUPS.index(group), first)


class Grouped(click.Command):
    """A command whose flags stand under headings, what is needed first standing first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per heading; a flag that knows none comes last."""
        other = (GROUPS.index(REST), 9)
        named = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        flags = sorted(named, key=lambda param: getattr(param, "place", other))
        for number, title in enumerate(GROUPS):
            of_it = [param for param in flags if getattr(param, "place", other)[0] == number]
            lines = [line for param in of_it if (line := param.get_help_record(ctx)) is not None]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


def stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def flags_of(
    kind: type[msgspec.Struct],
    *,
    required: bool = True,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Callable[[F], F]:
    """The flags by which a struct is set; not ``required``, where the verb itself asks for what it needs."""
    found = []
    for field in msgspec.structs.fields(kind):
        type_, notes = noted(field)
        said = next((note for note in notes if isinstance(note, Setting)), None)
        if said is not None and field.name not in without and (only is None or field.name in only):
            found.append(_option(field, type_, said, required=required))
    return stack(*found)


def settings_from(kind: type[S], flags: Flags) -> S:
    """The struct that the flags set; what no flag sets is left out."""
    return kind(**{name: flags[name] for name in kind.__struct_fields__ if name in flags})


def _option(field: msgspec.structs.FieldInfo, type_: Any, said: Setting, *, required: bool) -> Callable[[F], F]:
    flag = flag_of(field.name, said)
    names = [flag, *([said.short] if said.short else []), field.name]
    given: Flags = {"cls": Listed, "group": said.group, "first": said.first, "help": said.help}
    if field.name in _COMPLETED:
        given["shell_complete"] = _COMPLETED[field.name]
    if field.name == "system":
        given["callback"] = lambda _, __, text: _system(text)
    kinds = get_args(type_) if get_origin(type_) in (Union, types.UnionType) else (type_,)
    of = get_origin(kinds[0]) or kinds[0]
    if of is bool:
        return click.option(*names, is_flag=True, **given)
    given["metavar"] = said.metavar
    if isinstance(of, type) and issubclass(of, Mapping):
        values = get_args(kinds[0])[1]
        read = _request if values is object else _columns if values is str else columns_of_people
        return click.option(*names, multiple=True, callback=read, **given)
    if of is tuple:
        needed = required and field.default is msgspec.NODEFAULT
        return click.option(*names, multiple=True, required=needed, **given)
    given["type"] = _kind(of, said)
    if field.default is msgspec.NODEFAULT:
        return click.option(*names, required=required, **given)
    return click.option(*names, default=field.default, show_default=field.default is not None, **given)


def _kind(of: Any, said: Setting) -> click.ParamType[Any]:
    """The values that a flag takes."""
    if said.names:
        return click.Choice(said.names)
    if of is Path:
        return click.Path(path_type=Path)
    least, most = said.least, said.most
    if of is int:
        return Whole(None if least is None else int(least), None if most is None else int(most))
    if of is float:
        low = least if said.above is None else said.above
        return click.FLOAT if low is most is None else click.FloatRange(low, most, min_open=said.above is not None)
    return click.STRING


def _request(_: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> Options:
    return parse_options(pairs, param.opts[0])


def _columns(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> Mapping[str, str]:
    return {purpose: names[0] for purpose, names in columns_from(pairs).items()}


def columns_of_people(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> Options:
    """A column of people's labels may be named once a person."""
    return columns_from(pairs, several=("human",))


def _system(given: str | None) -> str | None:
    from redinstruct.redeval.settings import read_system

    return read_system(given)
