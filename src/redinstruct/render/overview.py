"""What a page tells of a run beside its figures: its configuration, the command that makes it again, what it took."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import LOCAL_KINDS
from redinstruct.figures.attempts import Listing, listing
from redinstruct.figures.between_judges import JudgePair, judge_pairs
from redinstruct.figures.calibrated import CalibrationCounts, calibrate
from redinstruct.figures.comparison import Result
from redinstruct.figures.rates import report_of, result_rows
from redinstruct.figures.report import Report, ResultFigures
from redinstruct.figures.scores import UtilityResult, utility_in
from redinstruct.figures.stressed import StressFigures, read_stress_figures
from redinstruct.render.changes import changes
from redinstruct.run import Spent, Store, SummaryStore, Times, judges_of, times_of
from redinstruct.run.config import RunConfig, flags_of, system_of
from redinstruct.run.stress import evaluations_of, is_stress
from redinstruct.safetext import terminal
from redinstruct.types import MEASURES, JudgeCard, PromptTemplate

MOST_ATTEMPTS = 1000
"""How many attempts a page lists with their texts, over all its runs."""
MOST_INDEXED = 200_000
"""How many it lets a reader search through without them."""
IMPORTED = "imported"
"""The name of the judge in a run that was not made here but read from another tool's file."""


FREE = (*LOCAL_KINDS, "scripted/")
"""How the ids of targets begin that cost nothing."""


Price = tuple[float, float]
"""US dollars per million tokens, read and written."""


class RoleUse(msgspec.Struct, frozen=True):
    """What one role of a run took."""

    name: str
    spent: Spent


class RunView(msgspec.Struct, frozen=True):
    """One run as a page shows it. ``selftest_tokens`` are (in, out); the judge that leads comes first in results."""

    config: RunConfig
    versions: tuple[str, ...]
    command: str
    settings: tuple[tuple[str, str], ...]
    results: tuple[ResultFigures, ...]
    roles: tuple[RoleUse, ...]
    selftest_tokens: tuple[int, int]
    listing: Listing | None
    templates: tuple[PromptTemplate, ...]
    times: Times
    agreement: tuple[JudgePair, ...]

    @property
    def by_judge(self) -> list[list[ResultFigures]]:
        """The results judge by judge."""
        groups: dict[str, list[ResultFigures]] = {}
        for result in self.results:
            groups.setdefault(result.judge_id, []).append(result)
        return list(groups.values())

    @property
    def asked_an_endpoint(self) -> bool:
        """Whether somebody may have sent a bill: the target is no model of this machine, or a judge was asked."""
        return not self.config.model.startswith(FREE) or any(role.spent.calls for role in self.roles[1:])


class Project(msgspec.Struct, frozen=True):
    """All that a page is a projection of. ``changes`` is None unless exactly two runs of some measure were given.

    Of two measures there may be two runs each: each is a comparison of its own. ``checks`` are the utility checks among
    the runs, ``utility_changes`` None unless they are exactly two. ``stressed`` are the stress runs among them, whose
    evaluations stand among ``runs``. ``prices`` are the target's and the judges' (None: as the target's).
    """

    runs: tuple[RunView, ...]
    changes: tuple[Result, ...] | None
    checks: tuple[UtilityResult, ...] = ()
    utility_changes: tuple[Result, ...] | None = None
    stressed: tuple[StressFigures, ...] = ()
    prices: tuple[Price | None, Price | None] = (None, None)

    @property
    def results(self) -> list[ResultFigures]:
        """The results of all runs."""
        return [result for run in self.runs for result in run.results]

    @property
    def report(self) -> Report:
        """What ``redinstruct.results/1`` holds of it."""
        return report_of(self.results, self.checks)

    @property
    def dollars(self) -> float | None:
        """What the tokens came to at the prices given; None without any."""
        target, judge = self.prices
        if target is None and judge is None:
            return None
        judge = judge or target or (0.0, 0.0)
        target = target or (0.0, 0.0)
        total = 0.0
        for run in self.runs:
            # The target comes first.
            for role, price in zip(run.roles, (target, *(judge for _ in run.roles)), strict=False):
                total += _cost(price, role.spent.tokens_in, role.spent.tokens_out)
            total += _cost(judge, *run.selftest_tokens)
        return total

    def calibrated(self, outside: CalibrationCounts) -> Project:
        """The same with the rates of ``outside``'s judge corrected by it (:func:`redinstruct.figures.calibrated`)."""
        results = iter(calibrate(self.results, outside))
        replace = msgspec.structs.replace
        return replace(
            self, runs=tuple(replace(run, results=tuple(next(results) for _ in run.results)) for run in self.runs)
        )


def _cost(price: Price, tokens_in: int, tokens_out: int) -> float:
    return (tokens_in * price[0] + tokens_out * price[1]) / 1e6


