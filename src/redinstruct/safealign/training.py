"""One training run, from the prepared rows to the checkpoint: resumed from its saved state, watched, written whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from redinstruct.alignment import TrainingFigures
from redinstruct.errors import RedInstructError
from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.files.opening import read_json
from redinstruct.safealign import states
from redinstruct.safealign.batches import check_packing
from redinstruct.safealign.card import ModelCard, write_card
from redinstruct.safealign.exports import load_model, with_adapter
from redinstruct.safealign.fidelity import Fidelity, Losses
from redinstruct.safealign.forward import add_labelled_forward
from redinstruct.safealign.front import REFUSED, Candidate, best, candidate, front
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.launch import is_main_process, wait_for_all, world
from redinstruct.safealign.outcome import GuardStopped, Listeners
from redinstruct.safealign.plan import this_machine
from redinstruct.safealign.planning import plan_of
from redinstruct.safealign.prepare import Prepared
from redinstruct.safealign.probe import ProbeFigures, told
from redinstruct.safealign.reference import REFERENCE_NAME, reference_logps
from redinstruct.safealign.saving import writing
from redinstruct.safealign.trainer import AlignTrainer, training_arguments
from redinstruct.safealign.unfinished import give_up

CANDIDATES_NAME, CHOSEN_NAME, FIDELITY_NAME = "candidates.json", "chosen", "fidelity.json"


class TrainingRun:
    """One training run, from the prepared rows to the checkpoint."""

    def __init__(self, prepared: Prepared, folder: Path, listeners: Listeners) -> None:
        self.warnings: tuple[str, ...] = ()
        self._prepared, self._folder, self._listeners = prepared, folder, listeners
        self._plan = plan_of(prepared, this_machine(prepared.config.memory))
        self._config = prepared.config
        self._candidates: list[Candidate] = []
        self._guard = Guard(self._config.guard)
        self._model: Any = None
        self._exporter = prepared.exporter

    # ---- training ----

    def train(self) -> AlignTrainer:
        """Train to the end, or go on from the saved state.

        Raises:
            KeyboardInterrupt: it was asked to stop; the state is saved.
            GuardStopped, RedInstructError: see :func:`align`.
        """
        prepared, config = self._prepared, self._config
        arguments = training_arguments(self._folder, config.chosen, self._plan, steps=prepared.steps, seed=config.seed)
        rank, processes = world()
        if arguments.world_size != processes:
            raise RedInstructError(f"{processes} processes were started, but transformers sees {arguments.world_size}")
        self._listeners.note(self._plan.sentence)
        self._model = model = self._load(arguments)
        listeners = self._listeners if rank == 0 else replace(self._listeners, on_step=None, say=None)
        steps = prepared.data(rank, processes)
        self._trainer = trainer = AlignTrainer(model, arguments, steps, prepared, self._plan, self._guard, listeners)
        if prepared.probe is not None:
            trainer.probe = self._probe
        if self._listeners.on_evaluate is not None:
            trainer.on_candidate = self._maybe_evaluate
        if prepared.strategy.compared:
            if self._sharded:
                trainer.before_training = self._refer  # once it is sharded
            else:
                self._refer(trainer.model)  # on its device since the trainer has it, and not yet resumed
        wait_for_all()
        if self._listeners.on_evaluate is not None:
            self._begin_candidates()
        trainer.resume()
        self._check_end(trainer)
        return trainer

    @property
    def _sharded(self) -> bool:
        return self._plan.sharding == "fsdp"

    def _probe(self) -> ProbeFigures:
        """What the model makes of the harmless questions now; where it is sharded, a collective."""
        assert self._prepared.probe is not None
        with self._trainer.compute_loss_context_manager():
            return self._prepared.probe.figures(self._model, self._trainer.data.pad_id)

    def _load(self, arguments: Any) -> Any:
        """The base, with the labelled forward, and under its adapter if there is to be one.

        Of a sharded model only the first process has values yet, and so it alone checks what they say.
        """
        config, plan = self._config, self._plan
        model = load_model(
            config.base,
            seed=config.seed,
            dtype=torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32,
            quantize=config.quantize,
            attention=config.attention,
            device=None if self._sharded or arguments.device.type == "cpu" else arguments.device,
        )
        checked = not self._sharded or is_main_process()
        if config.chosen.packing and checked:
            check_packing(model, model.config.get_text_config().vocab_size)
        add_labelled_forward(model, check=checked)
        if config.lora is None:
            return model
        torch.manual_seed(config.seed)
        if plan.checkpointing:
            model.enable_input_require_grads()
        return with_adapter(model, config.lora)

    def _refer(self, model: Any) -> None:
        """Let the steps know what the base thinks of the answers that a loss compares with it."""
        trainer, data = self._trainer, self._trainer.data
        compared = [i for i, row in enumerate(data.rows) if row.stream in self._prepared.strategy.compared]
        kept = self._folder / REFERENCE_NAME
        if self._sharded and self._config.lora is None and trainer.state.global_step and not kept.is_file():
            raise RedInstructError(f"{kept.name} is missing in {self._folder.name}; remove the folder to begin again")
        made = reference_logps(
            model,
            [data.rows[i] for i in compared],
            pad_id=data.pad_id,
            kept=kept,
            computing=trainer.compute_loss_context_manager,
            on_progress=self._listeners.on_progress,
        )
        data.references = dict(zip(compared, made, strict=True))

    def _check_end(self, trainer: AlignTrainer) -> None:
        """Pass when all steps were made."""
        state = self._guard.state
        if state.stopped_at is not None:
            if is_main_process():
                give_up(self._folder)
            raise GuardStopped(
                f"stopped at step {state.stopped_at} of {self._prepared.steps}: the model {self._refusing(trainer)},"
                " twice in a row; nothing was written. Give more general data, --forms harmless-twins, or go on"
                " for longer without --probe-action stop: many models refuse too much for a while and come back"
                if state.stopped_for == "refusals"
                else f"stopped at step {state.stopped_at} of {self._prepared.steps}: {self._guard.risen}; nothing was"
                " written. Lower --lr or the red weight, or give more general data",
                tuple(trainer.history),
            )
        if trainer.state.global_step < self._prepared.steps:
            raise KeyboardInterrupt
        if state.refused_seen:
            self.warnings += (
                f"over-refusal: the model {self._refusing(trainer)}; give more --steps, more general data, or --forms"
                " harmless-twins",
            )

    def _refusing(self, trainer: AlignTrainer) -> str:
        probe, found = self._prepared.probe, trainer.history[-1].probe
        return told(found, self._guard.state.probe_start, len(probe)) if probe is not None and found else ""

    # ---- candidates ----

    def _begin_candidates(self) -> None:
        """What was measured before an interruption stays measured, also where its step is made once more.

        So the weights that are kept are those that were looked at, whatever a second look would have said.
        """
        path = self._folder / CANDIDATES_NAME
        found = read_json(path, list[Candidate])
        if found is None and path.is_file():
            raise RedInstructError(f"{path}: cannot be read; remove its folder to begin again")
        self._candidates = found or []
        if not self._candidates:
            self._candidates = [self._asked(self._config.base, 0)]
            self._store_candidates()

    def _maybe_evaluate(self, step: int) -> None:
        every = self._config.evaluate_every
        if step != self._prepared.steps and not (every and step % every == 0):
            return
        if any(one.step == step for one in self._candidates):
            return  # evaluated before the interruption
        with self._exported() as folder:
            found = self._asked(folder, step)
            if self._prepared.probe is not None:
                found.figures[REFUSED] = (self._trainer.probed or self._probe())["refused"]
            self._candidates.append(found)
            if self._best() == found and is_main_process():
                # A kill between these three leaves the earlier choice, or this one, with its weights.
                shutil.rmtree(self._chosen(found), ignore_errors=True)
                folder.rename(self._chosen(found))
            self._store_candidates()
            self._drop_others()

    @contextlib.contextmanager
    def _exported(self) -> Iterator[Path]:
        """The weights of this moment as a checkpoint of their own, for as long as they are looked at."""
        folder = self._folder / "candidate"
        weights, trained = self._collected(self._trainer)
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)
            with writing("a checkpoint to evaluate", self._trainer.intact()):
                fidelity = self._exporter.write(self._model, weights, trained, folder)
                write_file(folder / FIDELITY_NAME, msgspec.json.encode(fidelity), public=True)
        wait_for_all()
        try:
            yield folder
        finally:
            if is_main_process():
                shutil.rmtree(folder, ignore_errors=True)
        wait_for_all()

    def _asked(self, folder: Path, step: int) -> Candidate:
        assert self._listeners.on_evaluate is not None
        figures: Mapping[str, float] = {"safety": 0.0, "utility": 0.0}
        if is_main_process():
            with torch.random.fork_rng():
                figures = self._listeners.on_evaluate(folder, step)
        return candidate(step, figures)

    def _store_candidates(self) -> None:
        if is_main_process():
            path = self._folder / CANDIDATES_NAME
            with writing("the candidates' figures", "the last saved state is intact"):
                write_file(path, msgspec.json.encode(self._candidates))

    def _chosen(self, one: Candidate) -> Path:
        return self._folder / f"{CHOSEN_NAME}-{one.step:07d}"

    def _drop_others(self) -> None:
        """Keep the weights of the best candidate only, now that its figures are stored."""
        best = self._best()
        for folder in self._folder.glob(f"{CHOSEN_NAME}-*") if is_main_process() else ():
            if best is None or folder != self._chosen(best):
                shutil.rmtree(folder, ignore_errors=True)

    def _best(self) -> Candidate | None:
        if not self._candidates:
            return None
        base, *found = self._candidates
        return best(base, found, self._config.utility_margin)

    # ---- the result ----

    def finish(self, trainer: AlignTrainer) -> None:
        """Put the checkpoint, its card and its history in place of ``--out``."""
        trainer.release()
        weights, trained = self._collected(trainer)
        chosen = self._best()
        if self._candidates and chosen is None:
            self.warnings += ("no evaluated step kept the base's utility; the last one is kept",)
        if not is_main_process():
            return
        out = self._config.out.absolute()
        with writing("the aligned checkpoint", trainer.intact()), whole_folder(out) as fresh:
            if chosen is not None:
                shutil.copytree(self._chosen(chosen), fresh, dirs_exist_ok=True)
                told = fresh / FIDELITY_NAME
                fidelity = msgspec.json.decode(told.read_bytes(), type=Fidelity)
                told.unlink()
            else:
                fidelity = self._exporter.write(self._model, weights, trained, fresh)
                self.warnings += self._exporter.notes
            write_card(fresh, self._card(trainer, fidelity))
            lines = [msgspec.json.encode(one) for one in trainer.history]
            write_file(fresh / "history.jsonl", b"\n".join(lines) + b"\n", public=True)

    def _collected(self, trainer: AlignTrainer) -> tuple[dict[str, torch.Tensor], Losses]:
        """The trained weights of this moment, and the losses of the model that has them. A collective."""
        return states.collect_weights(trainer.model_wrapped), self._exporter.losses(self._model)

    def _card(self, trainer: AlignTrainer, fidelity: Fidelity) -> ModelCard:
        return self._prepared.card(
            fidelity,
            self._exporter.stops,
            settings=msgspec.to_builtins(self._config.chosen) | {"steps": self._prepared.steps},
            processes=world()[1],
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu, float32",
            figures=self.figures(trainer),
        )

    def _memory(self, trainer: AlignTrainer) -> dict[str, bool | int | str | None]:
        """How the run was cut to fit, as planned and, where memory ran out after all, as it ended."""
        plan = self._plan
        names = ("micro_batch", "accumulation", "checkpointing", "dtype", "sharding")
        found = {name: getattr(plan, name) for name in names}
        return found if trainer.cut == plan.cut else found | {"out of memory, ended with": trainer.cut.positions}

    def figures(self, trainer: AlignTrainer) -> TrainingFigures:
        """What the card says of the run: first and last step, the guard, the dropped rows, the candidates."""
        state, chosen = self._guard.state, self._best()
        found: TrainingFigures = {
            "steps": trainer.state.global_step,
            "rows per step": {str(stream): count for stream, count in self._prepared.batch.items()},
            "first": msgspec.to_builtins(trainer.history[0]),
            "last": msgspec.to_builtins(trainer.history[-1]),
            "general loss at the start": state.start,
            "red term dropped at step": state.tripped_at,
            "dropped rows": sum(self._prepared.dropped.values()),
            "truncated rows": self._prepared.encoded.truncated,
            "memory": self._memory(trainer),
        }
        probe, start, end = self._prepared.probe, state.probe_start, trainer.history[-1].probe
        if probe is not None and start is not None and end is not None:
            questions = {kind: probe.kinds.count(kind) for kind in dict.fromkeys(probe.kinds)}
            found["harmless questions while training"] = {
                "questions": questions, "at the start": start, "at the end": end,
            }  # fmt: skip
        if self._candidates:
            base, *others = self._candidates
            found["base"] = base.figures
            found["chosen step"] = chosen.step if chosen is not None else trainer.state.global_step
            found["front"] = {f"step {one.step}": one.figures for one in front(others)}
            found["candidates"] = {f"step {one.step}": one.figures for one in others}
        return found
