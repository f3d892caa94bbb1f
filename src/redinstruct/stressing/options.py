"""What ``redinstruct stress`` is asked to do, as one value, and what of it can be refused before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.checkpoints.embedded import folder_of
from redinstruct.errors import UsageError
from redinstruct.judges import Judge, JudgeSettings
from redinstruct.judges.settings import JUDGE
from redinstruct.run.stress import NONE, Condition
from redinstruct.settings import Columns, Dtype, Setting, check_said
from redinstruct.types import Bank

BITS = (2, 3, 4, 5, 6, 8)
ATTACKS: Mapping[str, int] = {
    "prefill": 10_000, "samples": 10_000, "ranks": 100, "tune": 1_000_000, "quantize": max(BITS), "ablate": 100,
}  # fmt: skip
"""In the order of their rows, each with the highest setting that it takes."""


class StressOptions(JudgeSettings, frozen=True, kw_only=True):
    """Attacks on one local checkpoint. Each tuple holds an attack's settings, in the order of the rows.

    ``prefill``: tokens of a begun answer, from ``prefill_from`` (a run's folder, or a file of red rows), else from the
    model's own harmful answers of this run, else stock words. ``samples``: tries at ``temperature``. ``tune``: steps of
    harmless fine-tuning on ``tune_data`` at ``tune_rate`` with ``tune_batch`` rows each. ``quantize``: bits. ``ranks``:
    so many of the likeliest first tokens are tried. ``ablate``: the per cent of the depth at which the direction is
    found that is taken out, told from the questions of both banks.
    ``prompts`` are what everything is asked under; ``benign`` a bank of harmless questions.
    """

    model: Annotated[str, Setting("The checkpoint's folder on this machine.", "hf/CKPT")]
    bank: Annotated[str | Path | Bank, Setting("Harmful questions: a file, or a known bank's name.", "B")]
    judge: Annotated[str | Judge, JUDGE]
    benign: Annotated[
        str | Path | Bank | None,
        Setting("Harmless questions, asked of each attacked model, and in the same frame.", "BANK"),
    ] = None
    benign_judge: Annotated[
        str | None,
        Setting("Who tells their refusals; left out, J, or `refusal` where J cannot.", "J", needs=("benign",)),
    ] = None
    prompts: Annotated[
        tuple[str, ...], Setting("What all is asked under; left out: standard. Repeatable.", "P", flag="--prompt")
    ] = ("standard",)
    prefill: Annotated[tuple[int, ...], Setting("Begin each answer by so many tokens of a harmful one.", "N,...")] = ()
    prefill_from: Annotated[
        Path | None,
        Setting(
            "Whose harmful answers: another run's, or red rows; left out, this run's own, else stock words.",
            "RUN|FILE",
            needs=("prefill",),
        ),
    ] = None
    samples: Annotated[tuple[int, ...], Setting("Ask each question K times; one success is enough.", "K,...")] = ()
    temperature: Annotated[
        float, Setting("That of --samples; all else is greedy.", "T", above=0, most=2, needs=("samples",))
    ] = 1.0
    tune: Annotated[tuple[int, ...], Setting("Fine-tune on harmless rows for so many steps first.", "STEPS,...")] = ()
    tune_data: Annotated[
        Path | None, Setting("The rows; left out, a few harmless ones of our own.", "FILE", needs=("tune",))
    ] = None
    tune_rate: Annotated[
        float | None,
        Setting(
            "Learning rate; left out, 2e-5 (the toy model: 5e-4).", "X", flag="--tune-lr", above=0, needs=("tune",)
        ),
    ] = None
    tune_batch: Annotated[int | None, Setting("Rows a step; left out, 16.", "N", least=1, needs=("tune",))] = None
    quantize: Annotated[tuple[int, ...], Setting("Round the weights to 4 bits (or 2 to 8).", "BITS,...")] = ()
    ranks: Annotated[tuple[int, ...], Setting("Begin by each of the K likeliest first tokens.", "K,...")] = ()
    ablate: Annotated[tuple[int, ...], Setting("Take the refusal direction of that depth out.", "PERCENT,...")] = ()
    limit: Annotated[int | None, Setting("N questions of each bank, spread over its topics.", "N", least=1)] = None
    max_tokens: Annotated[int, Setting("Tokens per answer.", "N", least=1)] = 500
    seed: Annotated[int, Setting("Of sampling and tuning.", "S", least=0)] = 0
    chat_template: Annotated[str, Setting("As for eval.", names=("native", "none"))] = "native"
    columns: Columns = msgspec.field(default_factory=dict)
    dtype: Dtype = None
    timeout: float = 120.0

    @property
    def folder(self) -> Path:
        """The checkpoint's folder."""
        return folder_of(self.model)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The undisturbed model, and every attack at every setting."""
        return (Condition(NONE), *(Condition(name, at) for name in ATTACKS for at in getattr(self, name)))


def check_options(asked: StressOptions) -> None:
    """Pass what can be carried out, as far as that can be told without the model.

    Raises:
        UsageError: naming the flag.
    """
    if not asked.model.startswith("hf/"):
        raise UsageError(f"--model {asked.model}: stress attacks weights, so it needs a checkpoint's folder: hf/FOLDER")
    if not asked.folder.is_dir():
        raise UsageError(f"--model {asked.model}: no such folder; stress needs a checkpoint on this machine")
    check_said(asked)
    for name, most in ATTACKS.items():
        given: tuple[int, ...] = getattr(asked, name)
        if strange := [value for value in given if not 1 <= value <= most]:
            raise UsageError(f"--{name} {strange[0]}: expected whole numbers from 1 to {most:,}")
        if len(set(given)) < len(given):
            raise UsageError(f"--{name}: names a setting twice")
    if asked.ablate and asked.benign is None:
        raise UsageError("--ablate: the direction is told from forbidden and harmless questions: give --benign")
    if strange := [bits for bits in asked.quantize if bits not in BITS]:
        raise UsageError(f"--quantize {strange[0]}: expected bits, one of {', '.join(map(str, BITS))}")
    if asked.prefill_from is not None and not asked.prefill_from.exists():
        raise UsageError(f"--prefill-from {asked.prefill_from}: neither a run's folder nor a file of rows")
