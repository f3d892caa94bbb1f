"""One result of a comparison in sentences that need no statistics to read. Pure functions of the result."""

from __future__ import annotations

import math

from redinstruct.comparison.values import Result

_LITTLE = 1.2
"""A design effect up to which not unlike topics, but their small number widens an interval."""
_PARTS = {"topic": "questions", "question": "samples"}
"""What a cluster holds."""


def why_in_words(result: Result) -> str:
    """One sentence: the change, its interval, the p-value, and what could have been seen."""
    change = result.difference
    assert change is not None
    moved, p = change_in_words(result), _p_in_words(change.p_holm)
    if result.verdict != "no difference shown":
        return f"{moved}, {p}"
    seen = detectable_in_words(result)
    return f"{moved}, {p}; " + (
        f"{seen} would show in four of five cases" if seen else "so few pairs could not show any difference"
    )


def change_in_words(result: Result) -> str:
    """``+1.2 points [-0.3, +2.7]``; scores that are no shares as they are."""
    change = result.difference
    assert change is not None
    if result.points:
        return f"{_signed(change.estimate)} points [{_signed(change.low)}, {_signed(change.high)}]"
    return f"{change.estimate:+.4g} [{change.low:+.4g}, {change.high:+.4g}]"


def clusters_in_words(result: Result) -> str:
    """Why clusters changed the verdict, what it would be without them, and what would narrow the interval; else empty.

    Sentences without the last full stop.
    """
    change, pairs = result.difference, result.pairs
    if change is None or pairs is None or change.unclustered is None or change.unclustered.verdict == result.verdict:
        return ""
    alone, by = change.unclustered, change.clustered_by
    lie = f"the {pairs.scored:,} pairs lie in {change.clusters:,} {by}s"
    unlike = change.design_effect > _LITTLE
    more = f"More {by}s would narrow the interval"
    if change.freedom is None:
        lie = f"the {pairs.scored:,} pairs lie in one {by}, which says nothing of others"
    else:
        lie += (
            f", which {'changed unlike each other' if unlike else 'are few'}: they weigh as much as "
            f"{pairs.scored / change.design_effect:,.0f} independent ones (design effect {change.design_effect:.1f}), "
            f"with {change.freedom:.1f} degrees of freedom"
        )
        more += f", more {_PARTS.get(by or '', 'pairs')} of the same ones hardly" if unlike else " most"
    return (
        f"{lie}. Of these very {by}s, taken as independent pairs, it would be {alone.verdict}: "
        f"[{_signed(alone.low)}, {_signed(alone.high)}] points, {_p_in_words(alone.p_holm)}. {more}"
    )


def _p_in_words(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def _signed(share: float) -> str:
    """A difference in points with its sign; what rounds to nothing has none of its own."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def detectable_in_words(result: Result) -> str:
    """``8.5 points``; empty where nothing could be shown."""
    seen = result.detectable
    if seen is None or seen >= (1 if result.points else math.inf):
        return ""
    return f"{100 * seen:.1f} points" if result.points else f"{seen:.3g}"


def people_in_words(result: Result) -> str:
    """What people's labels of both runs make of the difference; empty without them."""
    found = result.corrected_difference
    if found is None:
        return ""
    line = (
        f"corrected by people's labels in both runs: {100 * found.estimate:+.1f} points "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    )
    if result.verdict in ("better", "worse") and found.low <= 0 <= found.high:
        line += "; the labels by themselves do not show the difference that the judge shows"
    return line
