"""The public fakes, and the way from a model's id to a model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redinstruct.errors import ModelSpecError
from redinstruct.judges import Case
from redinstruct.judges.paper import PaperJudge
from redinstruct.models import Model, ModelError, Reply, Request, make_model
from redinstruct.models.registry import MODEL_KINDS
from redinstruct.models.scripted import BEHAVIOURS, COMPLIANCE, REFUSAL, ScriptedModel, scripted
from redinstruct.prompts import render, shipped
from redinstruct.types import FailureReason, Message, Sampling


def request(text: str, **sampling: Any) -> Request:
    return Request((Message("user", text),), Sampling(**sampling))


def ask(model: Model, *texts: str, **sampling: Any) -> list[Reply]:
    return list(asyncio.run(model.generate([request(text, **sampling) for text in texts])))


def weak(prompt: str, number: int, **sampling: Any) -> str:
    prompts = [render(shipped(prompt), f"What is item {n}?") for n in range(number)]
    return " ".join("no" if r.text == REFUSAL else "yes" for r in ask(scripted("weak"), *prompts, **sampling))


def test_a_fake_is_a_model_like_any_other() -> None:
    model = make_model("scripted/comply")
    assert isinstance(model, Model)
    assert (model.id, model.batch_size) == ("scripted/comply", 1)
    asyncio.run(model.aclose())


@pytest.mark.parametrize("name", sorted(set(BEHAVIOURS) - {"error"}))
def test_every_behaviour_answers_from_its_request_alone(name: str) -> None:
    assert ask(scripted(name), "What is blue?") == ask(scripted(name), "What is blue?")
    assert len(ask(scripted(name), "a", "b", "c")) == 3


def test_what_each_says() -> None:
    said = {name: ask(scripted(name), "What is blue?")[0] for name in sorted(set(BEHAVIOURS) - {"error"})}
    assert said["refuse"].text == REFUSAL
    assert said["comply"].text == COMPLIANCE
    assert said["echo"].text == "What is blue?"
    assert said["empty"].text == ""
    assert (said["filtered"].text, said["filtered"].filtered) == (None, True)
    assert said["refuse"].tokens_in == 3
    assert said["refuse"].tokens_out == len(REFUSAL.split())
    with pytest.raises(ModelError) as caught:
        ask(scripted("error"), "x")
    assert (caught.value.reason, caught.value.transient) == (FailureReason.SERVER_ERROR, False)


def test_the_weak_one_shows_what_the_paper_shows() -> None:
    """It refuses a plain question, yields to half of the step-by-step ones and to nearly all in the dialogue."""
    shares = [weak(prompt, 400).split().count("yes") / 400 for prompt in ("standard", "cot", "cou")]
    assert shares[0] < 0.1
    assert 0.4 < shares[1] < 0.6
    assert shares[2] > 0.8


def test_a_seed_makes_another_draw_and_the_same_seed_the_same() -> None:
    assert weak("cot", 60, seed=1) == weak("cot", 60, seed=1) != weak("cot", 60, seed=2)


def test_the_judge_stands_in_for_a_judge_model() -> None:
    judge, model = PaperJudge("scripted/judge"), scripted("judge")

    async def label(answer: str) -> str:
        async def call(asked: Request) -> Reply:
            return (await model.generate([asked]))[0]

        return (await judge.verdict(Case("What is blue?", answer), call)).label

    assert asyncio.run(label(REFUSAL)) == "unharmful"
    assert asyncio.run(label(COMPLIANCE)) == "harmful"


def test_a_function_is_a_model_that_remembers_what_it_was_asked() -> None:
    model = ScriptedModel(lambda r: Reply(r.messages[-1].content.upper()), name="shout")
    assert [reply.text for reply in ask(model, "a", "b")] == ["A", "B"]
    assert model.id == "scripted/shout"
    assert [r.messages[-1].content for r in model.requests] == ["a", "b"]


def test_a_lone_surrogate_is_no_accident() -> None:
    assert ask(scripted("weak"), "odd \ud800 text")


@pytest.mark.parametrize(
    "spec", ["", "x", "gpt-4", "scripted", "scripted/", "scripted/none", "hf", "hf/", "openai", "openai/", "a/b", "/"]
)
def test_an_unknown_id_is_one_clear_line(spec: str) -> None:
    with pytest.raises(ModelSpecError) as caught:
        make_model(spec, environ={})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_another_kind_does_not_know_is_refused() -> None:
    with pytest.raises(ModelSpecError, match="--model-option"):
        make_model("scripted/comply", options={"a": 1})
    with pytest.raises(ModelSpecError, match="--chat-template none"):
        make_model("openai-api/x/m", chat_template="none", environ={"X_BASE_URL": "http://h"})


def test_every_kind_is_listed_with_its_pattern() -> None:
    assert [kind.pattern for kind in MODEL_KINDS] == [
        "openai/<model>", "openai-api/<name>/<model>", "hf/<repo or folder>", "hf/smollm2", "vllm/<repo or path>",
        "inspect/<provider>/<model>", "scripted/<behaviour>",
    ]  # fmt: skip
    assert all(name in MODEL_KINDS[-1].description for name in BEHAVIOURS)
