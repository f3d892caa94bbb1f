"""RESTA from end to end: an unsafe model is made of the safe one, the difference is added, the unsafe model is deleted.

The unsafe model answers harmful requests by construction (fine-tuning on the red answers). So it is made only where
``make_unsafe_model`` says so, lies in a folder that only its owner can enter, has no card and no export, and goes
when the merge is done, fails, is interrupted, or is killed: a second process waits for this one's end and removes it.
What is left when both end at once (the power fails), the next run with the same ``--out`` removes.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace as replaced
from pathlib import Path

import torch
from msgspec.structs import replace

from redinstruct.alignment import AlignConfig, TrainingFigures
from redinstruct.errors import UsageError
from redinstruct.files.atomic import whole_folder
from redinstruct.safealign import states
from redinstruct.safealign.card import ModelCard, write_card
from redinstruct.safealign.exports import (
    check_base,
    copy_others,
    first_names,
    ignored_patterns,
    load_model,
    say_precision,
    write_checkpoint,
    written_names,
)
from redinstruct.safealign.fidelity import Fidelity
from redinstruct.safealign.launch import world
from redinstruct.safealign.losses import STRATEGIES
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.outcome import Aligned, Listeners, there_already
from redinstruct.safealign.prepare import Prepared, TrainingData, check_out, read_all, training_data
from redinstruct.safealign.resta import Merge, Names, Weights, check_alike, check_written, merge_weights
from redinstruct.safealign.saving import writing
from redinstruct.safealign.training import TrainingRun
from redinstruct.safealign.unfinished import as_it_was
from redinstruct.safetext import terminal

_NEVER = 10**9
_AFTER_US = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


def mend(config: AlignConfig, listeners: Listeners) -> Aligned:
    """``--strategy resta``: ``base + coefficient * (safe - unsafe)``. Not resumable: nothing unsafe may outlive a run.

    Raises:
        UsageError: bad input, or the flag that agrees to an unsafe model is missing; nothing was written.
        RedInstructError: the disk is full, say; ``--out`` is as it was, and the unsafe model is gone.
    """
    safe = config.safe or config.base
    prepared, merged = _prepared(config, safe)
    if (done := there_already(config.out, merged.digest)) is not None:
        return done
    out = config.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with as_it_was(config.threads), secret_folder(out) as folder:
        relative = load_model(safe)
        names = Names(first_names(relative), ignored_patterns(relative))
        check_written(Weights(config.base), written_names(relative), names)
        if safe != config.base:
            check_alike(Weights(config.base), Weights(safe), Weights(safe), names)
        del relative
        (folder / "states").mkdir(mode=0o700)
        run = TrainingRun(prepared, folder / "states", replaced(listeners, on_evaluate=None, say=None))
        trainer = run.train()
        unsafe = folder / "unsafe"
        with writing("the unsafe model", "it is deleted, and nothing was changed"):
            # In float32: its difference from the safe model is what counts, and is smaller than a step of bfloat16.
            kept = states.collect_weights(trainer.model_wrapped)
            write_checkpoint(trainer.model, kept, safe, unsafe, dtype=torch.float32)
        figures: TrainingFigures = {
            "coefficient": config.coefficient,
            "dropped share (DARE)": config.drop,
            "steps on red answers": trainer.state.global_step,
            "loss on red answers at the start": trainer.history[0].loss,
            "loss on red answers at the end": trainer.history[-1].loss,
        }
        with writing("the merged checkpoint", "nothing was changed"), whole_folder(out) as fresh:
            how = Merge(config.coefficient, config.drop, config.seed)

            def write(kind: torch.dtype) -> None:
                told = listeners.on_progress
                merge_weights(config.base, safe, unsafe, fresh, how, dtype=kind, names=names, on_progress=told)
                copy_others(config.base, fresh)
                say_precision(fresh, kind)

            write(torch.float32)  # the merged model unrounded: what the files are held against
            exporter = merged.exporter
            fidelity = exporter.settle(write, fresh, exporter.losses_of(fresh))
            write_card(fresh, _card(merged, prepared, figures, fidelity))
    return Aligned(checkpoint=config.out, history=tuple(trainer.history), figures=figures, warnings=exporter.notes)


@contextlib.contextmanager
def secret_folder(out: Path) -> Iterator[Path]:
    """A folder (0700) beside ``out`` that does not outlive this block or process; what was left earlier goes first."""
    remove_left(out)
    prefix = _prefix(out)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=out.parent))
    try:
        with removed_at_our_end(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(out: Path) -> None:
    """Remove what a process that is gone left beside ``out``: both it and its helper were killed."""
    prefix = _prefix(out)
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if not (owner.isdigit() and _is_alive(int(owner))):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(out: Path) -> str:
    return f".{out.name}.unsafe-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def removed_at_our_end(folder: Path) -> Iterator[None]:
    """A second process, out of reach of our terminal's signals, reads from a pipe that closes when we are gone."""
    command = [sys.executable, "-I", "-S", "-c", _AFTER_US, str(folder)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(  # noqa: S603 - this interpreter, with the line above
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    ):
        yield


def _prepared(config: AlignConfig, safe: Path) -> tuple[Prepared, TrainingData]:
    """All that the unsafe model's training needs, checked; and what the merged checkpoint is held against."""
    if not config.make_unsafe_model:
        raise UsageError(
            "--strategy resta trains an unsafe model on the red answers, merges it and deletes it; agree to that with"
            " --make-unsafe-model"
        )
    if world()[1] > 1:
        raise UsageError("--strategy resta runs in one process; start it without torchrun")
    if config.lora is not None:
        raise UsageError("--strategy resta trains every weight of the unsafe model; leave --lora out")
    if config.parameters:
        raise UsageError("--set: resta has no numbers of its own but --coefficient and --drop")
    base, safe_name = check_base(config.base), check_base(safe, "--safe")
    check_out(config.out, config.base)
    read = read_all(config, "blue")
    own = replace(config, base=safe, guard=replace(config.guard, rise=None))
    data = training_data(own, read, base)
    taught = tuple(_taught(row) for row in data.encoded.of("red"))
    if not taught:
        raise UsageError("--strategy resta needs red rows: answers with a weight below 0, which --data does not hold")
    chosen = own.chosen
    rows = min(chosen.batch, len(taught))
    settings = replace(chosen, batch=rows, deep_prefix=0.0, save_every=_NEVER)  # it is not resumable
    red = replaced(data, config=replace(own, settings=settings), encoded=replace(data.encoded, rows=taught))
    prepared = Prepared(
        **vars(red),
        strategy=replaced(STRATEGIES["general"], name="resta"),
        batch={"general": rows},
        steps=chosen.steps or max(1, round(chosen.epochs * len(taught) / rows + 0.499)),
    )
    digest = config.digest(f"{base} {safe_name} {data.template.identity}", read.files)
    return prepared, replaced(data, config=config, digest=digest)


def _taught(row: Encoded) -> Encoded:
    """A red row whose penalised answers are learnt, and nothing else of it: how the unsafe model is made."""
    weights = tuple(-weight if weight < 0 else 0.0 for weight in row.weights)
    return replace(row, weights=weights, stream="general", answers=())


def _card(merged: TrainingData, prepared: Prepared, figures: TrainingFigures, fidelity: Fidelity) -> ModelCard:
    config = merged.config
    return merged.card(
        fidelity,
        (),
        settings={"safe model": terminal((config.safe or config.base).resolve().name)},
        parameters={"coefficient": config.coefficient, "drop": config.drop},
        device="cpu, merged tensor by tensor",
        rows={"red": len(prepared.encoded.rows)},
        figures=figures,
    )
