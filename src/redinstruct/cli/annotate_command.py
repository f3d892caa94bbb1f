"""``redinstruct annotate``."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from redinstruct.annotate.figures import summary
from redinstruct.annotate.session import Session
from redinstruct.cli import console
from redinstruct.cli.browser import port_option
from redinstruct.cli.kinds import RUN, Whole
from redinstruct.cli.labels_command import say_labels
from redinstruct.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError, from_extra
from redinstruct.figures.people import follow_people
from redinstruct.run import NAMED, Store, is_run, no_run

DRAWN = 100


@click.command("annotate")
@click.argument("run", type=RUN)
@port_option
@click.option(
    "--sample",
    type=Whole(1),
    default=DRAWN,
    show_default=True,
    metavar="N",
    help="Answers to label in all, dealt out over banks and prompts. A larger N adds to the draw.",
)
@click.option("--annotator", metavar="NAME", help="Who labels; left out, the name of the user's account.")
@click.option("--seed", type=Whole(0), metavar="S", help="Of the draw; left out, the run's own secret.")
@click.option("--judge", metavar="J", help="The judge whose verdicts are the strata; left out, the run's first.")
@click.option("--adjudicate", is_flag=True, help="Settle the answers on which people disagree.")
def command(
    run: Path, port: int, sample: int, annotator: str | None, seed: int | None, judge: str | None, adjudicate: bool
) -> int:
    """Label a random part of a run by hand, in the browser; the report then corrects the judge by it.

    The page is on this machine only, at the address that is printed. Every label is kept at once: end with Ctrl-C
    (exit 0 once nothing is left to label, else 130), and go on later by the same command. Asks no model.
    """
    if adjudicate and (sample != DRAWN or seed is not None):
        raise UsageError("--sample and --seed: only without --adjudicate, which draws nothing")
    if not is_run(run):
        raise no_run(run, NAMED["evaluation"])
    with from_extra("ui", "annotate"):
        from redinstruct.annotate.server import serve
    with Store.open_for_writing(run) as store:
        session = Session(store, annotator or _account(), judge=judge, sample=sample, seed=seed, adjudicate=adjudicate)
        _note_population(session)

        def ready(address: str) -> None:
            console.say(f"{session.owed():,} answers to label, as {session.annotator}. Open in a browser:")
            console.say(f"  {address}")
            console.say("Every label is kept at once. Ctrl-C ends.")

        serve(session, port, ready)
        follow_people(session.store)
        left = session.owed()
        say_labels(summary(store, session.judge, session.card))
        if left:
            console.note(f"{left:,} left; the same command goes on")
    return EXIT_INTERRUPTED if left else EXIT_DONE


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UsageError("--annotator: the account has no name; say who labels") from None


def _note_population(session: Session) -> None:
    """What stands between the labels and the run that they are to speak for."""
    if session.unjudged:
        console.note(
            f"{session.unjudged:,} attempts of this run have no verdict yet: what is drawn now can only stand for the "
            "others. Better finish the run first"
        )
    if session.drawn.grown:
        console.note(
            f"the run holds {session.drawn.grown:,} more judged answers than when the first were drawn: those first "
            "ones have had the better chance (docs/labelling.md)"
        )
