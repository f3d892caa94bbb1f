"""Two judges: a cheap one on everything, a strong one on a random part (``redinstruct judge --sample N``).

The part is drawn bank by bank and prompt by prompt, within each label of the run's first judge
(:func:`redinstruct.stats.draw_part`), by a seed that the run's secret fixes: the same command draws the same part, and
nobody can choose it. What comes of it is ``combined`` in the report: the first judge's rate, freed of its errors as the
strong judge sees them.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Iterable

from redinstruct.errors import ConfigError
from redinstruct.run import OwedAttempt, Store
from redinstruct.stats import draw_part
from redinstruct.types import JudgeCard, Measure


def drawn_keys(store: Store, measure: Measure, size: int) -> set[bytes]:
    """The attempts of the part: ``size`` of each bank and prompt, or all where there are not more."""
    first = store.judges()[0][0]
    secret = store.secret()
    cells: dict[tuple[str, str], list[tuple[bytes, bool]]] = defaultdict(list)
    for key, bank, prompt, label in store.labels(first):
        if label in (measure.first, measure.second):
            cells[bank, prompt].append((key, label == measure.first))
    drawn: set[bytes] = set()
    for (bank, prompt), labelled in cells.items():
        mark = hmac.digest(secret, f"sample\0{bank}\0{prompt}".encode("utf-8", "surrogatepass"), "sha256")
        part = draw_part([label for _, label in labelled], size, int.from_bytes(mark[:8]))
        drawn |= {labelled[index][0] for index in part}
    return drawn


def owed_part(
    store: Store, card: JudgeCard, judge_row: int, owed: Iterable[OwedAttempt], measure: Measure, size: int
) -> list[OwedAttempt]:
    """What of the part is still owed by the judge; notes in the store that it is a part.

    Raises:
        ConfigError: the run's first judge cannot be its own second opinion.
    """
    first, first_card = store.judges()[0]
    if first_card.id == card.id:
        raise ConfigError("--sample is for a second judge: this one has judged the whole run")
    drawn = drawn_keys(store, measure, size)
    store.add_sample(judge_row, first, size)
    return [attempt for attempt in owed if attempt.attempt.key in drawn]
