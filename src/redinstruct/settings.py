"""What a setting is called, what it means and where a list of flags has it: written once, at the field of its struct.

A verb's settings are one struct. From its fields derive the flags of the command line with their help, the keys of a
loop's TOML file, Inspect's ``-T``, and what the Python function takes; from the fields of the stored configuration
(:class:`Kept`) whether two commands are the same run, and the command that makes a run again.
"""

from __future__ import annotations

import math
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


ANY = Bounds()


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


def noted(field: msgspec.structs.FieldInfo) -> tuple[Any, list[Any]]:
    """A field's type, and what is said of it beside."""
    if get_origin(field.type) is Annotated:
        kind, *notes = get_args(field.type)
        return kind, notes
    return field.type, []


def setting_of(field: msgspec.structs.FieldInfo) -> Setting | None:
    """What a field says of how it is set; None: no flag sets it."""
    return next((note for note in noted(field)[1] if isinstance(note, Setting)), None)


def check_said(settings: msgspec.Struct) -> None:
    """Pass settings whose numbers and names are what their fields say, and that have what they need beside them,
    however they were said: by a flag, in TOML, by Python.

    Raises:
        UsageError: naming the flag.
    """
    needing = False
    for field in msgspec.structs.fields(type(settings)):
        value = getattr(settings, field.name)
        if value is None:
            continue
        kind, notes = noted(field)
        bounds = ANY
        for note in notes:
            if isinstance(note, Bounds):
                bounds, needing = note, needing or (isinstance(note, Setting) and bool(note.needs))
        several = get_origin(kind) is tuple and isinstance(value, tuple)
        of_each = get_args(kind)[0] if several else kind
        whys = (why_not(one, of_each, bounds) for one in (value if several else (value,)))
        if (why := next((why for why in whys if why is not None), None)) is not None:
            raise UsageError(f"{flag_of(field.name, setting_of(field))} must {why}")
    if needing:
        check_needs(settings)


def why_not(value: Any, kind: Any, bounds: Bounds) -> str | None:
    """What one value must do to be what its field says, to stand after "must"; None: it is."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    kinds, names = {bool, int, float}.intersection(parts), bounds.names
    why = why_outside(value, kinds, bounds) if kinds else None
    if not kinds and str in parts and all(isinstance(part, type) for part in parts) and not isinstance(value, parts):
        why = (
            f"be {' or '.join(_WORDS.get(p, f'a {p.__name__}') for p in parts if p is not NoneType)}, not {value!r:.40}"
        )
    for part in parts:
        names = get_args(part) if get_origin(part) is Literal and not names else names
    if names and value not in names:
        why = f"be one of {', '.join(map(str, names))}, not {str(value)[:40]!r}"
    return why


def check_needs(settings: msgspec.Struct) -> None:
    """Pass settings of which none was given that would be ignored (:class:`Setting`'s ``needs``).

    Raises:
        UsageError: naming the flag, and what it needs.
    """
    fields = {field.name: field for field in msgspec.structs.fields(type(settings))}
    for name, field in fields.items():
        said = setting_of(field)
        if said is None or not said.needs or not is_given(settings, field):
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


def why_outside(value: Any, kinds: set[type], bounds: Bounds) -> str | None:
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
    given, said = {**given, **more}, dict[str, object]()
    for field in msgspec.structs.fields(kind):
        value = plainly(given.get(field.name))
        if (value is not None and (value != () or field.default is None)) or (field.required and field.name in given):
            said[field.name] = value
    return kind(**said)


def plainly(value: Any) -> Any:
    """The same with numpy's numbers and texts as Python's own, within lists and mappings too.

    Neither JSON nor SQLite knows those: one of them in a configuration would be found out when it is written.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    if isinstance(value, dict):
        return {key: plainly(one) for key, one in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(plainly, value))
    return value


def with_plain(settings: T) -> T:
    """Settings that somebody made, with :func:`plainly`'s values; anything else as it is."""
    if not isinstance(settings, msgspec.Struct):
        return settings
    made = {name: with_plain(plainly(getattr(settings, name))) for name in settings.__struct_fields__}
    return msgspec.structs.replace(settings, **made)


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
