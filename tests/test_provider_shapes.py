"""The shapes in which providers answer and fail: none judged wrongly, none lost without a reason or a wait."""

from __future__ import annotations

import json

import pytest

from redinstruct.models import ModelError, waits
from redinstruct.models.failures import Filtered, status_error
from redinstruct.types import FailureReason

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


def test_quota_that_is_spent_is_told_from_a_limit_that_passes() -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    for status in (400, 401, 403, 429, 500):
        spent = failure(status, {"error": {"message": words, "code": "insufficient_quota"}})
        assert isinstance(spent, ModelError)
        assert (spent.reason, spent.transient, spent.note) == (R.QUOTA, False, words)
    passes = failure(429, [{"error": {"message": words, "details": [{"retryDelay": "23s"}]}}])
    assert isinstance(passes, ModelError)
    assert (passes.reason, passes.transient, passes.retry_after) == (R.RATE_LIMITED, True, 23.0)
