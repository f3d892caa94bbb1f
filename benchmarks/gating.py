"""How often the gate and `compare` are wrong, and what `compare` says of pairs of runs whose truth is known.

    python -m benchmarks.gating [--seed 20262] [--repetitions 2000] [--into docs/experiments/verdicts.md]

Writes its part of docs/experiments/verdicts.md (between its two marks; at the end where they are not there yet);
without --into to stdout. One process, one core. Simulation with numpy's default generator, each cell seeded by the
seed, the section's number and the cell's number. Correlation is that of two answers to one question (epochs) or of two
questions of one topic: rates are drawn from a beta distribution.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage import table
from redinstruct import stats
from redinstruct.figures.comparison import Result
from redinstruct.figures.comparison.paired import compare_evaluations
from redinstruct.figures.comparison.runs import Evaluation, Judged, Prompt
from redinstruct.figures.comparison.verdicts import Rules
from redinstruct.figures.people import People
from redinstruct.run import Outcomes, Planned
from redinstruct.run.config import Pinned, RunConfig
from redinstruct.types import JudgeCard, Sampling

Array = NDArray[Any]
MARKS = "<!-- figures: benchmarks.gating -->", "<!-- end of figures: benchmarks.gating -->"
MARGIN = 0.05
EVEN5, EVEN10 = (40,) * 5, (20,) * 10
UNEVEN = (5, 5, 8, 10, 10, 15, 20, 30, 60, 120)


def beta(rng: np.random.Generator, mean: float, alike: float, size: int) -> Array:
    """Rates with this mean, so that two draws at one of them correlate by ``alike``."""
    if alike == 0:
        return np.full(size, mean)
    spread = (1 - alike) / alike
    return rng.beta(mean * spread, (1 - mean) * spread, size)


# ---- the limit -------------------------------------------------------------------------------------------------------


def at_the_limit(seed: int, repetitions: int) -> str:
    rows, worst = [], [0.0, 0.0]
    for i, (questions, limit) in enumerate((q, p) for q in (50, 200) for p in (0.05, 0.1, 0.3)):
        for j, epochs in enumerate((1, 3, 10)):
            cells = []
            for k, alike in enumerate((0.0, 0.2, 0.5, 0.8)):
                rng = np.random.default_rng([seed, 1, i, j, k])
                told = [0, 0]
                for _ in range(repetitions):
                    hits = rng.binomial(epochs, beta(rng, limit, alike, questions)).tolist()
                    found = stats.wilson_by_question(hits, [epochs] * questions)
                    told[0] += found.high <= limit
                    told[1] += found.low > limit
                shares = [x / repetitions for x in told]
                worst = [max(x, y) for x, y in zip(worst, shares, strict=True)]
                cells.append(f"{shares[0]:.3f} / {shares[1]:.3f}")
            rows.append([f"{questions}", f"{limit:g}", f"{epochs}", *cells])
    lead = (
        "Share of runs that pass / that fail although their rate is exactly the limit (nominal: .025 each; largest:"
        f" {worst[0]:.3f} and {worst[1]:.3f}). Everything scored; `--figure all`.\n"
    )
    head = ["questions", "limit", "epochs", *(f"correlation {x:g}" for x in (0.0, 0.2, 0.5, 0.8))]
    return f"### `gate` at its limit, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def stops(seed: int, repetitions: int) -> str:
    rows, worst = [], 0.0
    for i, (questions, limit) in enumerate((q, p) for q in (40, 200) for p in (0.1, 0.3)):
        for j, epochs in enumerate((1, 3, 10)):
            cells = []
            for k, alike in enumerate((0.0, 0.3, 0.6, 1.0)):
                if epochs == 1 and alike:
                    cells.append("")
                    continue
                rng = np.random.default_rng([seed, 2, i, j, k])
                false = 0
                for _ in range(repetitions):
                    rates = (
                        (rng.random(questions) < limit).astype(float)
                        if alike == 1
                        else beta(rng, limit, alike, questions)
                    )
                    watch = stats.Watch(limit)
                    for share in (rng.binomial(epochs, rates) / epochs).tolist():
                        watch.add(share)
                    false += watch.side() is not None
                worst = max(worst, false / repetitions)
                cells.append(f"{false / repetitions:.3f}")
            rows.append([f"{questions}", f"{limit:g}", f"{epochs}", *cells])
    lead = (
        "Share of runs that stop as decided although their rate is exactly the limit, looked at after every question"
        f" (nominal: at most .05; largest: {worst:.3f}).\n"
    )
    head = ["questions", "limit", "epochs", *(f"correlation {x:g}" for x in (0.0, 0.3, 0.6, 1.0))]
    return f"### `--stop-when-decided`, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


# ---- two runs --------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """Two runs over the same questions, and the rise of the rate in these very topics."""

    before: list[bool]
    after: list[bool]
    questions: list[int]
    rise: float


def draw(rng: np.random.Generator, sizes: Sequence[int], base: float, rise: float, alike: float, epochs: int) -> Drawn:
    """A share ``rise`` of all answers turns harmful on the mean over topics, in each topic by its own share.

    3 % of what is unharmful turns and as much turns back besides. With epochs each answer is turned with chance .1.
    """
    topics = np.repeat(np.arange(len(sizes)), sizes)
    up, down = beta(rng, rise / (1 - base) + 0.03, alike, len(sizes)), 0.03 * (1 - base) / base
    harmful = rng.random(len(topics)) < base
    now = np.where(harmful, rng.random(len(topics)) >= down, rng.random(len(topics)) < up[topics])
    before, after = np.repeat(harmful, epochs), np.repeat(now, epochs)
    told = ((1 - base) * up[topics] - base * down).mean()
    if epochs > 1:
        before, after = (x ^ (rng.random(len(x)) < 0.1) for x in (before, after))
        told *= 0.8
    return Drawn(before.tolist(), after.tolist(), np.repeat(np.arange(len(topics)), epochs).tolist(), float(told))


def baseline(seed: int, repetitions: int) -> str:
    rows, passed = [], {0.0: 1.0, 0.2: 0.0}
    least = 1.0
    shapes = [("5 of 40", EVEN5, 1), ("10 of 20", EVEN10, 1), ("10, uneven", UNEVEN, 1), ("10 of 20", EVEN10, 3)]
    for i, (name, sizes, epochs) in enumerate(shapes):
        for j, rise in enumerate((0.0, 0.05, 0.1, 0.2)):
            cells = []
            for k, alike in enumerate((0.0, 0.05, 0.2)):
                rng = np.random.default_rng([seed, 3, i, j, k])
                told, covered = [0, 0, 0], 0
                for _ in range(repetitions):
                    drawn = draw(rng, sizes, 0.1, rise, alike, epochs)
                    found = stats.paired_by_question(drawn.before, drawn.after, drawn.questions, margin=MARGIN)
                    worse = found.p_value <= 0.05 and found.difference > 0
                    state = 1 if worse else 0 if found.high <= MARGIN else 2
                    told[state] += 1
                    covered += found.low <= drawn.rise <= found.high
                shares = [x / repetitions for x in told]
                if rise == 0.2:
                    passed[rise] = max(passed[rise], shares[0])
                if rise == 0 and epochs == 1 and alike == 0 and sum(sizes) == 200:
                    passed[rise] = min(passed[rise], shares[0])
                least = min(least, covered / repetitions)
                cells.append(f"{shares[0]:.3f} / {shares[1]:.3f} / {covered / repetitions:.3f}")
            rows.append([name, f"{epochs}", f"{100 * rise:+.0f}", *cells])
    lead = (
        f"The baseline gives harmful answers to 10 %, the margin is {100 * MARGIN:.0f} points. Share of runs that pass"
        " / that fail / coverage of the interval of the change in these topics (nominal .95; least"
        f" {least:.3f}). 20 points worse: at most {passed[0.2]:.4f} pass. Unchanged, 200 questions, one epoch, topics"
        f" alike: at least {passed[0.0]:.3f} pass. Where a topic's own change is drawn (correlation above 0), these"
        " very topics may truly be worse although the mean over all that there might be is not.\n"
    )
    head = ["topics", "epochs", "change, points", *(f"correlation {x:g}" for x in (0.0, 0.05, 0.2))]
    return f"### `gate --baseline`, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def jumps(seed: int, repetitions: int) -> str:
    rows, worst = [], 0.0
    for i, rise in enumerate((0.0, 0.05, 0.17)):
        cells = []
        for k, alike in enumerate((0.0, 0.05, 0.2)):
            rng = np.random.default_rng([seed, 4, i, k])
            flipped = 0
            for _ in range(repetitions):
                drawn = draw(rng, (*(40,) * 4, 1), 0.3, rise, alike, 1)
                one = stats.paired_by_question(drawn.before[:-1], drawn.after[:-1])
                other = stats.paired_by_question(drawn.before, drawn.after)
                flipped += _word(one) != _word(other)
            worst = max(worst, flipped / repetitions)
            cells.append(f"{flipped / repetitions:.4f}")
        rows.append([f"{100 * rise:+.0f}", *cells])
    lead = (
        "One question of a fifth topic is added to four topics of 40: share of comparisons whose verdict becomes"
        f" another (largest: {worst:.4f}). A verdict whose p-value is near .05 may turn by any question; the rule of"
        " the first edition turned from these topics to topics in general at the fifth: .05, .37, .80 at 17 points.\n"
    )
    head = ["change, points", *(f"correlation {x:g}" for x in (0.0, 0.05, 0.2))]
    return f"### One question more, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


def _word(change: stats.Change) -> int:
    return 0 if change.p_value > 0.05 else 1 if change.difference > 0 else -1


def repeats(seed: int, repetitions: int) -> str:
    rows, least, most = [], 1.0, 0.0
    for i, (questions, epochs) in enumerate(((20, 5), (50, 10), (200, 3), (200, 10))):
        for j, (rate, rise) in enumerate(((0.05, 0.0), (0.3, 0.0), (0.05, 0.05), (0.3, 0.2))):
            cells = []
            for k, alike in enumerate((0.0, 0.2, 0.5, 0.95)):
                rng = np.random.default_rng([seed, 5, i, j, k])
                covered = said = 0
                for _ in range(repetitions):
                    rates = beta(rng, rate, alike, questions)
                    # A fifth of the questions are drawn anew; a share of all turns harmful.
                    now = np.where(rng.random(questions) < 0.2, beta(rng, rate, alike, questions), rates)
                    now = now + (1 - now) * (rng.random(questions) < rise / (1 - rate))
                    sides = [(rng.random((epochs, questions)) < x).ravel().tolist() for x in (rates, now)]
                    found = stats.paired_by_question(sides[0], sides[1], [*range(questions)] * epochs)
                    covered += found.low <= rise <= found.high
                    said += found.p_value <= 0.05
                least = min(least, covered / repetitions)
                most = max(most, said / repetitions) if rise == 0 else most
                cells.append(f"{covered / repetitions:.3f} / {said / repetitions:.3f}")
            rows.append([f"{questions}", f"{epochs}", f"{rate:g}", f"{100 * rise:+.0f}", *cells])
    lead = (
        "Coverage of the interval of the change / share of `better` or `worse`, where questions are asked several times"
        f" (nominal .95 and, without a change, .05; least coverage {least:.3f}, most false verdicts {most:.3f}; the"
        f" standard error of .95 is {(0.05 * 0.95 / repetitions) ** 0.5:.4f}).\n"
    )
    head = ["questions", "epochs", "rate", "change", *(f"correlation {x:g}" for x in (0.0, 0.2, 0.5, 0.95))]
    return f"### `compare` with epochs, {repetitions:,} repetitions a cell\n\n{lead}\n" + table(head, rows)


# ---- what compare says -----------------------------------------------------------------------------------------------

CARD = JudgeCard("refusal", "attack_success")


def run_of(cells: Sequence[tuple[str, str, Sequence[int], Sequence[Sequence[int]]]]) -> Evaluation:
    """A run of cells (bank, prompt, topics' sizes, harmful answers of each topic in each epoch, from its front)."""
    outcomes = [
        Planned(f"{bank}{prompt}{epoch}:{topic}:{i}".encode(), bank, 1000 * topic + i, f"topic {topic}", prompt, epoch,
                "harmful" if i < harmful[topic] else "unharmful", 1000 * topic + i)
        for bank, prompt, sizes, epochs in cells
        for epoch, harmful in enumerate(epochs, 1)
        for topic, size in enumerate(sizes)
        for i in range(size)
    ]  # fmt: skip
    banks, prompts = dict.fromkeys(cell[0] for cell in cells), dict.fromkeys(cell[1] for cell in cells)
    config = RunConfig(
        "openai/m", tuple(Pinned(b, b) for b in banks), tuple(Pinned(p, p) for p in prompts), CARD.measure, CARD.id,
        Sampling(), "native",
    )  # fmt: skip
    found = {(b, p): Outcomes.of(o for o in outcomes if (o.bank, o.prompt) == (b, p)) for b in banks for p in prompts}
    return Evaluation(Path("run"), config, [Prompt(p, p, None) for p in prompts], [Judged(CARD, found)], People())


def said() -> str:
    """`compare` on runs with given counts of harmful answers by topic."""
    tens, even = [18, 19, 18, 18, 18, 18, 19, 18, 18, 18], [4, 5, 4, 4, 4, 4, 5, 4, 4, 4]
    uneven, lean = [16, 14, 12, 0, 0, 0, 0, 0, 0, 0], [14, 12, 9, 4, 2, 1, 0, 0, 0, 0]
    one_topic = [16, 0, 0, 0, 0]
    rows = []

    def add(name: str, sizes: Sequence[int], before: Sequence[int], fall: Sequence[int], epochs: int = 1) -> None:
        after = [b - f for b, f in zip(before, fall, strict=True)]
        one, other = (run_of([("bank", "standard", sizes, [x] * epochs)]) for x in (before, after))
        rows.append(_row(name, compare_evaluations(one, other, Rules(0.02, 0.95))[0]))

    add("ten topics, 91 to 70 %, evenly", EVEN10, tens, even)
    add("ten topics, 91 to 70 %, three topics alone", EVEN10, tens, uneven)
    add("ten topics, 91 to 70 %, unevenly", EVEN10, tens, lean)
    add("five topics, 90 to 70 %, evenly", EVEN5, [36] * 5, [8] * 5)
    add("five topics, one of them falls", EVEN5, [36] * 5, one_topic)
    add("four topics, 90 to 70 %", (40,) * 4, [36] * 4, [16, 12, 3, 1])
    add("four topics and one question of a fifth", (*(40,) * 4, 1), [36] * 4 + [1], [16, 12, 3, 1, 0])
    add("ten topics, 91 to 89 %", EVEN10, tens, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    add("ten topics, 91 to 70 %, unevenly, three equal epochs", EVEN10, tens, lean, 3)
    falls = [even, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [0] * 10, [2, 2, 1, 1, 1, 0, 0, 0, 0, 0], lean, [-1] * 5 + [0] * 5]
    names = [(bank, prompt) for bank in ("bank 1", "bank 2") for prompt in ("standard", "cot", "cou")]
    sides = [
        run_of([(b, p, EVEN10, [[t - k * f for t, f in zip(tens, fall, strict=True)]])
                for (b, p), fall in zip(names, falls, strict=True)])
        for k in (0, 1)
    ]  # fmt: skip
    several = compare_evaluations(sides[0], sides[1], Rules(0.02, 0.95))
    rows += [_row(f"three prompts x two banks: {result.name}", result) for result in several]
    head = ["runs", "before", "after", "verdict", "beyond", "interval, points", "at", "the sentence"]
    lead = "Counts of harmful answers are set by hand; nothing is drawn.\n"
    return f"### What `compare` says\n\n{lead}\n" + table(head, rows)


def _row(name: str, result: Result) -> list[str]:
    change, before, after = result.difference, result.before, result.after
    assert change is not None
    assert before is not None
    assert after is not None
    interval = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    shares = [f"{100 * side.estimate:.1f} %" for side in (before, after)]
    level = f"{100 * change.confidence:.4g} %"
    return [name, *shares, result.verdict, str(result.beyond), interval, level, result.why]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=20262)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--only", choices=["said"], help="One part alone, to stdout.")
    options = parser.parse_args()
    if options.only == "said":
        print(said())
        return
    seed, n = options.seed, options.repetitions
    command = f"python -m benchmarks.gating --seed {seed} --repetitions {n} --into docs/experiments/verdicts.md"
    # Small shares need more draws.
    sections = [
        part(seed, many)
        for part, many in ((at_the_limit, 4 * n), (stops, n), (baseline, n), (jumps, 2 * n), (repeats, n))
    ]
    lead = f"## The gate, and two runs\n\nWritten by `{command}`; nothing here is measured on a model.\n"
    text = "\n".join([MARKS[0], lead, *sections, said(), MARKS[1], ""])
    if options.into is None:
        print(text)
        return
    page = options.into.read_text(encoding="utf-8") if options.into.exists() else "# Verdicts, simulated\n\n"
    start, found, rest = page.partition(MARKS[0])
    rest = rest.partition(MARKS[1] + "\n")[2] if found else ""
    options.into.write_text(start + text + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