def read_runs(runs: Sequence[Path], *, most_attempts: int = MOST_ATTEMPTS, judge: str | None = None) -> Project:
    """Read runs for a page, of every judge or of the one named. The attempts listed are shared out evenly among them.

    Raises:
        ConfigError: a folder without a run.
        UsageError: a run without the judge, or with several that are called so.
        StoreError: a store that does not read.
    """
    stressed = tuple(read_stress_figures(run) for run in runs if is_stress(run))
    runs = [one for run in runs for one in evaluations_of(run)]
    # Each store is opened once: that alone reads all of it, to see that it is whole.
    with contextlib.ExitStack() as stack:
        stores = [(run, stack.enter_context(Store.open_for_reading(run))) for run in runs]
        found = [(run, store, utility_in(store)) for run, store in stores]
        checks = [(run, check) for run, _, check in found if check is not None]
        evaluations = [(run, store) for run, store, check in found if check is None]
        indexed = MOST_INDEXED // max(1, len(evaluations)) if most_attempts else 0
        views = [_run_view(store, most_attempts // len(evaluations), indexed, judge) for _, store in evaluations]
    return Project(
        runs=tuple(views),
        changes=_changes([(run, view) for (run, _), view in zip(evaluations, views, strict=True)]),
        checks=tuple(check for _, check in checks),
        utility_changes=changes(checks[0][0], checks[1][0]) if len(checks) == 2 else None,
        stressed=stressed,
    )


def _changes(evaluations: Sequence[tuple[Path, RunView]]) -> tuple[Result, ...] | None:
    """What changed in each measure of which there are two runs; None where there is none such."""
    of_measure = [[run for run, view in evaluations if view.config.measure == measure] for measure in MEASURES]
    pairs = [runs for runs in of_measure if len(runs) == 2]
    return tuple(change for pair in pairs for change in sorted(changes(*pair), key=_worst_before)) if pairs else None


def _worst_before(change: Result) -> float:
    return 1.0 if change.before is None else -change.before.estimate


def _run_view(store: Store, most: int, indexed: int, wanted: str | None) -> RunView:
    config = store.begun()
    summary, judges = SummaryStore(store), store.judges()
    row, card = judges_of(store, wanted)[0]
    spent = summary.spent_on_judges()
    cards = dict(judges)
    return RunView(
        config=config,
        versions=tuple(summary.versions()),
        command=command_of(config, judges[0][1]),
        settings=tuple(settings_of(config)),
        results=tuple(result_rows(store, wanted)),
        roles=(
            RoleUse(f"target {config.model}", summary.spent_on_target()),
            *(RoleUse(f"judge {cards[judge].id}", of) for judge, of in spent.items() if judge in cards),
        ),
        selftest_tokens=summary.spent_on_selftests(),
        listing=listing(store, card, row, most, indexed),
        templates=tuple(store.templates()),
        times=times_of(store),
        agreement=judge_pairs(store),
    )


def settings_of(config: RunConfig) -> list[tuple[str, str]]:
    """The configuration as name and value, in full; banks and prompts by stem and sha256."""
    sampling = config.sampling
    own = ("temperature", sampling.temperature), ("top p", sampling.top_p), ("seed", sampling.seed)
    return [
        ("model", config.model),
        *(("bank", f"{bank.name} (sha256 {bank.sha256})") for bank in config.banks),
        *(("prompt", f"{prompt.name} (sha256 {prompt.sha256})") for prompt in config.prompts),
        ("measure", config.measure),
        ("judge", config.judge),
        ("protocol", config.protocol),
        ("chat template", config.chat_template),
        ("max tokens", str(sampling.max_tokens)),
        *((name, "the model's own" if value is None else str(value)) for name, value in own),
        *(("stop", text) for text in sampling.stop),
        ("limit", "all questions" if config.limit is None else f"{config.limit:,} questions of each bank"),
        ("epochs", str(config.epochs)),
        ("duplicate questions", "asked once" if config.dedupe else "asked each time"),
        *([] if config.system is None else [("system prompt", system_of(config.system))]),
        *(("model option", f"{name}={value}") for name, value in config.options),
        ("configuration digest", config.digest),
    ]


def command_of(config: RunConfig, card: JudgeCard) -> str:
    """The command that makes the run again, quoted for a POSIX shell, a flag on each line.

    Nothing in it can begin a line or hide: names are cleaned as for a terminal. Banks and prompts stand by their stems
    and a user's own rubric by its name, as no path is kept: files of one's own are given by path. ``RUN`` is any new
    folder.
    """
    if card.name == IMPORTED:
        lines = [["redinstruct", "import", config.banks[0].name if config.banks else "FILE"], ["--run", "RUN"]]
        return _on_lines([*lines, ["--measure", config.measure]])
    lines = [["redinstruct", "eval"]]
    for flag, value in flags_of(config):
        lines.append(_judge_flags(card) if flag == "judge" else [flag] if value is None else [flag, value])
    return _on_lines([*lines, ["--run", "RUN"]])


def _on_lines(lines: Sequence[Sequence[str]]) -> str:
    """The words quoted, line by line."""
    return " \\\n  ".join(" ".join(terminal(shlex.quote(word)) for word in line) for line in lines)


def _judge_flags(card: JudgeCard) -> list[str]:
    words, parameters = ["--judge", card.name], dict(card.parameters)
    if card.model is not None:
        words += ["--judge-model", card.model]
    if card.name == "rubric":
        words += ["--judge-format", "json"] if parameters.get("output") == "json-schema" else []
        words += ["--rubric", parameters["rubric"]] if parameters.get("rubric", "default") != "default" else []
    if card.name == "policy":
        words += ["--judge-format", "json"] if parameters.get("output") == "json-schema" else []
        words += ["--policy", parameters["policy"]]
    if card.name == "guard" and "kind" in parameters:
        words += ["--guard-kind", parameters["kind"]]
    for name, value in card.parameters:
        words += ["--judge-option", f"{name.removeprefix('option ')}={value}"] if name.startswith("option ") else []
    return words
