"""``redinstruct plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import Grouped, flags_of
from redinstruct.cli.label_plan import LabelPlanSettings, plan_labels
from redinstruct.cli.options import as_json, how_to_ask, money, on_engine, seal_option, stop_when_decided
from redinstruct.cli.power_plan import PowerPlanSettings, plan_power
from redinstruct.cli.prepared import limits_from
from redinstruct.cli.run_folder import run_option
from redinstruct.errors import UsageError
from redinstruct.redeval import EvalSettings, prepare
from redinstruct.redeval.spending import forecast
from redinstruct.settings import Flags, check_said, settings_from


@click.command("plan", cls=Grouped)
@flags_of(EvalSettings, required=False)
@run_option("Count only what is still owed in this run.")
@stop_when_decided
@how_to_ask()
@on_engine
@money()
@seal_option
@flags_of(LabelPlanSettings)
@flags_of(PowerPlanSettings)
@as_json
def command(run: Path | None, as_json: bool, **flags: Any) -> int:
    """What the same `eval` would ask and cost. Asks nothing, writes nothing.

    Tokens are estimated at four bytes each, answers at their longest; the endpoint's own count decides what is paid.

    With --labels, for a run (--run) or assumed numbers (--attempts, --flagged): how wide the corrected interval will
    be with so many labels by people. Model, bank and judge are then not needed.

    With --rate and --limit-rate: how many questions `gate` needs to pass a model of that rate (or to fail it, where it
    lies above the limit), for one result and for several. Nothing else is needed; --bank tells what a bank can show.
    """
    of_labels, of_power = settings_from(LabelPlanSettings, flags), settings_from(PowerPlanSettings, flags)
    of_rate = of_power.rate is not None or of_power.limit_rate is not None
    if of_rate and (of_labels.labels or run is not None):
        raise UsageError("--rate: plans a run that is not there, and no labels; leave --labels and --run out")
    check_said(of_labels)
    check_said(of_power)
    if of_labels.labels:
        return plan_labels(run, flags["judge"], of_labels, as_json=as_json)
    if of_rate:
        return plan_power(flags, as_json=as_json)
    for name, flag in (("model", "--model"), ("banks", "--bank"), ("judge", "--judge")):
        if not flags[name]:
            raise click.MissingParameter(param_hint=f"'{flag}'", param_type="option")
    return _plan_eval(run, flags, as_json=as_json)


def _plan_eval(run: Path | None, flags: Flags, *, as_json: bool) -> int:
    limits = limits_from(flags)
    plan = prepare(settings_from(EvalSettings, flags), limits.timeout)
    cast = forecast(plan, limits, run)
    if as_json:
        console.say_json(cast.document())
        return 0
    rows = [
        {
            "bank": row.bank,
            "prompt": row.prompt,
            "attempts": f"{row.attempts:,}",
            "recorded": f"{row.recorded:,}",
            "calls": f"{row.calls:,}",
            "tokens\nread ~": f"{row.tokens_in:,}",
            "tokens\nwritten <=": f"{row.tokens_out:,}",
            "cost <=": "" if row.cost is None else _dollars(row.cost),
        }
        for row in (*cast.rows, cast.total)
    ]
    dropped = [name for name, empty in (("recorded", "0"), ("cost <=", "")) if all(r[name] == empty for r in rows)]
    rows = console.without(rows, *dropped)
    judge = f"judge {cast.judge.rpartition('@')[0]}"
    console.say_section(f"plan for {plan.config.model}", judge, rows=rows, left=("bank", "prompt"))
    console.remark(
        "Calls: target and judge together, each tried up to 6 times when it fails. Tokens at 4 bytes each, answers at "
        + (
            "--max-tokens. Prices as given."
            if limits.prices
            else "--max-tokens. No prices given: --price-in, --price-out."
        )
    )
    for line in plan.left_out():
        console.remark(f"{line}.")
    if limits.budget is not None and cast.total.cost is not None and cast.total.cost > limits.budget:
        console.remark(f"The budget of ${limits.budget:,.2f} may end the run before it is complete.")
    if limits.stop_when_decided is not None:
        console.remark("--stop-when-decided may end the run earlier: these are the most.")
    return 0


def _dollars(cost: float) -> str:
    return "< $0.01" if 0 < cost < 0.01 else f"${cost:,.2f}"
