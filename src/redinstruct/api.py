"""The verbs as functions, for scripts and notebooks: the same meanings, the same run folders, the same errors.

A run is named by its folder: a text, a path, or a :class:`redinstruct.Run`. Bad input raises
:class:`redinstruct.errors.UsageError` with the one line that the command prints, and nothing is written.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from redinstruct.errors import UsageError
from redinstruct.types import Bank, PromptTemplate, Sampling

if TYPE_CHECKING:
    from redinstruct.engine import Limits
    from redinstruct.figures.comparison import Comparison
    from redinstruct.figures.gate import GateResult
    from redinstruct.harmfulqa import Collecting
    from redinstruct.judges import Judge, JudgeOptions
    from redinstruct.models import Model
    from redinstruct.progress import OnProgress
    from redinstruct.redeval import Outcome
    from redinstruct.safealign import Aligned

Done = TypeVar("Done")
RunFolder = str | os.PathLike[str]
"""A run's folder: a text, a path, or a :class:`redinstruct.Run`."""


def evaluate(
    *,
    model: str | Model,
    bank: str | Path | Bank | Sequence[str | Path | Bank],
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
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Measure a model, as ``redinstruct eval`` does: begin, resume or extend the run in a folder.

    ``model``, ``judge`` and ``judge_model`` are ids, as on the command line, or objects of one's own that satisfy
    :class:`redinstruct.models.Model` and :class:`redinstruct.judges.Judge`. ``options`` are further fields of an
    endpoint's request, ``system`` the system prompt's text, ``judge_options`` what can be chosen about a judge;
    ``columns`` names a bank's columns that have names of their own: purpose -> column.
    Figures come from ``redinstruct.report(run)`` or ``redinstruct.Run(run)``. Works in a notebook too.

    Returns:
        How the invocation ended: ``planned`` and ``recorded`` attempts, ``calls`` made now, ``complete``.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run cannot be written; what was committed is safe.

    Source: RED-EVAL, Bhardwaj & Poria 2023 (arXiv 2308.09662).
    """
    from redinstruct.engine import Limits
    from redinstruct.redeval import evaluate as carry_out
    from redinstruct.redeval import prepare

    banks = [bank] if isinstance(bank, str | Path | Bank) else list(bank)
    named = [prompts] if isinstance(prompts, str | Path | PromptTemplate) else prompts
    limits = limits or Limits()
    plan = prepare(
        model=model,
        banks=banks,
        judge=judge,
        judge_model=judge_model,
        judge_options=judge_options,
        prompts=[str(prompt) if isinstance(prompt, Path) else prompt for prompt in named],
        measure=measure,
        limit=limit,
        epochs=epochs,
        dedupe=dedupe,
        sampling=sampling,
        chat_template=chat_template,
        protocol=protocol,
        options=options,
        system=system,
        columns=columns,
        timeout=limits.timeout,
    )
    return _outside_the_loop(lambda: carry_out(plan, Path(run), limits, on_progress))


def collect(
    *,
    teacher: str | Model,
    run: RunFolder,
    answerer: str | Model | None = None,
    judge: str | Judge | None = None,
    judge_model: str | Model | None = None,
    judge_options: JudgeOptions | None = None,
    topics: str | Path | Mapping[str, Sequence[str]] | None = None,
    per_subtopic: int = 20,
    blue: int = 5,
    red: bool = False,
    critique: bool = False,
    turn_by_turn: bool = False,
    until_covered: bool = False,
    sampling: Sampling | None = None,
    answer_tokens: int = 500,
    teacher_options: Mapping[str, object] | None = None,
    answerer_options: Mapping[str, object] | None = None,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
) -> Collecting:
    """Collect questions and conversations, as ``redinstruct collect`` does: begin, resume or extend a collection.

    ``topics`` is a file, or ``{topic: [subtopic]}``; left out, the paper's. ``per_subtopic`` questions are wanted of
    each subtopic, ``blue`` conversations about each question. ``red`` adds harmful text to the folder.

    Returns:
        How the invocation ended: ``collection`` (its ``coverage()`` by topic and subtopic), ``calls`` made now,
        ``complete``. ``redinstruct export`` writes a collection out.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run cannot be written; what was committed is safe.

    Source: HARMFULQA, Bhardwaj & Poria 2023 (arXiv 2308.09662).
    """
    from redinstruct.engine import Limits
    from redinstruct.harmfulqa import collect as carry_out
    from redinstruct.harmfulqa import prepare_collection
    from redinstruct.harmfulqa.plan import DEFAULT_SAMPLING
    from redinstruct.harmfulqa.topics import topics_from

    limits = limits or Limits()
    if isinstance(topics, Mapping):
        listed: Any = topics_from({topic: list(subtopics) for topic, subtopics in topics.items()}, "topics")
    else:
        listed = None if topics is None else Path(topics)
    plan = prepare_collection(
        teacher=teacher,
        answerer=answerer,
        judge=judge,
        judge_model=judge_model,
        judge_options=judge_options,
        topics=listed,
        per_subtopic=per_subtopic,
        blue=blue,
        red=red,
        critique=critique,
        turn_by_turn=turn_by_turn,
        sampling=sampling or DEFAULT_SAMPLING,
        answer_tokens=answer_tokens,
        teacher_options=teacher_options,
        answerer_options=answerer_options,
        timeout=limits.timeout,
    )
    folder = Path(run)
    return _outside_the_loop(lambda: carry_out(plan, folder, limits, on_progress, until_covered=until_covered))


def align(
    *,
    base: str | Path,
    data: str | Path | Sequence[str | Path],
    strategy: str,
    out: str | Path,
    on_evaluate: Callable[[Path, int], Mapping[str, float]] | None = None,
    **fields: Any,
) -> Aligned:
    """Fine-tune a checkpoint to be safer, as ``redinstruct align`` does; the same call resumes an interrupted one.

    ``base`` is a checkpoint's folder (``hf/`` in front may stay), ``data`` files of conversations, ``out`` the
    aligned checkpoint's folder. ``on_evaluate(folder, step)`` answers ``{"safety": x, "utility": y}``, both better the
    higher, and so chooses the checkpoint to keep. ``fields`` are the other fields of
    ``redinstruct.safealign.AlignConfig`` (``general``, ``seed``, ``lora``, ``settings``, ...).

    Returns:
        The aligned ``checkpoint``'s folder, ``history`` (the figures of every step), the card's ``figures`` and
        ``warnings``.

    Raises:
        UsageError: bad input, or the [train] extra is missing; nothing was written.

    Source: SAFE-ALIGN, Bhardwaj & Poria 2023 (arXiv 2308.09662); each strategy names its own.
    """
    try:
        from redinstruct.checkpoints.embedded import folder_of
        from redinstruct.safealign import AlignConfig
        from redinstruct.safealign import align as carry_out
    except ImportError as error:
        raise UsageError(f"align needs the [train] extra ({error.name}): pip install 'redinstruct[train]'") from None
    files = [data] if isinstance(data, str | Path) else list(data)
    config = AlignConfig(
        base=folder_of(base),
        data=tuple(Path(file) for file in files),
        strategy=strategy,
        out=Path(out),
        **fields,
    )
    return carry_out(config, on_evaluate=on_evaluate)


def compare(
    before: RunFolder,
    after: RunFolder,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    judge: str | None = None,
) -> Comparison:
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
    from redinstruct.figures.comparison import compare as held

    return held(Path(before), Path(after), margin=margin, confidence=confidence, judge=judge)


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
) -> GateResult:
    """Does a run keep to a limit, for sure? ``redinstruct gate``, whose flags the arguments are.

    Returns:
        The answer: ``state`` is ``passed``, ``failed`` or ``inconclusive`` (the exit codes 0, 10, 11), ``checks`` holds
        one entry per bank and prompt, against the limit and against the baseline.

    Raises:
        UsageError: a limit, share or judge that is none, or a baseline that was not asked the run's banks.
        StoreError: a store does not read.
    """
    from redinstruct.figures.gate import gate as held

    return held(
        Path(run), max_rate, figure=figure, baseline=None if baseline is None else Path(baseline),
        confidence=confidence, max_unscored=max_unscored, margin=margin, judge=judge, at_k=at_k,
    )  # fmt: skip


def report(runs: RunFolder | Sequence[RunFolder], *, judge: str | None = None) -> dict[str, Any]:
    """The figures of one run or several: what ``redinstruct report --json`` prints. Asks nobody, writes nothing.

    Args:
        runs: the folders.
        judge: this judge's figures alone, by its name or the beginning of its id.

    Returns:
        The contract ``redinstruct.results/1`` as a plain dict: ``results`` holds one entry per judge, bank and prompt,
        every rate a proportion with ``estimate``, ``ci`` and ``method``. No clock and no path is in it.

    Raises:
        ConfigError: a folder without a run; a UsageError.
        StoreError: a store that does not read.
    """
    from redinstruct.figures.rates import report as figures

    folders = [runs] if isinstance(runs, str | os.PathLike) else runs
    return figures([Path(folder) for folder in folders], judge)


def labels(
    run: RunFolder,
    *,
    judge: str | None = None,
    source: str | Path | None = None,
    kind: Literal["csv", "argilla", "label-studio"] = "csv",
    annotator: str | None = None,
    settle: Literal["unanimous", "majority"] | None = None,
) -> dict[str, Any]:
    """What people's labels say of a run, as ``redinstruct labels --json`` prints it.

    Args:
        run: the run's folder.
        judge: hold people against this judge, by its name or id; left out, the run's first.
        source: a file of labels to take in first.
        kind: what it is: ``csv``, ``argilla`` or ``label-studio``.
        annotator: whose labels these are, where the file does not say.
        settle: kept with the run: from now on several people's labels of one answer count when all agree
            (``unanimous``), or when more than half do (``majority``).

    Returns:
        ``redinstruct.labels/1`` as a plain dict: ``agreement`` and ``judge`` are None where no judge has seen the
        answers; ``results`` holds one entry per bank and prompt, ``by_agreement`` the rates by how far people agree.

    Raises:
        UsageError: there is no run in the folder, or the file does not fit it; nothing was written.
    """
    from redinstruct.annotate.exchange import settle_by, take_labels
    from redinstruct.annotate.figures import summary
    from redinstruct.annotate.session import judge_of
    from redinstruct.figures.report import document
    from redinstruct.run import Store, is_run

    folder = Path(run)
    if not is_run(folder):
        raise UsageError(f"{folder}: there is no run in this folder")
    if source is not None:
        take_labels(folder, Path(source), kind, annotator, judge)
    if settle is not None:
        settle_by(folder, settle)
    with Store.open_for_reading(folder) as store:
        return document(summary(store, *judge_of(store, judge)))


def _outside_the_loop(work: Callable[[], Done]) -> Done:
    """Do work that brings its own event loop, also where one runs already (a notebook): in a thread then."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    found: list[Done] = []
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            found.append(work())
        except BaseException as error:  # raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
