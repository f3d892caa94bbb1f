"""What may leave this machine for the hub, and its card: an aligned checkpoint, or a file that ``export`` wrote.

Promised: nothing red is in a parcel unless the caller agrees to it, as the file's own data card tells; a file that is
not the one of its card is refused, so that the card cannot be another's. Weights in pickle files never go. Of a folder
only what a checkpoint consists of goes; what is left behind is named.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct import checkpoints
from redinstruct.errors import UsageError
from redinstruct.files import digest_of
from redinstruct.files.opening import NOT_JSON
from redinstruct.harmfulqa.card import SCHEMA
from redinstruct.harmfulqa.release import card_paths
from redinstruct.publishing.repositories import RepositoryKind
from redinstruct.run.kinds import what_is
from redinstruct.safetext import terminal

_CARD = "README.md"
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", *checkpoints.LICENCES)
"""What a checkpoint consists of, beside its card."""
DATA_FILES = ("*.json", "*.jsonl", "*.csv", "*.tsv", "*.txt", "*.gz", "*.parquet")
_LICENCES = frozenset({"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0"})


class Parcel(msgspec.Struct, frozen=True):
    """What goes: name in the repository -> the file, or the text itself; ``left`` are names that stay here."""

    kind: RepositoryKind
    files: dict[str, Path | str]
    red: bool = False
    left: tuple[str, ...] = ()


class _Provenance(msgspec.Struct, frozen=True):
    red_included: bool
    licence: str | None = None


class _File(msgspec.Struct, frozen=True):
    sha256: str = ""


class _DataCard(msgspec.Struct, frozen=True):
    schema: str
    provenance: _Provenance
    file: _File = _File()


def pack(source: Path, *, include_red: bool = False) -> Parcel:
    """Make a parcel of a checkpoint's folder or of an exported file.

    Raises:
        UsageError: it is neither, it has no card or another's, or it holds something red and nobody agreed to that.
    """
    shown = terminal(str(source))
    if source.is_file():
        return _data(source, shown, include_red)
    if not (source / "config.json").is_file():
        what = what_is(source)
        found = "there is no such file or folder" if what is None else what
        raise UsageError(
            f"{shown}: {found}; push takes a checkpoint's folder, or a file that `redinstruct export` wrote"
        )
    return _checkpoint(source, shown)


def _checkpoint(folder: Path, shown: str) -> Parcel:
    checkpoints.check(folder, shown)
    if not (folder / _CARD).is_file():
        raise UsageError(f"{shown}: has no card ({_CARD}); say in it what the model is, and what it was trained on")
    there = {path.name for pattern in (*CHECKPOINT_FILES, _CARD) for path in folder.glob(pattern) if path.is_file()}
    # What `export` wrote into this folder is data, with a card that says whether it is red: it is pushed by itself.
    data = {path.name for path in folder.iterdir() if card_paths(path)[1].is_file()}
    kept = there - data - {card.name for name in data for card in card_paths(folder / name)}
    left = sorted(path.name for path in folder.iterdir() if path.name not in kept)
    return Parcel("model", {name: folder / name for name in sorted(kept)}, left=tuple(left))


def _data(path: Path, shown: str, include_red: bool) -> Parcel:
    markdown, card = card_paths(path)
    try:
        told = msgspec.json.decode(card.read_bytes(), type=_DataCard)
        text = markdown.read_text(encoding="utf-8")
    except OSError:
        raise UsageError(
            f"{shown}: has no data card beside it ({card.name}); `redinstruct export` writes both"
        ) from None
    except NOT_JSON:
        raise UsageError(f"{shown}: {card.name} is no data card of `redinstruct export`") from None
    if told.schema != SCHEMA or told.file.sha256 != digest_of(path):
        raise UsageError(f"{shown}: is not the file that {card.name} describes; export it again")
    red = told.provenance.red_included
    if red and not include_red:
        raise UsageError(f"{shown}: holds red conversations, as its card says; --include-red lets them leave")
    readme = _front_matter(path.name, told.provenance.licence, red=red) + text
    return Parcel("dataset", {path.name: path, card.name: card, _CARD: readme}, red=red)


def _front_matter(name: str, licence: str | None, *, red: bool) -> str:
    """What the hub reads before the card's text: the licence where it knows it, tags, which file holds the rows."""
    known = (licence or "").casefold()
    lines = ["---", *([f"license: {known}"] if known in _LICENCES else [])]
    lines += ["tags: [redinstruct, safety" + (", not-for-all-audiences]" if red else "]")]
    lines += ["configs:", "- config_name: default", f"  data_files: {_quoted(name)}", "---", "", ""]
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()  # a JSON string is a YAML string
