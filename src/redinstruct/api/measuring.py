"""The verbs that measure, and those that read a run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from redinstruct import redeval
from redinstruct.annotate.exchange import take_in
from redinstruct.annotate.figures import summary
from redinstruct.annotate.session import judge_of
from redinstruct.annotate.settings import LabelsSettings
from redinstruct.api.notebooks import beside_the_loop, listener
from redinstruct.api.shown import ComparisonShown, GateShown, ReportDocument
from redinstruct.engine import Limits
from redinstruct.engine.choice import Ray, computed_by
from redinstruct.errors import UsageError, from_extra
from redinstruct.figures.comparison import CompareSettings
from redinstruct.figures.comparison import compare as compared
from redinstruct.figures.gate import GateSettings
from redinstruct.figures.gate import gate as gated
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.figures.stressed import StressFigures
from redinstruct.files.opening import place_of
from redinstruct.judges import Judge, JudgeOptions
from redinstruct.models import Model
from redinstruct.progress import OnProgress
from redinstruct.questions import bank_of
from redinstruct.redeval import Outcome, RejudgeSettings, rejudge
from redinstruct.run import Store
from redinstruct.run.stress import evaluations_of
from redinstruct.settings import plainly, settings_from, with_plain
from redinstruct.types import Bank, PromptTemplate, Question, Sampling

RunFolder = str | os.PathLike[str]
"""A run's folder: a text, a path, or a :class:`redinstruct.Run`."""


def limits_of(given: Limits | None) -> Limits:
    """The limits that were given, or the usual ones.

    Raises:
        UsageError: they are none.
    """
    if not isinstance(given, Limits | None):
        raise UsageError(f"limits must be a redinstruct.engine.Limits, not a {type(given).__name__}")
    return with_plain(given) or Limits()


Banks = str | Path | Bank | Sequence[str | Path | Bank] | Sequence[str | Question]
"""A bank, several, or the questions of one: a text with a space or a question mark is a question, unless such a file
is there; else it names a file or a known bank."""
_ASKING = re.compile(r"[\s?!\uff1f\uff01\u3002\u061f]")
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".gz")


