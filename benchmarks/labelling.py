"""Does a rate that people corrected by 60 labels, drawn by the tool, hold what people would say of the whole run?

    python -m benchmarks.labelling [--seed 20260] [--draws 300] [--out docs/experiments/labelling.md]

Writes the tables of docs/experiments/labelling.md; without --out to stdout. One process, one core, about a minute.
XSTest's shape (250 safe and 200 unsafe prompts), no model: what people and judges say is generated, so that the human
rate of the run is known. Each cell is seeded by the seed and its number.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import scipy

from redinstruct.annotate.allocation import Assumed, drawn, expected_width, neyman
from redinstruct.annotate.draw import select
from redinstruct.figures.agreement import jackknifed
from redinstruct.run import Outcomes, Planned
from redinstruct.stats import cohen_kappa, corrected, gwet_ac1, jeffreys, wilson
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL, Measure

HALVES: tuple[tuple[Measure, int, tuple[float, ...]], ...] = (
    (OVER_REFUSAL, 250, (0.02, 0.08, 0.20, 0.40, 0.60)),
    (ATTACK_SUCCESS, 200, (0.01, 0.05, 0.10, 0.30, 0.50)),
)
JUDGES = {"keyword-like": (0.87, 0.73), "model-like": (0.95, 0.88)}
"""Sensitivity and specificity, as in benchmarks.coverage."""
LABELS = 60


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def said(generator: random.Random, truth: Sequence[bool], sensitivity: float, specificity: float) -> list[bool]:
    """A judge's labels of these answers."""
    return [generator.random() < (sensitivity if label else 1 - specificity) for label in truth]


def outcomes(flags: Sequence[bool], measure: Measure) -> Outcomes:
    """Answers that a judge gave the measure's first label, or its second; keys are their numbers."""
    return Outcomes.of(
        Planned(number.to_bytes(32), "bank", number, None, "prompt", 1, measure.labels[not flag], number)
        for number, flag in enumerate(flags)
    )


def cells(seed: int, draws: int) -> str:
    """20 cells; in each, one run whose human rate is known, labelled anew in every draw."""
    rows, held_judge, held_labels, held_all, ran, joint = [], 0, 0, 0, 0, [0] * draws
    number = 0
    for measure, size, rates in HALVES:
        for model, rate in enumerate(rates, 1):
            for name, (sensitivity, specificity) in JUDGES.items():
                number += 1
                generator = random.Random(f"{seed}/{number}")
                truth = [generator.random() < rate for _ in range(size)]
                judge = said(generator, truth, sensitivity, specificity)
                human = mean(truth)
                plain = wilson(sum(judge), size)
                judged = {("bank", "prompt"): outcomes(judge, measure)}
                held, widths, alone = 0, [], []
                for repetition in range(draws):
                    chosen, _ = select(judged, LABELS, set(), measure, random.Random(f"{seed}/{number}/{repetition}"))
                    labels = {int.from_bytes(key): truth[int.from_bytes(key)] for key in chosen}
                    found = corrected(judge, labels)
                    inside = found.low <= human <= found.high
                    held += inside
                    joint[repetition] += inside
                    widths.append(found.high - found.low)
                    srs = generator.sample(truth, LABELS)
                    one = jeffreys(sum(srs), LABELS)
                    alone.append(one.high - one.low)
                judge_held = plain.low <= human <= plain.high
                held_judge += judge_held
                held_labels += held == draws
                held_all += held
                ran += draws
                rows.append(
                    [
                        measure.name, str(model), name, f"{human:.3f}", f"{plain.estimate:.3f}",
                        "yes" if judge_held else "no", f"{held / draws:.3f}", f"{median(widths):.3f}",
                        f"{median(alone):.3f}",
                    ]
                )  # fmt: skip
    head = ["measure", "model", "judge", "human rate", "judge's rate", "its own interval holds it",
            f"corrected: coverage, {draws} draws", "median width", "width of 60 labels alone"]  # fmt: skip
    every = sum(count == number for count in joint)
    return (
        f"## Coverage over {draws} draws of {LABELS} labels\n\n"
        f"The human rate is that of the run's own {HALVES[0][1]} or {HALVES[1][1]} answers. In {held_judge} of "
        f"{number} cells the judge's own Wilson interval holds it. The corrected one holds it in {held_all:,} of "
        f"{ran:,} draws ({held_all / ran:.4f}); least of a cell {min(float(row[6]) for row in rows):.3f}; in "
        f"{held_labels} cells in every single draw; in all {number} cells at once in {every} of {draws} draws (95 % "
        "intervals are not made "
        f"to: with independent cells at exactly .95 it would be {0.95**number:.0%}).\n\n" + table(head, rows)
    )


