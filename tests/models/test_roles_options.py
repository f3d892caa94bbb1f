"""What every role is sent: options of judge, teacher and answerer, a system prompt, conversations; and no keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redinstruct.errors import ModelSpecError
from redinstruct.models.registry import refuse_keys
from redinstruct.redeval import read_system
from redinstruct.redeval.session import what_is_asked
from redinstruct.types import Message, Question
from tests.support.cli import InProcess
from tests.support.endpoint import Endpoint
from tests.support.tally import finding


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as running:
        running.keep = True
        for name, value in running.env().items():
            monkeypatch.setenv(name, value)
        yield running


def write_bank(folder: Path, rows: list[Any]) -> Path:
    path = folder / "inert.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(bank: Path, run: Path, *more: object) -> list[object]:
    return ["eval", "--model", "openai-api/stub/m", "--bank", bank, "--judge", "paper", "--judge-model",
            "openai-api/stub/j", "--prompt", "standard", "--run", run, *more]  # fmt: skip


def bodies(stub: Endpoint, model: str) -> list[dict[str, Any]]:
    return [body for body in stub.bodies if body["model"] == model]


def judge_of(cli: InProcess, run: Path) -> str:
    document = json.loads(cli("report", run, "--json").out)
    judge: str = document["results"][0]["judge_id"]
    return judge


def test_the_judges_options_reach_the_judge_and_belong_to_its_identity(
    cli: InProcess, stub: Endpoint, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path, [{"question": "What is blue?"}])
    options = ("--judge-option", "max_completion_tokens=900", "--judge-option", "max_tokens=null")
    assert cli(*evaluate(bank, tmp_path / "plain")).code == 0
    assert cli(*evaluate(bank, tmp_path / "run", *options)).code == 0
    first, second = bodies(stub, "j")
    assert "max_completion_tokens" not in first
    assert second["max_completion_tokens"] == 900
    assert "max_tokens" not in second
    assert all("max_completion_tokens" not in body for body in bodies(stub, "m"))
    assert judge_of(cli, tmp_path / "plain") != judge_of(cli, tmp_path / "run")
    # Without the option it is another judge; with it the same run, which asks nothing again.
    assert cli(*evaluate(bank, tmp_path / "run")).code == 2
    asked = stub.requests
    assert cli(*evaluate(bank, tmp_path / "run", *options)).code == 0
    assert stub.requests == asked
    judged = ("judge", tmp_path / "plain", "--judge", "paper", "--judge-model", "openai-api/stub/j", *options)
    assert cli(*judged).code == 0
    assert bodies(stub, "j")[-1]["max_completion_tokens"] == 900


def test_an_option_of_a_judge_that_asks_nobody_is_refused(cli: InProcess, stub: Endpoint, tmp_path: Path) -> None:
    bank = write_bank(tmp_path, [{"question": "What is blue?"}])
    result = cli("eval", "--model", "openai-api/stub/m", "--bank", bank, "--judge", "refusal", "--run", tmp_path / "r",
                 "--judge-option", "seed=1")  # fmt: skip
    assert result.code == 2
    assert "--judge-option" in result.error_line
    assert not (tmp_path / "r").exists()


def test_teacher_and_answerer_take_options_of_their_own(cli: InProcess, stub: Endpoint, tmp_path: Path) -> None:
    topics = tmp_path / "topics.json"
    topics.write_text('{"Paint": ["Blue"]}')
    command = ["collect", "--teacher", "openai-api/stub/t", "--answerer", "openai-api/stub/a", "--topics", topics,
               "--per-subtopic", 1, "--blue", 1, "--turn-by-turn", "--run", tmp_path / "c"]  # fmt: skip
    assert cli(*command, "--teacher-option", "effort=low", "--answerer-option", "effort=high").code in (0, 11)
    assert {body["effort"] for body in bodies(stub, "t")} == {"low"}
    assert {body["effort"] for body in bodies(stub, "a")} <= {"high"}
    other = cli(*command, "--teacher-option", "effort=high", "--answerer-option", "effort=high")
    assert other.code == 2
    assert "--teacher-option" in other.error_line


def test_a_deployed_system_prompt_is_sent_before_every_prompt_and_belongs_to_the_run(
    cli: InProcess, stub: Endpoint, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path, [{"question": "What is blue?"}])
    file = tmp_path / "system.txt"
    file.write_text("You work for the museum.\n")
    both = ("--prompt", "cou")
    assert cli(*evaluate(bank, tmp_path / "run", *both, "--system", file)).code == 0
    sent = [body["messages"] for body in bodies(stub, "m")]
    assert len(sent) == 2
    assert all(m[0] == {"role": "system", "content": "You work for the museum.\n"} for m in sent)
    assert all(len(m) == 2 and "What is blue?" in m[1]["content"] for m in sent)
    assert "museum" not in json.dumps([b["messages"] for b in bodies(stub, "j")])
    # The file's text counts, wherever it stands.
    assert cli(*evaluate(bank, tmp_path / "run", *both, "--system", "You work for the museum.\n")).code == 0
    for changed in ((), ("--system", "You work for the ferry.")):
        refused = cli(*evaluate(bank, tmp_path / "run", *both, *changed))
        assert refused.code == 2
        assert "--system" in refused.error_line
        assert "museum" not in refused.err
    page = tmp_path / "page.html"
    assert cli("report", tmp_path / "run", "--out", page).code == 0
    assert "system prompt" in page.read_text()
    assert "You work for" not in page.read_text()
    assert cli(*evaluate(bank, tmp_path / "other", *both)).code == 0
    compared = json.loads(cli("compare", tmp_path / "other", tmp_path / "run", "--json").out)
    assert all("system prompt" in json.dumps(result) for result in compared["results"])


@pytest.mark.parametrize("given", ["no/such/file.txt", "system.md", " ", ""])
def test_a_system_prompt_that_is_none_is_bad_input(cli: InProcess, stub: Endpoint, tmp_path: Path, given: str) -> None:
    bank = write_bank(tmp_path, [{"question": "What is blue?"}])
    result = cli(*evaluate(bank, tmp_path / "run", "--system", given))
    assert result.code == 2
    assert "--system" in result.error_line
    assert not (tmp_path / "run").exists()
    assert stub.requests == 0


def test_a_text_is_a_system_prompt_however_long() -> None:
    assert read_system("Be brief. " * 1000) == "Be brief. " * 1000
    assert read_system("Brief!") == "Brief!"
    assert read_system(None) is None


def test_a_conversation_is_asked_turn_by_turn_under_the_frame_and_the_system_prompt(
    cli: InProcess, stub: Endpoint, tmp_path: Path
) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."},
             {"role": "assistant", "content": "Good day."}, {"role": "user", "content": "What is blue?"}]  # fmt: skip
    bank = write_bank(tmp_path, [{"messages": turns}])
    more = ("--prompt", "cou", "--system", "You work for the museum.")
    assert cli(*evaluate(bank, tmp_path / "run", *more)).code == 0
    for body in bodies(stub, "m"):
        system, *spoken, last = body["messages"]
        assert system == {"role": "system", "content": "You work for the museum.\n\nBe kind."}
        assert spoken == turns[1:3]
        assert last["role"] == "user"
        assert "What is blue?" in last["content"]
    assert "Red-LM" in bodies(stub, "m")[1]["messages"][-1]["content"]
    for body in bodies(stub, "j"):
        shown = body["messages"][-1]["content"]
        assert "User: Hello.\n\nAssistant: Good day.\n\nUser: What is blue?" in shown
        assert "museum" not in shown


def test_what_a_judge_is_shown_of_a_question_alone_is_the_question() -> None:
    assert what_is_asked(Question("b:1", "What is blue?", 1)) == "What is blue?"
    system = (Message("system", "Be kind."),)
    assert what_is_asked(Question("b:1", "What is blue?", 1, earlier=system)) == "What is blue?"


KEY = "sk-museum-4f9a81c3d2e5"
HIDDEN: list[dict[str, Any]] = [
    {"api_key": "words-of-a-key"},
    {"apiKey": "x1"},
    {"extra": {"api_key": "x1"}},
    {"extra_headers": {"Authorization": "Bearer abcdef"}},
    {"extra_headers": {"x-api-key": "x1"}},
    {"headers": [{"name": "Ocp-Apim-Subscription-Key", "ocp-apim-subscription-key": "x1"}]},
    {"a": [{"b": {"password": "x1"}}]},
    {"access_token": "x1"},
    {"aws_secret_access_key": "x1"},
    {"google": {"credentials": {"private_key": "x1"}}},
    {"note": KEY},
    {"note": f"use {KEY} please"},
    {KEY: 1},
    {"header": "basic dXNlcjpwYXNz"},
]


@finding(11)
@pytest.mark.parametrize("options", HIDDEN)
def test_a_key_among_the_options_is_refused_and_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(ModelSpecError) as caught:
        refuse_keys(options)
    assert "holds a key" in str(caught.value)
    for secret in ("words-of-a-key", "x1", KEY, "abcdef", "dXNlcjpwYXNz"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_completion_tokens": 900, "token_limit": 5, "eos_token_id": 2, "reasoning": {"max_tokens": 5}},
        {"reasoning_effort": "low", "prompt_cache_key": "run-7", "logit_bias": {"50256": -100}},
        {"chat_template_kwargs": {"enable_thinking": False}, "user": "3f2504e0-4f89-11d3-9a0c-0305e82c3301"},
        {"api_key": None, "stop_token_ids": [1, 2], "guided_regex": "[a-z]+", "key": ""},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {"key": {"type": "x"}}}}}},
    ],
)
def test_ordinary_options_are_taken(options: dict[str, Any]) -> None:
    refuse_keys(options)


@finding(11)
@pytest.mark.parametrize("flag", ["--model-option", "--judge-option"])
def test_a_key_in_an_option_ends_in_no_store_and_no_output(
    cli: InProcess, stub: Endpoint, tmp_path: Path, flag: str
) -> None:
    bank = write_bank(tmp_path, [{"question": "What is blue?"}])
    for pair in (f'extra={{"api_key":"{KEY}"}}', KEY, f"header=Bearer {KEY}"):
        result = cli(*evaluate(bank, tmp_path / "run", flag, pair))
        assert result.code == 2
        assert KEY not in result.out + result.err
    assert not (tmp_path / "run").exists()
    assert stub.requests == 0
