"""How a figure is written, on every surface."""

from __future__ import annotations

from typing import Protocol


class Figure(Protocol):
    """A rate with its interval, all proportions."""

    @property
    def estimate(self) -> float | None:
        """None where nothing was counted; the interval is then [0, 1]."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def percent(value: float | None) -> str:
    """A proportion as a percentage with one decimal; ``-`` where it is undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def p_value(p: float) -> str:
    """A p-value by itself: two digits, the smallest ones as a bound."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def p_in_words(p: float) -> str:
    """``p = 0.031``; the smallest ones as a bound."""
    return f"p {p_value(p)}" if p < 0.0001 else f"p = {p_value(p)}"


def with_interval(figure: Figure | None, width: int = 0) -> str:
    """``61.2 [58.0, 64.3]``, in per cent, each end so wide; ``-`` where there is none."""
    if figure is None or figure.estimate is None:
        return "-"
    return f"{percent(figure.estimate)} [{percent(figure.low):>{width}}, {percent(figure.high):>{width}}]"


def in_column(figure: Figure | None) -> str:
    """The same of equal width, so that the figures of a terminal's column stand under each other."""
    return with_interval(figure, 4)
