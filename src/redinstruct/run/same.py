"""Is it the same run? One rule for every kind: what was set may not change, a few settings may grow or be added.

What a field of a stored configuration allows stands at the field (:class:`redinstruct.settings.Kept`); one that says
nothing must be equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import ConfigError
from redinstruct.settings import Kept, flag_of, noted

_LONGEST = 160
"""A value that is longer is not told: a list of 98 subtopics, say."""


class Pinned(msgspec.Struct, frozen=True):
    """A bank or template by name and content."""

    name: str
    sha256: str


def check_same(
    stored: msgspec.Struct,
    asked: msgspec.Struct,
    folder: Path | str,
    what: str = "a run",
    *,
    but: Collection[str] = (),
    hint: str = "",
    more: Sequence[str] = (),
) -> None:
    """Pass when ``asked`` resumes or extends ``stored``.

    ``but`` are fields that may differ here, ``more`` differences that no field tells, ``hint`` what else to do.

    Raises:
        ConfigError: anything else differs, or something would shrink; every difference is named.
    """
    found = [*dict.fromkeys(differences(stored, asked, but)), *more]
    if found:
        raise ConfigError(
            f"{folder} holds {what} with another configuration: {'; '.join(found)}. "
            f"Use the same flags to resume it, or another --run{hint}."
        )


def differences(stored: msgspec.Struct, asked: msgspec.Struct, but: Collection[str] = ()) -> Iterator[str]:
    """Every difference that does not let ``asked`` go on with ``stored``, in words."""
    for field in msgspec.structs.fields(stored):
        kept = next((note for note in noted(field.type)[1] if isinstance(note, Kept)), Kept())
        was, now = getattr(stored, field.name), getattr(asked, field.name)
        if was == now or kept.free or field.name in but:
            continue
        flag = flag_of(field.name, kept)
        if kept.parts:
            yield from differences(was, now) if isinstance(was, msgspec.Struct) else _pairs(was, now)
        elif kept.grows:
            if now is not None and (was is None or now < was):
                yield f"{flag} was {'all' if was is None else was} and cannot shrink to {now}"
        elif not (kept.added and not was):
            texts = [_hidden(value) if kept.hidden else _shown(value) for value in (was, now)]
            yield f"{flag} was {texts[0]}, is {texts[1]}" if max(map(len, texts)) <= _LONGEST else f"{flag} is another"


def _pairs(was: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Settings that are kept as flag and value."""
    before, after = dict(was), dict(now)
    for flag in dict.fromkeys((*before, *after)):
        if before.get(flag) != after.get(flag):
            yield f"{flag} was {before.get(flag, 'unset')}, is {after.get(flag, 'unset')}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_shown, value)) or "none"
    if isinstance(value, Pinned):
        return f"{value.name}@{value.sha256[:12]}"
    if isinstance(value, msgspec.Struct):
        return " ".join(_shown(part) for part in msgspec.structs.astuple(value) if part is not None)
    return "unset" if value is None else str(value)


def _hidden(value: str | None) -> str:
    return "unset" if value is None else system_of(value)


def system_of(system: str) -> str:
    """A system prompt by its size and hash: what a deployment says is its owner's, and not shown unasked."""
    digest = hashlib.sha256(system.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{len(system):,} characters, sha256 {digest}"
