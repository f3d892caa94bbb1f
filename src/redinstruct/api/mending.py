"""The verbs that mend: collect, export, align, check that utility held, and all of it in one loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redinstruct.api.measuring import RunFolder, limits_of
from redinstruct.api.notebooks import beside_the_loop, listener
from redinstruct.engine import Limits, Prices
from redinstruct.engine.choice import Ray, computed_by
from redinstruct.errors import from_extra
from redinstruct.files.opening import place_of
from redinstruct.judges import Judge, JudgeOptions
from redinstruct.models import Model
from redinstruct.progress import OnProgress
from redinstruct.settings import plainly, settings_from, with_plain
from redinstruct.types import Bank, Sampling
from redinstruct.utility_check.runs import UtilityOutcome, check_utility
from redinstruct.utility_check.settings import UtilitySettings

if TYPE_CHECKING:
    from redinstruct.harmfulqa import Collecting
    from redinstruct.harmfulqa.release import Exported
    from redinstruct.rounds import LoopResult
    from redinstruct.safealign import Aligned


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
        How it ended: ``collection`` (its ``coverage()`` by topic and subtopic), ``calls`` made now, ``complete``.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run cannot be written; what was committed is safe.

    Source: HARMFULQA, Bhardwaj & Poria 2023 (arXiv 2308.09662).
    """
    given = locals()
    from redinstruct.harmfulqa import CollectSettings, prepare_collection
    from redinstruct.harmfulqa import collect as carry_out

    limits = limits_of(limits)
    asked = settings_from(CollectSettings, given, topics=_topics(topics), judge_options=None)
    asked = asked.with_judge_how(judge_options).with_sampling(with_plain(sampling))
    plan = prepare_collection(asked, limits.timeout)
    tell = listener("collecting", on_progress)
    return beside_the_loop(lambda: carry_out(plan, place_of(run), limits, tell, until_covered=until_covered))


def _topics(given: str | Path | Mapping[str, Sequence[str]] | None) -> Any:
    from redinstruct.harmfulqa.topics import topics_from

    if isinstance(given, Mapping):
        named = {topic: [one] if isinstance(one, str) else list(one) for topic, one in given.items()}
        return topics_from(named, "topics")
    return None if given is None else Path(given)


def export(
    run: RunFolder,
    to: str,
    out: str | Path,
    *,
    banks: str | Path | Bank | Sequence[str | Path | Bank] = (),
    include_red: bool = False,
    near: float | None = None,
    forms: Sequence[str] = (),
    general: str | Path | Sequence[str | Path] = (),
    licence: str | None = None,
) -> Exported:
    """Write a collection out for training or publishing, as ``redinstruct export`` does: screened, with a data card.

    ``to`` is ``harmfulqa``, ``messages``, ``kto``, ``dpo`` or ``sharegpt``; ``banks`` are evaluation banks that nothing
    may overlap with. Without ``include_red`` nothing red leaves the run. ``forms`` puts the questions into other forms
    of asking too (``general``: files of ordinary conversations, for those that are made of them).

    Returns:
        What was written: ``rows``, the ``collected`` questions they come from, ``dropped`` by reason, ``card``.

    Raises:
        UsageError: bad input; nothing was written.
        StoreError: the run does not read.
    """
    given = locals()
    from redinstruct.harmfulqa.release import export as carry_out
    from redinstruct.harmfulqa.settings import ExportSettings

    settings = settings_from(
        ExportSettings, given, banks=tuple([banks] if isinstance(banks, str | Path | Bank) else banks),
        forms=tuple([forms] if isinstance(forms, str) else forms),
        general=_files(general),
    )  # fmt: skip
    return beside_the_loop(lambda: carry_out(place_of(run), settings, place_of(out)))


