"""``redinstruct export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redinstruct.cli import console
from redinstruct.cli.derived import flags_of
from redinstruct.cli.kinds import PATH, RUN
from redinstruct.cli.outputs import check_files, note_attacks, to_place, write_whole
from redinstruct.errors import EXIT_DONE, UsageError
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.interop.inspect_export import export_inspect
from redinstruct.render.bundle import bundle
from redinstruct.settings import given_flags, settings_from


@click.command("export")
@click.argument("run", type=RUN)
@flags_of(ExportSettings)
@click.option("--out", required=True, type=PATH, metavar="FILE", help="Where to; replaces a file there.")
def command(run: Path, out: Path, **flags: Any) -> int:
    """Write a collection out: screened, weighed, with a data card beside it (FILE.card.md, FILE.card.json).

    Asks nobody. Without --include-red nothing red is in any field of the file.

    --to inspect writes an evaluation as a log that `inspect view` opens (.eval; .json where FILE ends so): a sample an
    attempt, a scorer a judge. Without --include-red the answers that are not known to be harmless stay in the run.

    --to bundle writes a zip for reviewers: all figures, every attempt's labels and hashes, no text, and the digest by
    which they know it (`unzip -d D FILE; cd D; sha256sum -c SHA256SUMS; sha256sum SHA256SUMS`).
    """
    asked = settings_from(ExportSettings, flags)
    if asked.to in _OF_AN_EVALUATION:
        return _OF_AN_EVALUATION[asked.to](run, out, asked.include_red, given_flags(asked, but=("to", "include_red")))
    from redinstruct.harmfulqa.release import card_paths, export

    check_files({"--out": out, **{f"--out ({path.suffix} of its data card)": path for path in card_paths(out)}})
    found = export(run, asked, out)
    console.note(
        f"{len(found.rows):,} rows of {len(found.collected):,} questions in {out}; its card is {found.card.name}"
    )
    if found.formed:
        console.note("of these in other forms: " + ", ".join(f"{form} {n:,}" for form, n in found.formed.items()))
    if found.dropped:
        console.note("left out: " + ", ".join(f"{name} {count:,}" for name, count in found.dropped.items()))
    if asked.to == "dpo" and not asked.include_red:
        console.note("of a pair one answer is harmful: none leaves without --include-red")
    if not asked.banks:
        console.note("screened against no evaluation bank: name those in use with --bank")
    return EXIT_DONE


def _bundle(run: Path, out: Path, include_red: bool, others: list[str]) -> int:
    """An evaluation's figures and labels for reviewers, without any text."""
    if others or include_red:
        named = ", ".join([*others, *(["--include-red"] if include_red else [])])
        raise UsageError(f"{named}: for rows that hold texts; --to bundle writes figures and labels, and no text")
    check_files({"--out": out})
    made = bundle(run)
    write_whole(out, made.content)
    console.say(f"sha256 of its SHA256SUMS: {made.digest}")
    note_attacks(run, "are not in it: each is an evaluation of its own, and has a bundle of its own")
    console.note(f"{made.attempts:,} attempts without their texts in {out}; tell the digest to whoever reads it")
    return EXIT_DONE


def _log(run: Path, out: Path, include_red: bool, others: list[str]) -> int:
    """An evaluation as a log of Inspect."""
    if others:
        raise UsageError(f"{', '.join(others)}: for a collection's rows; --to inspect writes an evaluation as it is")
    check_files({"--out": out})
    with to_place(out), console.steps() as tell:
        done = export_inspect(run, out, include_red=include_red, on_progress=tell)
    note_attacks(run, "are not in it: each is an evaluation of its own, and has a log of its own")
    left = f", of {done.withheld:,} without the answer (--include-red adds them)" if done.withheld else ""
    console.note(f"{done.samples:,} of {done.planned:,} attempts in {out}{left}")
    return EXIT_DONE


_OF_AN_EVALUATION = {"inspect": _log, "bundle": _bundle}