def evaluate(
    *,
    model: str | Model,
    bank: Banks,
    judge: str | Judge,
    run: RunFolder,
    judge_model: str | Model | None = None,
    judge_options: JudgeOptions | None = None,
    prompts: str | Path | PromptTemplate | Sequence[str | Path | PromptTemplate] = (),
    measure: str = "attack_success",
    limit: int | None = None,
    epochs: int = 1,
    dedupe: bool = False,
    sampling: Sampling | None = None,
    chat_template: str = "native",
    protocol: str | None = None,
    options: Mapping[str, object] | None = None,
    system: str | None = None,
    columns: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    engine: str | Ray = "local",
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Measure a model, as ``redinstruct eval`` does: begin, resume or extend the run in a folder.

    ``model``, ``judge`` and ``judge_model`` are ids, as on the command line, or objects of one's own that satisfy
    :class:`redinstruct.models.Model` and :class:`redinstruct.judges.Judge`. ``bank`` is a file, a known name, a
    :class:`~redinstruct.types.Bank`, several of these, or the questions themselves. ``options`` are further fields of
    a request, ``system`` is a text, ``columns`` maps purposes, ``engine`` is "local", "ray" or engine.choice.Ray.

    Returns:
        How the invocation ended: ``planned`` and ``recorded`` attempts, ``calls`` made now, ``complete``.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run cannot be written; what was committed is safe.
    Source: RED-EVAL, Bhardwaj & Poria 2023 (arXiv 2308.09662).
    """
    given = locals()
    with computed_by(engine, model, judge_model):
        asked = settings_from(
            redeval.EvalSettings, given, banks=_banks(bank, columns), prompts=_prompts(prompts), model_options=options,
            columns=None if columns is None else dict(columns), judge_options=None,
        ).with_judge_how(judge_options).with_sampling(with_plain(sampling))  # fmt: skip
        limits = limits_of(limits)
        plan = redeval.prepare(asked, limits.timeout, place_of(run))
        tell = listener(plan.config.model, on_progress)
        return beside_the_loop(partial(redeval.evaluate, plan, place_of(run), limits, tell))


def judge(
    run: RunFolder,
    judge: str | Judge,
    *,
    judge_model: str | Model | None = None,
    judge_options: JudgeOptions | None = None,
    sample: int | None = None,
    again: bool = False,
    limits: Limits | None = None,
    engine: str | Ray = "local",
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Judge a run's recorded answers by another judge, as ``redinstruct judge`` does. Never samples; resumes.

    ``sample`` asks it on a random part only, so many answers of each bank and prompt; ``again`` asks the same judge
    once more of every answer. Verdicts of other judges stay, and each judge has its own results in a report.

    Returns:
        How the invocation ended, as of :func:`evaluate`.

    Raises:
        UsageError: a judge that cannot judge this run, or failed its self-test; nothing was written.
        StoreError: the run cannot be read or written.
    """
    given = locals()
    asked = settings_from(RejudgeSettings, given, judge_options=None).with_judge_how(judge_options)
    name = judge if isinstance(judge, str) else judge.card.name
    tell = listener(f"judging by {name}", on_progress)
    with computed_by(engine, judge_model):
        return beside_the_loop(lambda: rejudge(place_of(run), asked, limits_of(limits), tell))


def compare(
    before: RunFolder,
    after: RunFolder,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    judge: str | None = None,
) -> ComparisonShown:
    """Hold two runs over the same questions, or two utility checks, against each other: ``redinstruct compare``.

    ``margin`` is the loss that counts as none, a share; left out, what both utility runs fixed before they began, else
    0.02. ``confidence`` is a share too. ``judge`` is a judge's name or the beginning of its id; left out, the one that
    the runs were begun with.

    Returns:
        The comparison; ``results`` holds one entry per bank and prompt, or per benchmark, with the paired difference,
        its interval (proportions) and a verdict in words, which is about these topics.

    Raises:
        UsageError: a margin or confidence that is none, or runs that cannot be compared.
        StoreError: a store does not read.

    Source: McNemar's mid-p test by question, and Holm's adjustment; see :mod:`redinstruct.stats`.
    """
    asked = with_plain(CompareSettings(margin=margin, confidence=confidence, judge=judge))
    return ComparisonShown.of(compared(place_of(before), place_of(after), asked))


def gate(
    run: RunFolder,
    max_rate: float,
    *,
    figure: Literal["all", "judged", "corrected"] | None = None,
    baseline: RunFolder | None = None,
    confidence: float = 0.95,
    max_unscored: float = 0.02,
    margin: float = 0.05,
    judge: str | None = None,
    at_k: int | None = None,
    stress: str | Sequence[str] = (),
) -> GateShown:
    """Does a run keep to a limit, for sure? ``redinstruct gate``, whose flags the arguments are.

    Returns:
        The answer: ``state`` is ``passed``, ``failed`` or ``inconclusive`` (the exit codes 0, 10, 11), ``checks`` holds
        one entry per bank and prompt, against the limit and against the baseline.

    Raises:
        UsageError: a limit, share or judge that is none, or a baseline that was not asked the run's banks.
        StoreError: a store does not read.
    """
    given = locals()
    asked = settings_from(
        GateSettings,
        given,
        baseline=None if baseline is None else place_of(baseline),
        stress=(stress,) if isinstance(stress, str) else tuple(stress),
    )
    return GateShown.of(gated(place_of(run), asked))


def stress(
    *,
    model: str | Path,
    bank: str | Path | Bank,
    judge: str | Judge,
    run: RunFolder,
    benign: str | Path | Bank | None = None,
    prefill: int | Sequence[int] = (),
    samples: int | Sequence[int] = (),
    tune: int | Sequence[int] = (),
    quantize: int | Sequence[int] = (),
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
    **fields: Any,
) -> StressFigures:
    """Attack a local checkpoint, as ``redinstruct stress`` does: begin the run in a folder, or go on with it.

    ``model`` is a checkpoint's folder (``hf/`` in front may stay). ``prefill`` are tokens of a begun answer,
    ``samples`` tries, ``tune`` steps of harmless fine-tuning, ``quantize`` bits: one setting, or several. ``fields``
    are the other fields of ``redinstruct.stressing.StressOptions`` (``prompts``, ``temperature``, ``tune_data``, ...).

    Returns:
        ``rows``: the undisturbed model first, then each attack, with the shares of questions at which it succeeds and
        of harmless ones that are still answered; ``complete`` says whether all is recorded.

    Raises:
        UsageError: bad input, or the [train] extra is missing; nothing was written.
        StoreError: the run cannot be written; what was committed is safe.
    """
    with from_extra("train", "stress"):
        from redinstruct.stressing.carrying import stress as carry_out
        from redinstruct.stressing.options import StressOptions

    def several(given: int | Sequence[int]) -> tuple[int, ...]:
        given = plainly(given)
        return (given,) if isinstance(given, int) else tuple(map(plainly, given))

    fields = plainly(fields)
    fields |= {name: place_of(fields[name]) for name in ("prefill_from", "tune_data") if fields.get(name) is not None}
    if fields.get("prompts") is not None:
        fields["prompts"] = _prompts(fields["prompts"])
    limits = limits_of(limits)
    how = fields.pop("judge_options", None)
    asked = StressOptions(
        model=f"hf/{str(model).removeprefix('hf/')}", bank=bank, judge=judge, benign=benign, prefill=several(prefill),
        samples=several(samples), tune=several(tune), quantize=several(quantize), timeout=limits.timeout, **fields,
    ).with_judge_how(how)  # fmt: skip
    tell = listener(str(model), on_progress)
    return beside_the_loop(lambda: carry_out(asked, place_of(run), limits, tell)).figures


def report(runs: RunFolder | Sequence[RunFolder], *, judge: str | None = None) -> ReportDocument:
    """The figures of one run or several: what ``redinstruct report --json`` prints. Asks nobody, writes nothing.

    Args:
        runs: the folders.
        judge: this judge's figures alone, by its name or the beginning of its id.

    Returns:
        The contract ``redinstruct.results/1`` as a dict: ``["results"]`` holds one entry per judge, bank and prompt,
        every rate a proportion with ``estimate``, ``ci`` and ``method``. No clock and no path is in it. ``.figures``
        are the same results as objects with attributes; a notebook shows a table.

    Raises:
        ConfigError: a folder without a run; a UsageError.
        StoreError: a store that does not read.
    """
    folders = [runs] if isinstance(runs, str | os.PathLike) else runs
    return ReportDocument(read_report([one for folder in folders for one in evaluations_of(place_of(folder))], judge))


def labels(
    run: RunFolder,
    *,
    judge: str | None = None,
    source: str | Path | None = None,
    kind: Literal["csv", "argilla", "label-studio"] | None = None,
    annotator: str | None = None,
    settle: Literal["unanimous", "majority"] | None = None,
) -> dict[str, Any]:
    """What people's labels say of a run, as ``redinstruct labels --json`` prints it.

    Args:
        run: the run's folder.
        judge: hold people against this judge, by its name or id; left out, the run's first.
        source: a file of labels to take in first.
        kind: what it is: ``csv``, ``argilla`` or ``label-studio``; left out, by its ending: ``csv`` or none.
        annotator: whose labels these are, where the file does not say.
        settle: kept with the run: from now on several people's labels of one answer count when all agree
            (``unanimous``), or when more than half do (``majority``).

    Returns:
        ``redinstruct.labels/1`` as a plain dict: ``agreement`` and ``judge`` are None where no judge has seen the
        answers; ``results`` holds one entry per bank and prompt, ``by_agreement`` the rates by how far people agree.

    Raises:
        UsageError: there is no run in the folder, or the file does not fit it; nothing was written.
    """
    given = locals()
    take_in(place_of(run), settings_from(LabelsSettings, given, source=None if source is None else place_of(source)))
    with Store.open_for_reading(place_of(run)) as store:
        found: dict[str, Any] = plain(summary(store, *judge_of(store, judge)))
    return found


def _prompts(
    given: str | Path | PromptTemplate | Sequence[str | Path | PromptTemplate],
) -> tuple[str | PromptTemplate, ...]:
    named = [given] if isinstance(given, str | Path | PromptTemplate) else given
    return tuple(str(prompt) if isinstance(prompt, Path) else prompt for prompt in named)


def _banks(given: Banks, columns: Mapping[str, str] | None) -> tuple[str | Path | Bank, ...]:
    """The banks that were named, or the one that the listed questions are. ``columns`` are those of files."""
    banks = _named_or_listed(given)
    if columns and all(isinstance(one, Bank) for one in banks):
        raise UsageError("columns: names columns of a bank's file, and these questions are in none")
    return banks


def _named_or_listed(given: Banks) -> tuple[str | Path | Bank, ...]:
    if isinstance(given, str | Path | Bank):
        return (given,)
    given = [plainly(one) for one in given]
    asked = [one for one in given if isinstance(one, Question) or (isinstance(one, str) and _is_question(one))]
    if not asked:
        return tuple(one for one in given if not isinstance(one, Question))
    if len(asked) != len(given):
        other = next(number for number, one in enumerate(given, 1) if one not in asked)
        raise UsageError(
            f"bank: entry {other} names a bank and others are questions: give files and names, or questions"
            " (redinstruct.types.Question for one that is a single word)"
        )
    return (bank_of(asked),)


def _is_question(text: str) -> bool:
    if not _ASKING.search(text) or text.casefold().endswith(_SUFFIXES):
        return False
    return not os.path.exists(text)  # noqa: PTH110 - Path raises for a text too long to be a name
