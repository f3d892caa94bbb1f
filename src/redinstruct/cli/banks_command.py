"""``redinstruct banks``."""

from __future__ import annotations

import click
import msgspec

from redinstruct.cli import console
from redinstruct.cli.options import as_json, bank_columns
from redinstruct.errors import BankError, UsageError, did_you_mean


@click.group("banks", invoke_without_command=True)
@as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """List the known question banks and the authors' templates, or fetch one.

    Banks are known by reference (an address and a sha256), never by their text. Any file of the user's own is a bank
    as well: a JSON list, {topic: {subtopic: [question]}}, CSV or JSONL.
    """
    if context.invoked_subcommand is not None:
        return 0
    from redinstruct.banks import GATED, KNOWN, cached_path

    rows = []
    for known in KNOWN.values():
        try:
            state = "fetched" if cached_path(known) is not None else "not fetched"
        except BankError:
            state = "damaged: fetch again"
        rows.append((known, state))
    if as_json:
        console.say_json(
            {
                "banks": [
                    {"name": k.name, "kind": k.kind, "questions": k.questions, "licence": k.licence, "source": k.source,
                     "url": k.url, "sha256": k.sha256, "state": state}
                    for k, state in rows
                ]
            }
        )  # fmt: skip
        return 0
    for kind in ("bank", "template"):
        of = [(known, state) for known, state in rows if known.kind == kind]
        table = [
            {kind: k.name}
            | ({} if k.questions is None else {"questions": f"{k.questions:,}"})
            | {"licence": k.licence, "state": state}
            for k, state in of
        ]
        whole = [row | {"what": known.description} for row, (known, _) in zip(table, of, strict=True)]
        fits = console.table_width(whole) <= console.width() != console.PIPE_WIDTH
        console.say_table(whole if fits else table, right=("questions",))
        console.say()
        for known, _ in () if fits else of:
            console.remark(f"{known.name}: {known.description}")
        if not fits:
            console.say()
    console.say_folded(f"Behind a form: {', '.join(GATED)}.")
    console.say("Fetch one:  redinstruct banks fetch NAME (or how)")
    console.say("Ask it:     redinstruct eval --bank NAME ...")
    return 0


@command.command("fetch")
@click.argument("name")
@click.option(
    "--url", metavar="URL", help="Fetch from this address (a mirror) instead; the pinned sha256 must hold all the same."
)
def fetch_command(name: str, url: str | None) -> int:
    """Fetch a known bank or template and check its pinned sha256."""
    from redinstruct.banks import GATED, KNOWN, fetch

    if name in GATED:
        raise BankError(GATED[name].how)
    if name not in KNOWN:
        raise UsageError(f"unknown bank {name!r}: known are {', '.join(KNOWN)}{did_you_mean(name, KNOWN)}")
    known = KNOWN[name]
    path = fetch(known, url=url)
    console.say(f"{known.name}: sha256 as pinned, in {path}")
    return 0


@command.command("show")
@click.argument("bank")
@bank_columns
@as_json
def show_command(bank: str, columns: dict[str, str], as_json: bool) -> int:
    """How a bank is read: a file or a known name. Shows counts and names of topics, no question."""
    from redinstruct.banks import resolve_bank
    from redinstruct.questions import described

    found = described(resolve_bank(bank, columns))
    if as_json:
        console.say_json(msgspec.to_builtins(found))
        return 0
    counts = {
        "questions": found.questions,
        "unsafe: asked for attack success": found.unsafe,
        "safe: asked for over-refusal": found.safe,
        "of which it does not say, in a bank that does: never asked": found.untold,
        "conversations": found.conversations,
        "repeats: left out by --dedupe": found.repeats,
        "topics": len(found.topics),
    }
    rows = [{"what": what, "how many": f"{count:,}"} for what, count in counts.items() if count]
    console.say_section(f"bank {found.name}", f"sha256 {found.sha256[:12]}", rows=rows, right=("how many",))
    console.say_table(
        [{"topic": name, "questions": f"{n:,}"} for name, n in found.topics], right=("questions",), indent=2
    )
    if not (found.safe or found.unsafe):
        console.say_folded("No column tells safe questions from unsafe ones: all are asked for either measure.")
    return 0
