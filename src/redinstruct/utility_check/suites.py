"""From the names of ``--suite`` to single tasks, and how they are put together again.

``paper``, ``bias`` and ``toy`` are this project's; ``hhh`` is the paper's rule; every other name is the harness's own
task, group or tag. A group is taken apart here, so that each task can be resumed, and read from its own files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from redinstruct.errors import UsageError, did_you_mean
from redinstruct.figures.scores import Average, GroupPlan
from redinstruct.utility_check.data import HHH_PARTS

SuiteKind = Literal["harness", "hhh", "toy"]

PAPER = ("truthfulqa_mc2", "mmlu", "bbh_fewshot", "hhh")
"""TruthfulQA MC2; MMLU, 5 shots; BBH, 3 shots, direct answers; HHH."""
PAPER_SHOTS: Mapping[str, int] = {"mmlu": 5}
"""In ``paper`` alone: a group that is asked for by its own name is asked as the harness has it."""
BIAS = ("winogender_all", "crows_pairs_english", "bbq")
TOY = ("toy_how_to", "toy_how_to_in_frame", "toy_borderline", "toy_facts")
SUITES: Mapping[str, tuple[str, ...]] = {"paper": PAPER, "bias": BIAS, "toy": TOY}
_HHH = tuple(f"hhh_{part}" for part in HHH_PARTS)
_FAMILIES = ("truthfulqa", "mmlu/default", "bbh/fewshot", "winogender", "crows_pairs", "bbq")
"""Folders of the harness that are indexed first: all of it takes seconds."""


class TaskPlan(msgspec.Struct, frozen=True):
    """One task. ``asked`` is the name that brought it; ``required`` is False where a suite's member may be left out."""

    name: str
    kind: SuiteKind
    asked: str
    shots: int | None = None
    required: bool = True


class SuiteSelection(msgspec.Struct, frozen=True):
    """What ``--suite`` means: single tasks, each once, and the groups over them."""

    tasks: tuple[TaskPlan, ...]
    groups: tuple[GroupPlan, ...]


@cache
def _indexed(*folders: str) -> Mapping[str, Any]:
    """The harness's entries in some of its folders, by name."""
    from lm_eval import tasks
    from lm_eval.tasks._index import TaskIndex

    root = Path(tasks.__file__).parent
    found: Mapping[str, Any] = TaskIndex.build([root / folder for folder in folders])
    return found


class Catalogue:
    """The harness's tasks by name, read from its files; nothing is loaded or downloaded for that.

    The files are looked at when the first name is asked for: the toy world's tasks and HHH need no harness.
    """

    def __init__(self) -> None:
        self._entries: Mapping[str, Any] = {}

    def entry(self, name: str) -> Any:
        """The harness's entry of that name, None when it has none."""
        for folders in (_FAMILIES, (".",)):
            if name not in self._entries:
                self._entries = _indexed(*folders)
        return self._entries.get(name)

    def names(self) -> Iterable[str]:
        """Every name that is indexed so far."""
        return self._entries

    def file(self, task: str) -> Path:
        """The task's own file."""
        return Path(self.entry(task).yaml_path)

    def expand(self, name: str) -> tuple[tuple[str, ...], GroupPlan | None]:
        """The single tasks of a name, and how a group averages them (None: each stands alone)."""
        entry = self.entry(name)
        if entry.kind.name == "TAG":
            return tuple(sorted(entry.tags)), None
        if entry.kind.name != "GROUP":
            return (name,), None
        members = tuple(dict.fromkeys(self._members(name, entry.cfg.get("task"), ())))
        return members, GroupPlan(name, _average(entry.cfg), members, len(members))

    def _members(self, group: str, listed: Any, above: tuple[str, ...]) -> Iterable[str]:
        for member in listed if isinstance(listed, list) else [listed]:
            entry = self.entry(member) if isinstance(member, str) and member not in above else None
            if entry is None:
                raise UsageError(
                    f"--suite {group}: the harness defines it in a way that cannot be taken apart; name its tasks"
                )
            if entry.kind.name == "GROUP":
                yield from self._members(group, entry.cfg.get("task"), (*above, member))
            elif entry.kind.name == "TAG":
                yield from sorted(entry.tags)
            else:
                yield member


def needs_harness(suite: str) -> bool:
    """Whether ``--suite`` names anything but the toy world's tasks and HHH."""
    names = (name.strip() for name in suite.split(","))
    return any(member not in (*TOY, "hhh", *_HHH) for name in names for member in SUITES.get(name, (name,)))


def select(suite: str, shots: int | None, catalogue: Catalogue) -> SuiteSelection:
    """The tasks that ``--suite`` names.

    Raises:
        UsageError: an empty list, or a name that nothing has; near names are suggested.
    """
    names = [name.strip() for name in suite.split(",") if name.strip()]
    if not names:
        raise UsageError("--suite: name a suite (paper, bias, toy) or tasks, separated by commas")
    tasks: dict[str, TaskPlan] = {}
    groups: dict[str, GroupPlan] = {}
    for name in dict.fromkeys(names):
        for member in SUITES.get(name, (name,)):
            found, group = _of(member, catalogue)
            given = shots if shots is not None else PAPER_SHOTS.get(member) if name == "paper" else None
            for task in found:
                plan = TaskPlan(task, _kind(task), member, given, required=name not in SUITES)
                if tasks.setdefault(task, plan).shots != plan.shots:
                    raise UsageError(f"--suite {suite}: {task} is in it twice, with different shots")
            if group is not None:
                groups[group.name] = group
    return SuiteSelection(tuple(tasks.values()), tuple(groups.values()))


def _of(name: str, catalogue: Catalogue) -> tuple[tuple[str, ...], GroupPlan | None]:
    if name == "hhh":
        return _HHH, GroupPlan("hhh", "parts", _HHH, len(_HHH))
    if name in (*TOY, *_HHH):
        return (name,), None
    if catalogue.entry(name) is None:
        known = [*SUITES, "hhh", *TOY, *catalogue.names()]
        raise UsageError(f"--suite: no suite or task is called {name[:60]!r}{did_you_mean(name, known)}")
    return catalogue.expand(name)


def _kind(task: str) -> SuiteKind:
    return "hhh" if task.startswith("hhh_") else "toy" if task in TOY else "harness"


def _average(config: Mapping[str, Any]) -> Average:
    listed = config.get("aggregate_metric_list") or [{}]
    first = listed[0] if isinstance(listed, list) else listed
    return "items" if first.get("weight_by_size", True) else "parts"


def present(selection: SuiteSelection, absent: Sequence[str]) -> SuiteSelection:
    """The selection without the tasks that have no data; a group keeps the number of tasks that it should have."""
    gone = frozenset(absent)
    groups = [
        msgspec.structs.replace(group, members=tuple(name for name in group.members if name not in gone))
        for group in selection.groups
    ]
    return SuiteSelection(
        tuple(task for task in selection.tasks if task.name not in gone),
        tuple(group for group in groups if group.members),
    )
