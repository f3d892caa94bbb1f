"""The endpoint model: what goes over the wire, and what comes of whatever comes back.

Over real sockets against the stub, where sockets matter; in process, by the thousand, where the bytes of an answer do.
The promise: every answer becomes a ``Reply`` or a ``ModelError`` with a typed reason, quickly, in little memory, and
nothing of a key is in either.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import ModelSpecError
from redinstruct.models import ModelError, Reply, Request, make_model, openai_api, waits
from redinstruct.models.failures import MAX_NOTE, Filtered, status_error
from redinstruct.models.openai_api import EndpointModel
from redinstruct.models.replies import read_reply
from redinstruct.safetext import redact, terminal
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.cli import ROOT
from tests.support.endpoint import FAULTS, RESET, Endpoint, completion, http

R = FailureReason
MODEL = "openai-api/stub/m"


@pytest.fixture(scope="module")
def stub() -> Iterator[Endpoint]:
    with Endpoint() as running:
        running.keep = True
        yield running


def question(text: str = "What is blue?", **sampling: Any) -> Request:
    return Request((Message("user", text),), Sampling(**sampling))


def make(environ: Mapping[str, str], model: str = MODEL, **keywords: Any) -> EndpointModel:
    made = make_model(model, environ=environ, **keywords)
    assert isinstance(made, EndpointModel)
    return made


def ask(
    environ: Mapping[str, str], text: str = "What is blue?", model: str = MODEL, **keywords: Any
) -> Reply | ModelError:
    async def main() -> Reply | ModelError:
        target = make(environ, model, **keywords)
        try:
            (reply,) = await target.generate([question(text)])
        except ModelError as error:
            return error
        else:
            return reply
        finally:
            await target.aclose()

    return asyncio.run(main())


def outcome(answer: Reply | ModelError) -> tuple[object, ...]:
    if isinstance(answer, ModelError):
        return (answer.reason, answer.transient)
    return ("filtered",) if answer.filtered else (answer.text,)


# --- What is sent --------------------------------------------------------------------------------------------------


def test_the_request_is_a_plain_post_with_string_content_and_its_length(stub: Endpoint) -> None:
    ask(stub.env(), "Grüße?")
    request_line, *lines = stub.heads[-1].split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert request_line == "POST /v1/chat/completions HTTP/1.1"
    body = {"model": "m", "messages": [{"role": "user", "content": "Grüße?"}], "max_tokens": 500}
    assert stub.bodies[-1] == body
    assert int(headers["content-length"]) == len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    assert "transfer-encoding" not in headers
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer sk-stub"
    assert headers["accept-encoding"] == "identity"


def sent(request: Request, **options: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(make({"STUB_BASE_URL": "http://h/v1"}, options=options).body(request))
    assert "stream" not in body
    return body


def test_only_what_was_asked_for_is_sent() -> None:
    assert set(sent(question())) == {"model", "messages", "max_tokens"}
    full = sent(question(max_tokens=7, temperature=0.0, top_p=0.5, seed=0, stop=("a", "b")))
    expected = {"max_tokens": 7, "temperature": 0.0, "top_p": 0.5, "seed": 0, "stop": ["a", "b"]}
    assert {k: v for k, v in full.items() if k not in ("model", "messages")} == expected


def test_an_option_adds_a_field_replaces_one_or_removes_one() -> None:
    body = sent(question(), max_tokens=None, max_completion_tokens=900, model="other", extra={"a": [1]})
    assert set(body) == {"model", "messages", "max_completion_tokens", "extra"}
    assert body["model"] == "other"
    assert body["extra"] == {"a": [1]}


def test_streaming_cannot_be_switched_on() -> None:
    with pytest.raises(ModelSpecError, match="stream"):
        make({"STUB_BASE_URL": "http://h/v1"}, options={"stream": True})


def test_a_lone_surrogate_in_a_question_is_a_typed_failure_and_nothing_is_sent(stub: Endpoint) -> None:
    before = stub.requests
    answer = ask(stub.env(), "odd \ud800 question")
    assert outcome(answer) == (R.BAD_REQUEST, False)
    assert stub.requests == before


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        (
            "/openai/deployments/d?api-version=2024-02-01",
            "/openai/deployments/d/chat/completions?api-version=2024-02-01",
        ),
        ("/a%2Fb/v1#fragment", "/a%2Fb/v1/chat/completions"),
    ],
)
def test_the_address_may_come_in_each_usual_form(stub: Endpoint, address: str, path: str) -> None:
    reply = ask({"STUB_BASE_URL": f"http://127.0.0.1:{stub.port}{address}"})
    assert isinstance(reply, Reply)
    assert stub.heads[-1].split()[1] == path
    assert "authorization" not in stub.heads[-1].lower()


@pytest.mark.parametrize(
    ("name", "variable"), [("stub", "STUB"), ("my-box", "MY_BOX"), ("Two_2-b", "TWO_2_B"), ("x", "X")]
)
def test_the_name_maps_to_its_variables(name: str, variable: str) -> None:
    model = make({f"{variable}_BASE_URL": "http://h/v1"}, f"openai-api/{name}/org/model:tag")
    assert model.id == f"openai-api/{name}/org/model:tag"
    assert model.address_from == f"{variable}_BASE_URL"
    assert json.loads(model.body(question()))["model"] == "org/model:tag"
    with pytest.raises(ModelSpecError, match=f"{variable}_BASE_URL"):
        make({}, f"openai-api/{name}/m")


def test_openai_needs_a_key_unless_another_address_is_named() -> None:
    assert make({"OPENAI_API_KEY": "sk-0123456789"}, "openai/gpt-x").id == "openai/gpt-x"
    assert make({"OPENAI_BASE_URL": "http://h/v1"}, "openai/gpt-x").address_from == "OPENAI_BASE_URL"
    with pytest.raises(ModelSpecError, match="OPENAI_API_KEY"):
        make({}, "openai/gpt-x")


@pytest.mark.parametrize(
    "model", ["openai-api/stub", "openai-api/stub/", "openai-api//m", "openai-api/a b/m", "openai/"]
)
def test_a_malformed_id_is_one_clear_line(model: str) -> None:
    with pytest.raises(ModelSpecError) as caught:
        make({"STUB_BASE_URL": "http://h"}, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "host/v1", "ftp://h/", "http://", "http:///v1", "http://h:99999/", "http://[::1", "//h", "http://\ud800/",
        "file:///etc/passwd", "javascript:1", "http://h:port/",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(ModelSpecError, match="STUB_BASE_URL is not an http or https address") as caught:
        make({"STUB_BASE_URL": address})
    assert address not in str(caught.value)


# --- What comes back -----------------------------------------------------------------------------------------------

EXPECTED: dict[str, tuple[object, ...]] = {
    "html": (R.INVALID_JSON, True),
    "nochoices": (R.NO_CHOICES, False),
    "null": (None,),
    "empty": ("",),
    "filtered": ("filtered",),
    "filter400": ("filtered",),
    "filterchoice": ("filtered",),
    "filterdetail": ("filtered",),
    "filter200": ("filtered",),
    "filterinner": ("filtered",),
    "filterflag": ("filtered",),
    "filterprompt": ("filtered",),
    "filterlist": ("filtered",),
    "refusal": ("I will not.",),
    "huge": (R.TOO_LARGE, False),
    "hugeerror": (R.SERVER_ERROR, True),
    "bomb": (R.TOO_LARGE, False),
    "notgzip": (R.INVALID_JSON, True),
    "reset": (R.CONNECTION, True),
    "drip": (R.TIMEOUT, True),
    "hang": (R.TIMEOUT, True),
    "redirect": (R.REDIRECT, False),
    "truncated": (R.INVALID_JSON, True),
    "badlength": (R.INVALID_JSON, True),
    "badchunks": (R.CONNECTION, True),
    "badheader": (R.CONNECTION, True),
    "cut401": (R.UNAUTHORIZED, False),
    "shape": (R.BAD_SHAPE, False),
    "array": (R.BAD_SHAPE, False),
    "deep": (R.INVALID_JSON, True),
    "nothttp": (R.CONNECTION, True),
    "surrogate": ("odd \ud800 text",),
    "error200": (R.SERVER_ERROR, True),
    "choiceerror": (R.SERVER_ERROR, True),
    "400": (R.BAD_REQUEST, False),
    "401": (R.UNAUTHORIZED, False),
    "402": (R.QUOTA, False),
    "quota": (R.QUOTA, False),
    "403": (R.FORBIDDEN, False),
    "404": (R.NOT_FOUND, False),
    "408": (R.TIMEOUT, True),
    "409": (R.CONFLICT, True),
    "418": (R.HTTP_STATUS, False),
    "422": (R.UNPROCESSABLE, False),
    "429": (R.RATE_LIMITED, True),
    "500": (R.SERVER_ERROR, True),
    "503": (R.SERVER_ERROR, True),
}


def test_the_table_below_knows_every_fault_of_the_stub() -> None:
    assert set(EXPECTED) == set(FAULTS)


@pytest.mark.parametrize("fault", [name for name in EXPECTED if name not in ("drip", "hang")])
def test_every_fault_becomes_its_typed_reason(stub: Endpoint, fault: str) -> None:
    assert outcome(ask(stub.env(), f"What is fault:{fault} ?")) == EXPECTED[fault]


def test_the_tests_above_made_one_request_each_and_followed_no_redirect(stub: Endpoint) -> None:
    before = stub.requests
    ask(stub.env(), "fault:redirect")
    ask(stub.env(), "fault:500")
    assert stub.requests == before + 2


def test_a_byte_a_second_ends_quickly(stub: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_api, "SLOW_AFTER_SECONDS", 0.5)
    # Who waited for the whole answer would wait for minutes, and then have it.
    assert outcome(ask(stub.env(), "fault:drip")) == EXPECTED["drip"]


def test_silence_ends_at_the_deadline(stub: Endpoint) -> None:
    assert outcome(ask(stub.env(), "fault:hang", timeout=0.3)) == EXPECTED["hang"]


def test_nobody_at_the_address_is_unreachable(free_port: int) -> None:
    answer = ask({"STUB_BASE_URL": f"http://127.0.0.1:{free_port}/v1"})
    assert outcome(answer) == (R.UNREACHABLE, True)


def test_an_address_that_speaks_no_tls_is_unreachable_and_says_so() -> None:
    def answer_plainly() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = threading.Thread(target=answer_plainly)
        plain.start()
        answer = ask({"STUB_BASE_URL": f"https://127.0.0.1:{server.getsockname()[1]}/v1"})
        plain.join()
    assert outcome(answer) == (R.UNREACHABLE, True)
    assert isinstance(answer, ModelError)
    assert answer.note is not None
    assert "TLS" in answer.note


MEMORY = """
import asyncio, re, sys
from pathlib import Path
from redinstruct.models import Request, make_model
from redinstruct.types import Message, Sampling

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

