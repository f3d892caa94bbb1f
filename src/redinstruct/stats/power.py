"""How many questions an evaluation needs, so that the gate can answer: power before anything is spent.

Promised: with one answer a question the exact binomial probability of the gate's own rule; with several a simulation of
it, with a fixed seed. Not promised: power where answers fail, or where the true rate is another than the one supposed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from redinstruct.stats.by_question import wilson_by_question
from redinstruct.stats.checks import checked_alpha, checked_rate
from redinstruct.stats.intervals import quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_QUESTIONS = 100_000
"""More than this is not planned for: the rate then lies too near the limit."""
DRAWS = 1000
"""Simulated runs behind the power with several answers a question: a standard error of at most .016."""
_SEED = 20263


class Need(NamedTuple):
    """So many questions in each of so many results; the chance that the gate answers as it should for all of them.

    ``questions`` is None where :data:`MOST_QUESTIONS` would not do.
    """

    cells: int
    questions: int | None
    power: float | None


def gate_power(
    questions: int,
    rate: float,
    limit: float,
    *,
    epochs: int = 1,
    correlation: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """The chance that a result of this true rate passes the limit, or fails where the rate is above it.

    Args:
        questions: how many there are, 1 or more; all answers scored.
        rate: the true rate, inside (0, 1).
        limit: the gate's, inside (0, 1).
        epochs: answers to each question.
        correlation: of two answers to one question, in [0, 1); of no account with one epoch.
        confidence: the gate's.

    Raises:
        ValueError: an argument is outside its range.

    Source: the binomial sum of the score test that Wilson's interval inverts; with epochs, questions' own rates are
    drawn from a beta distribution, and each run is held by :func:`redinstruct.stats.wilson_by_question`.
    """
    alpha = checked_alpha(confidence)
    checked_rate("rate", rate)
    checked_rate("limit", limit)
    if questions < 1 or epochs < 1 or not 0.0 <= correlation < 1.0:
        raise ValueError("power needs questions, epochs, and a correlation in [0, 1)")
    if epochs > 1:
        return _simulated(questions, rate, limit, epochs, correlation, confidence)
    import numpy as np

    return float(_chances(np.array([questions]), rate, limit, alpha)[0])


def questions_needed(
    rate: float,
    limit: float,
    *,
    cells: int = 1,
    power: float = 0.8,
    epochs: int = 1,
    correlation: float = 0.0,
    confidence: float = 0.95,
) -> Need:
    """The fewest questions from which on a run of ``cells`` results passes with this chance, all of the same rate.

    Passing needs every result, taken as independent of each other: results of the same questions pass together more
    often. Where the rate is above the limit: the fewest for one result to fail at Holm's strictest step.

    Raises:
        ValueError: an argument is outside its range, or the rate is the limit.
    """
    checked_rate("power", power)
    if rate == limit:
        raise ValueError("a rate at its limit neither passes nor fails for sure, whatever the number of questions")
    if cells < 1:
        raise ValueError("power needs a result")
    each = power ** (1 / cells) if rate < limit else power
    level = confidence if rate < limit else 1 - (1 - confidence) / cells
    single = _fewest(rate, limit, each, level)
    if single is None:
        return Need(cells, None, None)
    if epochs == 1:
        return Need(cells, single, _of_all(gate_power(single, rate, limit, confidence=level), cells, rate < limit))
    # Answers of one question are worth so many independent ones; the simulation says whether that was enough.
    found = max(2, math.ceil(single * (1 + (epochs - 1) * correlation) / epochs))
    while found <= MOST_QUESTIONS:
        told = gate_power(found, rate, limit, epochs=epochs, correlation=correlation, confidence=level)
        if told >= each:
            return Need(cells, found, _of_all(told, cells, rate < limit))
        found = max(found + 1, math.ceil(1.03 * found))
    return Need(cells, None, None)


def _of_all(chance: float, cells: int, passing: bool) -> float:
    return chance**cells if passing else chance


def _chances(n: Array, rate: float, limit: float, alpha: float) -> Array:
    """:func:`gate_power` of each number of questions, each asked once."""
    import numpy as np
    from scipy.special import bdtr, bdtrc

    reach = -quantile(alpha / 2) * np.sqrt(n * limit * (1 - limit))
    if rate < limit:
        most = np.floor(n * limit - reach + 1e-12)
        return np.where(most >= 0, bdtr(np.maximum(most, 0), n, rate), 0.0)
    least = np.floor(n * limit + reach) + 1
    return np.where(least <= n, bdtrc(np.minimum(least, n) - 1, n, rate), 0.0)


def _fewest(rate: float, limit: float, power: float, confidence: float) -> int | None:
    """Power rises in teeth: the first number of questions from which on it never falls below again."""
    import numpy as np

    n = np.arange(1, MOST_QUESTIONS + 1)
    chance = _chances(n, rate, limit, checked_alpha(confidence))
    enough = np.minimum.accumulate(chance[::-1])[::-1] >= power
    return int(n[enough.argmax()]) if enough.any() else None


def _simulated(questions: int, rate: float, limit: float, epochs: int, correlation: float, confidence: float) -> float:
    import numpy as np

    rng, answered = np.random.default_rng([_SEED, questions, epochs]), 0
    spread = (1 - correlation) / correlation if correlation > 0 else 0.0
    for _ in range(DRAWS):
        own = rng.beta(rate * spread, (1 - rate) * spread, questions) if spread else np.full(questions, rate)
        found = wilson_by_question(rng.binomial(epochs, own).tolist(), [epochs] * questions, confidence)
        answered += found.high <= limit if rate < limit else found.low > limit
    return answered / DRAWS
