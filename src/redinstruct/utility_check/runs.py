"""One utility check: read and check everything, then ask what is owed, task by task, and record each whole.

Promised: bad input writes nothing; the same command goes on where it stopped; a larger ``limit`` extends the check; any
other difference is refused. The margin stands in the configuration before the first item is asked.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.checkpoints.embedded import folder_of
from redinstruct.engine import LimitReached, Limits
from redinstruct.engine.opening import check_stands, checked_limits, spending_of
from redinstruct.engine.scoring import computes_here
from redinstruct.errors import UsageError, how_to_install
from redinstruct.figures.scores import Metric, TaskCard, UtilityConfig, UtilityResult, assemble, is_short, item_ids
from redinstruct.models import Model, make_model
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.run import Store, UtilityStore, UtilityTaskRow, check_run_folder
from redinstruct.run.rows import from_json, to_json
from redinstruct.run.same import check_same
from redinstruct.settings import check_said
from redinstruct.utility_check import data, harness, hhh, toy
from redinstruct.utility_check.asking import Asker, TaskTally
from redinstruct.utility_check.settings import UtilitySettings
from redinstruct.utility_check.suites import Catalogue, SuiteSelection, TaskPlan, needs_harness, present, select


class ReadyTask(msgspec.Struct):
    """A task whose data is here: ``source`` says which. ``loaded`` is the harness's own, ``local`` what it asks of."""

    plan: TaskPlan
    source: str = ""
    preferences: Sequence[data.Preference] = ()
    local: data.LocalData | None = None
    loaded: Any = None


class ReadyCheck(msgspec.Struct):
    """A check that can begin: its configuration, its model, and its tasks.

    ``lm`` is the model as the harness wants it, None where no task needs that.
    """

    config: UtilityConfig
    tasks: Sequence[ReadyTask]
    asker: Asker
    lm: Any
    absent: tuple[tuple[str, int, int], ...]


class UtilityOutcome(msgspec.Struct, frozen=True):
    """How a check ended: all that its run holds now, and the tasks asked in this invocation.

    ``absent`` are the names whose tasks lack data, each with how many of how many.
    """

    result: UtilityResult
    asked: tuple[str, ...]
    absent: tuple[tuple[str, int, int], ...]


def check_utility(
    wanted: UtilitySettings, run: Path, on_progress: OnProgress | None = None, limits: Limits | None = None
) -> UtilityOutcome:
    """Carry out, or go on with, a utility check. A task that ``limits`` do not leave calls or money for is not begun.

    Raises:
        UsageError: anything that is wrong with the input, in one line; nothing was written.
        RedInstructError: a task could not be carried out; those before it are recorded.
    """
    check_settings(wanted)
    limits = checked_limits(limits)
    check_run_folder(run)
    if needs_harness(wanted.suite):
        _check_harness()
    with tempfile.TemporaryDirectory(prefix="redinstruct-utility-") as temporary:
        checked = _checked(wanted, run, limits, Path(temporary))
        check_stands(run, lambda store: _check_same(store, checked.config, run))
        with Store.open_for_writing(run) as store:
            rows = UtilityStore(store)
            rows.begin(checked.config.digest, to_json(checked.config))
            asked = _carry_out(checked, wanted, rows, on_progress or unheard)
            return UtilityOutcome(assemble(checked.config, rows.tasks()), asked, checked.absent)


# ---- before anything is written ----


def check_settings(wanted: UtilitySettings) -> None:
    """Pass settings that make sense by themselves, before a model or a task is looked at.

    Raises:
        UsageError: naming the flag.
    """
    check_said(wanted)
    if wanted.data is not None and not wanted.data.is_dir():
        raise UsageError(f"--data {wanted.data.name}: is not a folder")
    unused = {"--shots": wanted.shots is not None, "--download": wanted.download}
    if not needs_harness(wanted.suite):
        for flag in (flag for flag, given in unused.items() if given):
            raise UsageError(f"{flag}: only with tasks of the harness, and --suite {wanted.suite} has none")
    if wanted.data is not None and wanted.download:
        raise UsageError("--data and --download: local files or fetched ones, not both")


