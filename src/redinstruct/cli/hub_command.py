"""``redinstruct hub``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from redinstruct.cli import console
from redinstruct.cli.kinds import PATH
from redinstruct.cli.options import as_json
from redinstruct.errors import EXIT_DONE, from_extra

if TYPE_CHECKING:
    from redinstruct.publishing import RepositoryKind


@click.group("hub")
def command() -> None:
    """Push data and checkpoints to the Hugging Face hub, with their cards; pull them, pinned to a commit.

    The hub is the one that HF_ENDPOINT names, the token that of HF_TOKEN or `hf auth login`.
    """


@command.command("push")
@click.argument("source", type=PATH, metavar="SOURCE")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Everybody may read it; without this the repository is private.")
@click.option("--include-red", is_flag=True, help="Let a file leave that holds red conversations.")
@as_json
def push_command(source: Path, repository: str, public: bool, include_red: bool, as_json: bool) -> int:
    """Send a checkpoint's folder, or a file that `export` wrote, as one commit, with its card as README.md.

    The repository is made where there is none, private unless --public; a public one is not written to without the
    flag. A file goes with its data card, and only if it is the file of that card; one that holds red conversations
    goes with --include-red alone. Weights in pickle files never go.
    """
    from redinstruct.publishing import pack
    from redinstruct.publishing import repository as named

    to = named(repository)
    parcel = pack(source, include_red=include_red)
    with from_extra("hub", "hub push"):
        from redinstruct.publishing.client import push

    sent = push(parcel, to, public=public)
    if as_json:
        console.say_json(
            {"repository": sent.repository.name, "revision": sent.repository.revision, "kind": parcel.kind,
             "private": sent.private, "files": sorted(parcel.files)}
        )  # fmt: skip
    else:
        console.say(f"{sent.repository} ({'private' if sent.private else 'public'})")
    if parcel.left:
        console.note(f"left here: {', '.join(parcel.left)}")
    return EXIT_DONE


@command.command("pull")
@click.argument("repository", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "--kind", type=click.Choice(["model", "dataset"]), default="model", show_default=True, help="What is pulled."
)
@click.option("--file", "files", multiple=True, metavar="NAME", help="This file (or pattern) alone. Repeatable.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Where to; made.")
@as_json
def pull_command(repository: str, kind: RepositoryKind, files: tuple[str, ...], out: Path, as_json: bool) -> int:
    """Fetch a repository at one commit into a folder, whole or not at all; tells the commit, to be written down.

    Of a model weights (safetensors), configuration, tokenizer and template come, of a dataset its tables; code and
    pickle files never. A gated repository is told in one line, with what to do.
    """
    from redinstruct.publishing import repository as named

    source = named(repository)
    with from_extra("hub", "hub pull"):
        from redinstruct.publishing.client import pull

    with console.steps() as tell:
        done = pull(source, out, kind=kind, only=files, on_progress=tell)
    if as_json:
        console.say_json(
            {"repository": done.repository.name, "revision": done.repository.revision, "kind": kind,
             "files": sorted(done.files)}
        )  # fmt: skip
    else:
        console.say(f"{done.repository} is in {out}")
    if not source.pinned:
        console.note(f"pinned: the same bytes again by {done.repository}")
    if done.left:
        more = ", ..." if len(done.left) > 5 else ""
        console.note(f"left there: {', '.join(done.left[:5])}{more}")
    return EXIT_DONE
