"""A collection on its way out: screened, weighed, written, with a data card beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.errors import UsageError, did_you_mean
from redinstruct.files import digest_of
from redinstruct.files.atomic import write_file
from redinstruct.harmfulqa.card import DataCard, data_card
from redinstruct.harmfulqa.collect import Collection, read_collection
from redinstruct.harmfulqa.files import write_rows
from redinstruct.harmfulqa.formats import released, to_dpo, to_kto, to_messages, to_sharegpt
from redinstruct.harmfulqa.languages import LANGUAGES
from redinstruct.harmfulqa.public import to_public
from redinstruct.harmfulqa.rows import Collected
from redinstruct.harmfulqa.screens import screen
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.harmfulqa.similarity import NEAR
from redinstruct.prompts.forms import check_forms, made, read_general
from redinstruct.safetext import terminal
from redinstruct.settings import check_needs
from redinstruct.types import Bank, JsonObject
from redinstruct.version import __version__

FORMATS: Mapping[str, Callable[..., Sequence[Any]]] = {
    "harmfulqa": to_public,
    "messages": to_messages,
    "kto": to_kto,
    "dpo": to_dpo,
    "sharegpt": to_sharegpt,
}
_AS_LIST = frozenset({"harmfulqa", "sharegpt"})
"""The formats whose readers expect one JSON list; the others are one row a line."""


class Release(msgspec.Struct, frozen=True):
    """What an export holds: the rows as they may leave, in their format, and the card that describes them."""

    collected: tuple[Collected, ...]
    rows: Sequence[Any]
    card: DataCard
    dropped: dict[str, int]


def prepare_release(
    collection: Collection,
    to: str,
    *,
    banks: Sequence[Bank] = (),
    include_red: bool = False,
    near: float = NEAR,
    licence: str | None = None,
    languages: Sequence[str] = (),
) -> Release:
    """Screen a collection against the banks, and give it a format. Writes nothing.

    ``near`` is the likeness from which on two collected questions count as one; banks are held apart by the screens'
    own measure, whatever it is.

    Raises:
        UsageError: an unknown format.
    """
    if to not in FORMATS:
        raise UsageError(f"unknown --to {to!r}: known are {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}")
    screened = screen(collection.harvest.rows, banks=banks, near=near, languages=languages)
    leaving = released(screened.kept, include_red=include_red)
    told: JsonObject = {"languages": list(languages)} if languages else {}
    provenance = {**_provenance(collection, banks, include_red, near, licence), **told}
    card = data_card(leaving, provenance=provenance, dropped=screened.dropped)
    return Release(tuple(leaving), FORMATS[to](screened.kept, include_red=include_red), card, screened.dropped)


def write_release(release: Release, to: str, out: Path, *, include_red: bool) -> tuple[Path, Path]:
    """Write the file and, beside it, the data card, which says of which bytes it is; returns the card's two paths.

    Raises:
        UsageError: a place cannot be written.
    """
    write_rows(out, release.rows, as_list=to in _AS_LIST, private=include_red)
    paths = card_paths(out)
    named = {"name": out.name, "sha256": digest_of(out)}
    card = msgspec.structs.replace(release.card, file=named)
    for path, text in zip(paths, (card.markdown, card.json), strict=True):
        try:
            write_file(path, text, public=not include_red)
        except OSError as error:
            raise UsageError(f"--out: the data card cannot be written beside the file ({error.strerror})") from None
    return paths


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
    check_needs(settings)
    if out.exists() and not out.is_file():
        raise UsageError("--out: is no regular file, and the data card could not stand beside it")
    if settings.forms and settings.to != "messages":
        raise UsageError(f"--forms: are rows of messages, and --to {settings.to} is not; use --to messages")
    if settings.near is not None and not 0 < settings.near <= 1:
        raise UsageError("--near: a likeness above 0 and at most 1")
    if unknown := [name for name in settings.languages if name not in LANGUAGES]:
        raise UsageError(f"--language {terminal(unknown[0])[:40]}: known are {', '.join(LANGUAGES)}")
    check_forms(list(settings.forms), general=bool(settings.general), red=settings.include_red)
    ordinary = read_general(settings.general)
    against = [bank if isinstance(bank, Bank) else resolve_bank(str(bank)) for bank in settings.banks]
    release = prepare_release(
        read_collection(run), settings.to, banks=against, include_red=settings.include_red,
        near=NEAR if settings.near is None else settings.near, licence=settings.licence,
        languages=settings.languages,
    )  # fmt: skip
    extra = {form: made(release.rows, form, general=ordinary) for form in settings.forms}
    release = msgspec.structs.replace(release, rows=[*release.rows, *(row for rows in extra.values() for row in rows)])
    card, _ = write_release(release, settings.to, out, include_red=settings.include_red)
    formed = {form: len(rows) for form, rows in extra.items()}
    return Exported(out, release.rows, release.collected, release.dropped, formed, card)


def card_paths(out: Path) -> tuple[Path, Path]:
    """Where the data card of an exported file stands: as Markdown, as JSON."""
    return out.with_name(out.name + ".card.md"), out.with_name(out.name + ".card.json")


def _provenance(
    collection: Collection, banks: Sequence[Bank], include_red: bool, near: float, licence: str | None
) -> JsonObject:
    config, harvest = collection.config, collection.harvest
    return {
        "teacher": config.teacher,
        "answerer": config.answerer or config.teacher,
        "judge": config.judge,
        "prompts": f"{config.texts}, {config.red_prompt.name}@{config.red_prompt.sha256[:12]}",
        "code_version": __version__,
        "config_digest": config.digest,
        "licence": licence,
        "banks": {bank.name: bank.sha256 for bank in banks},
        "sampling": msgspec.to_builtins(config.sampling),
        "red_included": include_red,
        "near_duplicates_from": near,
        "turn_by_turn": config.turn_by_turn,
        "unparsable_replies": harvest.unparsable,
        "left_out": harvest.left_out,
    } | ({} if config.published is None else {
        # Of these the file says nothing.
        "prompts": None, "sampling": None, "turn_by_turn": None,
        "imported_from": {"file": config.published.name, "sha256": config.published.sha256},
    })  # fmt: skip
