"""An endpoint that fails in every way there is: the run ends, each failure has its reason, none is counted safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redinstruct.engine import RetryPolicy
from tests.support.cli import InProcess, Result, here, report, run_measured, write_bank
from tests.support.endpoint import Endpoint

STORM = {"429": 0.20, "500": 0.05, "truncated": 0.01}

# What each fault becomes when it hits every try of a question: label, reason, requests sent.
PERMANENT = {
    "html": ("error", "invalid_json", 6),
    "truncated": ("error", "invalid_json", 6),
    "deep": ("error", "invalid_json", 6),
    "badlength": ("error", "invalid_json", 6),
    "nochoices": ("error", "no_choices", 1),
    "shape": ("error", "bad_shape", 1),
    "array": ("error", "bad_shape", 1),
    "null": ("no_response", "empty", 1),
    "empty": ("no_response", "empty", 1),
    "filtered": ("no_response", "provider_filter", 1),
    "filter400": ("no_response", "provider_filter", 1),
    "huge": ("error", "too_large", 1),
    "reset": ("error", "connection", 6),
    "redirect": ("error", "redirect", 1),
    "400": ("error", "bad_request", 1),
    "401": ("error", "unauthorized", 1),
    "403": ("error", "forbidden", 1),
    "404": ("error", "not_found", 1),
    "408": ("error", "timeout", 6),
    "409": ("error", "conflict", 6),
    "418": ("error", "http_status", 1),
    "422": ("error", "unprocessable", 1),
    "429": ("error", "rate_limited", 6),
    "503": ("error", "server_error", 6),
    "error200": ("error", "server_error", 6),
}


def check_no_accident(done: Result, code: int = 0) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err + done.out
    assert "internal error" not in done.err


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tries as ever, with next to no waiting between them."""
    monkeypatch.setattr("redinstruct.engine.calls.RetryPolicy", lambda: RetryPolicy(first_wait=0.0001))


@pytest.mark.usefixtures("soon")
def test_every_fault_has_its_reason_and_none_is_safe(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "faults.json"
    # One sound question first, so that the fuse sees that the endpoint works.
    bank.write_text(json.dumps(["What is blue?", *(f"What is fault:{name} ?" for name in PERMANENT)]))
    run = tmp_path / "run"
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        done = cli("eval", "--model", "openai-api/stub/m", "--bank", bank, "--prompt", "standard",
                   "--judge", "refusal", "--run", run, "--patience", "0")  # fmt: skip
        check_no_accident(done, 11)  # most of them are errors
        expected = 1 + sum(tries for _, _, tries in PERMANENT.values())
        assert stub.requests == expected
    (result,) = report(run)["results"]
    labels = [label for label, _, _ in PERMANENT.values()]
    assert result["counts"] == {
        "total": 1 + len(PERMANENT),
        "harmful": result["counts"]["harmful"],
        "unharmful": 1 - result["counts"]["harmful"],
        "no_response": labels.count("no_response"),
        "judge_refused": 0,
        "unparsable": 0,
        "error": labels.count("error"),
    }
    shown = json.loads(here("show", run, "--json", "--show-content", "--limit", 100).out)["attempts"]
    for attempt in shown:
        if "fault:" in attempt["question"]:
            name = attempt["question"].split("fault:")[1].split()[0]
            assert (attempt["label"], attempt["reason"], attempt["tries"]) == PERMANENT[name], name


@pytest.mark.usefixtures("soon")
def test_a_dripping_answer_ends_at_the_deadline_each_time_and_is_a_time_out(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "drip.json"
    bank.write_text(json.dumps(["What is blue?", "What is fault:drip ?"]))
    run = tmp_path / "drip"
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        done = cli("eval", "--model", "openai-api/stub/m", "--bank", bank, "--prompt", "standard", "--judge", "refusal",
                   "--run", run, "--timeout", "0.3", "--patience", "0")  # fmt: skip
        check_no_accident(done, 11)
    (result,) = report(run)["results"]
    assert result["counts"]["error"] == 1
    assert result["reasons"] == {"timeout": 1}


def storm(tmp_path: Path, bank: Path, limit: int | None, judge: str) -> dict[str, Any]:
    run = tmp_path / "run"
    flags = (
        ["--judge", "refusal"] if judge == "refusal" else ["--judge", "paper", "--judge-model", "openai-api/stub/judge"]
    )
    if limit is not None:
        flags += ["--limit", str(limit)]
    with Endpoint(rates=STORM, seed=3) as stub:
        done = here("eval", "--model", "openai-api/stub/m", "--bank", bank, "--run", run, *flags, env=stub.env())
        check_no_accident(done)
    return report(run)


def check_storm(results: list[dict[str, Any]], planned: int) -> None:
    total = sum(r["counts"]["total"] for r in results)
    judged = sum(r["counts"]["harmful"] + r["counts"]["unharmful"] for r in results)
    assert total == planned
    assert judged / planned >= 0.995, f"{judged} of {planned} attempts judged"
    for result in results:
        counts = dict(result["counts"])
        assert counts.pop("total") == sum(counts.values())


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("judge", ["refusal", pytest.param("paper", marks=pytest.mark.slow)])
def test_a_storm_of_passing_faults_costs_almost_no_attempt(tmp_path: Path, judge: str) -> None:
    check_storm(storm(tmp_path, write_bank(tmp_path, 150), None, judge)["results"], 450)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("judge", ["refusal", "paper"])
def test_harmfulqa_in_the_storm(tmp_path: Path, shared_data: Path, judge: str) -> None:
    check_storm(storm(tmp_path, shared_data / "harmfulqa.json", None, judge)["results"], 5880)


@pytest.mark.slow
def test_a_huge_answer_is_not_held_in_memory(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        """Peak resident bytes of a run in which ``count`` answers have 50 MB each."""
        folder = tmp_path / str(count)
        folder.mkdir()
        bank = folder / "huge.json"
        bank.write_text(json.dumps(["What is blue?"] + [f"What is fault:huge number {i}?" for i in range(count)]))
        with Endpoint() as stub:
            done, used = run_measured("eval", "--model", "openai-api/stub/m", "--bank", bank, "--prompt", "standard",
                                      "--judge", "refusal", "--run", folder / "run", env=stub.env())  # fmt: skip
        check_no_accident(done, 11 if count else 0)
        return used

    assert peak(4) - peak(0) < 20 * 2**20
