"""One attempt's answers from several stores, as one sequence in which nothing stands twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T", bound=Hashable)
# The unique index gives them in this order.
_COMPLETIONS = (
    "SELECT attempt, asked, outcome, reason, note, raw, judged, finish_reason, tokens_in, tokens_out, truncated, flags,"
    " tries, seconds, thought FROM completions ORDER BY attempt, asked"
)
_VERDICTS = (
    "SELECT attempt, asked, judge, judged_no, label, detail, reason, raw, tokens_in, tokens_out, tries, score,"
    " probability, note FROM verdicts ORDER BY attempt, asked, judge, judged_no"
)


class AnswerRows(NamedTuple):
    """One answer as its columns (from ``outcome`` on), with its verdicts (from ``judge`` and ``judged_no`` on)."""

    asked: int
    values: tuple[Any, ...]
    verdicts: list[tuple[Any, ...]]


def answers_in(db: sqlite3.Connection, judges: Mapping[int, int]) -> Iterator[tuple[int, list[AnswerRows]]]:
    """Attempt's row -> its answers, in the order of the rows; a judge's row becomes what ``judges`` says."""
    said = _by_attempt(db, _VERDICTS)
    ahead = next(said, None)
    for attempt, rows in _by_attempt(db, _COMPLETIONS):
        answers = [AnswerRows(asked, tuple(values), []) for _, asked, *values in rows]
        if ahead is not None and ahead[0] == attempt:
            at = {answer.asked: answer for answer in answers}
            for _, asked, judge, *verdict in ahead[1]:
                at[asked].verdicts.append((judges[judge], *verdict))
            ahead = next(said, None)
        yield attempt, answers


def _by_attempt(db: sqlite3.Connection, select: str) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    for attempt, rows in groupby(db.execute(select), key=itemgetter(0)):
        yield attempt, list(rows)


def joined(parts: Sequence[Sequence[AnswerRows]]) -> tuple[list[AnswerRows], list[list[int]]]:
    """The answers of several stores to one attempt, and of each store the numbers that its answers have now.

    The last one counts: one that is no error, where there is one, of the first store that has it.
    """
    order, places = _lined_up([[a.values for a in part] for part in parts], lambda values: values[0] == "error")
    numbers = [[places[key] for key in keys] for keys in order]
    found = sorted(places.items(), key=itemgetter(1))
    verdicts: list[list[list[tuple[Any, ...]]]] = [[] for _ in found]
    for part, keys in zip(parts, numbers, strict=True):
        for answer, number in zip(part, keys, strict=True):
            verdicts[number].append(answer.verdicts)
    return [AnswerRows(number, key[0], _verdicts(verdicts[number])) for number, (key, _) in enumerate(found)], numbers


def _verdicts(parts: Sequence[Sequence[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    if len(parts) == 1:
        return list(parts[0])
    found = []
    for judge in sorted({verdict[0] for part in parts for verdict in part}):
        given = [[v[2:] for v in part if v[0] == judge] for part in parts]
        _, places = _lined_up(given, lambda values: values[0] == "error")
        found += [(judge, number, *key[0]) for key, number in places.items()]
    return sorted(found, key=itemgetter(0, 1))


_Key = tuple[_T, int]
"""An item, and how many equal ones stand before it in its own store."""


def _lined_up(
    parts: Sequence[Sequence[_T]], is_error: Callable[[_T], bool]
) -> tuple[list[list[_Key[_T]]], dict[_Key[_T], int]]:
    """Of each part its items as keys, and each key's place: errors first, then the parts from the last to the first."""
    keyed = []
    for part in parts:
        seen: Counter[_T] = Counter()
        keys = []
        for item in part:
            keys.append((item, seen[item]))
            seen[item] += 1
        keyed.append(keys)
    every = list(dict.fromkeys(key for keys in reversed(keyed) for key in keys))
    if len(every) > max(map(len, keyed)):  # otherwise one is a copy of the other
        every.sort(key=lambda key: not is_error(key[0]))
    return keyed, {key: place for place, key in enumerate(every)}