async def main():
    model = make_model("openai-api/stub/m")
    async def ask(text):
        try:
            await model.generate([Request((Message("user", text),), Sampling())])
        except Exception as error:
            return str(error)
    await ask("What is blue?")
    for fault in sys.argv[1:]:
        before = peak()
        print(fault, await ask("fault:" + fault), peak() - before)
    await model.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from /proc")  # noqa: PTH110
def test_an_answer_of_50_megabytes_takes_less_than_20_and_is_refused() -> None:
    serving = subprocess.Popen(
        [sys.executable, "-m", "tests.support.endpoint"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert serving.stdin is not None
    assert serving.stdout is not None
    try:
        port = int(serving.stdout.readline())
        asked = subprocess.run(
            [sys.executable, "-c", MEMORY, "huge", "hugeerror", "bomb"], cwd=ROOT, capture_output=True, text=True,
            check=True, timeout=60, env={**os.environ, "STUB_BASE_URL": f"http://127.0.0.1:{port}/v1"},
        )  # fmt: skip
    finally:
        serving.stdin.close()
        serving.wait(10)
        serving.stdout.close()
    lines = [line.split() for line in asked.stdout.splitlines()]
    assert [(name, reason) for name, reason, _ in lines] == [
        ("huge", "too_large"), ("hugeerror", "server_error"), ("bomb", "too_large"),
    ]  # fmt: skip
    assert all(float(grown) < 20 for _, _, grown in lines), lines


class Noise(Endpoint):
    """Answers with whatever bytes it is given, and hangs up."""

    noise = b""

    def answer(self, head: str, raw: bytes) -> bytes:
        self.requests += 1
        return self.noise + RESET


def test_bytes_that_are_hardly_http_are_typed_failures_too() -> None:
    rng = random.Random(5)
    whole = http(200, completion("text"), "X-A: b", "Retry-After: 1")
    pieces = [
        b"\r\n",
        b"\0",
        b":",
        b" ",
        b"HTTP/1.1 ",
        b"chunked",
        b"Content-Length: -5\r\n",
        b"\xff\xfe",
        b"99999999999",
    ]
    seen = set[str]()

    async def main() -> None:
        with Noise() as noise:
            model = make(noise.env(), timeout=1.0)
            for _ in range(250):
                cut = sorted(rng.sample(range(len(whole)), 2))
                noise.noise = whole[: cut[0]] + rng.choice(pieces) * rng.randint(0, 3) + whole[cut[rng.randint(0, 1)] :]
                try:
                    (reply,) = await model.generate([question()])
                    assert isinstance(reply, Reply)
                except ModelError as error:
                    seen.add(error.reason)
            await model.aclose()

    asyncio.run(main())
    assert seen >= {R.CONNECTION, R.INVALID_JSON}


# --- Answers by the thousand, in process ---------------------------------------------------------------------------


def read(data: bytes) -> Reply | ModelError | Filtered:
    """What one body with status 200 becomes; any other exception fails the test."""
    try:
        reply = read_reply(data)
    except (ModelError, Filtered) as error:
        return error
    check_types(reply)
    return reply


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        # xAI: "completion_tokens" are the answer's alone; Gemini says no details
        ({"prompt_tokens": 37, "completion_tokens": 9, "total_tokens": 140,
          "completion_tokens_details": {"reasoning_tokens": 94}}, (37, 103)),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, (20, 603)),
        ({"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 81}, (20, 61)),
        # OpenAI: they hold the thought
        ({"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80,
          "completion_tokens_details": {"reasoning_tokens": 50}}, (20, 60)),
        ({"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 0}, (20, 60)),
        ({"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 2**60}, (20, 60)),
        ({"completion_tokens": 60, "total_tokens": 80}, (None, 60)),
        ({"prompt_tokens": 20, "total_tokens": 80}, (20, None)),
    ],
)  # fmt: skip
def test_what_was_thought_is_counted_as_written(
    usage: dict[str, object], counted: tuple[int | None, int | None]
) -> None:
    reply = read(json.dumps({"choices": [{"message": {"content": "Blue"}}], "usage": usage}).encode())
    assert isinstance(reply, Reply)
    assert (reply.tokens_in, reply.tokens_out) == counted


def check_types(reply: Reply) -> None:
    assert isinstance(reply.text, str | None)
    assert isinstance(reply.finish_reason, str | None)
    assert len(reply.finish_reason or "") <= 64
    for count in (reply.tokens_in, reply.tokens_out):
        assert count is None or (type(count) is int and 0 <= count < 2**53)


ODD: list[Any] = [
    None, True, False, 0, -1, 7, 1.5, 1e308, 2**64, "", "text", "stop", "content_filter", "safety: x", [], {},
    [None], [{}], {"code": 502}, {"code": "429", "message": "m"}, {"code": "content_filter"}, {"message": 5},
    [{"type": "text", "text": "part"}], [{"text": 5}, "x", None], {"content": "x"}, {"content": ["a", 1]}, "\ud800",
    {"content": None, "refusal": "no"}, {"prompt_tokens": -1, "completion_tokens": True}, "x" * 500,
]  # fmt: skip


def hostile_body(rng: random.Random) -> bytes:
    """An answer that is wrong in one to three places, in its structure or in its bytes."""
    body: dict[str, Any] = json.loads(completion("a text of some length"))
    choice, message, usage = body["choices"][0], body["choices"][0]["message"], body["usage"]
    if rng.random() < 0.1:
        body = {"error": rng.choice(ODD), "usage": usage}
    for _ in range(rng.randint(1, 3)):
        where = rng.choice([body, choice, message, usage])
        name = rng.choice([*where, "error", "refusal", "finish_reason", "choices", "usage", "content", "message"])
        if rng.random() < 0.2:
            where.pop(name, None)
        else:
            where[name] = rng.choice(ODD)
    data = json.dumps(body).encode()
    if rng.random() < 0.3:
        at = rng.randrange(len(data))
        junk = rng.choice([b"", b"\xff", b"\x00", b"\\ud800", b"NaN", b"[" * 5000, b"9" * 5000, b'"', b"}"])
        data = rng.choice([data[:at], data[:at] + junk + data[at + rng.randint(0, 3) :]])
    return data


def test_ten_thousand_malformed_answers_are_replies_or_typed_failures() -> None:
    rng = random.Random(2308)
    kinds = [read(hostile_body(rng)) for _ in range(10_000)]
    reasons = {kind.reason for kind in kinds if isinstance(kind, ModelError)}
    assert reasons >= {R.BAD_SHAPE, R.INVALID_JSON, R.NO_CHOICES, R.SERVER_ERROR, R.RATE_LIMITED}
    assert any(isinstance(kind, Filtered) for kind in kinds)
    assert sum(isinstance(kind, Reply) for kind in kinds) > 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "error", "code", "usage", "x"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
def test_any_bytes_with_status_200_are_a_reply_or_a_typed_failure(data: bytes) -> None:
    read(data)


HEADER_VALUES = [
    "", "0", "1", "1.5", "-1", "nan", "inf", "1e400", "9" * 400, "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "\u0663",
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2024 99:00:00 GMT", "1 Jan 1 0:0 +9999999999",
    "Mon, 01 Jan 0001 00:00:00 -0000", ",", "Mon,", "\x00", "1_0",
]  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(
    st.integers(100, 999).filter(lambda status: status != 200),
    st.dictionaries(
        st.sampled_from(["Retry-After", "retry-after-ms"]), st.sampled_from(HEADER_VALUES) | st.text(max_size=12)
    ),
    json_values.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(ODD).map(lambda value: json.dumps({"error": value}).encode())
    | st.binary(max_size=100),
)
def test_any_error_status_is_a_typed_failure_or_a_filter(status: int, headers: dict[str, str], data: bytes) -> None:
    error = status_error(status, headers, data)
    assert isinstance(error, ModelError | Filtered)
    if isinstance(error, ModelError):
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")
        assert error.transient == (status in (408, 409, 429) or 500 <= status < 600) or error.reason is R.QUOTA
        assert error.note is None or (len(error.note) <= MAX_NOTE + 12 and error.note == terminal(error.note))


@pytest.mark.parametrize("value", HEADER_VALUES)
def test_every_retry_after_is_seconds_or_nothing(value: str) -> None:
    after = waits.asked({"Retry-After": value}, [], [])
    assert after is None or 0 <= after < float("inf")


def test_retry_after_in_its_three_forms() -> None:
    assert waits.asked({"Retry-After": "7"}, [], []) == 7.0
    assert waits.asked({"retry-after-ms": "250"}, [], []) == 0.25
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < (waits.asked({"Retry-After": later}, [], []) or 0) < 61
    assert waits.asked({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, [], []) == 0.0


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3}, (3, None)),
        ({"prompt_tokens": "3", "completion_tokens": 4.0}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 2**53, "completion_tokens": 2**53 - 1}, (None, 2**53 - 1)),
        (None, (None, None)),
        ([3, 4], (None, None)),
        ("many", (None, None)),
    ],
)
def test_only_counts_that_are_counts_are_taken(usage: object, counts: tuple[int | None, int | None]) -> None:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    reply = read(json.dumps(body).encode())
    assert isinstance(reply, Reply)
    assert (reply.tokens_in, reply.tokens_out) == counts


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "plain"}, "plain"),
        ({"content": None}, None),
        ({}, None),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": "", "refusal": "I will not."}, "I will not."),
        ({"content": "both", "refusal": "x"}, "both"),
        ({"content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]}, "two parts"),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "I will not."),
        ({"content": [], "refusal": "I will not."}, "I will not."),
        ({"content": []}, ""),
        ({"content": None, "tool_calls": [{}], "reasoning_content": "hm"}, None),
    ],
)
def test_a_refusal_that_the_model_wrote_is_text(message: dict[str, object], text: str | None) -> None:
    reply = read(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    assert isinstance(reply, Reply)
    assert (reply.text, reply.filtered) == (text, False)


@pytest.mark.parametrize(
    "finish", ["content_filter", "CONTENT_FILTER", "content_filtered", "safety", "SAFETY", "content_filter: OTHER"]
)
@pytest.mark.parametrize("message", [{"content": "half an answ"}, {"content": None}, None])
def test_a_filtered_answer_is_known_by_its_finish_reason(finish: str, message: object) -> None:
    reply = read(json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode())
    assert isinstance(reply, Reply)
    assert reply.filtered


@pytest.mark.parametrize("status", [408, 409, 429])
def test_a_filter_code_does_not_make_a_filter_of_a_failure_of_load(status: int) -> None:
    error = status_error(status, {}, b'{"error": {"code": "content_filter"}}')
    assert isinstance(error, ModelError)


@pytest.mark.parametrize("code", ["invalid_api_key", "context_length_exceeded", "invalid_prompt", None, 400, []])
def test_a_bad_request_of_another_kind_is_no_filter(code: object) -> None:
    error = status_error(400, {}, json.dumps({"error": {"code": code, "message": "role is missing"}}).encode())
    assert isinstance(error, ModelError)
    assert (error.reason, error.note) == (R.BAD_REQUEST, "role is missing")


def test_a_note_is_one_short_printable_line() -> None:
    error = status_error(500, {}, json.dumps({"error": {"message": "\x1b[2J\u202e\n" + "x" * 5000}}).encode())
    assert isinstance(error, ModelError)
    assert error.note is not None
    assert error.note.isprintable()
    assert len(error.note) == MAX_NOTE


# --- Keys ----------------------------------------------------------------------------------------------------------

CORE = "CanaryQ7x41ZvK9"
KEYS: dict[str, dict[str, str]] = {
    "plain": {"STUB_API_KEY": f"sk-{CORE}"},
    "trailing newline": {"STUB_API_KEY": f"sk-{CORE}\n"},
    "trailing space": {"STUB_API_KEY": f"sk-{CORE}  "},
    "spaces around": {"STUB_API_KEY": f"\t sk-{CORE}\r\n"},
    "punctuation": {"STUB_API_KEY": f"sk-{CORE}/+=&%20<\"'\\"},
    "inner newline": {"STUB_API_KEY": f"sk-{CORE}\nX-Evil: 1"},
    "inner space": {"STUB_API_KEY": f"sk {CORE}"},
    "inner NUL": {"STUB_API_KEY": f"sk-{CORE}\0end"},
    "not ASCII": {"STUB_API_KEY": f"sk-é{CORE}"},
    "byte-order mark": {"STUB_API_KEY": f"\ufeffsk-{CORE}"},
    "not decodable": {"STUB_API_KEY": f"sk-{CORE}\udcff"},
    "user of the address": {"@": f"sk-{CORE}@"},
    "password of the address": {"@": f"me:sk-{CORE}@"},
    "password, unaligned in base64": {"@": f"m:sk-{CORE}@"},
    "password alone": {"@": f":sk-{CORE}@"},
    "odd password": {"@": f"me:p%40{CORE}%C3%A9%E2%82%AC@"},
    "user with a colon": {"@": f"a%3Ab{CORE}:x@"},
    "query": {"?": f"?key=sk-{CORE}"},
    "query, encoded": {"?": f"?api-version=2024-02-01&key=sk%2F{CORE}%3D"},
    "path": {"/": f"/sk-{CORE}/v1"},
    "both key and user": {"STUB_API_KEY": f"sk-{CORE}", "@": f"u{CORE}@"},
}
REFUSED = {
    "inner newline", "inner space", "inner NUL", "not ASCII", "byte-order mark", "not decodable", "user with a colon",
    "both key and user",
}  # fmt: skip


def environment(given_key: dict[str, str], port: int) -> dict[str, str]:
    user, query, path = (given_key.get(name, "") for name in "@?/")
    address = f"http://{user}127.0.0.1:{port}{path or '/v1'}{query}"
    keys = {name: value for name, value in given_key.items() if len(name) > 1}
    return {"STUB_BASE_URL": address, **keys}


@pytest.fixture(scope="module")
def echo() -> Iterator[Endpoint]:
    """A careless endpoint: it writes the request's head into every answer and every error."""
    with Endpoint(echo_headers=True) as running:
        running.keep = True
        yield running


@pytest.mark.parametrize("name", KEYS)
def test_a_key_works_or_is_refused_and_an_endpoint_that_echoes_it_does_not_get_it_stored(
    echo: Endpoint, name: str
) -> None:
    environ = environment(KEYS[name], echo.port)
    if name in REFUSED:
        with pytest.raises(ModelSpecError) as caught:
            make(environ)
        shown = "".join(traceback.format_exception(caught.value))
        assert CORE not in shown
        assert "Evil" not in shown
        assert "STUB_" in str(caught.value)
        return
    for fault in ("", "fault:401", "fault:429", "fault:500", "fault:418", "fault:reset", "fault:badheader"):
        answer = ask(environ, f"What is blue? {fault}")
        head = echo.heads[-1]
        assert CORE in head or "Basic " in head
        basic = head.partition("Basic ")[2].split("\r\n")[0]
        if isinstance(answer, ModelError):
            shown = "".join(traceback.format_exception(answer)) + repr(vars(answer))
            assert fault
        else:
            # The judge reads what was said; the store keeps it without the key.
            assert answer.text is not None
            assert answer.text.endswith(head)
            shown = redact(answer.text, stored=True)
            assert "***" in shown
        assert CORE not in shown
        assert not basic or basic not in shown


def test_a_key_in_the_finish_reason_is_not_stored() -> None:
    make({"STUB_BASE_URL": "http://h/v1", "STUB_API_KEY": f"sk-{CORE}"})
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": f"Bearer sk-{CORE}\x1b[2J" + "y" * 500}]}
    reply = read(json.dumps(body).encode())
    assert isinstance(reply, Reply)
    assert reply.finish_reason is not None
    assert reply.finish_reason.startswith("Bearer ***\\x1b")


@pytest.mark.parametrize("key", ["EMPTY", "none", "ollama", "lm-studio", "not-needed", "sk-no-key-required", "-"])
def test_what_a_local_server_takes_for_a_key_does_not_mangle_answers(stub: Endpoint, key: str) -> None:
    make(stub.env(key=key))
    text = f"None is EMPTY: with ollama or lm-studio it is {key}, not-needed."
    reply = read(completion(text))
    assert isinstance(reply, Reply)
    assert reply.text == text


@pytest.mark.parametrize(
    "environ",
    [
        {"STUB_BASE_URL": "http://h/applications/museum-guide/v1"},
        {"STUB_BASE_URL": "http://h/deployments/gpt-4o-mini-2024-07-18"},
        {"STUB_BASE_URL": "http://museum-guide:blue-paint-recipe@h/v1"},
        {"STUB_BASE_URL": "http://h/v1?deployment=museum-guide"},
        {"STUB_BASE_URL": "http://h/v1", "STUB_API_KEY": "blue-paint-recipe"},
    ],
)
def test_words_of_an_address_or_a_key_stay_in_what_is_recorded(environ: dict[str, str]) -> None:
    make(environ)
    text = "The museum-guide of gpt-4o-mini-2024-07-18 has many applications: a blue-paint-recipe."
    reply = read(completion(text))
    assert isinstance(reply, Reply)
    assert reply.text == text
    assert redact(text, stored=True) == text


def test_what_stands_in_an_address_for_all_to_see_does_not_mangle_answers() -> None:
    make(
        {"STUB_BASE_URL": "https://h/compatible-mode/gpt-35-turbo-16k/v1?api-version=2024-02-15-preview"},
        "openai-api/stub/gpt-35-turbo-16k",
    )
    text = "On 2024-02-15-preview, compatible-mode was set for gpt-35-turbo-16k."
    reply = read(completion(text))
    assert isinstance(reply, Reply)
    assert reply.text == text


# --- The life of a connection --------------------------------------------------------------------------------------


def test_a_closed_model_can_be_closed_again_and_used_again(stub: Endpoint) -> None:
    async def main() -> None:
        model = make(stub.env())
        await model.aclose()
        for _ in range(2):
            (reply,) = await model.generate([question()])
            assert reply.text
            await model.aclose()
            await model.aclose()

    asyncio.run(main())


def test_many_calls_at_once_are_not_bounded_here() -> None:
    async def main() -> int:
        with Endpoint(latency=0.2) as slow:
            model = make(slow.env())
            await asyncio.gather(*(model.generate([question(str(n))]) for n in range(150)))
            await model.aclose()
            return slow.most_open

    assert asyncio.run(main()) == 150