def _check_harness() -> None:
    """Pass where the harness is installed, and keep it quiet."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError(
            f"every suite but toy and hhh needs the [utility] extra (lm_eval is missing): {how_to_install('utility')}"
        )
    harness.hush()


def _checked(wanted: UtilitySettings, run: Path, limits: Limits, temporary: Path) -> ReadyCheck:
    catalogue = Catalogue()
    asked = select(wanted.suite, wanted.shots, catalogue)
    tasks = _with_data(wanted, asked)
    absent = [task.name for task in asked.tasks if task.name not in {ready.plan.name for ready in tasks}]
    selection = present(asked, absent)
    if not tasks:
        place = "" if wanted.data is None else f" in {wanted.data.name}"
        raise UsageError(f"--suite {wanted.suite}: there is no data for any of its tasks{place}")
    template = _template(wanted, selection)
    by_harness = needs_harness(wanted.suite)
    model = _model(wanted, template, limits.timeout)
    asker = Asker(model, limits, spending_of(run, limits, lambda store: (*UtilityStore(store).tokens(), 0, 0)))
    lm = _harness_model(model, asker, wanted.batch, template) if by_harness else None
    _load(tasks, catalogue, temporary, download=wanted.download)
    _check_probabilities(wanted, tasks, asker)
    if asker.computes and not computes_here(model):
        _check_answers(tasks)
    config = UtilityConfig(
        model=model.id,
        tasks=tuple(task.plan.name for task in tasks),
        groups=selection.groups,
        margin=wanted.margin,
        harness=harness.version() if by_harness else toy.HARNESS,
        chat_template=template if model.id.startswith("hf/") else "endpoint",
        data=tuple((task.plan.name, task.source) for task in tasks),
        shots=wanted.shots,
        limit=wanted.limit,
    )
    return ReadyCheck(config, tasks, asker, lm, _lacking(asked, absent))


def _load(tasks: Sequence[ReadyTask], catalogue: Catalogue, temporary: Path, *, download: bool) -> None:
    """Let the harness load its own tasks."""
    own = [task for task in tasks if task.plan.kind == "harness"]
    if own:
        harness.make_ready(download=download)
    for task in own:
        name, file = task.plan.name, catalogue.file(task.plan.name)
        if task.local is not None:
            file = harness.write_local(temporary, name, file, task.local)
        task.loaded = harness.load(name, file, task.plan.shots)
        task.source = task.source or f"{task.loaded.DATASET_PATH}/{task.loaded.DATASET_NAME or 'default'}"


def _with_data(wanted: UtilitySettings, selection: SuiteSelection) -> list[ReadyTask]:
    """The tasks that have data.

    Raises:
        UsageError: a task that was named itself has none.
    """
    found: list[ReadyTask] = []
    parts = {} if wanted.data is None else data.find_hhh(wanted.data)
    for task in selection.tasks:
        if task.kind == "toy":
            found.append(ReadyTask(task, "world"))
        elif task.kind == "hhh":
            if (path := parts.get(task.name.removeprefix("hhh_"))) is not None:
                found.append(ReadyTask(task, f"sha256:{data.digest([path])}", data.read_hhh(path)))
        elif wanted.data is None:
            found.append(ReadyTask(task))
        elif (local := data.read_local(wanted.data, task.name)) is not None:
            found.append(ReadyTask(task, f"sha256:{local.sha256}", local=local))
    here = {ready.plan.asked for ready in found}
    for task in selection.tasks:
        if task.required and task.asked not in here:
            where = "" if wanted.data is None else f" in {wanted.data.name}"
            raise UsageError(f"--suite {task.asked}: no data for it{where}; {_place(task)}")
    return found


def _lacking(selection: SuiteSelection, absent: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Name -> how many of its tasks have no data, of how many."""
    gone = frozenset(absent)
    names = dict.fromkeys(task.asked for task in selection.tasks if task.name in gone)
    of = {name: [task.name for task in selection.tasks if task.asked == name] for name in names}
    return tuple((name, sum(task in gone for task in of[name]), len(of[name])) for name in names)


def _place(task: TaskPlan) -> str:
    if task.kind == "hhh":
        return f"put BIG-bench's hhh_alignment/{task.name.removeprefix('hhh_')}/task.json into a folder for --data"
    return f"{task.name}/<split>.jsonl in its own columns would do (see docs/utility.md)"


def _template(wanted: UtilitySettings, selection: SuiteSelection) -> str:
    if wanted.chat_template is not None:
        return wanted.chat_template
    toys = {task.kind == "toy" for task in selection.tasks}
    if len(toys) > 1:
        raise UsageError(
            "--suite: the toy world's tasks are asked through the chat template and the others without it; "
            "give each a run of its own, or say --chat-template"
        )
    return "native" if toys == {True} else "none"


def _model(wanted: UtilitySettings, template: str, timeout: float) -> Model:
    if wanted.model.startswith("hf/"):
        return make_model(wanted.model, chat_template=template)
    if wanted.chat_template == "native":
        raise UsageError("--chat-template native is for hf/ models: an endpoint applies its own to what it is asked")
    return make_model(wanted.model, timeout=timeout)


def _harness_model(model: Model, asker: Asker, batch: int | None, template: str) -> Any:
    """The model as the harness wants it."""
    if computes_here(model):
        from redinstruct.models.transformers import LocalModel
        from redinstruct.utility_check.local import LocalLM

        assert isinstance(model, LocalModel)
        return LocalLM(model, batch)
    if asker.computes and template != "none":
        raise UsageError(
            "--engine ray and --chat-template native: a worker cannot put the harness's tasks into the model's chat "
            "template; use --engine local, or --chat-template none"
        )
    from redinstruct.utility_check.remote import RemoteLM

    return RemoteLM(asker)


