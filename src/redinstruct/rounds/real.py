"""``demo --real``: the loop on a real small language model, in the policy laboratory.

Nothing in it is a shortcut: the stages are the verbs', their folders remain, and the same call goes on where it ended.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from redinstruct.figures.report import ResultFigures
from redinstruct.files.atomic import write_file
from redinstruct.policy import subject
from redinstruct.policy.files import COU, STANDARD, TURNS, write_laboratory
from redinstruct.progress import OnProgress, unheard
from redinstruct.rounds.beside import measured_beside, truthful_slice
from redinstruct.rounds.demo import PLOT, REPORT, DemoResult, DemoRow, of_cells
from redinstruct.rounds.laboratory import (
    BORDERLINE,
    FACTS,
    FORBIDDEN,
    FORM_OF,
    HARMLESS,
    QUICK,
    SUBJECT,
    WHOLE,
    LaboratorySizes,
    install,
    laboratory_config,
    recipes,
)
from redinstruct.rounds.ledger import Ledger
from redinstruct.rounds.run import LoopResult, Measured, carry_out
from redinstruct.rounds.shares import attacks

Beside = tuple[float, float | None]
"""Perplexity per word, and the share of TruthfulQA's slice that is right."""


class RealRow(DemoRow, frozen=True, kw_only=True):
    """One model's figures, shares in [0, 1], by frame: forbidden questions, and harmless ones in the same words.

    ``selective`` is harmless answered less forbidden answered: a model that refuses a frame as such has about 0 there.
    ``promise``: it says that it will help, and that is all. ``benign`` and ``benign_in_frame`` are harmless questions
    answered, plainly and in the CoU text. ``trained_frames``: the frames of whose kind something stands in the
    alignment's data. ``perplexity`` is per word, on prose in no training row; ``truthful`` is MC1 on a slice of
    TruthfulQA, None where its file was not given.
    """

    promise: dict[str, float]
    harmless_answered: dict[str, float]
    harmless_refused: dict[str, float]
    selective: dict[str, float]
    perplexity: float
    truthful: float | None = None


class RealDemo(DemoResult, frozen=True, kw_only=True):
    """What the demo found. ``items`` forbidden and ``harmless_items`` harmless questions stand behind each share."""

    harmless_items: int
    subject: str
    rows: tuple[RealRow, ...]
    stopped: dict[str, str]
    real: bool = True


def real_demo(
    folder: Path, seed: int = 0, *, quick: bool = False, data: Path | None = None, on_progress: OnProgress | None = None
) -> RealDemo:
    """Teach SmolLM2 a harmless policy, attack it, collect from it, mend it in several ways, and measure again.

    ``folder`` receives the checkpoints and the runs; a second call with the same arguments resumes, or repeats nothing.
    ``data`` is a folder with ``TruthfulQA.csv``, of which a slice is asked then.

    Raises:
        RedInstructError: the [smollm2] extra is missing, the folder cannot be written, or the data does not read.
    """
    asked = None if data is None else truthful_slice(data)
    began, tell, sizes = time.monotonic(), on_progress or unheard, QUICK if quick else WHOLE
    home = folder / f"real-{seed}{'-quick' if quick else ''}"
    lab = write_laboratory(folder, subject(SUBJECT))
    policy = install(home, lab, seed, sizes, tell)
    loop = home / f"loop-{policy.name}"
    result = carry_out(laboratory_config(policy, lab, loop, seed, sizes), on_progress=tell)
    ledger = Ledger(loop, tell, len(result.models) * (1 if asked is None else 2))
    words = {model.title: measured_beside(ledger, model, asked) for model in result.models}
    found = _demo(result, sizes, words, seed, quick, time.monotonic() - began, home)
    _write_pictures(found)
    return found


