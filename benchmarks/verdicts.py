"""What the figures of a report cover where questions repeat, where people label some, and where topics differ.

    python -m benchmarks.verdicts [--seed 1701] [--repetitions 2000] [--labels FOLDER] [--out FILE.md]

Writes its part of docs/experiments/verdicts.md (between the marks of that file; without --out to stdout). --labels
holds clones of public label files (`benchmarks/public_labels.py` names repositories and commits). One process, one
core, a few minutes; cells are seeded by the seed, the section's number and the cell's number.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.coverage import table, verdict
from benchmarks.public_labels import SOURCES, Cell, cells
from redinstruct import stats
from redinstruct.figures.people import FEWEST_LABELS, enough_labels
from redinstruct.stats.correction import poststratified

Array = NDArray[Any]
Row = list[str]
START, END = "<!-- figures: benchmarks.verdicts -->", "<!-- end of figures: benchmarks.verdicts -->"
LEAST = 0.93
DESIGNS = ((20, 5), (50, 10), (200, 3), (200, 10))
ALIKE = (0.0, 0.1, 0.5, 0.999)
RATES = (0.01, 0.05, 0.2, 0.5)


def holds(found: stats.Interval, truth: float) -> bool:
    """Whether an interval holds a rate; a point that is the rate itself does."""
    return found.low - 1e-9 <= truth <= found.high + 1e-9


def shares(rng: np.random.Generator, rate: float, alike: float, questions: int) -> Array:
    """Each question's own rate: beta distributed, so that two tries at one question correlate by `alike`."""
    if alike == 0:
        return np.full(questions, rate)
    more = (1 - alike) / alike
    return rng.beta(rate * more, (1 - rate) * more, questions)


# ---- questions asked several times -----------------------------------------------------------------------------------


def epochs(seed: int, repetitions: int) -> str:
    """Every try at once against the interval by question: 64 cells, whole and with a fifth of the tries lost."""
    rows, least, lossy = [], [], []
    for cell, (design, alike) in enumerate(itertools.product(DESIGNS, ALIKE)):
        questions, tries = design
        row = [str(questions), str(tries), f"{alike:g}"]
        for rate in RATES:
            rng = np.random.default_rng([seed, 1, cell, round(1000 * rate)])
            held, naive, lost, width = 0, 0, 0, 0.0
            for number in range(repetitions):
                hits = rng.binomial(tries, shares(rng, rate, alike, questions))
                found = stats.wilson_by_question(hits.tolist(), [tries] * questions)
                held += holds(found, rate)
                width += found.high - found.low
                naive += holds(stats.wilson(int(hits.sum()), questions * tries), rate)
                if number % 4 == 0:
                    kept = rng.binomial(tries, 0.8, questions)
                    some = rng.hypergeometric(hits, tries - hits, kept)
                    lost += holds(stats.wilson_by_question(some.tolist(), kept.tolist()), rate)
            least.append(held / repetitions)
            lossy.append(lost / len(range(0, repetitions, 4)))
            row.append(f"{held / repetitions:.3f} ({naive / repetitions:.3f}) {width / repetitions:.3f}")
        rows.append(row)
    lead = (
        f"Asked: {LEAST} in each of 64 cells. Least: {min(least):.3f}, {verdict(min(least) >= LEAST)}. With a fifth of "
        f"the tries lost at random (every fourth repetition): least {min(lossy):.3f}, "
        f"{sum(value < LEAST for value in lossy)} cells below {LEAST}.\n\n"
        "Each cell: coverage of `wilson_by_question` (of Wilson's interval over all tries), mean width.\n"
    )
    head = ["questions", "tries", "correlation", *(f"p = {rate:g}" for rate in RATES)]
    return f"## Questions asked several times\n\n{lead}\n" + table(head, rows)


