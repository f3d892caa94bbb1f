"""Which judge, and how it is asked: the settings that every verb with a judge has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import msgspec

from redinstruct.errors import UsageError
from redinstruct.judges.base import Judge
from redinstruct.judges.registry import JudgeOptions, make_judge, model_of_judge
from redinstruct.models import Model, Options
from redinstruct.settings import JUDGING, NEEDED, Setting
from redinstruct.types import Measure

JUDGE = Setting(
    "rubric, guard, policy (your own), paper, refusal (a keyword baseline), exact (the toy world's truth) or "
    "policy-lab.",
    "J", NEEDED, short="-j", first=3,
)  # fmt: skip


class JudgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who judges. ``judge`` and ``judge_model`` are ids, or objects of one's own."""

    judge: Annotated[str | Judge | None, JUDGE] = None
    judge_model: Annotated[str | Model | None, Setting("The model that the judge asks.", "M2", NEEDED, first=4)] = None
    rubric: Annotated[
        Path | None,
        Setting("Your own rubric for --judge rubric: text with <question>, <answer> and <format>.", "FILE", JUDGING),
    ] = None
    policy: Annotated[
        Path | None,
        Setting(
            "The written policy for --judge policy: any text that says what an answer must not do.", "FILE", JUDGING
        ),
    ] = None
    judge_format: Annotated[
        str,
        Setting(
            "How rubric and policy answer: a final line, or JSON under a schema, where the endpoint keeps to it.",
            group=JUDGING,
            names=("line", "json"),
        ),
    ] = "line"
    guard_kind: Annotated[
        str | None, Setting("The classifier's family, where its name does not tell.", "K", JUDGING)
    ] = None
    judge_options: Annotated[
        Options,
        Setting(
            "A field of the requests to the judge's model; a part of the judge's identity: set, or removed by null. "
            "Repeatable.",
            "KEY=JSON",
            JUDGING,
            "--judge-option",
        ),
    ] = msgspec.field(default_factory=dict)

    @property
    def judge_how(self) -> JudgeOptions:
        """What was chosen about the judge, as one value."""
        return JudgeOptions(
            self.rubric, self.judge_format == "json", self.guard_kind, dict(self.judge_options), self.policy
        )

    def with_judge_how(self, given: JudgeOptions | None) -> Self:
        """The same with what is chosen about the judge."""
        if given is None:
            return self
        if not isinstance(given, JudgeOptions):
            raise UsageError(f"judge_options must be a redinstruct.judges.JudgeOptions, not a {type(given).__name__}")
        return msgspec.structs.replace(
            self, rubric=given.rubric, judge_format="json" if given.constrained else "line", policy=given.policy,
            guard_kind=given.guard_kind, judge_options=given.request,
        )  # fmt: skip

    def judge_of(self, measure: Measure) -> Judge:
        """The judge that was named, or given. Raises ``UsageError`` for one that cannot take the measure."""
        if self.judge is None:
            raise UsageError("no judge: name one with --judge")
        if not isinstance(self.judge, str):
            if msgspec.structs.replace(self.judge_how, request={}) != JudgeOptions():
                raise UsageError(
                    "--rubric, --policy, --judge-format and --guard-kind: only with a judge by its name; an object "
                    "judges in its own way"
                )
            if self.judge_options and self.judge_model is None:
                raise UsageError("--judge-option: only with --judge-model")
            return self.judge
        asked = self.judge_model
        return make_judge(
            self.judge, measure, asked if asked is None or isinstance(asked, str) else asked.id, self.judge_how
        )

    def judge_model_of(self, judge: Judge, timeout: float) -> Model | None:
        """The model that the judge asks."""
        return model_of_judge(judge, self.judge_model, timeout, self.judge_how)