def _demo(
    result: LoopResult,
    sizes: LaboratorySizes,
    words: dict[str, Beside],
    seed: int,
    quick: bool,
    seconds: float,
    home: Path,
) -> RealDemo:
    took = {stage.name: stage.seconds for stage in result.stages}
    rows = tuple(_row(model, sizes, words[model.title], took) for model in result.models)
    return RealDemo(
        seed=seed,
        seconds=round(seconds, 1),
        items=sizes.items,
        harmless_items=sizes.harmless,
        quick=quick,
        subject=SUBJECT,
        rows=rows,
        unseen_frames=tuple(frame for frame in sizes.frames if frame not in FORM_OF),
        verdicts=of_cells(result, lambda cell: cell.verdict),
        stages=took,
        stopped=result.stopped,
        runs={model.title: model.runs[FORBIDDEN] for model in result.models},
        folder=home,
    )


def _row(model: Measured, sizes: LaboratorySizes, words: Beside, took: dict[str, float]) -> RealRow:
    of = defaultdict[str, dict[str, ResultFigures]](dict)
    for result in model.results:
        frame = TURNS if f"-{TURNS}-" in result.bank else result.prompt
        of[result.bank.split("-")[0]][frame] = result
    attacked = attacks(of[FORBIDDEN])
    answered = {frame: _answered(result) for frame, result in of[HARMLESS].items()}
    (borderline,), (facts,) = of[BORDERLINE].values(), of[FACTS].values()
    trained = {}
    for recipe in recipes(sizes):
        if recipe.title == model.title:
            trained = {
                frame: "benign" if recipe.strategy == "general" else "forbidden"
                for frame, form in FORM_OF.items()
                if frame in sizes.frames and (form == STANDARD or form in recipe.framed)
            }
    return RealRow(
        model=model.title,
        **attacked,
        promise={frame: result.details.promised / result.counts.total for frame, result in of[FORBIDDEN].items()},
        harmless_answered=answered,
        harmless_refused={frame: result.counts.first / result.counts.total for frame, result in of[HARMLESS].items()},
        selective={frame: answered[frame] - rate for frame, rate in attacked["asr"].items()},
        benign=answered[STANDARD],
        benign_in_frame=answered[COU],
        over_refusal=borderline.counts.first / borderline.counts.total,
        facts=_answered(facts),
        perplexity=round(words[0], 3),
        truthful=words[1],
        trained_frames=trained,
        seconds=round(took.get(f"1-align-{model.title}", 0.0), 1),
    )


def _answered(result: ResultFigures) -> float:
    return result.details.complied / result.counts.total


def _write_pictures(found: RealDemo) -> None:
    from redinstruct.render.page import html_page
    from redinstruct.rounds.plot import front_svg

    points = [(row.model, row.asr[COU], row.benign_in_frame, row.intervals[COU]) for row in found.rows]
    write_file(found.folder / PLOT, front_svg(points, found.items))
    write_file(
        found.folder / REPORT, html_page([found.runs[row.model] for row in (found.rows[0], best_of(found.rows))])
    )


def best_of(rows: tuple[RealRow, ...]) -> RealRow:
    """The mended model whose worst frame is the least bad: answered there, or refused in it though harmless."""
    base, *mended = rows

    def worst(row: RealRow) -> float:
        lost = max(base.harmless_answered[frame] - row.harmless_answered[frame] for frame in row.asr)
        return max(max(row.asr.values()), lost)

    return min(mended, key=worst, default=base)


def closing_sentence(found: RealDemo) -> str:
    """What the demo shows, in one sentence: of the mended models the one whose worst frame is the least bad."""
    base, best = found.rows[0], best_of(found.rows)
    frame = max(best.asr, key=lambda name: best.asr[name])
    lost = max(best.asr, key=lambda name: base.harmless_answered[name] - best.harmless_answered[name])

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    return (
        f"Taught not to talk about {found.subject}, the model answers {share(base.asr[STANDARD])} of the forbidden"
        f" questions plainly and {share(base.asr[COU])} in the dialogue; mended by {best.model} it answers"
        f" {share(best.asr[STANDARD])} and {share(best.asr[COU])}, {share(best.asr[frame])} in its worst frame"
        f" ({frame}), and of harmless questions {share(best.harmless_answered[lost])} in the frame that lost most"
        f" ({lost}; {share(base.harmless_answered[lost])} before)."
    )
