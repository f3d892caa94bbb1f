"""A stress run carried out: the undisturbed model first, then one attack after the other, each an evaluation.

Resumed by the same call: what is recorded stays, and an attack whose answers are all there is not made again. Weights
that were tuned or rounded live in this process and end with their attack; nothing but answers is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from redinstruct.checkpoints.host import give_back
from redinstruct.engine import Limits
from redinstruct.errors import EXIT_DONE, EXIT_INCONCLUSIVE, ModelSpecError, UsageError
from redinstruct.figures.stressed import PLAIN, StressFigures, read_stress_figures
from redinstruct.judges import JudgeOptions
from redinstruct.models import Request, make_model
from redinstruct.models.transformers import LocalModel
from redinstruct.progress import OnProgress, unheard
from redinstruct.prompts import load_template, render
from redinstruct.questions import same_text
from redinstruct.redeval import EvalSettings, Outcome, Plan, evaluate, prepare
from redinstruct.run import Store, check_run_folder, is_run
from redinstruct.run.config import check_same_run
from redinstruct.run.encryption import sealing
from redinstruct.run.same import Pinned, check_same
from redinstruct.run.stress import (
    NONE,
    SCHEMA,
    TRIES,
    Condition,
    StressRun,
    is_stress,
    part_of,
    read_stress,
    write_stress,
)
from redinstruct.safealign import preset_for
from redinstruct.safealign.prepare import Prepared
from redinstruct.safealign.unsafe import remove_left
from redinstruct.stressing.ablating import ablate
from redinstruct.stressing.answers import AnswersByQuestion, answers_in_run, given_answers
from redinstruct.stressing.begun import (
    STOCK,
    TOY_STOCK,
    Beginning,
    BeginningSource,
    BegunModel,
    RequestTurns,
    asked_of,
    beginning,
    told_of,
)
from redinstruct.stressing.options import StressOptions, check_options
from redinstruct.stressing.ranked import RankedModel
from redinstruct.stressing.rounding import GROUP, round_weights
from redinstruct.stressing.tuning import PLACE, batch_of, prepared_tuning, rate_of, tuned_weights
from redinstruct.types import OVER_REFUSAL, Bank, Message

WEIGHTS = ("tune", "quantize", "ablate")
"""The attacks that change the model, and not how it is asked."""


class Stressed(msgspec.Struct, frozen=True):
    """How an invocation ended: the figures so far, and whether everything is recorded."""

    figures: StressFigures
    outcomes: tuple[Outcome, ...]
    calls: int

    @property
    def exit_code(self) -> int:
        """0 when every attempt of every attack is recorded, and few enough are errors; else 11."""
        done = self.figures.complete and all(one.exit_code == EXIT_DONE for one in self.outcomes)
        return EXIT_DONE if done else EXIT_INCONCLUSIVE


class ReadyStress(msgspec.Struct, frozen=True):
    """A stress run that can be carried out: nothing of it has been asked or written yet."""

    asked: StressOptions
    what: StressRun
    forbidden: Plan
    benign: Plan | None
    model: LocalModel
    given: AnswersByQuestion
    tunings: dict[int, Prepared]


def stress(
    asked: StressOptions, run: Path, limits: Limits | None = None, on_progress: OnProgress | None = None
) -> Stressed:
    """Begin a stress run in a folder, or go on with it.

    Raises:
        UsageError: bad input, or another run's folder; nothing was written.
        RedInstructError: an attack cannot be carried out; what is recorded stays.
    """
    checked = check(asked, run)
    return _Stress(checked, run, limits or Limits(), on_progress or unheard).go()


def check(asked: StressOptions, run: Path) -> ReadyStress:
    """Read and check everything. Writes nothing, asks nothing.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    check_options(asked)
    check_run_folder(run)
    stored = read_stress(run) if is_stress(run) else None
    forbidden = prepare(_evaluation(asked, asked.bank), asked.timeout)
    model = forbidden.model
    if not isinstance(model, LocalModel):
        raise UsageError("--device: stress works with one copy of the model: name one device")
    benign = None if asked.benign is None else _benign(asked, forbidden)
    tunings, rows = {}, ""
    for steps in asked.tune:
        tunings[steps], rows = prepared_tuning(asked, steps, run.absolute() / PLACE)
    given = {} if asked.prefill_from is None else given_answers(asked.prefill_from)
    settings = _settings(asked, given, rows)
    what = StressRun(
        SCHEMA,
        forbidden.config.model,
        forbidden.config.banks[0],
        None if benign is None else benign.config.banks[0],
        forbidden.config.prompts,
        forbidden.config.judge,
        None if benign is None else benign.config.judge,
        settings,
        asked.conditions,
    )
    if stored is not None:
        check_same(stored, what, run, "a stress run")
        what = msgspec.structs.replace(what, told=stored.told)
    elif is_run(run):  # killed before its first answer, or an evaluation that becomes the undisturbed model's
        with Store.open_for_reading(run) as store:
            check_same_run(store.begun(), forbidden.config, str(run))
    return ReadyStress(asked, what, forbidden, benign, model, given, tunings)


