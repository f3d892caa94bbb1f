"""What ``redinstruct stress`` is asked to do, as one value, and what of it can be refused before a weight is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import folder_of
from redinstruct.errors import UsageError
from redinstruct.judges import Judge, JudgeOptions
from redinstruct.models import Model
from redinstruct.run.stress import NONE, Condition
from redinstruct.stressing.rounding import BITS
from redinstruct.types import Bank

MOST_TOKENS, MOST_TRIES, MOST_STEPS, MOST_RANKS = 10_000, 10_000, 1_000_000, 100


class StressOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Attacks on one local checkpoint. Each tuple holds an attack's settings, in the order of the rows.

    ``prefill``: tokens of a begun answer, from ``prefill_from`` (a run's folder, or a file of red rows), else from the
    model's own harmful answers of this run, else stock words. ``samples``: tries at ``temperature``. ``tune``: steps of
    harmless fine-tuning on ``tune_data`` at ``tune_rate`` with ``tune_batch`` rows each. ``quantize``: bits. ``ranks``:
    so many of the likeliest first tokens are tried. ``ablate``: the per cent of the depth at which the direction is
    found that is taken out, told from the questions of both banks.
    ``prompts`` are what everything is asked under; ``benign`` a bank of harmless questions.
    """

    model: str
    bank: str | Path | Bank
    judge: str | Judge
    judge_model: str | Model | None = None
    judge_options: JudgeOptions | None = None
    benign: str | Path | Bank | None = None
    benign_judge: str | None = None
    prompts: tuple[str, ...] = ("standard",)
    prefill: tuple[int, ...] = ()
    prefill_from: Path | None = None
    samples: tuple[int, ...] = ()
    temperature: float = 1.0
    tune: tuple[int, ...] = ()
    tune_data: Path | None = None
    tune_rate: float | None = None
    tune_batch: int | None = None
    quantize: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    ablate: tuple[int, ...] = ()
    limit: int | None = None
    max_tokens: int = 500
    seed: int = 0
    chat_template: str = "native"
    dtype: str | None = None
    columns: Mapping[str, str] = msgspec.field(default_factory=dict)
    timeout: float = 120.0

    @property
    def folder(self) -> Path:
        """The checkpoint's folder."""
        return folder_of(self.model)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The undisturbed model, and every attack at every setting."""
        names = ("prefill", "samples", "ranks", "tune", "quantize", "ablate")
        attacks: dict[str, tuple[int, ...]] = {name: getattr(self, name) for name in names}
        return (Condition(NONE), *(Condition(name, at) for name, settings in attacks.items() for at in settings))


def check_options(asked: StressOptions) -> None:
    """Pass what can be carried out, as far as that can be told without the model.

    Raises:
        UsageError: naming the flag.
    """
    if not asked.model.startswith("hf/"):
        raise UsageError(f"--model {asked.model}: stress attacks weights, so it needs a checkpoint's folder: hf/FOLDER")
    if not asked.folder.is_dir():
        raise UsageError(f"--model {asked.model}: no such folder; stress needs a checkpoint on this machine")
    _check_settings("--prefill", asked.prefill, MOST_TOKENS)
    _check_settings("--samples", asked.samples, MOST_TRIES)
    _check_settings("--tune", asked.tune, MOST_STEPS)
    _check_settings("--quantize", asked.quantize, max(BITS))
    _check_settings("--ranks", asked.ranks, MOST_RANKS)
    _check_settings("--ablate", asked.ablate, 100)
    if asked.ablate and asked.benign is None:
        raise UsageError("--ablate: the direction is told from forbidden and harmless questions: give --benign")
    if strange := [bits for bits in asked.quantize if bits not in BITS]:
        raise UsageError(f"--quantize {strange[0]}: expected bits, one of {', '.join(map(str, BITS))}")
    if not (math.isfinite(asked.temperature) and 0 < asked.temperature <= 2):
        raise UsageError("--temperature must lie above 0, at most 2: it is that of --samples")
    if asked.tune_rate is not None and not (math.isfinite(asked.tune_rate) and asked.tune_rate > 0):
        raise UsageError("--tune-lr must be above 0")
    needs = {"--prefill-from": (asked.prefill_from, asked.prefill, "--prefill"),
             "--tune-data": (asked.tune_data, asked.tune, "--tune"),
             "--tune-lr": (asked.tune_rate, asked.tune, "--tune"),
             "--tune-batch": (asked.tune_batch, asked.tune, "--tune"),
             "--benign-judge": (asked.benign_judge, asked.benign, "--benign")}  # fmt: skip
    for flag, (given, wanted, by) in needs.items():
        if given is not None and not wanted:
            raise UsageError(f"{flag}: only with {by}")
    if asked.prefill_from is not None and not asked.prefill_from.exists():
        raise UsageError(f"--prefill-from {asked.prefill_from}: neither a run's folder nor a file of rows")


def _check_settings(flag: str, given: tuple[int, ...], most: int) -> None:
    for value in given:
        if not 1 <= value <= most:
            raise UsageError(f"{flag} {value}: expected whole numbers from 1 to {most:,}")
    if len(set(given)) < len(given):
        raise UsageError(f"{flag}: names a setting twice")
