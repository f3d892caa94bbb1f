"""A file of the public HARMFULQA schema as a collection: every verb that reads a collection reads this one.

Promised: what :func:`redinstruct.harmfulqa.public.read_public` finds is what the run holds, row by row; the run appears
as a whole. Nobody was asked: a row stands where a collected one's calls stand, under a role of its own, and costs
nothing. Not promised: verdicts. The schema holds none, so that red answers are exported with weight 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import ConfigError, DamagedStore, UsageError
from redinstruct.harmfulqa.files import json_line
from redinstruct.harmfulqa.pipeline import Harvest
from redinstruct.harmfulqa.plan import CollectConfig, PublishedFile, read_config
from redinstruct.harmfulqa.public import Published, from_public, read_public, to_public
from redinstruct.harmfulqa.rows import Collected, Subtopic
from redinstruct.prompts import parse_template
from redinstruct.run import CallRow, CollectionStore, Store, StoredCall, check_run_folder, is_run, whole_run
from redinstruct.run.config import Pinned
from redinstruct.types import Sampling

ROLE = "published"
_TEMPLATE = parse_template("imported", "(imported: the file does not hold this prompt)\n<question>")


class ImportedCollection(msgspec.Struct, frozen=True):
    """What an import did. ``new`` is false where the run stood there already."""

    config: CollectConfig
    harvest: Harvest
    new: bool


def import_published(file: Path, run: Path, *, model: str | None = None) -> ImportedCollection:
    """Make a collection of a file of the public schema. ``model`` is who answered, left out: the file's own name.

    Raises:
        UsageError: the file does not read, or holds no row of the schema; nothing was written.
        ConfigError: the folder holds another run, or other things; nothing was written.
        StoreError: the run cannot be written; no run is left behind.
    """
    if model is not None and not model.strip():
        raise UsageError("--model must not be blank")
    folder = run.absolute()
    check_run_folder(folder)
    published = read_public(file)
    config = _config(published, model or f"imported/{published.name}")
    done = ImportedCollection(config, _harvest(published.rows, config), new=not is_run(folder))
    if done.new:
        whole_run(folder, lambda store: _write(store, config, published.rows))
        return done
    with Store.open_for_reading(folder) as store:
        body = CollectionStore(store).config()
    if body is None or read_config(body) != config:
        raise ConfigError(f"--run {folder}: holds a collection of another file or model; name a new folder")
    return done


def _config(published: Published, model: str) -> CollectConfig:
    cells: dict[str, dict[str, int]] = {}
    for row in published.rows:
        below = cells.setdefault(row.question.topic, {})
        below[row.question.subtopic] = below.get(row.question.subtopic, 0) + 1
    return CollectConfig(
        teacher=model,
        topics=tuple((topic, tuple(below)) for topic, below in cells.items()),
        sampling=Sampling(),
        answer_tokens=0,
        texts="imported",
        red_prompt=Pinned(_TEMPLATE.name, _TEMPLATE.sha256),
        per_subtopic=max(count for below in cells.values() for count in below.values()),
        blue=max(len(row.blue) for row in published.rows),
        red=any(row.red for row in published.rows),
        published=PublishedFile(published.name, published.sha256, published.dropped),
    )


def _write(store: Store, config: CollectConfig, rows: Sequence[Collected]) -> None:
    collection = CollectionStore(store)
    collection.begin(config.digest, config.body, _TEMPLATE)
    made = []
    for number, row in enumerate(rows):
        text = json_line(to_public([row], include_red=True)[0])
        request = hashlib.sha256(text.encode()).digest()
        key = hashlib.sha256(json.dumps([ROLE, number]).encode() + request).digest()
        call = StoredCall("text", text, tokens_in=0, tokens_out=0, tries=0)
        made.append(CallRow(key, 0, ROLE, ROLE, request, 0, call))
    collection.commit(made)


def harvest_of(config: CollectConfig, replies: Sequence[str]) -> Harvest:
    """What an imported collection holds, read from its rows.

    Raises:
        DamagedStore: a row is none that an import writes.
    """
    try:
        read = from_public(json.loads(reply) for reply in replies)
    except (ValueError, RecursionError) as error:
        raise DamagedStore(f"the run store is damaged (an imported row: {type(error).__name__})") from error
    if read.dropped:
        raise DamagedStore("the run store is damaged (an imported row is none of the public schema's)")
    return _harvest(read.rows, config)


def _harvest(rows: Sequence[Collected], config: CollectConfig) -> Harvest:
    cells = tuple(Subtopic(topic, name) for topic, names in config.topics for name in names)
    dropped = {} if config.published is None else config.published.dropped
    return Harvest(cells, tuple(rows), {ROLE: dropped} if dropped else {}, {})