def _evaluation(asked: StressOptions, bank: str | Path | Bank) -> EvalSettings:
    """One bank asked of the undisturbed model, greedily."""
    return EvalSettings(
        model=asked.model, banks=(bank,), judge=asked.judge, judge_model=asked.judge_model, prompts=asked.prompts,
        limit=asked.limit, max_tokens=asked.max_tokens, temperature=0.0, chat_template=asked.chat_template,
        dtype=asked.dtype, columns=asked.columns,
    ).with_judge_how(asked.judge_how)  # fmt: skip


def _benign(asked: StressOptions, forbidden: Plan) -> Plan:
    """The harmless questions, asked plainly and under the attack's own prompts."""
    assert asked.benign is not None
    plain = load_template(PLAIN, own_folder=asked.folder / "prompts")
    judge = asked.benign_judge or _harmless_judge(asked)
    wanted = msgspec.structs.replace(
        _evaluation(asked, asked.benign),
        measure=OVER_REFUSAL.name,
        prompts=tuple({t.sha256: t for t in (plain, *forbidden.templates)}.values()),
        judge=judge,
    )
    if asked.benign_judge is not None or judge == "refusal":
        wanted = msgspec.structs.replace(wanted.with_judge_how(JudgeOptions()), judge_model=None)
    # The loaded model itself; what the run records of its request stays.
    wanted = msgspec.structs.replace(wanted, model=forbidden.model, model_options=wanted.request, dtype=None)
    return prepare(wanted, asked.timeout)


def _harmless_judge(asked: StressOptions) -> str:
    """The judge itself, where it can tell a refusal from an answer; else the keyword baseline."""
    name = asked.judge if isinstance(asked.judge, str) else asked.judge.card.name
    try:
        msgspec.structs.replace(_evaluation(asked, asked.bank), judge=name).judge_of(OVER_REFUSAL)
    except ModelSpecError:
        return "refusal"
    return name


def _settings(asked: StressOptions, given: AnswersByQuestion, rows: str) -> tuple[tuple[str, str], ...]:
    """The flags that decide the run, beside model, banks, prompts, judges and attacks; contents by their hash."""
    found = [("--max-tokens", f"{asked.max_tokens}"), ("--limit", f"{asked.limit or 'all'}"),
             ("--chat-template", asked.chat_template), ("--dtype", asked.dtype or "left out")]  # fmt: skip
    found += [(f"--column {purpose}", name) for purpose, name in sorted(asked.columns.items())]
    if asked.prefill:
        text = msgspec.json.encode(sorted(given.items()))
        found.append(("--prefill-from", hashlib.sha256(text).hexdigest()[:12] if given else "the model's own answers"))
    if asked.samples:
        found.append(("--temperature", f"{asked.temperature}"))
    if asked.tune:
        found += [("--tune-data", f"sha256 {rows[:12]}"), ("--tune-lr", f"{rate_of(asked)}")]
        found.append(("--tune-batch", f"{batch_of(asked)}"))
    if asked.samples or asked.tune or asked.ranks:
        found.append(("--seed", f"{asked.seed}"))
    if asked.quantize:
        found.append(("rounding", f"to nearest, groups of {GROUP}"))
    return tuple(found)