def _files(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """One file or several, by name."""
    return tuple(map(place_of, [given] if isinstance(given, str | os.PathLike) else given))


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

    ``base`` is a checkpoint's folder (``hf/`` in front may stay), ``data`` a file of conversations or several, ``out``
    the aligned checkpoint's folder. ``on_evaluate(folder, step)`` answers ``{"safety": x, "utility": y}``, both better
    the higher, and so chooses the checkpoint to keep. ``fields`` are the other fields of
    ``redinstruct.safealign.AlignConfig`` (``general``, ``seed``, ``settings``, ...); ``lora`` may be a rank.

    Returns:
        The aligned ``checkpoint``'s folder, ``history`` (the figures of every step), the card's ``figures`` and
        ``warnings``.

    Raises:
        UsageError: bad input, or the [train] extra is missing; nothing was written.

    Source: SAFE-ALIGN, Bhardwaj & Poria 2023 (arXiv 2308.09662); each strategy names its own.
    """
    with from_extra("train", "align"):
        from redinstruct.alignment import Lora
        from redinstruct.checkpoints.embedded import folder_of
        from redinstruct.safealign import AlignConfig
        from redinstruct.safealign import align as carry_out
    fields |= {name: _files(fields[name]) for name in ("general", "probe") if name in fields}
    if isinstance(fields.get("safe"), str):
        fields["safe"] = folder_of(fields["safe"])
    if isinstance(rank := plainly(fields.get("lora")), int):
        fields["lora"] = Lora(rank=rank, alpha=2 * rank)
    config = AlignConfig(base=folder_of(base), data=_files(data), strategy=strategy, out=place_of(out), **fields)
    return carry_out(config, on_evaluate=on_evaluate)


def utility(
    *,
    model: str,
    suite: str,
    run: RunFolder,
    margin: float = 0.02,
    limit: int | None = None,
    data: str | Path | None = None,
    shots: int | None = None,
    chat_template: str | None = None,
    batch: int | None = None,
    concurrency: int = 64,
    max_calls: int | None = None,
    budget: float | None = None,
    prices: Prices | None = None,
    timeout: float = 120.0,
    patience: float = 120.0,
    download: bool = False,
    engine: str | Ray = "local",
    on_progress: OnProgress | None = None,
) -> UtilityOutcome:
    """Is a model still useful? ``redinstruct utility``, whose flags the arguments are; the same call resumes.

    ``suite`` is ``paper``, ``bias``, ``toy``, ``hhh``, or tasks of the harness with commas between them; ``margin`` the
    loss that counts as none when this run is compared, fixed before the first item is asked.

    Returns:
        ``result`` (``headline``: one entry per benchmark, with ``mean`` and ``interval``; ``complete`` unless
        ``max_calls`` or ``budget`` cut it), the tasks ``asked`` now.

    Raises:
        UsageError: bad input, or an extra that is missing; nothing was written.
        RedInstructError: a task could not be carried out; those before it are recorded.
    """
    given = locals()
    wanted = settings_from(UtilitySettings, given, data=None if data is None else Path(data))
    tell = listener("utility", on_progress)
    with computed_by(engine, model):
        return beside_the_loop(lambda: check_utility(wanted, place_of(run), tell, settings_from(Limits, given)))


def loop(config: str | Path, *, force: bool = False, on_progress: OnProgress | None = None) -> LoopResult:
    """Close the loop from one TOML file, as ``redinstruct loop`` does: measure, collect, align, measure again, compare.

    A stage whose inputs are unchanged is not carried out again. ``force`` goes on with a judge that failed its
    self-test.

    Returns:
        ``models`` (each measured, the base first), ``comparisons`` with the model each was made from, ``stages``.

    Raises:
        UsageError: bad input, or an extra that is missing; nothing was written.
        RedInstructError: a stage cannot be carried out; the stages before it stand.
    """
    from redinstruct.rounds import carry_out, read_config
    from redinstruct.rounds.checks import check_extras, check_inputs

    wanted = read_config(place_of(config))
    check_extras(wanted)
    check_inputs(wanted)
    tell = listener("loop", on_progress)
    return beside_the_loop(lambda: carry_out(wanted, on_progress=tell, force=force))