def tries_at_k(seed: int, repetitions: int) -> str:
    rows, least = [], []
    for cell, (design, alike) in enumerate(itertools.product(((50, 5), (200, 10)), (0.05, 0.3, 0.8))):
        questions, tries = design
        row = [str(questions), str(tries), f"{alike:g}"]
        for rate in (0.02, 0.2):
            rng = np.random.default_rng([seed, 2, cell, round(1000 * rate)])
            sure = shares(rng, rate, alike, 400_000)
            for k in (2, tries - 1, tries):
                truth = float((1 - (1 - sure) ** k).mean())
                held = 0
                for _ in range(repetitions):
                    hits = rng.binomial(tries, shares(rng, rate, alike, questions)).tolist()
                    held += holds(stats.at_k(hits, [tries] * questions, k), truth)
                least.append(held / repetitions)
                row.append(f"{held / repetitions:.3f}")
        rows.append(row)
    head = ["questions", "tries", "correlation"]
    head += [f"p = {rate:g}, k = {k}" for rate in (0.02, 0.2) for k in ("2", "tries - 1", "tries")]
    lead = f"`at_k`, the share of questions with a success in k tries. Least: {min(least):.3f}.\n"
    return f"## Success at k tries\n\n{lead}\n" + table(head, rows)


# ---- people's labels -------------------------------------------------------------------------------------------------


def repeated_corrections(seed: int, repetitions: int) -> str:
    """A judge whose errors are alike within a question; people label a part drawn by its labels."""
    rows, least, own = [], [], []
    for cell, (design, alike, rate) in enumerate(
        itertools.product(((40, 3, 60), (40, 10, 60), (200, 3, 150), (100, 10, 100)), (0.2, 0.5, 0.8), (0.05, 0.3))
    ):
        questions, tries, labels = design
        rng = np.random.default_rng([seed, 3, cell])
        asked = np.repeat(np.arange(questions), tries).tolist()
        held = np.zeros(3)
        for _ in range(repetitions):
            truth = (rng.random((questions, tries)) < shares(rng, rate, alike, questions)[:, None]).ravel()
            same = np.repeat(rng.random(questions) < 0.3, tries)
            luck = np.where(same, np.repeat(rng.random(questions), tries), rng.random(questions * tries))
            judge = [bool(value) for value in np.where(truth, luck < 0.85, luck < 0.15)]
            human = {i: bool(truth[i]) for i in stats.draw_part(judge, labels, int(rng.integers(1 << 30)))}
            held[0] += holds(stats.corrected(judge, human, questions=asked), rate)
            held[1] += holds(stats.corrected(judge, human), rate)
            held[2] += holds(stats.run_rate(stats.strata(judge, human, asked)), float(truth.mean()))
        by_question, naive, run = held / repetitions
        least.append(by_question)
        own.append(run)
        rows.append(
            [str(questions), str(tries), str(labels), f"{alike:g}", f"{rate:g}", f"{by_question:.3f}", f"{naive:.3f}",
             f"{run:.3f}"]
        )  # fmt: skip
    lead = (
        f"Judge: sensitivity and specificity .85, its errors alike within three questions of ten. Least of `corrected` "
        f"by question: {min(least):.3f} ({sum(value < LEAST for value in least)} of {len(least)} cells below {LEAST}); "
        f"of `run_rate`, of the run's own rate: {min(own):.3f}. {repetitions:,} repetitions: standard error "
        f"{(0.95 * 0.05 / repetitions) ** 0.5:.3f}.\n"
    )
    head = ["questions", "tries", "labels", "correlation", "p", "by question", "as if independent", "run's own"]
    return f"## Corrected rates where questions repeat\n\n{lead}\n" + table(head, rows)


