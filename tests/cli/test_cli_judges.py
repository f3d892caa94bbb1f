"""Judges that ask a model, through the command line: the self-test first, then verdicts bound to the run."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from redinstruct.judges.blocks import data_block
from redinstruct.judges.rubric import _MARKS, MAX_ANSWER
from redinstruct.judges.selftest import battery
from redinstruct.types import ATTACK_SUCCESS
from tests.support.cli import InProcess, here, nothing_written, report, write_bank
from tests.support.endpoint import REFUSAL, Endpoint, answer_text

BATTERY = len(battery()) + 3


def expected(prompt: str, nonce: str) -> bool:
    """Whether the answer in a rubric's prompt is harmful: known for the battery, else by the stub's own refusal."""
    for case in battery(ATTACK_SUCCESS):
        if data_block("QUESTION", case.question, nonce, _MARKS) in prompt:
            block = data_block("ANSWER", case.answer, nonce, _MARKS, MAX_ANSWER)
            if block in prompt:
                return case.expected == "harmful"
    return REFUSAL not in prompt


def good_judge(body: dict[str, Any]) -> str:
    """A stub that is the target and a judge model that judges rightly, in either of the rubric's forms."""
    prompt = body["messages"][-1]["content"]
    found = re.search(r"<<<BEGIN ANSWER ([0-9a-f]{16})>>>", prompt)
    if found is None:
        return answer_text(body)
    nonce = found[1]
    harmful = expected(prompt, nonce)
    figures = {"refused": int(not harmful), "harmful": int(harmful), "on_task": int(harmful)}
    figures |= {"convincing": 4 if harmful else 1, "specificity": 5 if harmful else 1}
    if "response_format" in body:
        return json.dumps({"reason": "read", "nonce": nonce, **figures})
    return f"Read.\nVERDICT {nonce} " + " ".join(f"{name}={value}" for name, value in figures.items())


def bad_judge(body: dict[str, Any]) -> str:
    """One that calls everything harmless."""
    text = good_judge(body)
    return text.replace("harmful=1", "harmful=0") if text.startswith("Read.\nVERDICT") else text


def flags(tmp_path: Path, count: int = 20) -> list[object]:
    return ["eval", "--model", "openai-api/stub/target", "--bank", write_bank(tmp_path, count), "--prompt", "cou",
            "--judge", "rubric", "--judge-model", "openai-api/stub/judge"]  # fmt: skip


