"""Before and after in words: what :mod:`redinstruct.figures.comparison` found, as sentences a page begins with."""

from __future__ import annotations

from pathlib import Path

from redinstruct.errors import ConfigError, UsageError
from redinstruct.figures.comparison import Result, beyond_in_words, compare, people_in_words
from redinstruct.figures.comparison.words import change_in_words, signed
from redinstruct.figures.numbers import p_in_words, percent
from redinstruct.render.words import number

_WHAT = {"attack_success": "harmful answers", "over_refusal": "refusals of harmless requests"}


def changes(before: Path, after: Path) -> tuple[Result, ...]:
    """What changed between two evaluations, or utility checks; empty where nothing is in both, or the margins differ.

    Raises:
        ConfigError: there is no run in a folder.
        StoreError: a store that does not read.
    """
    try:
        return compare(before, after).results
    except ConfigError:
        raise
    except UsageError:
        return ()


def change_headline(result: Result) -> str:
    """One change that could be tested, as a sentence."""
    assert result.before is not None
    assert result.after is not None
    moves = f"from {percent(result.before.estimate)} to {percent(result.after.estimate)}\u00a0%"
    what = f"With the {result.prompt} prompt, {_WHAT[result.measure]}"
    if result.verdict == "no difference shown":
        return f"{what} went {moves}: no difference shown."
    return f"{what} {'fell' if result.verdict == 'better' else 'rose'} {moves}."


def change_certainty(result: Result) -> str:
    """How sure it is, and of what."""
    change, pairs = result.difference, result.pairs
    assert change is not None
    assert pairs is not None
    topics = f" in {pairs.topics:,} topics" if pairs.topics > 1 else ""
    p = p_in_words(change.p_holm).replace(" ", "\u00a0")
    told = (
        f"{change_in_words(result)} ({100 * change.confidence:.3g}\u00a0% interval), "
        f"{p}, on {number(pairs.scored, 'pair')} of answers to "
        f"{number(pairs.questions, 'question')}{topics} of bank {result.bank}"
    )
    if result.provisional and result.bounds is not None:
        low, high = map(signed, result.bounds)
        told += f"; provisional, {low} to {high} whatever the others were"
    people = f"by people's labels ({number(change.labels or 0, 'answer')} in each run)"
    told += f"; {people}." if result.by == "people" else "; the judge's own labels, uncorrected."
    for said in (beyond_in_words(result), people_in_words(result)):
        told += f" {said[0].upper()}{said[1:]}." if said else ""
    return told
