"""``align``: from a configuration to an aligned checkpoint with its card, resumably.

Beside ``--out`` lies, until it is done, a folder ``.<name>.unfinished`` (0700) with the last saved state. The same
configuration goes on from there; another one is refused. ``--out`` itself appears whole at the very end, or what was
there before stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from redinstruct.alignment import RESTA, TRL_STRATEGIES, AlignConfig
from redinstruct.errors import TrainingFailed, UsageError
from redinstruct.models.memory import is_out_of_memory
from redinstruct.progress import OnProgress
from redinstruct.run import check_outside
from redinstruct.safealign.front import OnEvaluate
from redinstruct.safealign.launch import check_world, world
from redinstruct.safealign.outcome import Aligned, Listeners, OnStep, there_already
from redinstruct.safealign.prepare import prepare
from redinstruct.safealign.trainer import out_of_memory_advice
from redinstruct.safealign.training import TrainingRun
from redinstruct.safealign.unfinished import as_it_was, unfinished


def align(
    config: AlignConfig,
    on_step: OnStep | None = None,
    on_evaluate: OnEvaluate | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_progress: OnProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> Aligned:
    """Train a checkpoint as configured, or go on where the same configuration was interrupted.

    ``on_evaluate`` is asked about the base, every ``evaluate_every`` steps and at the end (see ``front``); without it
    the last step's weights are kept. ``should_stop`` is asked at every step: once true, the state is saved. ``say``
    hears how the run is cut to fit into memory. Under torchrun every process calls this.

    Raises:
        UsageError: bad input; nothing was written.
        GuardStopped: the general loss ran away, and dropping the red term did not bring it back.
        TrainingFailed: the loss is not finite, or one row does not fit into memory.
        RedInstructError: the disk is full. Here and there the last saved state and ``--out`` are intact.
        KeyboardInterrupt: ``should_stop``; the same call goes on.
    """
    try:
        listeners = Listeners(on_step, on_evaluate, should_stop or (lambda: False), on_progress, say)
        return _aligned(config.resolved(), listeners)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed(out_of_memory_advice("outside a step", "what was saved is intact")) from None


def _aligned(config: AlignConfig, listeners: Listeners) -> Aligned:
    check_outside(config.out, "--out")
    check_world(config.processes, fsdp=bool(config.fsdp))
    if listeners.on_evaluate is not None and config.strategy in (RESTA, *TRL_STRATEGIES):
        raise UsageError(f"on_evaluate: --strategy {config.strategy} has no checkpoints on its way to choose among")
    if config.strategy == RESTA:
        from redinstruct.safealign.unsafe import mend

        return mend(config, listeners)
    if config.strategy in TRL_STRATEGIES:
        from redinstruct.safealign.trl_backend import train_with_trl

        return train_with_trl(config, listeners)
    prepared = prepare(config, world=world()[1])
    if listeners.on_evaluate is not None:
        # Somebody's choice among its checkpoints is another result than the last step's weights.
        chosen = hashlib.sha256(f"{prepared.digest} chosen".encode()).hexdigest()
        prepared = replace(prepared, digest=chosen)
    if (done := there_already(config.out, prepared.digest)) is not None:
        return done
    with as_it_was(config.threads), unfinished(config.out, prepared.digest) as folder:
        run = TrainingRun(prepared, folder, listeners)
        trainer = run.train()
        run.finish(trainer)
        return Aligned(
            checkpoint=config.out,
            history=tuple(trainer.history),
            figures=run.figures(trainer),
            warnings=prepared.warnings + run.warnings,
        )
