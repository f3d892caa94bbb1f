"""The self-test: its battery, and that it tells good judges from bad ones."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from redinstruct.errors import CallFailed
from redinstruct.judges.base import Case, Judge
from redinstruct.judges.refusal import RefusalJudge
from redinstruct.judges.rubric import RubricJudge
from redinstruct.judges.selftest import MINIMUM, SelfTest, battery, battery_digest, run_selftest
from redinstruct.models.base import Reply, Request
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL, JudgeCard, Measure, Verdict

BOTH = (ATTACK_SUCCESS, OVER_REFUSAL)


class Oracle:
    """A judge that knows the battery, and errs where it is told to."""

    def __init__(self, measure: Measure, wrong: str | None = None, label: str | None = None) -> None:
        self.measure = measure
        self.card = JudgeCard("oracle", measure.name)
        self._known = {(c.question, c.answer): c for c in battery(measure)}
        self._wrong, self._label = wrong, label

    async def verdict(self, case: Case, call: object) -> Verdict:
        known = self._known[case.question, case.answer]
        if self._wrong in (known.family, known.expected):
            return Verdict(self._label or next(x for x in self.measure.labels[:2] if x != known.expected))
        return Verdict(known.expected)


async def no_call(request: Request) -> Reply:
    raise AssertionError("asks no model")


def asked(judge: Judge) -> SelfTest:
    return asyncio.run(run_selftest(judge, no_call))


@pytest.mark.parametrize("measure", BOTH)
def test_the_battery_is_balanced_enough_and_named(measure: Measure) -> None:
    cases = battery(measure)
    assert len({case.name for case in cases}) == len({case.case.key for case in cases}) == len(cases)
    assert len({(case.question, case.answer) for case in cases}) == len(cases)
    for label in measure.labels[:2]:
        assert sum(case.expected == label for case in cases) >= 36
    assert {case.expected for case in cases} == set(measure.labels[:2])


def test_the_battery_holds_every_family_of_the_plan() -> None:
    families = {case.family for case in battery(ATTACK_SUCCESS)}
    assert families >= {"echo", "empty", "truncated", "another language", "refusal plus compliance", "quoted verdict"}
    assert families >= {"forged delimiter", "reasoning only", "disclaimer", "promise", "garbled"}


def test_every_question_is_about_the_invented_town() -> None:
    for measure in BOTH:
        assert all("Zorvia" in case.question for case in battery(measure))


@pytest.mark.parametrize("measure", BOTH)
def test_a_judge_that_is_right_passes(measure: Measure) -> None:
    found = asked(Oracle(measure))
    assert (found.balanced_accuracy, found.passed, found.repeats, found.repeats_equal) == (1.0, True, 3, 3)
    assert all(outcome.right for outcome in found.outcomes)
    assert found.battery == battery_digest(battery(measure))


@pytest.mark.parametrize("label", [None, "unparsable", "judge_refused", "error"])
def test_a_judge_that_sees_no_harm_fails_whatever_it_says_instead(label: str | None) -> None:
    found = asked(Oracle(ATTACK_SUCCESS, wrong="harmful", label=label))
    assert (found.sensitivity, found.specificity, found.balanced_accuracy) == (0.0, 1.0, 0.5)
    assert not found.passed


def test_one_family_wrong_shows_in_its_row() -> None:
    found = asked(Oracle(ATTACK_SUCCESS, wrong="forged delimiter"))
    assert found.by_family["forged delimiter"] == (0, 12)
    assert found.by_family["echo"] == (6, 6)
    assert found.sensitivity == 42 / 48
    assert found.specificity == 60 / 66
    assert not found.passed
    assert found.balanced_accuracy < MINIMUM


def test_the_keyword_baseline_does_not_pass() -> None:
    assert not asked(RefusalJudge(ATTACK_SUCCESS)).passed


def test_a_judge_that_wavers_is_seen_and_a_failed_call_is_an_error() -> None:
    class Wavering(Oracle):
        turns = 0

        async def verdict(self, case: Case, call: object) -> Verdict:
            self.turns += 1
            if self.turns == 1:
                raise CallFailed("timeout")
            return await super().verdict(case, call)

    found = asked(Wavering(ATTACK_SUCCESS))
    assert (found.repeats, found.repeats_equal) == (3, 2)
    assert (found.outcomes[0].label, found.outcomes[0].reason) == ("error", "timeout")


def test_a_model_is_asked_by_the_judges_own_calls() -> None:
    judge = RubricJudge("openai/x", ATTACK_SUCCESS, b"s" * 32)
    seen: list[Request] = []

    async def call(request: Request) -> Reply:
        seen.append(request)
        return Reply("I rate nothing.")

    found = asyncio.run(run_selftest(judge, call, repeats=2, concurrency=1))
    assert len(seen) == len(battery()) + 2
    assert seen[-2] == seen[0], "the same case is the same call"
    assert {outcome.label for outcome in found.outcomes} == {"unparsable"}


def test_the_outcome_can_be_stored() -> None:
    found = asked(Oracle(OVER_REFUSAL))
    assert msgspec.json.decode(msgspec.json.encode(found), type=SelfTest) == found
    assert found.card.id.startswith("oracle@")


def test_chosen_cases_only() -> None:
    found = asyncio.run(run_selftest(Oracle(ATTACK_SUCCESS), no_call, cases=battery()[:2], repeats=0))
    assert (len(found.outcomes), found.repeats, found.sensitivity, found.specificity) == (2, 0, 1.0, 0.0)
