"""How a figure is written, on every surface."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """A proportion as a percentage with one decimal; ``-`` where it is undefined."""
    return "-" if value is None else f"{100 * value:.1f}"
