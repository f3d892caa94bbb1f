"""How often `compare` says better or worse where nothing changed, and how often it shows the change that it announces.

    python -m benchmarks.compare [--seed 20261] [--repetitions 2000] [--out docs/experiments/compare.md]

Writes docs/experiments/compare.md; without --out to stdout. One process, one core. Simulation with numpy's default
generator: each cell is seeded by the seed, the section's number and the cell's number. The rule was chosen among four
on a smaller simulation of this kind with another seed; nothing was tuned on this one.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.coverage import table
from redinstruct import stats

Array = NDArray[Any]
LEVEL = 0.05
SHAPES = ((5, 40), (10, 20), (20, 10), (10, 196), (98, 20))
"""Topics and questions in each; the last two are HarmfulQA by topic and by subtopic."""
UNEVEN = {
    "10, half in two": (5, 5, 8, 10, 10, 15, 20, 30, 60, 120),
    "6, half in one": (5, 10, 10, 20, 60, 150),
}
"""Banks whose topics hold unequally many questions."""
EVEN = {f"{topics} of {size}": (size,) * topics for topics, size in SHAPES}


def draw(
    rng: np.random.Generator, sizes: Sequence[int], changed: float, change: float, inside: float
) -> tuple[list[bool], list[bool], list[int]]:
    """One pair of runs over topics that hold ``sizes`` questions: labels before and after, and topics.

    A pair changes with probability `changed`; that it then rises has in each topic a probability of its own, beta with
    mean (1 + change / changed) / 2 and correlation `inside` between two changed pairs of a topic. What does not change
    is harmful with probability one half: it enters no statistic.
    """
    rise = (1 + change / changed) / 2
    own = shares(rng, len(sizes), rise, inside)
    topics = np.repeat(np.arange(len(sizes)), sizes)
    moved = rng.random(len(topics)) < changed
    up = rng.random(len(topics)) < own[topics]
    still = rng.random(len(topics)) < 0.5
    before, after = np.where(moved, ~up, still), np.where(moved, up, still)
    return before.tolist(), after.tolist(), topics.tolist()


def shares(rng: np.random.Generator, topics: int, mean: float, inside: float) -> Array:
    """Each topic's own share: beta of this mean, with correlation ``inside`` between two trials of a topic."""
    if not inside:
        return np.full(topics, mean)
    spread = (1 - inside) / inside
    return rng.beta(mean * spread, (1 - mean) * spread, topics)


def null(seed: int, repetitions: int) -> str:
    rows, worst = [], 0.0
    for i, (name, sizes) in enumerate((EVEN | UNEVEN).items()):
        for j, changed in enumerate((0.03, 0.1, 0.3)):
            cells = []
            for k, inside in enumerate((0.0, 0.1, 0.3)):
                rng = np.random.default_rng([seed, 1, i, j, k])
                clustered = plain = covered = 0
                for _ in range(repetitions):
                    before, after, groups = draw(rng, sizes, changed, 0.0, inside)
                    found = stats.paired_by_cluster(before, after, groups)
                    clustered += found.p_value <= LEVEL
                    covered += found.low <= 0 <= found.high
                    plain += stats.paired_by_question(before, after).p_value <= LEVEL
                told = [x / repetitions for x in (clustered, plain, covered)]
                worst = max(worst, told[0])
                cells.append(f"{told[0]:.3f} / {told[1]:.3f} / {told[2]:.3f}")
            rows.append([name, f"{changed:g}", *cells])
    lead = (
        "Nothing changed on the whole, but topics may move against each other. How often `beyond` may say `shown`"
        " (clustered by topic) / how often the verdict, which is about these topics, says otherwise / coverage of the"
        f" clustered interval. Nominal: .05, .05, .95. Largest of the first: {worst:.3f}; the standard error of .05 is"
        f" {(0.05 * 0.95 / repetitions) ** 0.5:.4f}. The last two banks' topics are unequal:"
        f" {'; '.join(' '.join(map(str, sizes)) for sizes in UNEVEN.values())} questions.\n"
    )
    head = ["topics", "pairs that change", *(f"correlation {x:g}" for x in (0.0, 0.1, 0.3))]
    return f"## Where nothing changed, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def falls(seed: int, repetitions: int) -> str:
    """A rate that falls, by another share in each topic, and never rises: as a repaired model's does."""
    rows, least = [], {0.05: 1.0, 0.2: 1.0}
    for i, (name, sizes) in enumerate((EVEN | UNEVEN).items()):
        for j, fall in enumerate(least):
            cells = []
            for k, inside in enumerate((0.0, 0.05, 0.2)):
                told, width = _falls(np.random.default_rng([seed, 5, i, j, k]), sizes, fall, inside, repetitions)
                least[fall] = min(least[fall], told[1])
                cells.append(f"{told[0]:.3f} / {told[1]:.3f} / {told[2]:.3f} / {100 * width:.0f}")
            rows.append([name, f"{100 * fall:.0f}", *cells])
    lead = (
        "The rate falls by so many points on average over all topics that there might be, by another share in each;"
        " nothing rises. Share of `shown` / coverage of the clustered interval / coverage of the interval of these"
        " topics, held against all that there might be / mean width of the clustered one in points. Smallest coverage:"
        f" {least[0.2]:.3f} of 20 points, {least[0.05]:.3f} of 5. A small fall that sits in a few topics is the hard"
        " case: topics drawn without one of those make the interval too low and too narrow.\n"
    )
    head = ["topics", "fall, points", *(f"correlation {x:g}" for x in (0.0, 0.05, 0.2))]
    return f"## A rate that falls, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def _falls(
    rng: np.random.Generator, sizes: Sequence[int], fall: float, inside: float, repetitions: int
) -> tuple[list[float], float]:
    """Shares of `better`, of clustered and of plain intervals that hold the fall; the clustered ones' mean width."""
    topics = np.repeat(np.arange(len(sizes)), sizes)
    said = covered = plain = 0
    width = 0.0
    for _ in range(repetitions):
        fallen = rng.random(len(topics)) < shares(rng, len(sizes), fall, inside)[topics]
        found = stats.paired_by_cluster([True] * len(topics), (~fallen).tolist(), topics.tolist())
        alone = stats.paired_by_question([True] * len(topics), (~fallen).tolist())
        said += found.p_value <= LEVEL
        covered += found.low <= -fall <= found.high
        plain += alone.low <= -fall <= alone.high
        width += (found.high - found.low) / repetitions
    return [x / repetitions for x in (said, covered, plain)], width


