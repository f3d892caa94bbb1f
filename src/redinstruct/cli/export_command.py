"""``redinstruct export``."""

from __future__ import annotations

from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.options import RUN
from redinstruct.cli.outputs import check_files
from redinstruct.errors import EXIT_DONE, UsageError


@click.command("export")
@click.argument("run", type=RUN)
@click.option(
    "--to",
    required=True,
    type=click.Choice(["harmfulqa", "messages", "kto", "dpo", "sharegpt"]),
    help="The public schema, or rows for training with a weight per turn.",
)
@click.option("--include-red", is_flag=True, help="Let red conversations and harmful answers leave the run.")
@click.option(
    "--bank",
    "banks",
    multiple=True,
    metavar="B",
    help="An evaluation bank, by file or known name: what overlaps with it is left out. Repeatable.",
)
@click.option(
    "--near",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Likeness (0 to 1) from which on two collected questions count as one; left out, the screens' own.",
)
@click.option(
    "--forms",
    metavar="F,...",
    help="The questions again in other forms of asking (--to messages): dialogue, steps, story, after-harmless,"
    " deep-prefix, harmless-twins.",
)
@click.option(
    "--general",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Ordinary conversations, for the forms that are made of them. Repeatable.",
)
@click.option("--licence", metavar="TEXT", help="The licence that the data card states; yours to choose.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where to; replaces a file there."
)
def command(
    run: Path,
    to: str,
    include_red: bool,
    banks: tuple[str, ...],
    near: float | None,
    forms: str | None,
    general: tuple[Path, ...],
    licence: str | None,
    out: Path,
) -> int:
    """Write a collection out: screened, weighed, with a data card beside it (FILE.card.md, FILE.card.json).

    Asks nobody. Without --include-red nothing red is in any field of the file.
    """
    import msgspec

    from redinstruct.banks import resolve_bank
    from redinstruct.harmfulqa import read_collection
    from redinstruct.harmfulqa.release import card_paths, prepare_release, write_release
    from redinstruct.harmfulqa.similarity import NEAR
    from redinstruct.prompts.forms import check_forms, made, read_general

    if out.exists() and not out.is_file():
        raise UsageError("--out: is no regular file, and the data card could not stand beside it")
    check_files({"--out": out, **{f"--out ({path.suffix} of its data card)": path for path in card_paths(out)}})
    wanted = [form.strip() for form in forms.split(",")] if forms else []
    if wanted and to != "messages":
        raise UsageError(f"--forms: are rows of messages, and --to {to} is not; use --to messages")
    check_forms(wanted, general=bool(general), red=include_red)
    ordinary = read_general(general)
    against = [resolve_bank(bank) for bank in banks]
    collection = read_collection(run)
    release = prepare_release(
        collection, to, banks=against, include_red=include_red, near=NEAR if near is None else near, licence=licence
    )
    extra = {form: made(release.rows, form, general=ordinary) for form in wanted}
    release = msgspec.structs.replace(release, rows=[*release.rows, *(row for rows in extra.values() for row in rows)])
    card, _ = write_release(release, to, out, include_red=include_red)
    console.note(
        f"{len(release.rows):,} rows of {len(release.collected):,} questions in {out}; its card is {card.name}"
    )
    if extra:
        console.note("of these in other forms: " + ", ".join(f"{form} {len(rows):,}" for form, rows in extra.items()))
    if release.dropped:
        console.note("left out: " + ", ".join(f"{name} {count:,}" for name, count in release.dropped.items()))
    if not banks:
        console.note("screened against no evaluation bank: name those in use with --bank")
    return EXIT_DONE
