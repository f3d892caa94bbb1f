"""The loop: a thin subclass of ``transformers.Trainer``, which brings optimizer, clipping, precision and wrappers.

Ours are the loss, the order of the rows, the guards and the saved state. Of Trainer's own state files (pickle) none is
written or read. Written against transformers 5.24; what is overridden is held by tests.

To Trainer an optimizer step is one item; it is cut in here, so that a step which does not fit into memory can be made
again in smaller parts. Promised: its loss and gradient do not depend on how its rows are cut and dealt; a run
that is resumed goes on as if it had not been stopped (bit for bit on a CPU with the same threads and processes).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainingArguments

from redinstruct.alignment import Settings
from redinstruct.checkpoints.host import give_back
from redinstruct.errors import TrainingFailed
from redinstruct.models.memory import is_out_of_memory
from redinstruct.safealign.batches import MODEL_KEYS, Batch, Cut
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.launch import check_engaged, keep_wide, summed, world
from redinstruct.safealign.losses import labelled, strategy_loss
from redinstruct.safealign.outcome import Listeners, StepFigures
from redinstruct.safealign.plan import MemoryPlan
from redinstruct.safealign.prepare import Prepared
from redinstruct.safealign.probe import ProbeFigures
from redinstruct.safealign.resuming import ResumableTrainer
from redinstruct.safealign.steps import Steps

_OPTIMIZERS = {"adamw": "adamw_torch", "adamw-8bit": "adamw_bnb_8bit", "paged-adamw-8bit": "paged_adamw_8bit"}
_LEAST_BETWEEN = 5
"""Steps between two looks at the harmless questions."""
_PARTS = ("blue", "general", "red", "red_first", "red_above", "red_term")


class AlignTrainer(ResumableTrainer, TrainerCallback):
    """Carries out one alignment; told of its steps by itself."""

    cut: Cut

    def __init__(
        self,
        model: torch.nn.Module,
        args: TrainingArguments,
        steps: Steps,
        prepared: Prepared,
        plan: MemoryPlan,
        guard: Guard,
        listeners: Listeners,
    ) -> None:
        """What needs the trainer itself is set on it later: ``probe``, ``on_candidate``, ``before_training``."""
        super().__init__(model=model, args=args, train_dataset=steps, data_collator=_only)
        keep_wide(getattr(self.accelerator.state, "fsdp_plugin", None))
        self.begin_run(guard, listeners, prepared.config.chosen)
        self.cut, self.sharded = plan.cut, plan.sharding == "fsdp"
        self.interrupted = False
        self.data, self._strategy, self._settings = steps, prepared.strategy, prepared.config.chosen
        self._seed = prepared.config.seed
        self._sums = dict.fromkeys((*_PARTS, "loss"), 0.0)
        self._figures: dict[str, float] = {}
        self.probe: Callable[[], ProbeFigures] | None = None
        self.probed: ProbeFigures | None = None
        self.on_candidate: Callable[[int], None] | None = None
        self.before_training: Callable[[Any], None] | None = None
        self.add_callback(self)

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The steps' numbers: rank and number decide the rows, so nothing is left to shard."""
        return DataLoader(self.data, batch_size=1, collate_fn=_only)

    def floating_point_ops(self, *_: Any, **__: Any) -> int:
        """Not counted."""
        return 0

    # ---- one step ----

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor | Any], *_: Any, **__: Any) -> Any:
        """A whole optimizer step's gradient, micro-batch after micro-batch; where memory runs out, in smaller ones.

        Raises:
            TrainingFailed: one row at a time is still too much.
        """
        model.train()
        step = int(inputs["step"])
        while not self._made(model, step):
            # The failed attempt's tensors are no longer held by its traceback.
            model.zero_grad(set_to_none=True)
            self._sums = dict.fromkeys(self._sums, 0.0)
            free_memory()
            self._halve(step)
        return torch.tensor(self._sums["loss"], device=self.args.device)

    def _made(self, model: torch.nn.Module, step: int) -> bool:
        """Whether the step's gradient was made; False where memory ran out before the processes met."""
        parts = self.data.micro_batches(step, self.cut)
        for number, rows in enumerate(parts):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                fits = self._tried(model, step, number, rows)
            if self.args.world_size == 1 and not fits:
                return False
            # The first is the largest. Whether it fitted everywhere is agreed on while no process waits for another's
            # gradient; a sharded model's processes meet in every layer, and cannot.
            if self.args.world_size > 1 and number == 0 and not last and not self.sharded:
                if summed([float(not fits)], self.args.device)[0]:
                    return False
            elif not fits:
                raise TrainingFailed(self._too_large(step))
        return True

    def _tried(self, model: torch.nn.Module, step: int, number: int, rows: Sequence[int]) -> bool:
        try:
            self._forward_and_back(model, step, number, rows)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _forward_and_back(self, model: torch.nn.Module, step: int, number: int, rows: Sequence[int]) -> None:
        """One micro-batch. Its loss is already its share of the step's: nothing is divided."""
        # Dropout draws from (seed, step, micro-batch, rank): no random state has to be saved.
        place = (step * self.data.rows_here + number) * self.args.world_size + self.args.process_index
        torch.manual_seed(self._seed * 1_000_003 + place)
        inputs: Batch = self._prepare_inputs(self.data.batch(step, rows, self.cut))
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        self.accelerator.backward(loss)

    def _halve(self, step: int) -> None:
        longest = max(len(row) for row in self.data.of_step(step)[0].values())
        halved = self.cut.halved(longest)
        if halved == self.cut or max(len(part) for part in self.data.micro_batches(step, self.cut)) == 1:
            raise TrainingFailed(self._too_large(step))
        self.cut = halved
        self.listeners.note(
            f"out of memory: going on with micro-batches of at most {halved.rows} rows and {halved.positions:,} tokens;"
            " the steps are the same"
        )

    def _too_large(self, step: int) -> str:
        longest = max(len(row) for row in self.data.of_step(step)[0].values())
        rows = max(len(part) for part in self.data.micro_batches(step, self.cut))
        held = "one row" if rows == 1 else f"{rows} rows"
        return out_of_memory_advice(
            f"at step {step + 1}, with {held} of up to {longest} tokens at a time", self.intact()
        )

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *_: Any, **__: Any) -> Any:
        """The micro-batch's share of the step's loss, times the processes, whose gradients the wrappers average."""
        logps = model(**{key: inputs[key] for key in (*MODEL_KEYS, "token_weights") if inputs[key] is not None})
        made = strategy_loss(
            self._strategy,
            labelled(inputs, logps, inputs["reference"]),
            self.data.of_step(self.state.global_step)[1],
            step=self.state.global_step,
            red_scale=0.0 if self.guard.red_is_off else 1.0,
        )
        for name, part in {**made.parts, "loss": made.total.detach()}.items():
            self._sums[name] += float(part)
        return made.total * self.args.world_size

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Before the optimizer moves: the step's figures over all processes, which all must be finite.

        Raises:
            TrainingFailed: the loss is not.
        """
        names = list(self._sums)
        values = summed([*self._sums.values(), float(self.listeners.should_stop())], self.args.device)
        self._figures = dict(zip(names, values, strict=False))
        self.interrupted = values[-1] > 0
        self._sums = dict.fromkeys(names, 0.0)
        if not math.isfinite(self._figures["loss"]):
            raise self.broken("loss", self.state.global_step + 1)

    def log(self, logs: dict[str, float], *_: Any, **__: Any) -> None:
        """Take Trainer's log of a step and make the step's figures of it; nothing is written anywhere.

        Raises:
            TrainingFailed: the gradient was not finite; nothing of this step is saved.
        """
        if "grad_norm" not in logs or not self._figures:
            return
        if not math.isfinite(logs["grad_norm"]):
            raise self.broken("gradient", self.state.global_step)
        whole_step = self.data.of_step(self.state.global_step - 1)[1]
        has = {"blue": whole_step.blue, "general": whole_step.general, "red": whole_step.red_sequences}
        found = {
            name: value for name, value in self._figures.items() if has.get(name.split("_")[0], 1) or name == "loss"
        }
        self.note_step(
            StepFigures(
                step=self.state.global_step,
                steps=self.state.max_steps,
                grad_norm=logs["grad_norm"],
                learning_rate=logs["learning_rate"],
                red_off=self.guard.red_is_off,
                probe=self.probed,
                **found,
            )
        )

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **__: Any) -> None:  # noqa: ARG002
        """After the optimizer moved: the guard, the saved state, the candidate."""
        step = self.state.global_step
        watched = self._figures["general" if self.data.of_step(step - 1)[1].general else "blue"]
        stopped = self.guard.see(step, watched) == "stop"
        self.probed = self._looked(step)
        stopped = stopped or self.guard.state.stopped_at == step
        self.decide(control, self._settings.save_every, stopped=self.interrupted or stopped)
        if self.on_candidate is not None:
            self.on_candidate(step)

    def _looked(self, step: int) -> ProbeFigures | None:
        """What the harmless questions give, at every tenth of the run and at its end; the guard sees it."""
        every = max(_LEAST_BETWEEN, self.state.max_steps // 10)
        if self.probe is None or (step % every and step != self.state.max_steps):
            return None
        found = self.probe()
        self.guard.see_probe(step, found)
        return found

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The wrapped model is checked, and asked what has to be known of it before it is trained."""
        check_engaged(self.model_wrapped, self.args.world_size, fsdp=self.sharded)
        if self.before_training is not None:
            self.before_training(self.model_wrapped)
        if self.guard.state.probe_start is None:
            self._looked(0)

    def release(self) -> None:
        """Give the optimizer's state and the gradients back, now that no step follows: writing takes memory too."""
        self.accelerator.free_memory()
        self.optimizer = self.lr_scheduler = None
        self.model_wrapped.zero_grad(set_to_none=True)
        free_memory()


