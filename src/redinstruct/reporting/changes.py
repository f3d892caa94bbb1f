"""Before and after in words: what :func:`redinstruct.comparison.compare` found, as sentences a page begins with."""

from __future__ import annotations

from pathlib import Path

from redinstruct.comparison import Result, clusters_in_words, compare
from redinstruct.errors import ConfigError, UsageError
from redinstruct.reporting.tables import percent
from redinstruct.reporting.words import number

_WHAT = {"attack_success": "harmful answers", "over_refusal": "refusals of harmless requests"}


def changes(before: Path, after: Path) -> tuple[Result, ...]:
    """What changed between two evaluations, the worst rate before first; empty where no bank is in both.

    Raises:
        ConfigError: there is no run in a folder.
        StoreError: a store that does not read.
    """
    try:
        results = compare(before, after).results
    except ConfigError:
        raise
    except UsageError:
        return ()
    return tuple(sorted(results, key=lambda r: 1.0 if r.before is None else -r.before.figure))


def change_headline(result: Result) -> str:
    """One change that could be tested, as a sentence."""
    assert result.before is not None
    assert result.after is not None
    moves = f"from {percent(result.before.figure)} to {percent(result.after.figure)}\u00a0%"
    what = f"With the {result.prompt} prompt, {_WHAT[result.measure]}"
    if result.verdict == "no difference shown":
        return f"{what} went {moves}: no difference shown."
    return f"{what} {'fell' if result.verdict == 'better' else 'rose'} {moves}."


def change_certainty(result: Result) -> str:
    """How sure it is, and of what."""
    change, pairs, corrected = result.difference, result.pairs, result.corrected_difference
    assert change is not None
    assert pairs is not None
    low, high = points(change.low), points(change.high)
    told = (
        f"{points(change.estimate)} points, 95\u00a0% interval {low} to {high}, p{equals(change.p_holm)}, on "
        f"{number(pairs.scored, 'pair')} of answers to {number(pairs.questions, 'question')} of bank {result.bank}"
    )
    if result.provisional and result.bounds is not None:
        told += f"; provisional, {points(result.bounds[0])} to {points(result.bounds[1])} whatever the others were"
    if corrected is None:
        told += "; the judge's own labels, uncorrected."
    else:
        ends = f"{points(corrected.low)} to {points(corrected.high)}"
        told += f"; corrected by people's labels {points(corrected.estimate)} points ({ends})."
    clusters = clusters_in_words(result)
    return f"{told} The interval is that wide because {clusters}." if clusters else told


def points(difference: float) -> str:
    """A difference of two rates in percentage points, with its sign."""
    rounded = f"{100 * difference:+.1f}"
    return "0.0" if rounded in ("+0.0", "-0.0") else rounded.replace("-", "\u2212")


def p_words(p: float) -> str:
    """A p-value as it is printed."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def equals(p: float) -> str:
    """The same after a letter p."""
    return "\u00a0" + ("" if p < 0.001 else "=\u00a0") + p_words(p).replace(" ", "\u00a0")
