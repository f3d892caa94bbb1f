"""The card beside an aligned checkpoint: what it was made of and how, for people (README.md) and for programs (JSON).

No text of any training row is in it, no path of the machine, and no clock.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from redinstruct.alignment import Lora, TrainingFigures
from redinstruct.errors import UsageError
from redinstruct.files.atomic import write_file
from redinstruct.files.opening import read_json
from redinstruct.files.words import Fields
from redinstruct.safetext import in_json, in_markdown, terminal
from redinstruct.version import __version__

JSON_NAME, MARKDOWN_NAME = "align.json", "README.md"
SCHEMA = "redinstruct.align/1"
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "peft", "trl")


class StreamLosses(msgspec.Struct, frozen=True):
    """Losses by stream, in nats per learnt token: of the model in memory and of the files. ``parts``: they differ."""

    trained: dict[str, float]
    written: dict[str, float]
    parts: bool


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said about one aligned checkpoint."""

    schema: str = SCHEMA
    digest: str
    base: str
    """``<folder>@<12 hex>`` of the base checkpoint."""
    strategy: str
    preset: str
    settings: Fields
    parameters: dict[str, float]
    seed: int
    lora: Lora | None
    processes: int
    device: str
    files: tuple[tuple[str, str], ...]
    """(name, sha256) of the data files."""
    rows: dict[str, int]
    """Rows per stream."""
    dropped: dict[str, int]
    masked: dict[str, int]
    loss: StreamLosses | None = None
    dtype: str = ""
    """The precision of the weights as they are written."""
    template: Fields = {}
    """The chat template that was trained in: name, sha256, options, and the tokens that answers end with."""
    figures: TrainingFigures
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """What took part: this package, Python, and the libraries that are installed."""
    found = {"redinstruct": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_card(folder: Path, card: ModelCard) -> None:
    """Write both files into ``folder``."""
    data = msgspec.json.format(msgspec.json.encode(in_json(msgspec.to_builtins(card))), indent=2)
    write_file(folder / JSON_NAME, data + b"\n", public=True)
    write_file(folder / MARKDOWN_NAME, markdown(card), public=True)


def read_card(folder: Path) -> ModelCard | None:
    """The card of an aligned checkpoint; None for any other folder. One of the first edition lacks some of it."""
    return read_json(folder / JSON_NAME, ModelCard)


def check_replaceable(out: Path) -> None:
    """Pass when nothing is lost by replacing ``out``: it is missing, empty, or a checkpoint that align made.

    Raises:
        UsageError: it is a file, or holds something else, or its folder cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {terminal(str(out))}: is not a folder")
    if out.is_dir() and any(out.iterdir()) and read_card(out) is None:
        raise UsageError(f"--out {terminal(str(out))}: holds something else than an aligned checkpoint; name another")


def markdown(card: ModelCard) -> str:
    """The card for people."""
    lines = [
        "---", "library_name: transformers", "tags: [redinstruct, safety]", "---", "",
        f"# {_cell(card.base.split('@')[0])}, aligned by `{card.strategy}`", "",
        "Made by `redinstruct align` (SAFE-ALIGN of Red-Instruct, Bhardwaj & Poria 2023, arXiv 2308.09662).",
        "Training changes what a model refuses and what it can do. Measure both before use: `redinstruct eval` under",
        "several prompts, over-refusal, benign requests inside the attack's frame, `redinstruct utility`.", "",
        *_table("What", [
            ("base", card.base), ("strategy", card.strategy), ("preset", card.preset), ("seed", card.seed),
            ("adapter", f"merged, rank {card.lora.rank}" if card.lora else "none: every weight was trained"),
            *_flat(card.template, "chat template, "), ("weights are written in", card.dtype),
            ("processes", card.processes), ("device", card.device),
            *card.parameters.items(), *card.settings.items(),
        ]),
        *_table("Data", [(f"rows, {stream}", count) for stream, count in card.rows.items()]
                + [(f"dropped: {why}", count) for why, count in card.dropped.items()]
                + [(f"answers masked: {why}", count) for why, count in card.masked.items()]
                + [(name, f"sha256 {sha}") for name, sha in card.files]),
        *_losses(card.loss),
        *_table("Figures", list(_flat(card.figures))),
        *_table("Versions", list(card.versions.items())),
    ]  # fmt: skip
    return "\n".join(lines)


def _losses(loss: StreamLosses | None) -> list[str]:
    """What is written against what was trained: nats per learnt token over the same rows."""
    if loss is None:
        return []
    told = "**They part by more than 1 %: these weights are not the model that was trained.**"
    rows = [f"| {stream} | {x:.6g} | {loss.written[stream]:.6g} |" for stream, x in loss.trained.items()]
    return [
        "## Loss", "", "Of the model that was trained, and of these files, loaded afresh: nats per learnt token over",
        "the same rows, at most 64 a stream.", "", "| stream | trained | written |", "|---|---|---|", *rows, "",
        *([told, ""] if loss.parts else []),
    ]  # fmt: skip


def _flat(figures: Fields, prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}, ")
        else:
            rows.append((f"{prefix}{name}", f"{value:.6g}" if isinstance(value, float) else value))
    return rows


def _table(title: str, rows: Sequence[tuple[str, object]]) -> list[str]:
    body = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return [f"## {title}", "", "| | |", "|---|---|", *body, ""] if rows else []


def _cell(value: object) -> str:
    return in_markdown(str(value))