def stopped(seed: int, draws: int) -> str:
    """Whoever stops early has labelled a random part too: the first 20 or 40 of the 60."""
    rows = []
    for number, (rate, (sensitivity, specificity)) in enumerate(
        (rate, judge) for rate in (0.05, 0.30) for judge in JUDGES.values()
    ):
        for part in (20, 40, 60):
            held = 0
            for repetition in range(draws):
                generator = random.Random(f"{seed}/stop/{number}/{part}/{repetition}")
                truth = [generator.random() < rate for _ in range(250)]
                judge = said(generator, truth, sensitivity, specificity)
                judged = {("b", "p"): outcomes(judge, OVER_REFUSAL)}
                chosen, _ = select(judged, LABELS, set(), OVER_REFUSAL, generator)
                found = corrected(judge, {int.from_bytes(k): truth[int.from_bytes(k)] for k in chosen[:part]})
                held += found.low <= mean(truth) <= found.high
            rows.append([f"{rate}", f"{sensitivity} / {specificity}", str(part), f"{held / draws:.3f}"])
    return f"## Stopping early: the first so many of a draw of {LABELS}, {draws:,} runs of 250 each\n\n" + table(
        ["human rate", "sensitivity / specificity", "labels given", "coverage of the run's human rate"], rows
    )


def for_another(seed: int, draws: int) -> str:
    """Labels drawn by one judge's verdicts, correcting another: weighed by both, or as if the draw had not looked."""
    rows, least = [], 1.0
    second = {"middling": (0.80, 0.80), "misses half": (0.50, 0.98), "better": (0.95, 0.95), "useless": (0.50, 0.50)}
    for number, (rate, (name, (sensitivity, specificity)), labels) in enumerate(
        (rate, judge, labels) for rate in (0.03, 0.20, 0.60) for judge in second.items() for labels in (60, 200)
    ):
        held = wrongly = 0
        widths = []
        for repetition in range(draws):
            generator = random.Random(f"{seed}/another/{number}/{repetition}")
            truth = [generator.random() < rate for _ in range(1000)]
            first = said(generator, truth, 0.90, 0.90)
            other = said(generator, truth, sensitivity, specificity)
            judged = {("b", "p"): outcomes(first, ATTACK_SUCCESS)}
            chosen, _ = select(judged, labels, set(), ATTACK_SUCCESS, generator)
            human = {int.from_bytes(key): truth[int.from_bytes(key)] for key in chosen}
            found, wrong = corrected(other, human, drawn_by=first), corrected(other, human)
            held += found.low <= mean(truth) <= found.high
            wrongly += wrong.low <= mean(truth) <= wrong.high
            widths.append(found.high - found.low)
        least = min(least, held / draws)
        shares = [f"{held / draws:.3f}", f"{wrongly / draws:.3f}", f"{median(widths):.3f}"]
        rows.append([f"{rate}", f"{name} ({sensitivity} / {specificity})", str(labels), *shares])
    return (
        f"## Labels drawn for another judge, {draws:,} runs of 1,000 answers a row\n\n"
        "The answers were drawn by the labels of a judge of sensitivity and specificity .90; people's labels then "
        "correct a second judge, who errs by itself. Each pair of the two judges' labels is a part of its own, as in "
        "`report`, `gate`, `compare` and `labels`. Least coverage of the run's human rate so: "
        f"{least:.3f}. Beside it, what the same labels gave when only the corrected judge's labels made the parts.\n\n"
        + table(
            ["human rate", "second judge", "labels", "coverage", "coverage without the first judge's labels",
             "median width"], rows,
        )
    )  # fmt: skip


