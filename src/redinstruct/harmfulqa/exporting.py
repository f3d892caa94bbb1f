"""A collection written out, as the verb does it: what was asked for, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.errors import UsageError
from redinstruct.harmfulqa.collect import read_collection
from redinstruct.harmfulqa.release import prepare_release, write_release
from redinstruct.harmfulqa.rows import Collected
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.harmfulqa.similarity import NEAR
from redinstruct.prompts.forms import check_forms, made, read_general
from redinstruct.types import Bank


class Exported(msgspec.Struct, frozen=True):
    """What was written: the rows, the questions they come from, what was left out by reason, the card's Markdown file.

    ``formed`` says how many of the rows are in each of the further forms of asking.
    """

    out: Path
    rows: Sequence[Any]
    collected: tuple[Collected, ...]
    dropped: dict[str, int]
    formed: dict[str, int]
    card: Path


def export(run: Path, settings: ExportSettings, out: Path) -> Exported:
    """Write a collection out: screened, weighed, with a data card beside it.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run does not read.
    """
    if out.exists() and not out.is_file():
        raise UsageError("--out: is no regular file, and the data card could not stand beside it")
    if settings.forms and settings.to != "messages":
        raise UsageError(f"--forms: are rows of messages, and --to {settings.to} is not; use --to messages")
    if settings.near is not None and not 0 < settings.near <= 1:
        raise UsageError("--near: a likeness above 0 and at most 1")
    check_forms(list(settings.forms), general=bool(settings.general), red=settings.include_red)
    ordinary = read_general(settings.general)
    against = [bank if isinstance(bank, Bank) else resolve_bank(str(bank)) for bank in settings.banks]
    release = prepare_release(
        read_collection(run), settings.to, banks=against, include_red=settings.include_red,
        near=NEAR if settings.near is None else settings.near, licence=settings.licence,
    )  # fmt: skip
    extra = {form: made(release.rows, form, general=ordinary) for form in settings.forms}
    release = msgspec.structs.replace(release, rows=[*release.rows, *(row for rows in extra.values() for row in rows)])
    card, _ = write_release(release, settings.to, out, include_red=settings.include_red)
    formed = {form: len(rows) for form, rows in extra.items()}
    return Exported(out, release.rows, release.collected, release.dropped, formed, card)
