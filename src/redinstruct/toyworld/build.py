"""``build``: train the toy model, or take it from the cache; either way the folder appears whole or not at all.

The folder is an ordinary transformers checkpoint (``config.json``, ``model.safetensors``, a tokenizer with a chat
template) with three more things in it: ``banks/`` (questions in the public shapes), ``prompts/`` (the translated
templates) and ``data/`` (what a collection and an alignment need). Its manifest is written last: it exists, so the rest
does.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from redinstruct import world
from redinstruct.banks import cache_dir
from redinstruct.errors import UsageError
from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.files.opening import read_json
from redinstruct.progress import OnProgress
from redinstruct.toyworld import alignment, corpus, frames
from redinstruct.toyworld.recipes import FULL, QUICK

MANIFEST = "toyworld.json"
SCHEMA = "redinstruct.toyworld/1"
_CODE = ("alignment.py", "corpus.py", "frames.py", "tokenizer.py", "training.py")


class Manifest(msgspec.Struct, frozen=True):
    """What a toy checkpoint is. ``digest`` covers the world, the code, the recipe and the seed; no clock, no path."""

    schema: str
    digest: str
    seed: int
    quick: bool
    world: str
    items: int
    prompts_trained_on_forbidden: tuple[str, ...]
    prompts_trained_on_benign_only: tuple[str, ...]
    prompts_unseen: tuple[str, ...]
    files: dict[str, int]
    """Path in the folder -> size in bytes."""


def build(out: Path, seed: int = 0, *, quick: bool = False, on_progress: OnProgress | None = None) -> Path:
    """Put the toy checkpoint of this seed into ``out`` and return ``out``.

    Instant when it is there already, or in the cache. ``quick`` trains on a third of the text, about part of the world:
    it shows the direction (Standard below CoU) and not the figures; its banks hold the items that it was trained on.

    Raises:
        UsageError: ``out`` is a file, or a folder that holds something else, too. Nothing is written then.
    """
    digest = build_digest(seed, quick=quick)
    if _complete(out, digest):
        return out
    if not _replaceable(out):
        raise UsageError(f"{out.name}: holds something else than a toy checkpoint; give a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    cached = cache_dir() / "toyworld" / digest[:16]
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        if not _complete(cached, digest):
            _make(cached, seed, digest, quick=quick, on_progress=on_progress)
    except OSError:
        # A cache that cannot be written (read-only home, full disk) is no reason not to build.
        _make(out, seed, digest, quick=quick, on_progress=on_progress)
        return out
    with whole_folder(out) as fresh:
        shutil.copytree(cached, fresh, dirs_exist_ok=True)
    return out


def build_digest(seed: int, *, quick: bool) -> str:
    """sha256 over everything that decides the checkpoint: equal digests, equal folders (on one kind of machine)."""
    here = Path(__file__).parent
    code = [hashlib.sha256((here / name).read_bytes()).hexdigest() for name in _CODE]
    return hashlib.sha256(
        msgspec.json.encode([SCHEMA, world.digest(), code, QUICK if quick else FULL, seed])
    ).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a toy checkpoint; None for any other folder."""
    return read_json(folder / MANIFEST, Manifest)


def _replaceable(out: Path) -> bool:
    """Whether nothing is lost when ``out`` is replaced: it is missing, empty, or a toy checkpoint and nothing more."""
    if not out.is_dir():
        return not out.exists()
    manifest = read_manifest(out)
    known = {MANIFEST, *manifest.files} if manifest else set()
    return all(str(path.relative_to(out)) in known for path in out.rglob("*") if not path.is_dir())


def _complete(folder: Path, digest: str) -> bool:
    manifest = read_manifest(folder)
    if manifest is None or manifest.digest != digest:
        return False
    paths = ((folder / name, size) for name, size in manifest.files.items())
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _make(target: Path, seed: int, digest: str, *, quick: bool, on_progress: OnProgress | None) -> None:
    # torch takes seconds to import; a build that is there already does not need it.
    from redinstruct.toyworld.training import train_checkpoint

    recipe = QUICK if quick else FULL
    with whole_folder(target) as folder:
        train_checkpoint(folder, recipe, seed, on_progress)
        world.write_banks(folder / "banks", world.part(recipe.items))
        alignment.write_data(folder / "data", world.part(recipe.items))
        (folder / "prompts").mkdir()
        for name, text in frames.prompts().items():
            write_file(folder / "prompts" / f"{name}.txt", text, public=True)
        seen = {*corpus.FRAMES_TRAINED_ON_FORBIDDEN, *corpus.FRAMES_TRAINED_ON_BENIGN_ONLY}
        manifest = Manifest(
            schema=SCHEMA,
            digest=digest,
            seed=seed,
            quick=quick,
            world=world.digest(),
            items=recipe.items,
            prompts_trained_on_forbidden=corpus.FRAMES_TRAINED_ON_FORBIDDEN,
            prompts_trained_on_benign_only=corpus.FRAMES_TRAINED_ON_BENIGN_ONLY,
            prompts_unseen=tuple(name for name in frames.prompts() if name not in seen),
            files={
                str(path.relative_to(folder)): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        )
        write_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n", public=True)