def _check_probabilities(wanted: UtilitySettings, tasks: Sequence[ReadyTask], asker: Asker) -> None:
    need = [task.plan.name for task in tasks if _needs_probabilities(task)]
    why = asker.why_no_probabilities() if need else None
    if why is None:
        return
    shown = ", ".join(need[:8]) + (f" and {len(need) - 8} more" if len(need) > 8 else "")
    rest = [task.plan.name for task in tasks if task.plan.name not in need]
    hint = f"; the others can: --suite {','.join(rest[:8])}{',...' if len(rest) > 8 else ''}" if rest else ""
    raise UsageError(
        f"{wanted.model}: gives no log-probabilities of a text (/completions with echo: {why}), without which these "
        f"cannot run: {shown}{hint}"
    )


def _check_answers(tasks: Sequence[ReadyTask]) -> None:
    """A worker tells how likely an answer is as a whole, and not whether each of its tokens is the likeliest."""
    whole = [task.plan.name for task in tasks if task.loaded is not None and harness.needs_tokens(task.loaded)]
    if whole:
        raise UsageError(
            f"--engine ray: a worker says how likely an answer is as a whole, and these are scored token by token: "
            f"{', '.join(whole[:8])}; leave them out, or use --engine local"
        )


def _needs_probabilities(task: ReadyTask) -> bool:
    if task.loaded is None:
        return task.plan.kind == "hhh" or task.plan.name == toy.FACTS
    return str(task.loaded.OUTPUT_TYPE) in harness.PROBABILITIES


def _check_same(store: Store, config: UtilityConfig, run: Path) -> None:
    """Pass when the run was not begun, or holds this check; a larger limit extends it."""
    body = UtilityStore(store).config()
    if body is None:
        return
    # HHH was asked through the harness once, by the same rule.
    but = ("harness",) if config.harness == toy.HARNESS else ()
    check_same(from_json(body, UtilityConfig), config, run, "a utility check", but=but)


# ---- carrying out ----


def _carry_out(
    checked: ReadyCheck, wanted: UtilitySettings, rows: UtilityStore, on_progress: OnProgress
) -> tuple[str, ...]:
    done = {name: from_json(card, TaskCard) for name, card in rows.cards().items()}
    asked: list[str] = []
    rows.spend(checked.asker.tally.read, checked.asker.tally.written)
    for task in checked.tasks:
        name = task.plan.name
        card = done.get(name)
        if card is not None and not is_short(card, wanted.limit):
            continue
        before = {"tasks done": len(done) + len(asked)}

        def told(rows: Progress, task: str = name, before: dict[str, int] = before) -> None:
            on_progress(msgspec.structs.replace(rows, stage=task, labels=before))

        tally = checked.asker.tally = TaskTally(told)
        if checked.lm is not None:
            checked.lm.tally = tally
        try:
            rows.commit(_row(task, checked, wanted))
        except LimitReached:
            break
        finally:
            rows.spend(tally.read, tally.written)
        asked.append(name)
    return tuple(asked)


def _row(task: ReadyTask, checked: ReadyCheck, wanted: UtilitySettings) -> UtilityTaskRow:
    template = checked.config.chat_template
    if task.loaded is not None:
        return harness.run(task.loaded, checked.lm, limit=wanted.limit, chat_template=template, source=task.source)
    if task.plan.kind == "hhh":
        return _hhh_row(task, checked, wanted.limit)
    return _toy_row(task.plan.name, checked, wanted)


def _hhh_row(task: ReadyTask, checked: ReadyCheck, limit: int | None) -> UtilityTaskRow:
    name, every = task.plan.name, task.preferences
    items = every[:limit]
    contexts = [prompt for item in items for prompt in hhh.prompts(item)]
    pairs = [(context, f" {letter}") for context in contexts for letter in hhh.LETTERS]
    found = checked.asker.likelihoods(pairs)
    letters = [hhh.Letters(*found[number : number + 4]) for number in range(0, len(found), 4)]
    counts = hhh.count(letters)
    card = TaskCard(
        task=name,
        version=hhh.VERSION,
        harness="redinstruct",
        output_type="multiple_choice",
        shots=0,
        chat_template=checked.config.chat_template,
        source=task.source,
        total=len(every),
        limit=limit,
        metrics=(Metric("wins", higher_is_better=True, reported=counts.rate),),
        prompt_sha256=data.sha256_of(hhh.TEMPLATE),
        notes=(f"{counts.wins} of {counts.total} won, {counts.ties} tied", *checked.asker.tally.told()),
    )
    ids = item_ids(name, [to_json(item) for item in items])
    return UtilityTaskRow(name, to_json(card), ids, (tuple(float(hhh.wins(one)) for one in letters),))


def _toy_row(name: str, checked: ReadyCheck, wanted: UtilitySettings) -> UtilityTaskRow:
    folder = folder_of(wanted.model) if wanted.model.startswith("hf/") else None
    template = checked.config.chat_template
    if name == toy.FACTS:
        every = toy.facts(folder)
        facts = every[: wanted.limit]
        pairs = [(fact.question, f" {answer}") for fact in facts for answer in fact.answers]
        found = checked.asker.likelihoods(pairs)
        return toy.chosen(facts, found, checked.asker.tally.told(), len(every), wanted.limit, template)
    what = toy.asked(name, folder)
    return toy.spoken(name, what, checked.asker.say(toy.requests(what)[: wanted.limit]), wanted.limit, template)
