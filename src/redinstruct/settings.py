"""What a setting is called, what it means and where a list of flags has it: written once, at the field of its struct.

A verb's settings are one struct. From its fields derive the flags of the command line with their help, the keys of a
loop's TOML file, Inspect's ``-T``, and what the Python function takes; from the fields of the stored configuration
(:class:`Kept`) whether two commands are the same run, and the command that makes a run again.
"""

from __future__ import annotations

import math
from collections.abc import Set
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from redinstruct.errors import UsageError

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")
Flags = dict[str, Any]
"""A verb's settings by their names, as click, or a Python function's arguments, hand them on."""

NEEDED, ASKED, COLLECTED = "Needed first", "What is asked", "What is collected"
ANSWERING, JUDGING, LIMITS = "How the model answers", "The judge", "How fast, and how much"
HERE, FAILED, REST = "Models on this machine (hf/)", "What failed before", "Other"
MOST = 2**31 - 1
"""The largest count that a setting takes: far more than any run, and small enough for every format on the way."""
GROUPS = (NEEDED, ASKED, COLLECTED, ANSWERING, JUDGING, LIMITS, HERE, FAILED, REST)
"""The headings of a long list of flags, in their order."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a field's value may be: ``least`` or more, ``above``, ``most`` or less, ``below``, or one of ``names``.

    A field that no flag sets bears this alone.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    names: tuple[str, ...] = ()


class Setting(Bounds, frozen=True):
    """How a field is set: ``Annotated[int, Setting("Ask everything K times.", "K", ASKED)] = 1``.

    ``flag`` where it is not the field's name with hyphens; ``short`` another one of a letter. ``first`` orders what is
    needed first. A ``checkpoint``'s folder may have ``hf/`` in front. ``needs`` are the fields beside which alone it
    means something, any one of them (``strategy=resta``: where it has this value): given without, it is refused, since
    what is ignored would be trusted.
    """

    help: str
    metavar: str | None = None
    group: str = REST
    flag: str | None = None
    short: str | None = None
    first: int = 9
    checkpoint: bool = False
    needs: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """A field of a stored configuration: by which flags it was set.

    ``grows``: a larger value extends the run. ``added``: it may be set later, and not be taken back. ``free``: it may
    differ. ``hidden`` values are told by their size and hash. ``parts``: each part has a flag of its own.
    """

    flag: str | None = None
    grows: bool = False
    added: bool = False
    free: bool = False
    hidden: bool = False
    parts: bool = False


def flag_of(name: str, said: Setting | Kept | None = None) -> str:
    """The flag that sets a field: ``--max-tokens`` for ``max_tokens``, if it does not say another."""
    return f"--{name.replace('_', '-')}" if said is None or said.flag is None else said.flag


def noted(annotation: Any) -> tuple[Any, list[Any]]:
    """The type that an annotation says, and what it says of it beside."""
    if get_origin(annotation) is Annotated:
        kind, *notes = get_args(annotation)
        return kind, notes
    return annotation, []


def setting_of(field: msgspec.structs.FieldInfo) -> Setting | None:
    """What a field says of how it is set; None: no flag sets it."""
    return next((note for note in noted(field.type)[1] if isinstance(note, Setting)), None)


class Rule(msgspec.Struct, frozen=True):
    """What a field's annotation says of its value (:func:`rule_of`): one of ``names``, or of these kinds.

    ``numbers`` are bool, int and float among its types; ``others`` the types of which anything else must be one, none
    where that is not looked at; of ``several`` values each is held against the rule. None is a
    value where it is ``optional``.
    """

    flag: str
    bounds: Bounds
    needs: bool
    numbers: frozenset[type]
    others: tuple[type, ...]
    names: tuple[str, ...]
    several: bool
    optional: bool

    def why_not(self, value: Any) -> str | None:
        """What one value must do to be what its field says, to stand after "must"; None: it is."""
        if self.names:
            return (
                None if value in self.names else f"be one of {', '.join(map(str, self.names))}, not {str(value)[:40]!r}"
            )
        if self.numbers:
            return why_outside(value, self.numbers, self.bounds)
        if self.others and not isinstance(value, self.others):
            said = (_WORDS.get(kind, f"a {kind.__name__}") for kind in self.others if kind is not NoneType)
            return f"be {' or '.join(said)}, not {value!r:.40}"
        return None


def rule_of(name: str, annotation: Any) -> Rule:
    """What a value of a field of this name must be."""
    kind, notes = noted(annotation)
    bounds = next((note for note in notes if isinstance(note, Bounds)), Bounds())
    setting = bounds if isinstance(bounds, Setting) else None
    several = get_origin(kind) is tuple
    kind = get_args(kind)[0] if several else kind
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    literals = next((get_args(part) for part in parts if get_origin(part) is Literal), ())
    plain = str in parts and all(isinstance(part, type) for part in parts)
    return Rule(
        flag_of(name, setting), bounds, needs=bool(setting and setting.needs),
        numbers=frozenset({bool, int, float}.intersection(parts)), others=parts if plain else (),
        names=bounds.names or literals, several=several, optional=several or NoneType in parts,
    )  # fmt: skip


@cache
def rules_of(kind: type[msgspec.Struct]) -> dict[str, Rule]:
    """The rule of each field."""
    return {field.name: rule_of(field.name, field.type) for field in msgspec.structs.fields(kind)}


def check_said(settings: msgspec.Struct) -> None:
    """Pass settings whose numbers and names are what their fields say, and that have what they need beside them,
    however they were said: by a flag, in TOML, by Python.

    Raises:
        UsageError: naming the flag.
    """
    rules = rules_of(type(settings))
    for name, rule in rules.items():
        value = getattr(settings, name)
        listed = value if isinstance(value, (tuple, list)) else ()
        for one in listed if rule.several else (value,):
            if not (one is None and rule.optional) and (why := rule.why_not(one)) is not None:
                raise UsageError(f"{rule.flag} must {why}")
    check_needs(settings)


def check_needs(settings: msgspec.Struct) -> None:
    """Pass settings of which none was given that would be ignored (:class:`Setting`'s ``needs``).

    Raises:
        UsageError: naming the flag, and what it needs.
    """
    needing = [name for name, rule in rules_of(type(settings)).items() if rule.needs]
    fields = {field.name: field for field in msgspec.structs.fields(type(settings))} if needing else {}
    for name in needing:
        said = setting_of(fields[name])
        if said is None or not is_given(settings, fields[name]):
            continue
        needed = [need.partition("=") for need in said.needs]
        if not any(is_given(settings, fields[n]) if not sign else getattr(settings, n) == v for n, sign, v in needed):
            named = [f"{flag_of(n, setting_of(fields[n]))} {value}".rstrip() for n, _, value in needed]
            raise UsageError(f"{flag_of(name, said)}: only with {' or '.join(named)}")


def is_given(settings: msgspec.Struct, field: msgspec.structs.FieldInfo) -> bool:
    """Whether a field holds something else than what it holds where nobody says anything."""
    value = getattr(settings, field.name)
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return value is not None
    made = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return bool(value is not made and value != made)


def given_flags(settings: msgspec.Struct, *, but: tuple[str, ...] = ()) -> list[str]:
    """The flags of what was said, other fields than these."""
    fields = [field for field in msgspec.structs.fields(type(settings)) if field.name not in but]
    return [flag_of(field.name, setting_of(field)) for field in fields if is_given(settings, field)]


def why_outside(value: Any, kinds: Set[type], bounds: Bounds) -> str | None:
    """What a number must do to be of these kinds and within its bounds, to stand after "must"; None: it is."""
    known = tuple(kinds | {int} if float in kinds else kinds)
    if not isinstance(value, known) or (isinstance(value, bool) and bool not in kinds):
        return f"be {' or '.join(_WORDS[one] for one in _WORDS if one in kinds)}, not {value!r}"
    number: float = value  # type: ignore[assignment]
    low, high = (
        bounds.least if bounds.above is None else bounds.above,
        bounds.most if bounds.below is None else bounds.below,
    )
    bounded = low is not None and high is not None
    if high is None and int in kinds:
        high = MOST
    too_low = low is not None and (number <= low if bounds.above is not None else number < low)
    too_high = high is not None and (number >= high if bounds.below is not None else number > high)
    if math.isfinite(number) and not too_low and not too_high:
        return None
    if bounded:
        where = f"lie between {low:,} and {high:,}{_ENDS[bounds.above is not None, bounds.below is not None]}"
    elif too_high and math.isfinite(number):
        where = f"be {'at most' if bounds.below is None else 'below'} {high:,}"
    else:
        where = "be finite" if low is None else f"be {'at least' if bounds.above is None else 'above'} {low:,}"
    return f"{where}, not {number}"


_ENDS = {
    (False, False): "", (True, False): ", the first excluded", (False, True): ", the last excluded",
    (True, True): ", both excluded",
}  # fmt: skip
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def settings_from(kind: type[S], given: Flags, **more: Any) -> S:
    """The struct that flags, or a function's arguments, set by the names of its fields; ``more`` stands before them.

    What was not said (None, or no entry of several) is left out where the field has a default of its own.
    """
    given, said = plainly({**given, **more}), dict[str, object]()
    for field in msgspec.structs.fields(kind):
        value = given.get(field.name)
        if (value is not None and (value != () or field.default is None)) or (field.required and field.name in given):
            said[field.name] = value
    return kind(**said)


def plainly(value: Any) -> Any:
    """The same with numpy's numbers and texts as Python's own, within lists and mappings too.

    Neither JSON nor SQLite knows those: one of them in a configuration would be found out when it is written.
    """
    if isinstance(value, dict):
        return {key: one if type(one) in _OWN else plainly(one) for key, one in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(plainly, value))
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def with_plain(settings: T) -> T:
    """Settings that somebody made, with :func:`plainly`'s values; anything else as it is."""
    if not isinstance(settings, msgspec.Struct):
        return settings
    made = plainly({name: getattr(settings, name) for name in settings.__struct_fields__})
    made |= {name: with_plain(value) for name, value in made.items() if isinstance(value, msgspec.Struct)}
    return msgspec.structs.replace(settings, **made)


_OWN = {NoneType, bool, int, float, str}


Dtype = Annotated[
    str | None,
    Setting(
        "hf/ models: what they compute in. Left out, float32 on a CPU, else the checkpoint's.",
        group=HERE,
        names=("float32", "bfloat16", "float16"),
    ),
]
Temperature = Annotated[
    float | None, Setting("Sampling temperature; left out, the model's own.", "T", ANSWERING, least=0, most=2)
]
TopP = Annotated[float | None, Setting("Nucleus sampling; left out, the model's own.", "P", ANSWERING, above=0, most=1)]
Columns = Annotated[
    dict[str, str],
    Setting(
        "A bank's column by its own name: prompt, context (asked before it), topic, subtopic, language or label. "
        "Repeatable.",
        "PURPOSE=NAME",
        ASKED,
        "--column",
    ),
]
