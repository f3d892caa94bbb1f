"""What every statistic asks of its input. Wrong input raises ValueError, never a plausible figure."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence, Sized
from typing import SupportsIndex


def checked_counts(successes: SupportsIndex, total: SupportsIndex) -> tuple[int, int]:
    """Both counts as plain integers (bool and numpy integers are integers; 3.0 is not).

    Raises:
        ValueError: a count is negative or no integer, or successes exceed the total.
    """
    x, n = checked_count("successes", successes), checked_count("total", total)
    if x > n:
        raise ValueError(f"successes must not exceed total, not {x} of {n}")
    return x, n


def checked_count(name: str, value: SupportsIndex) -> int:
    """One count as a plain integer.

    Raises:
        ValueError: it is negative or no integer.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, not {type(value).__name__}") from None
    if count < 0:
        raise ValueError(f"{name} must not be negative, not {count}")
    return count


def checked_alpha(confidence: float) -> float:
    """``1 - confidence``.

    Raises:
        ValueError: the confidence is not inside (0, 1), or is not a number (NaN).
    """
    # NaN fails every comparison, so this way round it is refused as well.
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, both excluded, not {confidence!r}")
    return 1.0 - float(confidence)


def checked_rate(name: str, value: float) -> float:
    """A rate that may stand in a denominator: inside (0, 1).

    Raises:
        ValueError: it is 0, 1, outside, or not a number (NaN).
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, both excluded, not {value!r}")
    return float(value)


def check_as_many(words: str, one: Sized, other: Sized) -> None:
    """Raise ``ValueError`` where two columns that belong together are not equally long."""
    if len(one) != len(other):
        raise ValueError(f"{words}, not {len(one)} and {len(other)}")


def checked_labels(name: str, labels: Sequence[bool]) -> list[bool]:
    """The labels as plain booleans. numpy's booleans and the integers 0 and 1 are labels too; a string never is.

    Raises:
        ValueError: an element is neither true nor false; it is named by its index, not shown.
    """
    plain = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    # One pass without a function call per element: a run may hold 100,000 of them.
    if all(label is True or label is False for label in plain):
        return plain
    return [_checked_label(name, index, label) for index, label in enumerate(plain)]


def checked_human(human: Mapping[int, bool], total: int) -> dict[int, bool]:
    """The human labels by the index of their attempt.

    Raises:
        ValueError: it is no mapping, an index is no integer or outside [0, total), or a label is neither true nor
            false.
    """
    if not isinstance(human, Mapping):
        raise ValueError(f"human must be a mapping from index to label, not {type(human).__name__}")
    checked: dict[int, bool] = {}
    for key, label in human.items():
        index = checked_count("an index in human", key)
        if index >= total:
            raise ValueError(f"an index in human must be below the number of attempts, {total}, not {index}")
        checked[index] = _checked_label("human", index, label)
    return checked


def _checked_label(name: str, index: int, label: object) -> bool:
    plain = label.item() if hasattr(label, "item") else label
    # type() and not isinstance(): 1.0 equals True but is a score, not a label.
    if type(plain) not in (bool, int) or plain not in (0, 1):
        raise ValueError(f"{name}[{index}] must be true or false, not of type {type(label).__name__}")
    return bool(plain)