def _only(items: list[Any]) -> Any:
    (item,) = items
    return item


def out_of_memory_advice(where: str, intact: str) -> str:
    """One line for who ran out of memory."""
    return (
        f"out of memory {where}; {intact}. `redinstruct align ... --plan` says what it takes;"
        " --activation-checkpointing, --lora R, --quantize 4, a smaller --max-length or --fsdp over more GPUs take less"
    )


def free_memory() -> None:
    """Give back what the allocators hold on to: the checkpoint would be written on top of it."""
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def training_arguments(folder: Path, settings: Settings, plan: MemoryPlan, *, steps: int, seed: int) -> Any:
    """Trainer's arguments: nothing is reported, printed or written but what :class:`AlignTrainer` does itself."""
    gpu = torch.cuda.is_available()
    sharded = plan.sharding == "fsdp"
    # The first process alone reads the weights; the others have them from it, each its part.
    sharding = {"reshard_after_forward": True, "fsdp_version": 2, "cpu_ram_efficient_loading": True}
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # a whole step of this process, which cuts it itself
        learning_rate=settings.learning_rate,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        optim=_OPTIMIZERS[settings.optimizer],
        bf16=gpu,
        use_cpu=not gpu,
        ddp_backend=None if world()[1] == 1 else "nccl" if gpu else "gloo",
        ddp_find_unused_parameters=False,
        seed=seed,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        activation_checkpointing=plan.checkpointing,
        fsdp="full_shard" if sharded else None,
        fsdp_config=sharding if sharded else None,
    )
