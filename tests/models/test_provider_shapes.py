"""The shapes in which providers answer and fail: none judged wrongly, none lost without a reason or a wait."""

# ruff: noqa: E501 - a table of shapes

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

import pytest

from redinstruct.models import ModelError, Request, make_model, waits
from redinstruct.models.base import is_cut
from redinstruct.models.completions import completion_of
from redinstruct.models.failures import NOT_SHOWN, Filtered, status_error, unquoted
from redinstruct.prompts import AnswerReader, shipped
from redinstruct.types import Completion, FailureReason, Message, Sampling
from tests.support.endpoint import Endpoint, http

R = FailureReason


def failure(status: int, body: object, **headers: str) -> ModelError | Filtered:
    return status_error(status, {k.replace("_", "-"): v for k, v in headers.items()}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 20s. Visit the page.", 20.0),
        ("Limit 100000, Used 99999, Requested 10. Please try again in 14m2.5s. Need more?", 842.5),
        ("You exceeded your current quota. Please retry in 23.6s.", 23.6),
        ("exceeded token rate limit of your current pricing tier. Please retry after 26 seconds.", 26.0),
        ("try again in 250ms", 0.25),
        ("the quota resets in 1 hour and 5 minutes", 3900.0),
        ("the model is expected to be available in 20.5 seconds", 20.5),
        ("请在 5 秒后重试", 5.0),
        ("Please try again later", None),
        ("retry with at most 5 models", None),
        ("you waited for nothing, 7 s", None),
    ],
)
def test_a_sentence_that_asks_to_come_again_says_when(words: str, seconds: float | None) -> None:
    assert waits.asked({}, [], [words]) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 1.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "9",
          "x-ratelimit-reset-tokens": "2m59.56s", "x-ratelimit-remaining-tokens": "0"}, 179.56),
        ({"RateLimit-Reset": "12"}, 12.0),
        ({"RateLimit": '"default";r=0;t=30'}, 30.0),
        ({"x-ratelimit-reset-tokens-minute": "3.5"}, 3.5),
        ({"anthropic-ratelimit-requests-reset": "1999-01-01T00:00:00Z"}, 0.0),
        ({"x-ratelimit-reset": "9" * 40}, None),
        ({"x-request-reset": "5"}, None),
    ],
)  # fmt: skip
def test_headers_say_when_a_limit_is_filled_again(headers: dict[str, str], seconds: float | None) -> None:
    assert waits.refilled(headers) == seconds


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="there is one zone")
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles"])
@pytest.mark.parametrize("form", ["%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S -0000", "%Y-%m-%dT%H:%M:%S",
                                  "%A, %d-%b-%y %H:%M:%S GMT"])  # fmt: skip
