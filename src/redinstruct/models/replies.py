"""What an endpoint's answer with status 200 holds: a reply, or a typed failure. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from redinstruct.models import echoes
from redinstruct.models.base import ModelError, Reply, Request, TokenChoice
from redinstruct.models.failures import body_error
from redinstruct.safetext import redact, terminal
from redinstruct.types import FailureReason

MAX_FINISH = 64

_FILTER_FINISH = frozenset(
    {
        "content_filter",
        "content_filtered",
        "safety",
        "prohibited_content",
        "recitation",
        "blocklist",
        "spii",
        "sensitive",
    }
)
_USUAL_FINISH = frozenset({"stop", "length", "content_filter"})


class _Choice(msgspec.Struct):
    message: Any = None
    logprobs: Any = None
    finish_reason: str | None = None
    error: Any = None


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def read_reply(data: bytes) -> Reply:
    """The reply in an answer of ``/chat/completions``.

    Raises:
        ModelError: it holds none; the reason is typed.
        Filtered: the provider's filter withheld it.
    """
    body = _parse(data)
    if not body.choices:
        if body.error is not None:
            raise body_error(body.error)
        raise ModelError(FailureReason.NO_CHOICES)
    choice = body.choices[0]
    finish = choice.finish_reason
    filtered = _is_filter_finish(finish)
    text = _text(choice.message, withheld=filtered or choice.error is not None)
    if choice.error is not None and not text:
        raise body_error(choice.error)
    if finish is not None and finish not in _USUAL_FINISH:
        finish = terminal(redact(finish))[:MAX_FINISH]
    tokens_in, tokens_out = _usage(body.usage)
    choices = () if choice.logprobs is None else _choices(choice.logprobs)
    return Reply(None if text is None else redact(text), finish, tokens_in, tokens_out, filtered, choices)


def read_echo(data: bytes, request: Request) -> Reply:
    """The prompt's own tokens in an answer of ``/completions``; raises as :func:`read_reply`."""
    body = _parse(data)
    if not body.choices:
        raise ModelError(FailureReason.NO_CHOICES) if body.error is None else body_error(body.error)
    tokens = echoes.tokens(body.choices[0].logprobs, request.messages[-1].content)
    return Reply(None, body.choices[0].finish_reason, *_usage(body.usage), choices=tokens)


def _choices(logprobs: object) -> tuple[TokenChoice, ...]:
    """The tokens with their alternatives, ``logprobs.content[]``; nothing where any of it has another shape."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        return tuple(
            TokenChoice(given["token"], tuple((top["token"], float(top["logprob"])) for top in given["top_logprobs"]))
            for given in content or ()
            if isinstance(given["token"], str) and all(isinstance(top["token"], str) for top in given["top_logprobs"])
        )
    except (TypeError, KeyError, ValueError):
        return ()


def _is_filter_finish(finish: str | None) -> bool:
    """Also ``content_filter: PROHIBITED_CONTENT``, as Gemini writes it."""
    return finish is not None and finish != "stop" and finish.partition(":")[0].strip().lower() in _FILTER_FINISH


def _parse(data: bytes) -> _Body:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # msgspec refuses lone surrogates, which are legal JSON and do come out of models; and it finds a wrong shape
        # before it finds that the text is no JSON at all, which is worth another try.
        return msgspec.convert(json.loads(data), _Body)
    except msgspec.ValidationError:
        raise ModelError(FailureReason.BAD_SHAPE) from None
    except (ValueError, RecursionError):
        raise ModelError(FailureReason.INVALID_JSON, transient=True) from None


def _text(message: object, *, withheld: bool) -> str | None:
    """The answer's text. A refusal that the model wrote into its own field, or its own part, is text too.

    Who withholds an answer may leave its message out.
    """
    if message is None and withheld:
        return None
    if not isinstance(message, dict):
        raise ModelError(FailureReason.BAD_SHAPE)
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") or part.get("refusal") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        raise ModelError(FailureReason.BAD_SHAPE)
    refusal = message.get("refusal")
    return refusal if not content and isinstance(refusal, str) and refusal else content


def _usage(usage: object) -> tuple[int | None, int | None]:
    if not isinstance(usage, dict):
        return None, None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    # A count that SQLite cannot hold is no count.
    a, b = (c if type(c) is int and 0 <= c < 2**53 else None for c in counts)
    return a, b
