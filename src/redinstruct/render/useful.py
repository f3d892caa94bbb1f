"""Utility checks in a report: their figures beside the rates, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Sequence

from redinstruct.figures.scores import MeasuredScore, UtilityResult


def value_words(measured: MeasuredScore) -> str:
    """A benchmark's figure in per cent where it is a share, else as it is."""
    if measured.mean is None:
        return "not defined"
    low, high = measured.interval.low, measured.interval.high
    if all(0 <= value <= 1 for value in measured.values):
        return f"{100 * measured.mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{measured.mean:.4g} [{low:.4g}, {high:.4g}]"


def margin_in_words(checks: Sequence[UtilityResult]) -> str:
    """Which loss counts as none, and since when."""
    return f"a loss under {100 * checks[-1].margin:g} points counts as none, fixed before the checks began"


def score_cells(measured: MeasuredScore) -> dict[str, str]:
    """A benchmark's metric, its figure, and of how many items."""
    undefined = f" ({measured.undefined:,} not defined)" if measured.undefined else ""
    return {
        "of": measured.metric + ("" if measured.higher_is_better else " (lower is better)"),
        "value [95 % CI]": value_words(measured),
        "items": f"{measured.n:,}{undefined}",
    }


def utility_rows(checks: Sequence[UtilityResult]) -> list[dict[str, str]]:
    """A line per benchmark and check, as every surface shows them; the same benchmark stands together."""
    return [
        {"benchmark": measured.task, "model": check.model, **score_cells(measured)}
        for name in dict.fromkeys(measured.task for check in checks for measured in check.headline)
        for check in checks
        for measured in check.headline
        if measured.task == name
    ]