class _Stress:
    """One invocation on one stress run."""

    def __init__(self, checked: ReadyStress, run: Path, limits: Limits, on_progress: OnProgress) -> None:
        self._checked, self._run, self._what = checked, run, checked.what
        self._limits, self._on_progress = limits, on_progress
        self._calls = 0
        self._outcomes: list[Outcome] = []

    def go(self) -> Stressed:
        remove_left(self._run.absolute() / PLACE)
        self._begin()
        for name, conditions in self._by_name().items():
            if not self._carried_out(name, conditions[-1]):
                break
        return Stressed(read_stress_figures(self._run), tuple(self._outcomes), self._calls)

    def _begin(self) -> None:
        """The run's folder, and what it is to hold, before anything is asked."""
        if not is_stress(self._run):
            nothing = msgspec.structs.replace(self._limits, max_calls=0)
            evaluate(self._checked.forbidden, self._run, nothing)
            write_stress(self._run, self._what)

    def _by_name(self) -> dict[str, list[Condition]]:
        """The conditions that one evaluation is made for; of tries, that with the most of them last."""
        found: dict[str, list[Condition]] = {}
        for one in sorted(self._what.conditions, key=lambda c: (c.setting or 0) if c.attack in TRIES else 0):
            found.setdefault(one.name, []).append(one)
        return {one.name: found[one.name] for one in self._what.conditions}

    def _carried_out(self, name: str, condition: Condition) -> bool:
        """Ask what one condition owes; False where a limit, or an endpoint, ended it."""
        plans = [
            (part_of(self._run, condition, benign=benign), self._plan(plan, condition, benign=benign))
            for benign, plan in ((False, self._checked.forbidden), (True, self._checked.benign))
            if plan is not None
        ]
        owed = [(place, plan) for place, plan in plans if not self._is_whole(place, plan)]
        if not owed:
            return True
        with self._attacked(condition) as of:
            for place, plan in owed:
                if not self._asked(place, msgspec.structs.replace(plan, model=of(plan)), name):
                    return False
        return True

    def _asked(self, place: Path, plan: Plan, name: str) -> bool:
        limits = self._limits
        if limits.max_calls is not None:
            limits = msgspec.structs.replace(limits, max_calls=max(0, limits.max_calls - self._calls))
        side = "" if plan.measure != OVER_REFUSAL else ", harmless questions"
        with Store.open_for_reading(self._run) as store:
            sealed = store.sealed
        with sealing(sealed):  # sealed since, say, by `redinstruct seal`: what is begun now must not be in clear
            outcome = evaluate(
                plan, place, limits, lambda state: self._on_progress(state.staged(f"{name}{side}: asking"))
            )
        self._calls += outcome.calls
        self._outcomes.append(outcome)
        return not outcome.cut

    def _plan(self, plan: Plan, condition: Condition, *, benign: bool) -> Plan:
        """The undisturbed model's plan as the attack asks; the harmless questions of a frame in that frame alone."""
        if condition.attack == NONE:
            return plan
        config = msgspec.structs.replace(plan.config, model=f"{self._what.model}+{condition.name}")
        if condition.attack in TRIES:
            # A rank is told by the seed: try k has the k-th.
            temperature = self._checked.asked.temperature if condition.attack == "samples" else 0.0
            sampling = msgspec.structs.replace(config.sampling, temperature=temperature, seed=self._checked.asked.seed)
            epochs = 1 if benign else condition.setting or 1
            config = msgspec.structs.replace(config, sampling=sampling, epochs=epochs)
        templates = plan.templates
        if benign and condition.attack not in WEIGHTS:
            templates = self._checked.forbidden.templates
            pinned = tuple(Pinned(t.name, t.sha256) for t in templates)
            config = msgspec.structs.replace(config, prompts=pinned)
        return msgspec.structs.replace(plan, config=config, templates=templates)

    def _is_whole(self, place: Path, plan: Plan) -> bool:
        """Whether all is recorded, errors aside, which are asked again; another configuration there is refused."""
        if not is_run(place):
            return False
        with Store.open_for_reading(place) as store:
            config = store.config()
            if config is None:
                return False
            check_same_run(config, plan.config, str(place))
            counts = store.counts(store.judges()[0][0])
        again = () if self._limits.keep_errors else ("error",)
        recorded = sum(row.count for row in counts if row.label is not None and row.label not in again)
        return recorded == plan.total

    # ---- attacks ----

    @contextmanager
    def _attacked(self, condition: Condition) -> Iterator[Callable[[Plan], BegunModel | RankedModel | LocalModel]]:
        """What is asked under a condition, by its plan; what was made for it ends here."""
        base, name = self._checked.model, f"{self._what.model}+{condition.name}"
        if condition.attack == NONE:
            yield lambda _: base
        elif condition.attack == "samples":
            yield lambda _: BegunModel(base, name, {})
        elif condition.attack == "ranks":
            ranked = RankedModel(base, name, condition.setting or 1, self._checked.asked.seed)
            yield lambda _: ranked
        elif condition.attack == "prefill":
            own = {benign: answers_in_run(part_of(self._run, Condition(NONE), benign=benign)) for benign in self._sides}
            forbidden = self._beginnings(self._checked.forbidden, condition, self._checked.given, own[False])
            self._tell(condition, told_of(list(forbidden.values())))
            benign = {} if self._checked.benign is None else self._beginnings(
                self._checked.benign, condition, {}, own[True]
            )  # fmt: skip
            yield lambda plan: BegunModel(base, name, benign if plan.measure == OVER_REFUSAL else forbidden)
        else:
            changed = self._changed(condition)
            yield lambda _: BegunModel(changed, name, {})
            del changed
            give_back()

    @property
    def _sides(self) -> tuple[bool, ...]:
        return (False,) if self._checked.benign is None else (False, True)

    def _beginnings(
        self, plan: Plan, condition: Condition, given: AnswersByQuestion, own: AnswersByQuestion
    ) -> Mapping[RequestTurns, Beginning]:
        """A beginning for each question under each prompt: given, else the model's own, else stock words."""
        tokenizer = self._checked.model.checkpoint[1]
        stock = TOY_STOCK if preset_for(self._checked.asked.folder) == "toy" else STOCK
        found: dict[RequestTurns, Beginning] = {}
        for questions in plan.questions:
            for question in questions:
                asked = same_text(question.text)
                source: BeginningSource = "given" if asked in given else "own" if asked in own else "stock"
                answer = given.get(asked) or own.get(asked) or stock
                start = beginning(tokenizer, answer, source, condition.setting or 1)
                for template in plan.templates:
                    turns = (*question.earlier, Message("user", render(template, question.text)))
                    found[asked_of(turns)] = start
        return found

    def _changed(self, condition: Condition) -> LocalModel:
        """A copy of the model with other weights, in memory."""
        asked = self._checked.asked
        tuned = None
        if condition.attack == "tune":
            prepared = self._checked.tunings[condition.setting or 1]
            home = self._run.absolute()
            tuned = tuned_weights(prepared, home, f"{condition.name}: training", self._on_progress)
        copy = make_model(
            asked.model, options=_evaluation(asked, asked.bank).request, chat_template=asked.chat_template
        )
        assert isinstance(copy, LocalModel)
        module = copy.checkpoint[0]
        if condition.attack == "ablate":
            assert self._checked.benign is not None
            forbidden, harmless = _requests(self._checked.forbidden), _requests(self._checked.benign)
            self._tell(condition, ablate(copy, forbidden, harmless, condition.setting or 1))
        elif tuned is None:
            self._tell(condition, round_weights(module, condition.setting or 1))
        else:
            strange = module.load_state_dict(tuned.weights, strict=False).unexpected_keys
            assert not strange, strange
            self._tell(condition, tuned.told)
        return copy

    def _tell(self, condition: Condition, told: dict[str, float]) -> None:
        self._what = self._what.with_told(condition.name, told)
        write_stress(self._run, self._what)


def _requests(plan: Plan) -> list[Request]:
    """A plan's questions as they are asked under its first prompt."""
    return [
        Request((*question.earlier, Message("user", render(plan.templates[0], question.text))), plan.config.sampling)
        for questions in plan.questions
        for question in questions
    ]
