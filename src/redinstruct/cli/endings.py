"""How an invocation ended, in lines on standard error: what failed, in the endpoint's own words, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redinstruct.cli import console
from redinstruct.errors import EXIT_DONE

if TYPE_CHECKING:
    from redinstruct.harmfulqa import Collecting
    from redinstruct.redeval import Outcome
    from redinstruct.run import Failures

MOST_LINES = 12
"""Distinct failures that are listed; what is beyond is counted."""


def say_failures(failures: Failures) -> None:
    """Each distinct reason with its count and the endpoint's own words, in every bank and prompt, or step."""
    for failure in failures[:MOST_LINES]:
        console.note(f"{failure.where}: {failure}")
    if more := failures[MOST_LINES:]:
        console.note(f"and {sum(failure.count for failure in more):,} more, in {len(more):,} other ways")


def say_ending(outcome: Outcome | Collecting) -> int:
    """What of a run is missing, why, and how to go on; returns the exit code."""
    for line in outcome.notes:
        console.note(line)
    say_failures(outcome.failures)
    if outcome.stopped is not None:
        console.note(outcome.stopped)
    elif outcome.cut:
        console.note("cut by --max-calls or --budget: the same command with a larger limit goes on")
    elif outcome.exit_code != EXIT_DONE and not outcome.erring:
        console.note(
            "the other banks and prompts are recorded whole, and undecided: their rates lie too near the limit"
        )
    for line in outcome.erring:  # where too much failed for a figure to rest on
        console.note(f"{line}: the same command asks them again")
    return outcome.exit_code
