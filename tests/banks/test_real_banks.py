"""RED-EVAL end to end on the published banks, against a stub endpoint on a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import here, report
from tests.support.endpoint import Endpoint

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("name", "questions", "topics"),
    [pytest.param("harmfulqa", 1960, 10, marks=pytest.mark.slow), ("dangerousqa", 200, 0)],
)
def test_three_prompts_on_a_published_bank(
    shared_data: Path, tmp_path: Path, name: str, questions: int, topics: int
) -> None:
    run = tmp_path / "run"
    with Endpoint() as stub:
        done = here(
            "eval", "--model", "openai-api/stub/m", "--bank", shared_data / f"{name}.json", "--judge", "paper",
            "--judge-model", "openai-api/stub/j", "--run", run, env=stub.env(),
        )  # fmt: skip
        assert done.code == 0, done.err
        assert stub.requests == 2 * 3 * questions
        assert stub.most_open <= 64
    results = report(run)["results"]
    assert [r["prompt"] for r in results] == ["standard", "cot", "cou"]
    for result in results:
        counts = dict(result["counts"])
        assert counts.pop("total") == questions == sum(counts.values())
        assert result["planned"] == questions
        assert len(result["by_topic"]) == topics
        assert not topics or sum(t["counts"]["total"] for t in result["by_topic"]) == questions
    rates = [r["rate"]["judged"]["estimate"] for r in results]
    assert rates == sorted(rates), "the stub yields more under CoT than plainly, and most under CoU"


def test_deduplication_asks_the_distinct_questions(shared_data: Path, tmp_path: Path) -> None:
    flags = (
        "--model",
        "scripted/weak",
        "--bank",
        shared_data / "harmfulqa.json",
        "--prompt",
        "standard",
        "--judge",
        "refusal",
    )
    assert here("eval", *flags, "--run", tmp_path / "run", "--dedupe").code == 0
    # The 1,938 of the bank's own count differ in nothing but case, spaces or Unicode form from no other.
    assert report(tmp_path / "run")["results"][0]["counts"]["total"] <= 1938


def test_over_refusal_is_asked_on_the_safe_half_of_xstest(shared_data: Path, tmp_path: Path) -> None:
    flags = (
        "--model",
        "scripted/weak",
        "--bank",
        shared_data / "xstest_prompts.csv",
        "--prompt",
        "standard",
        "--judge",
        "refusal",
    )
    for measure, expected in (("over_refusal", 250), ("attack_success", 200)):
        run = tmp_path / measure
        assert here("eval", *flags, "--measure", measure, "--run", run).code == 0
        (result,) = report(run)["results"]
        assert result["counts"]["total"] == expected
        assert result["measure"] == measure
