"""``redinstruct stress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of, settings_from
from redinstruct.cli.kinds import MOST, RUN
from redinstruct.cli.options import as_json, bank_columns, how_to_ask, seal_option
from redinstruct.redeval import EvalSettings, RejudgeSettings

if TYPE_CHECKING:
    from redinstruct.figures.stressed import StressFigures
    from redinstruct.stressing import StressOptions

_FILE = click.Path(path_type=Path)


class Numbers(click.ParamType["tuple[int, ...]"]):
    """Whole numbers with commas between them."""

    name = "N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Fails for what is no list of whole numbers."""
        if isinstance(value, tuple):  # the default
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{str(value)[:40]!r}: expected whole numbers with commas between them, as in 1,5,20", param, ctx)


_NUMBERS = Numbers()


@click.command("stress")
@click.option("--model", required=True, metavar="hf/CKPT", help="The checkpoint's folder on this machine.")
@click.option("--bank", required=True, metavar="B", help="Harmful questions: a file, or a known bank's name.")
@flags_of(RejudgeSettings, without=("sample", "again"))
@click.option(
    "--run", required=True, type=RUN, metavar="DIR", help="The run's folder; made, or resumed if it is this run's."
)
@click.option(
    "--benign", metavar="BANK", help="Harmless questions, asked of each attacked model, and in the same frame."
)
@click.option("--benign-judge", metavar="J", help="Who tells their refusals; left out, J, or `refusal` where J cannot.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="P", help="What all is asked under; left out: standard. Repeatable."
)
@click.option(
    "--prefill",
    type=_NUMBERS,
    default=(),
    metavar="N,...",
    help="Begin each answer by so many tokens of a harmful one.",
)
@click.option(
    "--prefill-from",
    type=_FILE,
    metavar="RUN|FILE",
    help="Whose harmful answers: another run's, or red rows; left out, this run's own, else stock words.",
)
@click.option(
    "--samples", type=_NUMBERS, default=(), metavar="K,...", help="Ask each question K times; one success is enough."
)
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    metavar="T",
    help="That of --samples; all else is greedy.",
)
@click.option(
    "--tune", type=_NUMBERS, default=(), metavar="STEPS,...", help="Fine-tune on harmless rows for so many steps first."
)
@click.option("--tune-data", type=_FILE, metavar="FILE", help="The rows; left out, a few harmless ones of our own.")
@click.option(
    "--tune-lr", "tune_rate", type=float, metavar="X", help="Learning rate; left out, 2e-5 (the toy model: 5e-4)."
)
@click.option("--tune-batch", type=click.IntRange(1, MOST), metavar="N", help="Rows a step; left out, 16.")
@click.option(
    "--quantize", type=_NUMBERS, default=(), metavar="BITS,...", help="Round the weights to 4 bits (or 2 to 8)."
)
@click.option(
    "--ranks", type=_NUMBERS, default=(), metavar="K,...", help="Begin by each of the K likeliest first tokens."
)
@click.option(
    "--ablate", type=_NUMBERS, default=(), metavar="PERCENT,...", help="Take the refusal direction of that depth out."
)
@click.option(
    "--limit", type=click.IntRange(1, MOST), metavar="N", help="N questions of each bank, spread over its topics."
)
@click.option(
    "--max-tokens", type=click.IntRange(1, MOST), default=500, show_default=True, metavar="N", help="Tokens per answer."
)
@click.option(
    "--seed", type=click.IntRange(0, MOST), default=0, show_default=True, metavar="S", help="Of sampling and tuning."
)
@click.option(
    "--chat-template", type=click.Choice(["native", "none"]), default="native", show_default=True, help="As for eval."
)
@bank_columns
@seal_option
@flags_of(EvalSettings, only=("dtype",))
@how_to_ask()
@as_json
def command(run: Path, as_json: bool, **flags: Any) -> int:
    """How long does a repair last? Attack a checkpoint in ways that anybody who holds its weights can.

    The undisturbed model comes first, and each attack is set beside it, question by question: begun answers
    (--prefill), many tries (--samples), other first tokens (--ranks), a few steps of harmless fine-tuning (--tune),
    weights rounded to few bits (--quantize), the refusal direction taken out (--ablate). With --benign, each has the
    share of harmless questions beside it that the attacked model still answers, plainly and in the attack's own frame.
    Changed weights are never kept. The folder is a run of the undisturbed model, which every verb reads; `report` reads
    the attacks' with it.

    Exit codes: 0 all recorded; 2 bad input; 11 cut, or too many errors; 130 interrupted (the same command goes on).
    """
    from redinstruct.cli.endings import say_ending
    from redinstruct.cli.prepared import limits_from, stop_signals
    from redinstruct.errors import UsageError, how_to_install
    from redinstruct.figures.report import document
    from redinstruct.run.encryption import check_sealing

    check_sealing()
    try:
        from redinstruct.stressing import stress
    except ImportError as error:
        raise UsageError(f"stress needs the [train] extra ({error.name}): {how_to_install('train')}") from None
    asked, limits = _asked(**flags), limits_from(flags)
    with stop_signals(), console.steps() as tell:
        found = stress(asked, run, limits, tell)
    if as_json:
        console.say_json(document(found.figures))
    else:
        say_stress(found.figures)
    if len(asked.conditions) == 1:
        console.note("no attack was named: --prefill, --samples, --ranks, --tune, --quantize, --ablate")
    for outcome in found.outcomes:
        say_ending(outcome)
    return found.exit_code


def _asked(**flags: Any) -> StressOptions:
    """The flags as the verb's one value."""
    from redinstruct.stressing import StressOptions

    own = {name: value for name, value in flags.items() if name in StressOptions.__struct_fields__}
    own["prompts"] = flags["prompts"] or ("standard",)
    return StressOptions(**own | {"judge_options": settings_from(RejudgeSettings, flags).judge_how})


def say_stress(found: StressFigures) -> None:
    """The table of a stress run."""
    from redinstruct.render.stressed import ABOUT, stress_notes, stress_table

    rows, numbers = stress_table(found)
    console.say_heading(f"{found.model}, {found.bank}", ABOUT)
    console.say_table(rows, right=numbers, indent=2)
    for line in stress_notes(found):
        console.note(line)
