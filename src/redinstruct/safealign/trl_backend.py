"""``kto`` and ``dpo`` by TRL's trainers: optional, and the only place where TRL is imported.

KTO (Ethayarajh et al. 2024, arXiv 2402.01306) takes single answers, learnt or penalised, as red and blue ones are. DPO
(Rafailov et al. 2023, arXiv 2305.18290) needs two answers to the same messages: a blue answer and its red twin up to
where they part. Alone it can lower both; so, as TRL allows, the chosen answer's own loss is added (weight 0.5).

Guarded and resumed by :mod:`redinstruct.safealign.trl_loop`. Not promised here, because TRL's loops are their own:
fixed shares of the streams, the deep prefix, packing, several processes. General rows are desirable answers to KTO;
to DPO they are what its guard watches.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.alignment import AlignConfig, TrainingFigures
from redinstruct.errors import RedInstructError, UsageError, how_to_install
from redinstruct.files.atomic import whole_folder
from redinstruct.prompts.rows import DpoRow, KtoRow, MessageFields, MessagesRow, kto_rows, weighted_answers
from redinstruct.safealign import states
from redinstruct.safealign.card import write_card
from redinstruct.safealign.exports import check_base, load_model, with_adapter
from redinstruct.safealign.launch import world
from redinstruct.safealign.outcome import Aligned, GuardStopped, Listeners, there_already
from redinstruct.safealign.plan import this_machine
from redinstruct.safealign.planning import plan_alignment
from redinstruct.safealign.prepare import TrainingData, check_out, read_all, training_data
from redinstruct.safealign.saving import writing
from redinstruct.safealign.trl_loop import GuardedTrainer
from redinstruct.safealign.unfinished import as_it_was, give_up, unfinished

_SFT_SHARE = 0.5


def dpo_rows(rows: Iterable[MessagesRow]) -> list[DpoRow]:
    """One row per penalised answer to whose very messages there is a learnt one, too."""
    answers = [(msgspec.json.encode(said), said, answer, weight) for said, answer, weight in weighted_answers(rows)]
    chosen: dict[bytes, MessageFields] = {}
    for key, _, answer, weight in answers:
        if weight > 0:
            chosen.setdefault(key, answer)
    return [
        {"prompt": said, "chosen": [chosen[key]], "rejected": [answer]}
        for key, said, answer, weight in answers
        if weight < 0 and key in chosen and chosen[key] != answer
    ]


def train_with_trl(config: AlignConfig, listeners: Listeners) -> Aligned:
    """Train by TRL and write the checkpoint with its card.

    Raises:
        UsageError: TRL is missing or does not fit, or there is nothing that the strategy can train on.
        GuardStopped: the loss on ordinary rows ran away.
        KeyboardInterrupt: ``should_stop``; the same call goes on.
    """
    data = _checked(config)
    if (done := there_already(config.out, data.digest)) is not None:
        return done
    kept = {row.row_id for row in data.encoded.rows}
    read = [row.plain for row in data.read.rows if row.id in kept]
    rows = kto_rows(read) if config.strategy == "kto" else dpo_rows(read)
    _check_rows(config.strategy, rows)
    data.tokenizer.chat_template = data.template.text
    with as_it_was(config.threads), unfinished(config.out, data.digest) as folder:
        ordinary = data.encoded.of("general") or data.encoded.of("blue")
        trainer = _trainer(config, rows, data.tokenizer, folder)
        trainer.watch(config, listeners, ordinary, data.pad_id)
        with _quiet():
            trainer.resume()
        _check_end(trainer)
        figures: TrainingFigures = {
            "steps": trainer.state.global_step, "pairs or answers": len(rows),
            "first loss": trainer.history[0].loss, "last loss": trainer.history[-1].loss,
        }  # fmt: skip
        exporter = data.exporter
        with writing("the aligned checkpoint", trainer.intact()), whole_folder(config.out.absolute()) as fresh:
            weights, trained = states.collect_weights(trainer.model), exporter.losses(trainer.model)
            fidelity = exporter.write(trainer.model, weights, trained, fresh)
            settings = {"trainer": type(trainer).__name__, "steps": trainer.state.global_step,
                        "batch": config.chosen.batch, "learning_rate": config.chosen.learning_rate}  # fmt: skip
            device = str(trainer.args.device)
            write_card(fresh, data.card(fidelity, exporter.stops, settings=settings, device=device, figures=figures))
    return Aligned(checkpoint=config.out, history=tuple(trainer.history), figures=figures, warnings=exporter.notes)


def _check_end(trainer: Any) -> None:
    """Pass when all steps were made.

    Raises:
        GuardStopped, KeyboardInterrupt, RedInstructError: they were not.
    """
    if not trainer.history:
        raise RedInstructError("TRL made no step; nothing was written")
    state = trainer.guard.state
    if state.stopped_at is not None:
        give_up(trainer.folder)
        raise GuardStopped(
            f"stopped at step {state.stopped_at} of {trainer.state.max_steps}: {trainer.guard.risen}; nothing was"
            " written. Lower --lr",
            tuple(trainer.history),
        )
    if trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt


def _checked(config: AlignConfig) -> TrainingData:
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        raise UsageError(f"--strategy {config.strategy} is TRL's: {how_to_install('trl')}")
    if world()[1] > 1:
        raise UsageError(f"--strategy {config.strategy} runs in one process here; start it without torchrun")
    if config.parameters:
        raise UsageError(f"--set: --strategy {config.strategy} keeps TRL's numbers")
    base = check_base(config.base)
    check_out(config.out, config.base)
    return training_data(config, read_all(config, "blue"), base)


def _check_rows(strategy: str, rows: Sequence[KtoRow] | Sequence[DpoRow]) -> None:
    if strategy == "dpo" and not rows:
        raise UsageError(
            "--strategy dpo compares two answers to the same messages, and no penalised answer in the data has such a"
            " twin; kto needs no pairs"
        )
    if strategy == "kto" and len({row.get("label") for row in rows}) < 2:
        raise UsageError("--strategy kto needs answers to learn and answers to penalise; one kind is missing")


def _quiet() -> warnings.catch_warnings[None]:
    """TRL warns of its own coming changes."""
    return warnings.catch_warnings(action="ignore")


def _trainer(config: AlignConfig, rows: Sequence[KtoRow] | Sequence[DpoRow], tokenizer: Any, folder: Path) -> Any:
    """TRL's trainer, guarded and resumable."""
    with _quiet():
        try:
            # Untyped on purpose: TRL's types move with its releases, and only two of its names are used.
            datasets: Any = importlib.import_module("datasets")
            trl: Any = importlib.import_module("trl")
            kind = config.strategy.upper()
            trainer_class, config_class = getattr(trl, f"{kind}Trainer"), getattr(trl, f"{kind}Config")
        except (ImportError, AttributeError, RuntimeError) as error:
            raise UsageError(f"this TRL does not fit the installed transformers ({type(error).__name__})") from None
        datasets.disable_progress_bars()
        settings = config.chosen
        micro = micro_batch(settings.batch, plan_alignment(config, this_machine(config.memory)).micro_batch)
        model = load_model(config.base, seed=config.seed)
        made = with_adapter(model, config.lora) if config.lora else model
        own = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, _SFT_SHARE]}
        arguments = config_class(
            output_dir=str(folder), max_steps=settings.steps or -1, num_train_epochs=settings.epochs,
            per_device_train_batch_size=micro, gradient_accumulation_steps=max(1, settings.batch // micro),
            learning_rate=settings.learning_rate, adam_beta1=settings.betas[0], adam_beta2=settings.betas[1],
            max_grad_norm=settings.clip, weight_decay=settings.weight_decay, max_length=settings.max_length,
            seed=config.seed, use_cpu=not _gpu(), bf16=_gpu(), report_to="none", disable_tqdm=True, logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", gradient_checkpointing=False,
            **(_balanced(rows) if config.strategy == "kto" else own),
        )  # fmt: skip
        data = datasets.Dataset.from_list(rows)
        # The adapter switched off is the reference; else a second copy of the base.
        reference = None if config.lora else load_model(config.base, seed=config.seed)
        return type(trainer_class.__name__, (GuardedTrainer, trainer_class), {})(
            model=made, ref_model=reference, args=arguments, train_dataset=data, processing_class=tokenizer
        )


def micro_batch(batch: int, fits: int) -> int:
    """The most rows at once that fit and divide a step: two at least, as KTO needs another answer beside each."""
    return max((rows for rows in range(2, min(fits, batch) + 1) if batch % rows == 0), default=max(2, fits))


def _balanced(rows: Sequence[Any]) -> dict[str, float]:
    """KTO's weights: what is learnt counts 1.15 times what is penalised, the middle of its authors' [1, 4/3]."""
    good = sum(row["label"] for row in rows)
    share = 1.15 * (len(rows) - good) / good
    return {"desirable_weight": max(1.0, share), "undesirable_weight": max(1.0, 1 / share)}


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
