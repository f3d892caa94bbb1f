"""``redinstruct plan --rate``: how many questions, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.cli import console
from redinstruct.errors import UsageError
from redinstruct.questions import select
from redinstruct.settings import Flags, Setting
from redinstruct.stats import gate_power, questions_needed
from redinstruct.types import MEASURES

CELLS = (1, 2, 3, 6, 12)
"""Results of a run (banks x prompts) that are told, and those of the banks and prompts that were named."""
CORRELATION = 0.5
"""Of two answers to one question, where nobody says otherwise."""


_RATES = ("rate", "limit_rate")


class PowerPlanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``redinstruct plan --rate`` is told beside an evaluation's own flags."""

    rate: Annotated[
        float | None,
        Setting("Plan the number of questions instead: the true rate supposed.", "X", above=0, below=1),
    ] = None
    limit_rate: Annotated[float | None, Setting("With --rate: the gate's --max-rate.", "X", above=0, below=1)] = None
    power: Annotated[float, Setting("With --rate: the chance of an answer.", "X", above=0, below=1, needs=_RATES)] = 0.8
    correlation: Annotated[
        float | None,
        Setting("With --rate and --epochs: of two answers to one question.", "X", least=0, below=1, needs=_RATES),
    ] = None


class Needed(msgspec.Struct, frozen=True):
    """How many questions so many results need, each: None where no number is enough."""

    cells: int
    questions: int | None
    attempts: int | None
    power: float | None


class OfBank(msgspec.Struct, frozen=True):
    """What a bank can show under one prompt."""

    bank: str
    questions: int
    power: float


class PowerPlan(msgspec.Struct, frozen=True):
    """``plan --rate --json``: the rate supposed, the limit, and how many questions tell them apart."""

    schema: str
    rate: float
    limit_rate: float
    answer: str
    power: float
    confidence: float
    epochs: int
    correlation: float
    rows: tuple[Needed, ...]
    banks: tuple[OfBank, ...]


def plan_power(flags: Flags, *, as_json: bool) -> int:
    """Say how many questions let a true rate pass a limit, or fail it; returns the exit code.

    Of the verb's flags ``rate``, ``limit_rate``, ``power``, ``correlation`` and ``epochs`` count, and ``banks``,
    ``prompts`` and ``measure`` where banks are named.

    Raises:
        UsageError: shares that are none, a rate at its limit, or a bank that does not read.
    """
    rate, limit, power, epochs, banks = (flags[name] for name in ("rate", "limit_rate", "power", "epochs", "banks"))
    alike = _checked(flags)
    cells = max(1, len(banks)) * (len(flags["prompts"]) or 3 if banks else 1)
    needs = [
        questions_needed(rate, limit, cells=number, power=power, epochs=epochs, correlation=alike)
        for number in sorted({*CELLS, *([cells] if banks else [])})
    ]
    rows = tuple(Needed(n.cells, n.questions, n.questions and n.questions * n.cells * epochs, n.power) for n in needs)
    chances = tuple(
        OfBank(name, size, gate_power(size, rate, limit, epochs=epochs, correlation=alike) if size else 0.0)
        for name, size in _sizes(banks, flags["measure"], flags["limit"], flags["dedupe"]).items()
    )
    answer = "passed" if rate < limit else "failed"
    found = PowerPlan("redinstruct.power/1", rate, limit, answer, power, 0.95, epochs, alike, rows, chances)
    if as_json:
        console.say_json(msgspec.to_builtins(found))
    else:
        _say(found)
    return 0


def _checked(flags: Flags) -> float:
    """The correlation of two answers to one question, once the shares are shares."""
    rate, limit, correlation = flags["rate"], flags["limit_rate"], flags["correlation"]
    if rate is None or limit is None:
        raise UsageError("plan: --rate and --limit-rate go together: the rate supposed, and the gate's limit")
    if rate == limit:
        raise UsageError("--rate: a rate at its limit neither passes nor fails for sure, however many questions")
    if correlation is not None and flags["epochs"] == 1:
        raise UsageError("--correlation: only with --epochs above 1")
    return 0.0 if flags["epochs"] == 1 else CORRELATION if correlation is None else float(correlation)


def _sizes(banks: Sequence[str], measure: str, limit: int | None, dedupe: bool) -> dict[str, int]:
    """Bank -> how many questions of it would be asked."""
    read = [resolve_bank(str(bank)) for bank in banks]
    return {
        bank.name: len(select(bank, measure=MEASURES[measure], limit=limit, dedupe=dedupe).questions) for bank in read
    }


def _say(found: PowerPlan) -> None:
    repeated = found.epochs > 1
    console.say_heading(
        f"questions for a gate: a true rate of {found.rate:.1%} beside a limit of {found.limit_rate:.1%}",
        f"chance of {found.answer}: {found.power:.0%}",
        *([f"{found.epochs} epochs, correlation {found.correlation:g}"] if repeated else []),
    )
    console.say()
    rows = [
        {
            "results\n(banks x prompts)": f"{row.cells:,}",
            "questions\nin each": "-" if row.questions is None else f"{row.questions:,}",
            "attempts\nin all": "-" if row.attempts is None else f"{row.attempts:,}",
            "chance": "-" if row.power is None else f"{row.power:.3f}",
        }
        for row in found.rows
    ]
    console.say_table(rows, right=list(rows[0]))
    console.say()
    for bank in found.banks:
        console.remark(f"{bank.bank}: {bank.questions:,} questions, a chance of {bank.power:.3f} for one prompt.")
    console.remark(
        (
            "Passing needs every result, taken as independent. "
            if found.answer == "passed"
            else "For one result to fail at the strictest of Holm's steps. "
        )
        + "All answers scored, none unread; "
        + ("simulated by the gate's own rule." if repeated else "exact binomial sums of the gate's own rule.")
    )