def own_rates(seed: int, repetitions: int) -> str:
    """`run_rate` on generated runs: coverage of the run's own human rate, and its width beside `corrected`."""
    rows, least, narrow = [], [], []
    judges = ((0.99, 0.99), (0.95, 0.88), (0.87, 0.73), (0.92, 0.39))
    rates = (0.0, 0.005, 0.02, 0.1, 0.5, 0.98)
    for cell, (size, labels, judge) in enumerate(itertools.product((200, 500, 2000), (60, 150), judges)):
        row = [str(size), str(labels), f"{judge[0]:g} / {judge[1]:g}"]
        for rate in rates:
            rng = np.random.default_rng([seed, 4, cell, round(1000 * rate)])
            held, ratio = 0, 0.0
            for _ in range(repetitions):
                truth = rng.binomial(size, rate)
                caught, alarms = rng.binomial(truth, judge[0]), rng.binomial(size - truth, 1 - judge[1])
                found, plain = drawn(rng, Cell("", size, caught + alarms, caught, truth - caught), labels)
                held += holds(found, truth / size)
                ratio += (found.high - found.low) / (plain[1] - plain[0])
            least.append(held / repetitions)
            narrow.append(ratio / repetitions)
            row.append(f"{held / repetitions:.3f} x {ratio / repetitions:.2f}")
        rows.append(row)
    lead = (
        f"{len(least)} cells, each: coverage of the run's own human rate, and width against `corrected`'s. Least: "
        f"{min(least):.3f}, {verdict(min(least) >= LEAST)}; width {min(narrow):.2f} to {max(narrow):.2f}.\n"
    )
    head = ["answers", "labels", "judge", *(f"p = {rate:g}" for rate in rates)]
    return f"## The run's own rate\n\n{lead}\n" + table(head, rows)


def drawn(rng: np.random.Generator, cell: Cell, labels: int) -> tuple[stats.Interval, tuple[float, float]]:
    """One draw of labels as `annotate` makes it: the run's own interval, and the ends of `corrected`."""
    sizes = (cell.flagged, cell.size - cell.flagged)
    first = allocated(sizes, labels)
    counts = []
    for size, positive, number in zip(sizes, (cell.right, cell.missed), first, strict=True):
        hits = int(rng.hypergeometric(positive, size - positive, number)) if number else 0
        counts.append((size, hits, number))
    (flagged, x1, n1), (_, x2, n2) = counts
    one = [np.array([value]) for value in (flagged, cell.size, x1, n1, x2, n2)]
    _, low, high = poststratified(*one, alpha=0.05)
    return stats.run_rate([part for part in counts if part[0]]), (float(low[0]), float(high[0]))


@functools.cache
def allocated(sizes: tuple[int, int], labels: int) -> tuple[int, int]:
    """How many labels each of the judge's two labels gets: what `stats.draw_part` does, counted on it."""
    judge = [True] * sizes[0] + [False] * sizes[1]
    chosen = stats.draw_part(judge, labels, 0)
    first = sum(index < sizes[0] for index in chosen)
    return first, len(chosen) - first


def real_labels(seed: int, repetitions: int, folder: Path | None) -> str:
    """Both figures on published labels: coverage of what people found on all answers of a cell."""
    title = "## Published labels\n\n"
    found = [] if folder is None else list(cells(folder))
    if not found:
        return title + "Not run: no clones were given (--labels).\n"
    rows, least, own, ratios, raw = [], [], [], [], 0
    for number, cell in enumerate(found):
        rng = np.random.default_rng([seed, 5, number])
        row = [cell.name, f"{cell.size:,}", f"{100 * cell.rate:.1f}", f"{100 * cell.judged:.1f}"]
        raw += stats.wilson(cell.flagged, cell.size).low <= cell.rate <= stats.wilson(cell.flagged, cell.size).high
        for labels in (30, 60, 100):
            sizes = (cell.flagged, cell.size - cell.flagged)
            parts = zip(sizes, allocated(sizes, labels), strict=True)
            if not enough_labels([stats.Part(size, 0, drawn) for size, drawn in parts if size]):
                row.append("no estimate")
                continue
            held, run, widths = 0, 0, []
            for _ in range(repetitions):
                one, (low, high) = drawn(rng, cell, labels)
                held += low - 1e-9 <= cell.rate <= high + 1e-9
                run += holds(one, cell.rate)
                widths.append((one.high - one.low) / (high - low))
            least.append(held / repetitions)
            own.append(run / repetitions)
            ratio = statistics.median(widths)
            if labels == 60:
                ratios.append(ratio)
            row.append(f"{held / repetitions:.3f} / {run / repetitions:.3f} x {ratio:.2f}")
        rows.append(row)
    sources = ", ".join(f"{name} @ {commit}" for name, commit in SOURCES.values())
    lead = (
        f"{len(found)} cells of {sources}; labels only, nothing of them is shipped. Each: coverage of `corrected` / of "
        f"`run_rate`, median width of the second against the first; with fewer than {FEWEST_LABELS} labels of a part "
        "that is not labelled whole no figure is printed, and none is counted here. Least of `corrected`: "
        f"{min(least):.3f}, {verdict(min(least) >= LEAST)}; of `run_rate`: {min(own):.3f}, "
        f"{verdict(min(own) >= LEAST)}. Width at 60 labels: median over cells {statistics.median(ratios):.2f}, "
        f"{sum(ratio > 0.85 for ratio in ratios)} of {len(ratios)} cells above .85 (largest {max(ratios):.2f}). The "
        f"judge's plain interval holds people's rate in {raw} of {len(found)}. {repetitions:,} draws: standard error "
        f"{(0.95 * 0.05 / repetitions) ** 0.5:.3f}.\n"
    )
    head = ["cell", "answers", "people, %", "judge, %", "30 labels", "60 labels", "100 labels"]
    return title + lead + "\n" + table(head, rows)


