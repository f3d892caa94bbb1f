"""Flags from a struct of settings, and the struct from the flags."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
import msgspec

from redinstruct.cli import completing
from redinstruct.cli.kinds import RUN, Number, Whole, numbers, pairs_of, request_fields
from redinstruct.redeval.settings import read_system
from redinstruct.settings import GROUPS, REST, Flags, Setting, flag_of, noted

F = TypeVar("F", bound=Callable[..., Any])


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
    left_out: bool = False,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Callable[[F], F]:
    """The flags by which a struct is set; not ``required``, where the verb itself asks for what it needs.

    ``left_out``: a flag that is not given says nothing, since something else, a preset say, fills it in.
    """
    found = []
    for field in msgspec.structs.fields(kind):
        type_, notes = noted(field.type)
        said = next((note for note in notes if isinstance(note, Setting)), None)
        if said is not None and field.name not in without and (only is None or field.name in only):
            needed = required and field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
            found.append(_option(field, type_, said, needed=needed, left_out=left_out))
    return stack(*found)


def _option(
    field: msgspec.structs.FieldInfo, type_: Any, said: Setting, *, needed: bool, left_out: bool
) -> Callable[[F], F]:
    flag = flag_of(field.name, said)
    names = [flag, *([said.short] if said.short else []), field.name]
    given: Flags = {"cls": Listed, "group": said.group, "first": said.first, "help": said.help, "required": needed}
    if field.name in completing.NAMES:
        given["shell_complete"] = completing.completed
    if field.name == "system":
        given["callback"] = lambda _, __, text: read_system(text)
    kinds = get_args(type_) if get_origin(type_) in (Union, types.UnionType) else (type_,)
    of = get_origin(kinds[0]) or kinds[0]
    if of is bool and (len(kinds) > 1 or left_out):  # yes, no, or nothing said
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, **given)
    if of is bool:
        return click.option(*names, is_flag=True, **given)
    given["metavar"] = said.metavar
    together = said.metavar is not None and said.metavar.endswith(",...")
    if isinstance(of, type) and issubclass(of, Mapping):
        return click.option(*names, multiple=not together, callback=_pairs_as(get_args(kinds[0])[1]), **given)
    if of is tuple and not together:
        given["type"] = RUN if get_args(kinds[0])[0] is Path else None
        return click.option(*names, multiple=True, **given)
    given["type"] = CommaSeparated(get_args(kinds[0])[0]) if of is tuple else _kind(kinds[0], said)
    if not left_out and field.default is not msgspec.NODEFAULT:
        given |= {"default": field.default, "show_default": field.default not in (None, ())}
    return click.option(*names, **given)


class CommaSeparated(click.ParamType["tuple[Any, ...]"]):
    """Words, or whole numbers, with commas between them."""

    name = "several"

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Fails for what is no list of whole numbers, where they are numbers."""
        if isinstance(value, tuple):  # the default
            return value
        parts = str(value).split(",")
        if self._kind is str:
            return tuple(filter(None, map(str.strip, parts)))
        try:
            return tuple(int(part) for part in parts)
        except ValueError:
            self.fail(f"{str(value)[:40]!r}: expected whole numbers with commas between them, as in 1,5,20", param, ctx)


def _kind(kind: Any, said: Setting) -> click.ParamType[Any]:
    """The values that a flag takes; of a struct, what its number may be."""
    if said.names:
        return click.Choice(said.names)
    if get_origin(kind) is Literal:
        return click.STRING if said.metavar else click.Choice(get_args(kind))
    if kind is Path:
        return click.STRING if said.checkpoint else RUN
    least, most = said.least, said.most
    if kind is int or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return Whole(None if least is None else int(least), None if most is None else int(most))
    if kind is float:
        return Number(said)
    return click.STRING


def _pairs_as(values: Any) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """How a flag of pairs is read, by what its values are: a request's fields, numbers, columns."""

    def read(_: click.Context, param: click.Parameter, given: str | tuple[str, ...] | None) -> Any:
        if given is None:
            return None
        entries, flag = given.split(",") if isinstance(given, str) else given, param.opts[0]
        if values in (object, Any):
            return request_fields(entries, flag)
        if values is float:
            return numbers(entries, flag)
        several = () if values is str else ("human",)
        columns = pairs_of(entries, flag, _COLUMN, several, names=True)
        named = {purpose: tuple(map(str.strip, names)) for purpose, names in columns.items()}
        return {purpose: names[0] for purpose, names in named.items()} if values is str else named

    return read


_COLUMN = "PURPOSE=NAME, each purpose once (in a table of answers human once a person)"