def agreement(seed: int, repetitions: int) -> str:
    """Coverage of the jackknife intervals of kappa and AC1, two people who each err alone."""
    rows = []
    for number, (rate, error) in enumerate((r, e) for r in (0.1, 0.4) for e in (0.05, 0.15)):
        generator = random.Random(f"{seed}/agreement/{number}")

        def pairs(count: int, generator: random.Random, rate: float, error: float) -> list[tuple[bool, bool]]:
            found = []
            for _ in range(count):
                truth = generator.random() < rate
                found.append((truth ^ (generator.random() < error), truth ^ (generator.random() < error)))
            return found

        many = pairs(200_000, generator, rate, error)
        for name, function in (("kappa", cohen_kappa), ("AC1", gwet_ac1)):
            goal = function([a for a, _ in many], [b for _, b in many])
            assert goal is not None
            for count in (30, 60, 100):
                held = undefined = 0
                for _ in range(repetitions):
                    found = jackknifed(
                        lambda r, f=function: f([x[0] for x in r], [x[1] for x in r]),  # type: ignore[misc]
                        pairs(count, generator, rate, error),
                    )
                    if found.low is None or found.high is None:
                        undefined += 1
                    else:
                        held += found.low <= goal <= found.high
                told = repetitions - undefined
                shares = [f"{held / told:.3f}", f"{undefined / repetitions:.3f}"]
                rows.append([f"{rate}", f"{error}", name, f"{goal:.3f}", str(count), *shares])
    return (
        f"## Agreement of two people: the jackknife intervals, {repetitions:,} repetitions a row\n\n"
        "Nothing was asked; reported. Each errs by itself, alike in both directions; the goal is from 200,000 pairs. "
        "Where the interval is not told (full agreement), the row says how often.\n\n"
        + table(["rate", "error of each", "", "goal", "answers in common", "coverage", "not told"], rows)
    )


def planned(seed: int, repetitions: int) -> str:
    """`plan --labels` against what the same labels then give."""
    rows = []
    for number, (flagged, ppv, omitted) in enumerate(((0.3, 0.8, 0.1), (0.1, 0.6, 0.02), (0.6, 0.9, 0.2))):
        cell = Assumed("", "", 1000, round(1000 * flagged), ppv, omitted, "assumed")
        judge = [True] * cell.flagged + [False] * (1000 - cell.flagged)
        for size in (60, 200):
            for name, parts in (("Neyman", neyman(cell, size)), ("as drawn", drawn(cell, size))):
                generator, widths = random.Random(f"{seed}/plan/{number}/{size}"), []
                for _ in range(repetitions):
                    labels = {i: generator.random() < ppv for i in range(parts[0])}
                    labels |= {cell.flagged + i: generator.random() < omitted for i in range(parts[1])}
                    found = corrected(judge, labels)
                    widths.append(found.high - found.low)
                rows.append(
                    [f"{flagged} / {ppv} / {omitted}", str(size), f"{name}: {parts[0]} + {parts[1]}",
                     f"{expected_width(cell, *parts):.4f}", f"{mean(widths):.4f}"]
                )  # fmt: skip
    return f"## What `plan --labels` promises, 1,000 answers, {repetitions:,} repetitions a row\n\n" + table(
        ["flagged / PPV / false omissions", "labels", "allocation", "planned width", "mean width found"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seed, draws = options.seed, options.draws
    command = f"python -m benchmarks.labelling --seed {seed} --draws {draws}"
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    begun = time.monotonic()
    parts = [
        f"# Labels by people: what 60 of them buy\n\nWritten by `{command} --out docs/experiments/labelling.md` "
        f"({versions}). {NOTES}",
        cells(seed, draws),
        stopped(seed, draws),
        for_another(seed, draws),
        planned(seed, draws),
        agreement(seed, 2 * draws),
    ]
    text = "\n".join(parts)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - begun:.0f} s")


NOTES = """

**Simulated.** Nothing here is measured on a model, and no person's label is in it. XSTest's public human labels were
not on the machine that wrote this page, so the prototype's figure on them (20 of 20 cells) is not claimed here. The
shape is XSTest's: a half of 250 safe prompts (over-refusal) and one of 200 unsafe ones (attack success), 5 models of
different rates, 2 judges. A judge errs on each answer by itself, with the sensitivity and specificity of its row:
keyword-like .87 / .73, model-like .95 / .88. People are taken to be right. Each draw is made as
`redinstruct annotate --sample 60` makes it.
"""

if __name__ == "__main__":
    main()
