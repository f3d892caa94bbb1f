"""kill -9 at any moment: nothing committed is lost or doubled, and at most the calls in flight are asked again."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from tests.support.cli import run as redinstruct
from tests.support.cli import start, write_bank
from tests.support.endpoint import Endpoint
from tests.support.kills import killed_past
from tests.support.tally import faults, tally

CONCURRENCY = 16


def rows(run: Path) -> tuple[dict[bytes, tuple[object, ...]], dict[bytes, tuple[object, ...]]]:
    """Committed answers and verdicts by attempt key, read without changing anything."""
    if not (run / "run.sqlite").exists():
        return {}, {}
    db = sqlite3.connect(f"{(run / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True)
    try:
        answers = db.execute(
            "SELECT a.key, c.asked, c.outcome, c.raw FROM completions c JOIN attempts a ON a.id = c.attempt"
        )
        found = {row[0]: row[1:] for row in answers}
        verdicts = db.execute("SELECT a.key, v.label, v.judged_no FROM verdicts v JOIN attempts a ON a.id = v.attempt")
        return found, {row[0]: row[1:] for row in verdicts}
    except sqlite3.OperationalError:
        return {}, {}
    finally:
        db.close()


def kill_and_resume(folder: Path, kills: int, questions: int, seed: int, judge: str) -> None:
    """Kill the same command ``kills`` times at random moments, let it end, and compare with an undisturbed run."""
    rng = random.Random(seed)
    bank = write_bank(folder, questions)
    with Endpoint(latency=0.02) as stub:
        flags = ["eval", "--model", "openai-api/stub/target", "--bank", bank, "--prompt", "cou", "--judge", judge,
                 "--concurrency", CONCURRENCY]  # fmt: skip
        if judge == "paper":
            flags += ["--judge-model", "openai-api/stub/judge"]
        calls_per_attempt = 2 if judge == "paper" else 1
        whole = folder / "whole"
        assert redinstruct(*flags, "--run", whole, env=stub.env()).code == 0
        assert stub.requests == calls_per_attempt * questions
        stub.requests = 0

        run, landed = folder / "killed", 0
        before: tuple[dict[bytes, tuple[object, ...]], dict[bytes, tuple[object, ...]]] = ({}, {})
        for kill in range(kills):
            # The moments are spread over the whole run by its progress, and jittered in time; every fifth is blind.
            share = max(0, calls_per_attempt * questions - stub.requests) / (kills - kill)
            goal = stub.requests + rng.uniform(0, 1.5 * share)
            process = start(*flags, "--run", run, env=stub.env())
            within = rng.uniform(0, 0.6) if kill % 5 == 4 else 30
            landed += killed_past(process, stub, goal, rng, within)
            after = rows(run)
            for kind in (0, 1):
                lost = {key: row for key, row in before[kind].items() if after[kind].get(key) != row}
                assert not lost, f"{len(lost)} committed rows changed or vanished"
            before = after
        last = redinstruct(*flags, "--run", run, env=stub.env())
        assert last.code == 0, last.err
        asked = stub.requests
        assert redinstruct(*flags, "--run", run, env=stub.env()).code == 0
        assert stub.requests == asked, "a complete run asks nothing"
        assert landed >= 0.9 * kills, "too few kills hit a living run: the test would show nothing"
        assert asked - calls_per_attempt * questions <= CONCURRENCY * landed
        db = sqlite3.connect(run / "run.sqlite")
        assert db.execute("SELECT count(*), count(DISTINCT attempt) FROM completions").fetchone() == (
            questions,
            questions,
        )
        assert db.execute("SELECT count(*), count(DISTINCT attempt) FROM verdicts").fetchone() == (questions, questions)
        db.close()
    one, two = (redinstruct("report", path, "--json").out for path in (whole, run))
    assert one == two, "the report differs from the undisturbed run's"


@pytest.mark.parametrize("judge", [pytest.param("refusal", marks=pytest.mark.slow), "paper"])
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(tmp_path: Path, judge: str) -> None:
    kill_and_resume(tmp_path, kills=2, questions=120, seed=3, judge=judge)


@faults
@pytest.mark.parametrize("judge", ["refusal", "paper"])
def test_fifty_kills_of_a_run_of_500_questions(tmp_path: Path, judge: str) -> None:
    kill_and_resume(tmp_path, kills=50, questions=500, seed=2, judge=judge)
    tally(f"SIGKILL of `eval` over sockets, {judge}: rows lost or doubled, calls beyond those in flight", 50, 0)