@pytest.mark.parametrize("form", ["line", "json"])
def test_a_fit_judge_is_tested_once_then_judges_and_its_card_is_shown(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "run"
    with Endpoint(respond=good_judge) as stub:
        asked = [*flags(tmp_path), "--judge-format", form, "--run", folder]
        done = here(*asked, env=stub.env())
        assert done.code == 0, done.err
        assert stub.requests == BATTERY + 2 * 20
        assert "balanced accuracy 1.00" in " ".join(done.out.split())
        # Extended: the judge passed for this run, and is not tested again.
        write_bank(tmp_path, 20)
        before = stub.requests
        assert here(*asked, "--epochs", "2", env=stub.env()).code == 0
        assert stub.requests - before == 2 * 20
    (result,) = report(folder)["results"]
    assert result["judge"] == "rubric"
    assert result["counts"]["harmful"] + result["counts"]["unharmful"] == 40
    card = result["judge_card"]
    assert card["selftest"]["balanced_accuracy"] == 1.0
    assert card["selftest"]["forced"] is False
    assert card["parameters"]["output"] == ("line" if form == "line" else "json-schema")
    db = sqlite3.connect(folder / "run.sqlite")
    assert {row[0] for row in db.execute("SELECT score FROM verdicts WHERE label = 'harmful'")} == {0.875}
    db.close()


def test_an_unfit_judge_is_refused_before_anything_is_spent_on_the_target(tmp_path: Path) -> None:
    with Endpoint(respond=bad_judge) as stub:
        asked = flags(tmp_path)
        with nothing_written(tmp_path):
            done = here(*asked, "--run", tmp_path / "run", env=stub.env())
        assert "is not fit: balanced accuracy 0.50" in done.error_line
        assert "--force" in done.error_line
        assert stub.requests == BATTERY
        forced = here(*asked, "--run", tmp_path / "run", "--force", env=stub.env())
        assert forced.code == 0, forced.err
    (result,) = report(tmp_path / "run")["results"]
    assert result["judge_card"]["selftest"]["forced"] is True
    assert "it did not pass, and was forced" in " ".join(forced.out.split())


def test_the_self_test_keeps_to_the_limits(tmp_path: Path) -> None:
    with Endpoint(respond=good_judge) as stub:
        done = here(*flags(tmp_path), "--run", tmp_path / "run", "--max-calls", "50", env=stub.env())
        assert f"takes {BATTERY} calls" in done.error_line
        assert stub.requests == 0
        done = here(*flags(tmp_path), "--run", tmp_path / "run", "--max-calls", BATTERY + 10, env=stub.env())
        assert done.code == 11
        assert stub.requests == BATTERY + 10


def test_judging_again_by_a_rubric_never_samples(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Endpoint(respond=good_judge) as stub:
        first = [*flags(tmp_path)[:-4], "--judge", "refusal", "--run", folder]
        assert here(*first, env=stub.env()).code == 0
        sampled = stub.requests
        again = ["judge", folder, "--judge", "rubric", "--judge-model", "openai-api/stub/judge", "--json"]
        done = here(*again, env=stub.env())
        assert done.code == 0, done.err
        assert stub.requests == sampled + BATTERY + 20
    assert [result["judge"] for result in done.json["results"]] == ["refusal", "rubric"]


def test_a_strong_judge_on_a_part_corrects_the_cheap_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keyword baseline takes a refusal that opens unlike one for harm; the strong judge on a part puts it right."""

    def respond(body: dict[str, Any]) -> str:
        text = good_judge(body)
        asks_judge = "<<<BEGIN ANSWER" in body["messages"][-1]["content"]
        return text if asks_judge else text.replace(REFUSAL, f"Well now. {'-' * 300} {REFUSAL}")

    folder = tmp_path / "run"
    with Endpoint(respond=respond) as stub:
        first = [*flags(tmp_path, 200)[:-4], "--judge", "refusal", "--run", folder]
        first[first.index("cou")] = "cot"
        # The run's secret draws the part; a fixed one makes this test the same each time.
        monkeypatch.setattr("redinstruct.run.opened.secrets.token_bytes", lambda count: bytes(count))
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        assert InProcess(capsys)(*first).code == 0
        sampled = stub.requests
        again = ["judge", folder, "--judge", "rubric", "--judge-model", "openai-api/stub/judge", "--sample", 40]
        done = here(*again, env=stub.env())
        assert done.code == 0, done.err
        assert stub.requests == sampled + BATTERY + 40
        assert "both judges together" in done.out
        assert here(*again, env=stub.env()).code == 0
        assert stub.requests == sampled + BATTERY + 40, "the same part is drawn again, and owes nothing"
        (result,) = report(folder)["results"]
        assert result["rate"]["judged"]["estimate"] == 1.0
        (both,) = result["combined"]
        assert both["labels"] == 40
        assert both["judge_id"].startswith("rubric:openai-api/stub/judge@")
        assert both["ci"][1] - both["ci"][0] < 0.4
        own = here("judge", folder, "--judge", "refusal", "--sample", 5)
        assert "for a second judge" in own.err
        assert own.code == 2
        # The whole run judged after all: the second judge then has lines of its own.
        assert here(*again[:-2], env=stub.env()).code == 0
    cheap, strong = report(folder)["results"]
    assert (cheap["judge"], strong["judge"], cheap["combined"]) == ("refusal", "rubric", [])
    assert both["ci"][0] <= strong["rate"]["judged"]["estimate"] <= both["ci"][1]


def test_the_plan_counts_the_self_test(tmp_path: Path) -> None:
    with Endpoint(respond=good_judge) as stub:
        done = here("plan", *flags(tmp_path)[1:], "--json", env=stub.env())
        assert stub.requests == 0
    assert done.json["total"]["calls"] == BATTERY + 2 * 20


class TestBadInput:
    """One line, exit 2, nothing written."""

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--judge", "rubric"], "asks a model"),
            (["--judge", "guard", "--judge-model", "scripted/judge"], "does not know the classifier"),
            (["--judge", "guard", "--judge-model", "scripted/judge", "--guard-kind", "x"], "unknown kind of guard"),
            (["--judge", "refusal", "--rubric", "r.txt"], "for --judge rubric"),
            (["--judge", "rubric", "--judge-model", "scripted/judge", "--rubric", "none.txt"], "no such file"),
            (["--judge", "paper", "--judge-model", "scripted/judge", "--guard-kind", "wildguard"], "for --judge guard"),
        ],
    )
    def test_judges(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
        bank = write_bank(tmp_path, 2)
        with nothing_written(tmp_path):
            done = InProcess(capsys)(
                "eval", "--model", "scripted/weak", "--bank", bank, *more, "--run", tmp_path / "run"
            )
        assert said in done.error_line
