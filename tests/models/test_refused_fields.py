"""An endpoint that does not take a field says so once; the field is left out from then on, and a note says it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from redinstruct.engine import Caller, RetryPolicy
from redinstruct.errors import CallFailed
from redinstruct.models import ModelError, Request, make_model
from redinstruct.models.adapting import folded
from redinstruct.models.failures import status_error
from redinstruct.models.openai_api import EndpointModel
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.cli import InProcess
from tests.support.endpoint import Endpoint, completion, http

SYSTEM = "messages[0].role"
WORDS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    SYSTEM: "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
}


class Picky(Endpoint):
    """Refuses the first field of ``refuses`` that a request holds, as OpenAI does."""

    refuses: tuple[str, ...] = ()

    def answer(self, head: str, raw: bytes) -> bytes:
        self.requests += 1
        body: dict[str, Any] = json.loads(raw)
        self.bodies.append(body)
        held = {*body, *([SYSTEM] if body["messages"][0]["role"] == "system" else [])}
        for name in self.refuses:
            if name in held:
                words = WORDS.get(name, f"Unsupported parameter: '{name}' is not supported with this model.")
                error = {"message": words, "param": name, "code": "unsupported_parameter"}
                return http(400, json.dumps({"error": error}).encode())
        return http(200, completion("fine"))


REQUEST = Request(
    (Message("system", "Be brief."), Message("user", "What is blue?")),
    Sampling(max_tokens=7, temperature=0.0, top_p=0.5, seed=3, stop=("x",)),
    response_format='{"type":"json_object"}',
    top_logprobs=2,
)


def ask(stub: Picky, times: int = 1, request: Request = REQUEST, **options: object) -> EndpointModel:
    async def main() -> EndpointModel:
        model = make_model("openai-api/stub/m", environ=stub.env(), options=options)
        assert isinstance(model, EndpointModel)
        caller = Caller(model, ceiling=4, retry=RetryPolicy(max_tries=12, first_wait=0.0001))
        try:
            for _ in range(times):
                assert (await caller(request)).reply.text == "fine"
        finally:
            await caller.aclose()
        return model

    return asyncio.run(main())


def test_every_field_that_is_refused_is_left_out_and_asked_about_once() -> None:
    with Picky() as stub:
        stub.refuses = ("max_tokens", "temperature", "top_p", "seed", "stop", "response_format", "logprobs", SYSTEM)
        model = ask(stub, times=3)
        assert stub.requests == len(stub.refuses) + 3
        last = stub.bodies[-1]
        assert last == {"model": "m", "messages": [{"role": "user", "content": "Be brief.\n\nWhat is blue?"}],
                        "max_completion_tokens": 7}  # fmt: skip
        assert len(model.notes) == len(stub.refuses)
        assert all(note.startswith("openai-api/stub/m takes no ") for note in model.notes)
        # Another role of the same model knows it already.
        before = stub.requests
        assert ask(stub).notes == model.notes
        assert stub.requests == before + 1


def test_what_the_user_set_is_never_changed() -> None:
    with Picky() as stub:
        stub.refuses = ("temperature",)
        with pytest.raises(CallFailed) as caught:
            ask(stub, temperature=0.3)
        assert caught.value.reason == FailureReason.BAD_REQUEST
        assert "'temperature'" in (caught.value.note or "")
        assert stub.requests == 1


def test_an_endpoint_that_refuses_what_was_not_sent_is_believed_once() -> None:
    with Picky() as stub:
        stub.refuses = ("model",)
        with pytest.raises(CallFailed):
            ask(stub)
        assert stub.requests == 1


# Sources: OpenAI's o-series and GPT-5 (llmcomp#69), Mistral's and Gemini's compatible endpoints, Moonshot, Anthropic,
# LiteLLM, llama.cpp, vLLM with the templates of Gemma 2 and Mistral, Gemini with Gemma 3, Groq.
SHAPES: list[tuple[int, object, tuple[str, ...]]] = [
    (400, {"message": WORDS["max_tokens"], "param": "max_tokens", "code": "unsupported_parameter"}, ("max_tokens",)),
    (400, {"message": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
           "value is supported.", "param": "temperature", "code": "unsupported_value"}, ("temperature",)),
    (400, {"message": WORDS[SYSTEM], "param": SYSTEM, "code": "unsupported_value"}, ("system",)),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
     ("seed",)),
    (400, {"message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}, ("seed",)),
    (400, {"message": "invalid temperature: only 1 is allowed for this model"}, ("temperature",)),
    (400, {"message": "`temperature` is deprecated for this model."}, ("temperature",)),
    (400, {"message": "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0. Only temperature=1 is "
           "supported."}, ("temperature",)),
    (500, {"message": "System role not supported"}, ("system",)),
    (400, {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}, ("system",)),
    (400, {"message": "Developer instruction is not enabled for models/gemma-3-27b-it"}, ("system",)),
    (400, {"message": "This model does not support response format `json_schema`."}, ("response_format",)),
    (400, {"message": "`logprobs` is not supported with this model"}, ("logprobs",)),
    # A value that is out of range is the user's to change.
    (400, {"message": "max_tokens is too large: 100000. This model supports at most 4096 completion tokens."}, ()),
    (400, {"message": "temperature must be between 0 and 1"}, ()),
    (400, {"message": "This model's maximum context length is 512 tokens. However, you requested 1000 tokens."}, ()),
    (503, {"message": "The model is temporarily not available, stop trying"}, ()),
    (429, {"message": "temperature is not supported"}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "fields"), SHAPES)
def test_which_field_is_refused_is_read_from_each_providers_words(
    status: int, error: object, fields: tuple[str, ...]
) -> None:
    found = status_error(status, {}, json.dumps({"error": error}).encode())
    assert isinstance(found, ModelError)
    assert found.refused == fields


def test_a_system_message_is_folded_into_the_users_next_turn() -> None:
    one, two = Message("system", "One."), Message("system", "Two.")
    user, model = Message("user", "Hello"), Message("assistant", "Hi")
    assert folded((one, two, user, model, user)) == (Message("user", "One.\n\nTwo.\n\nHello"), model, user)
    assert folded((Message("system", " "), user)) == (user,)
    assert folded((user, model, one)) == (user, model, Message("user", "One."))


def test_a_judge_that_every_call_of_fails_is_unfit_in_its_endpoints_own_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "inert.json"
    bank.write_text('["What is blue?"]')
    with Picky() as stub:
        stub.refuses = ("temperature",)
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        result = InProcess(capsys)(
            "eval", "--model", "scripted/refuse", "--bank", bank, "--judge", "rubric", "--judge-model",
            "openai-api/stub/m", "--judge-option", "temperature=0.5", "--run", tmp_path / "run",
        )  # fmt: skip
    assert result.code == 2
    assert "'temperature' is not supported" in result.error_line
    assert not (tmp_path / "run").exists()