def test_a_moment_is_counted_from_the_servers_own_clock_in_utc(
    monkeypatch: pytest.MonkeyPatch, zone: str, form: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        now = time.time() - 7200.0  # the server is two hours behind us
        said, until = (time.gmtime(moment) for moment in (now, now + 30.0))
        headers = {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", said), "Retry-After": time.strftime(form, until)}
        assert waits.asked(headers, [], []) == 30.0
        assert waits.refilled({"Date": headers["Date"], "x-ratelimit-reset": str(int(now) + 30)}) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_quota_that_is_spent_is_told_from_a_limit_that_passes() -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    for status in (400, 401, 403, 429, 500):
        spent = failure(status, {"error": {"message": words, "code": "insufficient_quota"}})
        assert isinstance(spent, ModelError)
        assert (spent.reason, spent.transient, spent.note) == (R.QUOTA, False, words)
    passes = failure(429, [{"error": {"message": words, "details": [{"retryDelay": "23s"}]}}])
    assert isinstance(passes, ModelError)
    assert (passes.reason, passes.transient, passes.retry_after) == (R.RATE_LIMITED, True, 23.0)


# --- Whole answers, over a socket ----------------------------------------------------------------------------------

T = "Okay, the user asks how blue paint is made. Step 1: grind the pigment. Step 2: mix it with oil."
A = "I'm sorry, but I can't help with that."
QUOTA = "You exceeded your current quota, please check your plan and billing details."
LITELLM = (
    "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - The response was filtered due to "
)
LITELLM += "the prompt triggering Azure OpenAI's content management policy."


class Shape(NamedTuple):
    """An answer, and what becomes of it.

    ``comes`` is ``judged`` (the text ``A`` and nothing else), ``withheld``, the reason of an unread answer, or that of a
    failure; ``again`` whether a failure is tried again, ``wait`` its wait. ``says`` must stand in the note.
    """

    body: object
    comes: str
    status: int = 200
    again: bool = False
    wait: float | None = None
    says: str = ""
    headers: tuple[str, ...] = ()
    thinks: bool = False


def chat(
    message: dict[str, Any] | None, finish: object = "stop", choice: dict[str, Any] | None = None, **top: Any
) -> Any:
    choices = [{"index": 0, "message": message, "finish_reason": finish, **(choice or {})}]
    return {"id": "c", "object": "chat.completion", "choices": choices, **top}


def said(content: object, finish: object = "stop", **fields: Any) -> Any:
    return chat({"role": "assistant", "content": content, **fields}, finish)


def err(message: str, **fields: Any) -> Any:
    return {"error": {"message": message, **fields}}


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


EMPTY, THOUGHT = "empty", "empty_after_thoughts"
SHAPES: dict[str, Shape] = {
    # --- thoughts ---
    # vLLM docs, reasoning outputs; DeepSeek API docs: reasoning_content beside content
    "reasoning_content": Shape(said(A, reasoning_content=T), "judged", thinks=True),
    # vllm#27755, OpenRouter docs: reasoning
    "reasoning": Shape(said(A, reasoning=T), "judged", thinks=True),
    # OpenRouter docs, reasoning tokens: reasoning_details of several types
    "reasoning_details": Shape(said(A, reasoning=None, reasoning_details=[
        {"type": "reasoning.summary", "summary": T}, {"type": "reasoning.encrypted", "data": "x"}]), "judged",
        thinks=True),
    # LiteLLM docs: thinking_blocks of Anthropic models
    "thinking_blocks": Shape(said(A, thinking_blocks=[{"type": "thinking", "thinking": T}]), "judged", thinks=True),
    # Mistral docs, Magistral: a list of chunks
    "Mistral chunks": Shape(said([{"type": "thinking", "thinking": [{"type": "text", "text": T}]},
                                  {"type": "text", "text": A}]), "judged", thinks=True),
    # audit, parts_reasoning_text
    "reasoning part": Shape(said([{"type": "reasoning", "text": T}, {"type": "text", "text": A}]), "judged", thinks=True),
    # Gemini API docs, thought summaries: parts marked thought
    "thought part": Shape(said([{"text": T, "thought": True}, {"text": A}]), "judged", thinks=True),
    # OpenAI Responses parts handed through by proxies
    "output_text part": Shape(said([{"type": "output_text", "text": A, "annotations": []}]), "judged"),
    "a part instead of a list": Shape(said({"type": "text", "text": A}), "judged"),
    "a list of strings": Shape(said([A]), "judged"),
    # vllm#13125, #31045: the template opens the thought, no parser is set
    "closing mark only": Shape(said(f"{T}\n</think>\n\n{A}"), "judged", thinks=True),
    # olmo-eval#361, lighteval#869
    "[THINK]": Shape(said(f"[THINK]{T}[/THINK]{A}"), "judged", thinks=True),
    "<seed:think>": Shape(said(f"<seed:think>{T}</seed:think>{A}"), "judged", thinks=True),
    # TensorRT-LLM#9256: harmony marks in content
    "harmony": Shape(said(f"<|channel|>analysis<|message|>{T}<|end|><|start|>assistant<|channel|>final<|message|>{A}"),
                     "judged", thinks=True),
    # gpt-oss decoded without its special tokens
    "assistantfinal": Shape(said(f"analysis{T}assistantfinal{A}"), "judged", thinks=True),
    # Qwen3#1297, vllm#19222: all of it in reasoning_content
    "only reasoning_content": Shape(said(None, reasoning_content=T), THOUGHT, thinks=True),
    # xagent#626: the limit ate the answer
    "budget spent in reasoning": Shape(said("", "length", reasoning_content=T), THOUGHT, says="--max-tokens", thinks=True),
    "budget spent in <think>": Shape(said(f"<think>{T}", "length"), THOUGHT, says="--max-tokens", thinks=True),
    # OpenAI o-series: nothing at all but finish reason length
    "budget spent unseen": Shape(said("", "length"), EMPTY, says="--max-tokens"),
    # --- filters in answers ---
    "OpenAI content_filter": Shape(said(None, "content_filter"), "withheld"),
    # Azure OpenAI docs, content filtering: part of the text was sent
    "Azure, half a text": Shape(said("Grind the", "content_filter"), "withheld"),
    # Gemini's compatible endpoint
    "Gemini SAFETY": Shape(said(None, "SAFETY"), "withheld"),
    "Gemini with detail": Shape(chat(None, "content_filter: PROHIBITED_CONTENT"), "withheld"),
    "Gemini MODEL_ARMOR": Shape(said("", "MODEL_ARMOR"), "withheld"),
    # simonw/llm-gemini#144, zed#38670: 200 without candidates
    "Gemini blockReason": Shape({"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "withheld"),
    "Gemini block_reason": Shape({"prompt_feedback": {"block_reason": "OTHER"}}, "withheld"),
    # litellm#13321: the guardrail's canned sentence is not the model's
    "Bedrock guardrail": Shape(said("Sorry, the model cannot answer this question.", "guardrail_intervened"), "withheld"),
    # hermes-agent#107815: InvokeModel keeps end_turn, and flags it beside
    "Bedrock guardrailAction": Shape(chat({"content": "Blocked by policy."}, "end_turn", None,
                                          **{"amazon-bedrock-guardrailAction": "INTERVENED"}), "withheld"),
    "Bedrock content_filtered": Shape(said("", "content_filtered"), "withheld"),
    # safety-tooling#108; Anthropic docs, handling stop reasons: no text is left
    "Anthropic refusal": Shape(said("", "refusal"), "withheld"),
    "a refusal with text is the model's": Shape(said(A, "refusal"), "judged"),
    # Zhipu docs: finish reason sensitive
    "Zhipu sensitive": Shape(said("", "sensitive"), "withheld"),
    # MiniMax docs: checks of input and output
    "MiniMax output_sensitive": Shape(chat({"content": "..."}, "stop", None, output_sensitive=True), "withheld"),
    "MiniMax base_resp": Shape({"choices": None, "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}},
                               "withheld"),
    # Cohere: ERROR_TOXIC
    "Cohere ERROR_TOXIC": Shape(said("", "ERROR_TOXIC"), "withheld"),
    "OpenAI's refusal field": Shape(said(None, refusal=A), "judged"),
    # --- filters in errors ---
    # helm#3327
    "Azure 400": Shape(err("filtered", param="prompt", code="content_filter", status=400,
                           innererror={"code": "ResponsibleAIPolicyViolation"}), "withheld", 400),
    # PurpleLlama#109, litellm#16231
    "LiteLLM message": Shape(err(LITELLM, code="400"), "withheld", 400, says="content management policy"),
    "LiteLLM nested": Shape(err("x", code="400", provider_specific_fields={"innererror": {
        "code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}}), "withheld", 400),
    "LiteLLM guardrail": Shape(err("{'error': 'Violated guardrail policy', 'bedrock_guardrail_response': ''}", code="400"),
                               "withheld", 400),
    # DeepSeek-V2#30
    "DeepSeek": Shape(err("Content Exists Risk", type="invalid_request_error", code="invalid_request_error"), "withheld",
                      400, says="Content Exists Risk"),
    # helm#2570, claude-code#6195
    "Anthropic": Shape({"type": "error", **err("Output blocked by content filtering policy",
                                               type="invalid_request_error")}, "withheld", 400),
    # Moonshot: audit, moonshot
    "Moonshot": Shape(err("The request was rejected because it was considered high risk", type="content_filter"),
                      "withheld", 400),
    # inspect_ai#2267: 403, which also means denied
    "xAI": Shape({"code": "The caller does not have permission to execute the specified operation", "error": "Content "
                  "violates usage guidelines. Team: x, API key ID: y, Failed check: SAFETY_CHECK_TYPE_BIO"}, "withheld", 403),
    # OpenRouter docs, errors: moderation
    "OpenRouter": Shape(err("Input flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "...",
                                                                 "provider_name": "x"}), "withheld", 403),
    # langchain4j#1079
    "Zhipu 1301": Shape(err("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301"), "withheld", 400),
    # DashScope docs, error codes
    "DashScope": Shape(err("Input data may contain inappropriate content.", code="data_inspection_failed"), "withheld", 400),
    # Volcengine Ark docs, error codes
    "Volcengine": Shape(err("The request failed because the input text may contain sensitive information.",
                            code="InputTextSensitiveContentDetected"), "withheld", 400),
    # StepFun docs: 451
    "StepFun": Shape(err("The content you provided or machine outputted is blocked.", type="censorship_blocked"),
                     "withheld", 451),
    # developers.cloudflare.com, AI Gateway guardrails
    "Cloudflare": Shape({"success": False, "error": [{"code": 2016, "message": "Prompt blocked due to security "
                                                      "configurations"}]}, "withheld", 424),
    # databricks/ucode#66
    "Databricks": Shape({"error_code": "BAD_REQUEST", "message": "Request blocked by input guardrail 'demo'"}, "withheld",
                        400),
    # Portkey docs: 446
    "Portkey": Shape(err("The guardrail checks defined in the config failed.", type="hooks_failed"), "withheld", 446),
    # langfuse docs, gateway guardrails
    "Langfuse": Shape(err("Request rejected", code="guardrail_blocked"), "withheld", 400),
    # OpenAI: reasoning models, and images' safety system
    "OpenAI invalid_prompt": Shape(err("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                                       code="invalid_prompt"), "withheld", 400),
    "OpenAI safety system": Shape(err("Your request was rejected as a result of our safety system.",
                                      code="content_policy_violation"), "withheld", 400),
    "a filter told with 500": Shape(err("ContentPolicyViolationError: the response was filtered"), "withheld", 500),
    "a filter told with 200": Shape(err("x", code="content_filter"), "withheld"),
    # --- denied, which uses the words of filters ---
    "OpenAI account": Shape(err("Your access was terminated due to violation of our policies"), R.FORBIDDEN, 403),
    "OpenRouter guardrail settings": Shape(err("No endpoints available matching your guardrail restrictions.", code=404),
                                           R.NOT_FOUND, 404, says="No endpoints"),
    "a field called like a filter": Shape(err("Unknown parameter: 'content_filter'.", code="unknown_parameter"),
                                          R.BAD_REQUEST, 400),
    # hermes-agent#6923, BAI-tools#9: a firewall before the endpoint turns the client away, whatever is asked
    "a firewall": Shape(err("Your request was blocked."), R.FORBIDDEN, 403, says="was blocked"),
    "a firewall's page": Shape(b"<html><head><title>Content filter: access denied</title></head></html>",
                               R.FORBIDDEN, 403, says="access denied"),
    "a company's proxy": Shape(b"<!doctype html><title>Web page blocked</title><p>This page violates the acceptable use "
                               b"policy: unsafe content", R.FORBIDDEN, 403),
    "a country's law": Shape(b"<html><title>Unavailable For Legal Reasons</title></html>", R.HTTP_STATUS, 451),
    "an account that was flagged": Shape(err("Your account has been flagged for a violation of our usage policies."),
                                         R.FORBIDDEN, 403),
    "an address that is blocked": Shape(err("Your IP address has been blocked for violating our terms."), R.FORBIDDEN, 403),
    # --- quota and credit ---
    # gemini-cli#10925, anton#284
    "OpenAI insufficient_quota": Shape(err(QUOTA, code="insufficient_quota"), R.QUOTA, 429, says="current quota"),
    "Perplexity 401": Shape(err(QUOTA, type="insufficient_quota", code=401), R.QUOTA, 401),
    "DeepSeek 402": Shape(err("Insufficient Balance", code="invalid_request_error"), R.QUOTA, 402),
    "OpenRouter 402": Shape(err("This request requires more credits, or fewer max_tokens.", code=402), R.QUOTA, 402),
    "OpenRouter per day": Shape(err("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock more", code=429),
                                R.QUOTA, 429),
    "Anthropic credit": Shape(err("Your credit balance is too low to access the Anthropic API.",
                                  type="invalid_request_error"), R.QUOTA, 400),
    "Hugging Face": Shape({"error": "You have exceeded your monthly included credits for Inference Providers."},
                          R.QUOTA, 402),
    "Gemini per day": Shape([err(QUOTA, code=429, details=[
        {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}, {"retryDelay": "23s"}])],
        R.QUOTA, 429),
    "DashScope Arrearage": Shape(err("Access denied, please make sure your account is in good standing.",
                                     code="Arrearage"), R.QUOTA, 400),
    "MiniMax 1008": Shape({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, R.QUOTA),
    "Zhipu 1113": Shape(err("余额不足或无可用资源包,请充值。", code="1113"), R.QUOTA, 429),
    # --- waits ---
    # marker#1041, jp#1061
    "Gemini retryDelay": Shape([err(f"{QUOTA} Please retry in 23.6s.", code=429, details=[{"retryDelay": "23s"}])],
                               R.RATE_LIMITED, 429, again=True, wait=23.6),
    # OpenAI, Groq
    "OpenAI sentence": Shape(err("Rate limit reached for m on tokens per min (TPM): Limit 10000, Used 9999. Please try "
                                 "again in 6.5s.", code="rate_limit_exceeded"), R.RATE_LIMITED, 429, again=True, wait=6.5),
    "OpenAI per day, rolling": Shape(err("Rate limit reached on requests per day (RPD): Limit 200. Please try again in "
                                         "7m12s."), R.RATE_LIMITED, 429, again=True, wait=432.0),
    # Azure
    "Azure": Shape(err("exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds.",
                       code="429"), R.RATE_LIMITED, 429, again=True, wait=26.0),
    "Azure header": Shape(err("busy"), R.RATE_LIMITED, 429, again=True, wait=0.5, headers=("x-ms-retry-after-ms: 500",)),
    "Groq headers": Shape(err("slow down"), R.RATE_LIMITED, 429, again=True, wait=179.56, headers=(
        "x-ratelimit-reset-requests: 1s", "x-ratelimit-remaining-requests: 9",
        "x-ratelimit-reset-tokens: 2m59.56s", "x-ratelimit-remaining-tokens: 0")),
    # Hugging Face: loading
    "Hugging Face loading": Shape({"error": "Model m is currently loading", "estimated_time": 20.5}, R.SERVER_ERROR, 503,
                                  again=True, wait=20.5, says="currently loading"),
    "Vertex per minute": Shape(err("Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute",
                                   status="RESOURCE_EXHAUSTED"), R.RATE_LIMITED, 429, again=True),
    # --- odd bodies ---
    # inspect_ai#1536
    "OpenRouter finish error": Shape(said("", "error"), R.SERVER_ERROR, again=True),
    "OpenRouter error in 200": Shape(err("Provider returned error", code=502, metadata={"raw": '{"error":"overloaded"}'}),
                                     R.SERVER_ERROR, again=True, says="overloaded"),
    "OpenRouter error in choice": Shape(chat({"content": ""}, "error", {"error": {"code": 429, "message": "slow down"}}),
                                        R.RATE_LIMITED, again=True, says="slow down"),
    "an error beside an answer that is empty": Shape(said("", None) | err("upstream failed", code=502), R.SERVER_ERROR,
                                                    again=True, says="upstream failed"),
    "an error beside an answer that was withheld": Shape(said("", "content_filter") | err("stopped"), "withheld"),
    # gateways: a content security policy, a user's whole budget
    "a header of many kilobytes": Shape(said(A), "judged", headers=("X-Policy: " + "x" * 40_000,)),
    "a status line of another protocol": Shape(b"", R.CONNECTION, 0, again=True, says="not HTTP"),
    # NestJS answers every POST with 201 unless it is told otherwise
    "a success that is called created": Shape(said(A), "judged", 201),
    # DeepSeek docs; SGLang
    "insufficient_system_resource": Shape(said("", "insufficient_system_resource"), R.SERVER_ERROR, again=True),
    "abort": Shape(said(None, "abort"), R.SERVER_ERROR, again=True),
    # vLLM: an error at the top with 200
    "vLLM object error": Shape({"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError",
                                "code": 404}, R.NOT_FOUND, says="does not exist"),
    "an error without a code": Shape({"error": "Internal server error"}, R.SERVER_ERROR, again=True, says="Internal"),
    "a server that moved": Shape(b"<html><title>308 Permanent Redirect</title></html>", R.REDIRECT, 308,
                                 says="set the address that it leads to: 308"),
    "FastAPI detail": Shape({"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, R.UNPROCESSABLE, 422,
                            says="field required"),
    "a page": Shape(b"<html><title>502 Bad Gateway</title></html>", R.SERVER_ERROR, 502, again=True, says="502 Bad"),
    "plain text": Shape(b"upstream connect error", R.SERVER_ERROR, 503, again=True, says="upstream"),
    # server-sent events that nobody asked for
    "events": Shape(sse({"choices": [{"delta": {"role": "assistant", "reasoning_content": T}}]},
                        {"choices": [{"delta": {"content": A[:9]}}]}, {"choices": [{"delta": {"content": A[9:]}}]})
                    + b"data: [DONE]\n\n", "judged", thinks=True),
    "events that broke off": Shape(sse({"choices": [{"delta": {"content": A[:9]}}]}), R.INVALID_JSON, again=True),
    "events with an error": Shape(sse(err("overloaded", code=529)), R.SERVER_ERROR, again=True, says="overloaded"),
    "white space in front": Shape(b"\n" * 50 + json.dumps(said(A)).encode(), "judged"),
    "a byte-order mark": Shape(b"\xef\xbb\xbf" + json.dumps(said(A)).encode(), "judged"),
    "NaN": Shape(json.dumps(said(A) | {"x": float("nan")}).encode(), "judged"),
    "a finish reason that is a number": Shape(said(A, 1), "judged"),
    "text instead of a message": Shape({"choices": [{"text": A, "finish_reason": "stop"}]}, "judged"),
    "a mark only spoken of": Shape(said(A, "STOP"), "judged"),
    # --- found beside the published ones ---
    "content that is blocked": Shape(err("Content blocked"), "withheld", 400),
    "content that was blocked": Shape(err("Your content was blocked due to our policy."), "withheld", 400),
    "a risk in Chinese": Shape(err("输入内容存在安全风险", code="336003"), "withheld", 400),
    "a user's prompt that was flagged": Shape(err("The user prompt was flagged by moderation"), "withheld", 400),
    "terms of service": Shape(err("Request was rejected: content violates our terms of service"), "withheld", 400),
    "harmful language": Shape(err("Prompt contains harmful language"), "withheld", 400),
    "Baidu": Shape({"error_code": 336503, "error_msg": "the content is sensitive"}, "withheld"),
    "Spark": Shape({"code": 10013, "message": "input content audit failed", "sid": "x"}, "withheld"),
    "Azure, nothing but flags": Shape(chat({"content": ""}, "stop", {"content_filter_results": {"violence": {"filtered": True}}}),
                                      "withheld"),
    "Azure prompt flags": Shape({"choices": [], "prompt_filter_results": [{"content_filter_results": {
        "jailbreak": {"detected": True, "filtered": True}}}]}, "withheld"),
    "Azure, flags that are not set": Shape(chat({"content": A}, "stop", {"content_filter_results": {"violence": {
        "filtered": False}}}), "judged"),
    "a guardrail that is set up wrongly": Shape({"message": "Guardrail was enabled but input is in incorrect format."},
                                                R.BAD_REQUEST, 400),
    "an IAM policy": Shape({"message": "User: x is not authorized to perform: y because no identity-based policy allows it"},
                           R.FORBIDDEN, 403),
    "a validator that repeats the question": Shape(err("1 validation error: bad [input_value={'content': 'flagged, credit "
                                                       "limit'}]"), R.BAD_REQUEST, 400, says="validation"),
    # GitHub Models: a wait of a day is no wait
    "GitHub Models": Shape(err("Rate limit of 50 per 86400s exceeded. Please wait 59932 seconds before retrying."),
                           R.QUOTA, 429),
    "Cohere trial": Shape({"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, R.QUOTA, 429),
    "Cerebras per minute": Shape({"message": "Tokens per minute limit exceeded", "code": "token_quota_exceeded"},
                                 R.RATE_LIMITED, 429, again=True),
    "reasoning as an object": Shape(chat({"content": A, "reasoning": {"content": T}}), "judged", thinks=True),
    "a portal's page": Shape(b"<html><title>Sign in</title></html>", R.INVALID_JSON, again=True, says="Sign in"),
}  # fmt: skip


class Answering(Endpoint):
    """Answers with the shape whose name it is asked."""

    def answer(self, head: str, raw: bytes) -> bytes:
        shape = SHAPES[json.loads(raw)["messages"][-1]["content"]]
        body = shape.body if isinstance(shape.body, bytes) else json.dumps(shape.body).encode()
        return http(shape.status, body, *shape.headers)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Completion | ModelError]:
    """What becomes of every shape, asked over one socket after another."""
    reader = AnswerReader(shipped("standard"))

    async def main() -> dict[str, Completion | ModelError]:
        found: dict[str, Completion | ModelError] = {}
        with Answering() as stub:
            model = make_model("openai-api/stub/m", environ=stub.env())
            for name in SHAPES:
                try:
                    (reply,) = await model.generate([Request((Message("user", name),), Sampling())])
                    found[name] = completion_of(reply, reader, name)
                except ModelError as error:
                    found[name] = error
            await model.aclose()
        return found

    return asyncio.run(main())


def test_there_are_at_least_sixty_shapes() -> None:
    assert len(SHAPES) >= 60


@pytest.mark.parametrize("name", SHAPES)
def test_no_shape_is_judged_wrongly_or_lost_without_a_reason(
    outcomes: dict[str, Completion | ModelError], name: str
) -> None:
    shape, found = SHAPES[name], outcomes[name]
    assert shape.says in (found.note or "")
    if isinstance(found, ModelError):
        assert (found.reason, found.transient, found.retry_after) == (shape.comes, shape.again, shape.wait)
        return
    assert (found.thought is not None) == shape.thinks
    assert T in (found.thought or T)
    if shape.comes == "judged":
        assert (found.outcome, found.judged) == ("text", A)
    else:
        assert found.outcome == "no_response"
        assert found.reason == ("provider_filter" if shape.comes == "withheld" else shape.comes)


@pytest.mark.parametrize(
    "finish", ["length", "MAX_TOKENS", "FINISH_REASON_MAX_TOKENS", "model_length", "max_output_tokens"]
)
def test_every_word_for_a_limit_is_an_answer_that_is_not_whole(finish: str) -> None:
    assert is_cut(finish)


@pytest.mark.parametrize("finish", [None, "stop", "STOP", "end_turn", "eos", "tool_calls", "content_filter"])
def test_an_answer_that_ended_by_itself_is_whole(finish: str | None) -> None:
    assert not is_cut(finish)


INERT = "Which ferries cross the lake in winter, and how is\n  their blue paint made?"
ONE_LINE = " ".join(INERT.split())


@pytest.mark.parametrize(
    ("note", "shown"),
    [
        (f"cannot render {ONE_LINE!r} here", f"cannot render '{NOT_SHOWN}' here"),
        (f"not fit: {ONE_LINE[10:50]}...", f"not fit: {NOT_SHOWN}..."),
        (f"{ONE_LINE} | {ONE_LINE}", f"{NOT_SHOWN} | {NOT_SHOWN}"),
        ("Name a bird? is no question", f"{NOT_SHOWN} is no question"),
        ("the ferries cross nothing", "the ferries cross nothing"),
        ("the model is  overloaded", "the model is  overloaded"),
        ("", ""),
        (None, None),
    ],
)
def test_what_an_endpoint_quotes_of_the_request_is_not_among_its_own_words(note: str | None, shown: str | None) -> None:
    asked = Request((Message("system", "Name a bird?"), Message("user", INERT)), Sampling(max_tokens=5))
    assert unquoted(note, asked) == shown


@pytest.mark.parametrize("code", ["bad", "content_filter"])
def test_neither_a_refusal_nor_a_filter_tells_the_question(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint() as stub:
        page = {"error": {"code": code, "message": f"Not this: {INERT}"}}
        monkeypatch.setattr(stub, "answer", lambda head, raw: http(400, json.dumps(page).encode()))

        async def main() -> str | None:
            model = make_model("openai-api/stub/m", environ=stub.env())
            try:
                (reply,) = await model.generate([Request((Message("user", INERT),), Sampling(max_tokens=5))])
            except ModelError as error:
                return error.note
            else:
                return reply.note
            finally:
                await model.aclose()

        assert asyncio.run(main()) == f"Not this: {NOT_SHOWN}"
