"""A judge's rate corrected by how it did elsewhere: ``report --calibration FILE``, where nobody labelled this run.

The file holds a judge's counts on items of known truth from outside the run, as a JSON object::

    {"judge": "rubric", "true_positives": 88, "positives": 100, "true_negatives": 190, "negatives": 200}

Weaker than labels of the run itself: it holds only if the judge errs here as often as it did there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import UsageError
from redinstruct.figures.numbers import percent
from redinstruct.figures.report import ResultFigures
from redinstruct.files.opening import NOT_JSON
from redinstruct.safetext import terminal
from redinstruct.stats import Calibration, Interval, WeakJudge, rogan_gladen

_MOST_BYTES = 1 << 16
"""A file of five counts is shorter; what is longer is cut, and is then no JSON."""


class CalibrationCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a judge did on items of known truth; ``judge`` is its name, or the beginning of its id."""

    judge: str
    true_positives: int
    positives: int
    true_negatives: int
    negatives: int

    @property
    def counts(self) -> Calibration:
        """The counts alone."""
        return Calibration(self.true_positives, self.positives, self.true_negatives, self.negatives)


def read_calibration(file: Path) -> CalibrationCounts:
    """Read the counts.

    Raises:
        UsageError: the file does not read, is not such an object, or the judge is too weak to be corrected.
    """
    try:
        with file.open("rb") as held:
            found = msgspec.json.decode(held.read(_MOST_BYTES), type=CalibrationCounts)
    except OSError as error:
        raise UsageError(f"--calibration {file.name}: cannot be read ({error.strerror})") from None
    except NOT_JSON as error:
        raise UsageError(
            f"--calibration {file.name}: {terminal(str(error))}; it must be an object with judge, true_positives, "
            "positives, true_negatives and negatives"
        ) from None
    try:
        rogan_gladen(0, 1, found.counts)
    except ValueError as error:
        what = " (labels of this very run need no such judge)" if isinstance(error, WeakJudge) else ""
        raise UsageError(f"--calibration {file.name}: {error}{what}") from None
    return found


def calibrate(results: Sequence[ResultFigures], outside: CalibrationCounts) -> list[ResultFigures]:
    """The results with ``rate.calibrated``: of that judge an interval, of every other None.

    A question that was asked several times counts once: nothing is known of how alike its errors are.

    Raises:
        UsageError: no result has that judge.
    """
    if not any(_is_of(result, outside.judge) for result in results):
        raise UsageError(f"--calibration: no result of judge {terminal(outside.judge)}")
    replace = msgspec.structs.replace
    return [replace(result, rate=replace(result.rate, calibrated=_calibrated(result, outside))) for result in results]


def _calibrated(result: ResultFigures, outside: CalibrationCounts) -> Interval | None:
    if not _is_of(result, outside.judge):
        return None
    judged = result.counts.judged
    total = -(-judged // result.epochs)
    return rogan_gladen(round(result.counts.first * total / judged) if judged else 0, total, outside.counts)


def _is_of(result: ResultFigures, judge: str) -> bool:
    if not judge or result.judge is None:  # people's own labels have no judge's errors
        return False
    return result.judge == judge or result.judge_id.startswith(judge)


def calibrated_in_words(result: ResultFigures, outside: CalibrationCounts) -> str:
    """One sentence; empty where the result is not of that judge, or nothing was judged."""
    found = result.rate.calibrated
    if not found or found.estimate is None:
        return ""
    return (
        f"{result.bank}/{result.prompt}, corrected from outside: {percent(found.estimate)} % [{percent(found.low)}, "
        f"{percent(found.high)}], if the judge errs here as often as there (it found {outside.true_positives:,} of "
        f"{outside.positives:,} positive and {outside.true_negatives:,} of {outside.negatives:,} negative items; "
        "rogan-gladen)."
    )