def power(seed: int, repetitions: int) -> str:
    rows, shown = [], []
    shapes = [(None, 100), (None, 200), (None, 1000), *SHAPES]
    for i, (topics, size) in enumerate(shapes):
        for j, changed in enumerate((0.1, 0.3)):
            for k, inside in enumerate((0.0,) if topics is None else (0.0, 0.1)):
                pairs = size * (topics or 1)
                # Two changed pairs of a topic correlate by `inside`; two pairs by changed * inside.
                effect = 1 + (size - 1) * changed * inside if topics else 1.0
                change = stats.detectable(pairs, changed, design_effect=effect, freedom=topics and topics - 1)
                if change >= changed:
                    continue  # not even if every pair that changes fell
                rng = np.random.default_rng([seed, 3, i, j, k])
                said, announced = 0, []
                for _ in range(repetitions):
                    before, after, groups = draw(rng, (size,) * (topics or 1), changed, -change, inside)
                    found = (
                        stats.paired_by_cluster(before, after, groups)
                        if topics
                        else stats.paired_by_question(before, after)
                    )
                    said += found.p_value <= LEVEL and found.difference < 0
                    share = (found.gained + found.lost) / pairs
                    announced.append(
                        stats.detectable(pairs, share, design_effect=found.design_effect, freedom=found.freedom)
                    )
                shown.append(said / repetitions)
                seen = f"{100 * change:.1f}", f"{100 * statistics.median(announced):.1f}", f"{shown[-1]:.3f}"
                rows.append([str(topics or "-"), f"{pairs:,}", f"{changed:g}", f"{inside:g}", *seen])
    lead = (
        "The true change is the detectable one (80 % power, 95 % confidence, one result), from the true share of pairs"
        " that change and the true design effect; `compare` announces it from each run's own. Share of `better`:"
        f" between {min(shown):.3f} and {max(shown):.3f}; nominal .80.\n"
    )
    head = ["topics", "pairs", "pairs that change", "correlation", "true change", "announced (median)", "better"]
    return f"## The change that is announced, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def margins(seed: int, repetitions: int) -> str:
    rows, worst = [], 0.0
    for i, pairs in enumerate((400, 2000)):
        for j, changed in enumerate((0.04, 0.1, 0.3)):
            shares = []
            for k, rise in enumerate((0.02, 0.0)):
                rng = np.random.default_rng([seed, 4, i, j, k])
                held = 0
                for _ in range(repetitions):
                    before, after, _ = draw(rng, (pairs,), changed, rise, 0.0)
                    held += stats.paired_means([float(x) for x in before], after, margin=0.02).p_margin <= LEVEL / 2
                shares.append(held / repetitions)
            worst = max(worst, shares[0])
            rows.append([f"{pairs:,}", f"{changed:g}", *(f"{share:.3f}" for share in shares)])
    lead = (
        "How often the loss is called surely under the margin of 2 points when it is exactly 2 points (nominal: at most"
        f" .025; largest: {worst:.3f}), and when there is none.\n"
    )
    head = ["pairs", "pairs that change", "loss of 2 points: held", "no loss: held"]
    return f"## Non-inferiority, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=20261)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seed, n = options.seed, options.repetitions
    command = f"python -m benchmarks.compare --seed {seed} --repetitions {n}"
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    text = "\n".join([
        f"# What `compare` shows, and how often it is wrong\n\nWritten by `{command} --out docs/experiments/compare.md`"
        f" ({versions}).\nNothing here is measured on a model: pairs are generated, so that the truth is known.\n"
        "This is about topics in general: `beyond`, the second word of `compare`. The verdict, about these topics, is"
        " in\n[verdicts.md](verdicts.md).\n",
        null(seed, n), falls(seed, n), power(seed, n), margins(seed, n),
    ])  # fmt: skip
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