# ---- topics ----------------------------------------------------------------------------------------------------------


def topics(seed: int, repetitions: int) -> str:
    """How often equal topics are called unlike, and what the interval for topics in general covers where it is told."""
    rows = []
    for cell, (groups, size) in enumerate(((5, 40), (10, 20), (10, 196), (20, 20), (20, 100), (50, 20), (98, 20))):
        row = [str(groups), str(size)]
        for alike in (0.0, 0.05, 0.2):
            for rate in (0.01, 0.05, 0.3):
                rng = np.random.default_rng([seed, 6, cell, round(1000 * rate), round(1000 * alike)])
                unlike = told = held = wrong = 0
                for _ in range(repetitions):
                    hits = rng.binomial(size, shares(rng, rate, alike, groups))
                    unlike += stats.design_effect(hits.tolist(), [size] * groups) > stats.unlike_from(groups)
                    within = holds(stats.clustered(hits.tolist(), [size] * groups), rate)
                    enough = min(int((hits > 0).sum()), int((hits < size).sum())) >= 10
                    held += within
                    told += enough
                    wrong += enough and not within
                row.append(
                    f"{unlike / repetitions:.3f}"
                    if alike == 0
                    else f"{held / repetitions:.3f}, {1 - wrong / repetitions:.3f}"
                )
        rows.append(row)
    head = ["topics", "questions each"]
    head += [f"equal, p = {rate:g}" for rate in (0.01, 0.05, 0.3)]
    head += [f"rho {alike:g}, p = {rate:g}" for alike in (0.05, 0.2) for rate in (0.01, 0.05, 0.3)]
    lead = (
        "`equal`: how often topics of one rate are called unlike (nominal .05). `rho`: coverage of `clustered` for "
        "topics in general, and the share of runs in which no wrong interval is printed: it is printed only where ten "
        "topics hold a hit and ten a miss, else the range of the topics is.\n"
    )
    return f"## Topics\n\n{lead}\n" + table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1701)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seed, repetitions = options.seed, options.repetitions
    few = max(1, repetitions // 4)
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    command = f"python -m benchmarks.verdicts --seed {seed} --repetitions {repetitions} --labels FOLDER"
    parts = [
        f"Written by `{command} --out docs/experiments/verdicts.md` ({versions}). Coverage is at a nominal .95; "
        f"{repetitions:,} repetitions a cell of the first section, {few:,} elsewhere unless a section says so.\n",
        epochs(seed, repetitions),
        tries_at_k(seed, few),
        repeated_corrections(seed, few),
        own_rates(seed, few),
        real_labels(seed, max(1, repetitions // 2), options.labels),
        topics(seed, few),
    ]
    text = "\n".join(parts)
    if options.out is None:
        print(text)
        return
    page = options.out.read_text(encoding="utf-8")
    before, rest = page.split(START)
    options.out.write_text(f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
