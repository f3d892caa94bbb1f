"""What an endpoint's answer with status 200 holds: a reply, a filter's word, or a typed failure. Pure.

The text is taken as it was said, to the byte: nothing is hidden in it here. A thought that the endpoint tells apart
(``reasoning_content``, ``reasoning``, ``reasoning_details``, parts of type ``thinking``) is kept apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from redinstruct.models import echoes, events
from redinstruct.models.base import ModelError, Reply, Request, TokenChoice
from redinstruct.models.failures import Filtered, body_error, is_filter_code, page, told
from redinstruct.safetext import redact, terminal
from redinstruct.types import FailureReason

MAX_FINISH = 64
_COUNTS = range(2**53)
"""A count that SQLite cannot hold is no count."""

Finish = Literal["usual", "filter", "refusal", "broken"]
# The provider failed in the middle: OpenRouter, SGLang, Zhipu, DeepSeek.
_BROKEN = frozenset({"error", "abort", "aborted", "networkerror", "insufficientsystemresource", "failed", "cancelled"})
# A filter that says so beside an answer whose finish reason is the usual one: Bedrock, MiniMax. In the model's own
# words a quotation mark would be escaped.
_SIGN = re.compile(rb'guardrailAction"\s*:\s*"INTERVENED|(?:in|out)put_sensitive"\s*:\s*true')
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thought", "reasoning_details",
                   "thinking_blocks")  # fmt: skip
_THOUGHT_PART = re.compile(r"think|thought|reason|analysis", re.IGNORECASE)
_PART_TEXT = ("text", "content", "refusal", "value", "thinking", "reasoning", "reasoning_content",
              "summary")  # fmt: skip


class _Choice(msgspec.Struct):
    message: Any = None
    text: Any = None
    logprobs: Any = None
    finish_reason: Any = None
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
        Filtered: the provider's filter withheld it, and sent nothing in its place.
    """
    data = events.whole(data)
    body = _parse(data)
    if not body.choices:
        raise _without_choices(data)
    choice = body.choices[0]
    finish = choice.finish_reason if isinstance(choice.finish_reason, str) else None
    kind: Finish = "usual" if finish is None or finish == "stop" else finish_kind(finish)
    hinted = b'"INTERVENED' in data or b'put_sensitive"' in data
    withheld = kind == "filter" or (hinted and _SIGN.search(data) is not None)
    error = choice.error or body.error
    text, thought = _said(choice, optional=withheld or bool(error) or kind != "usual")
    if not text and not withheld:
        if error:
            raise body_error(error)
        if kind == "broken":
            raise ModelError(FailureReason.SERVER_ERROR, transient=True, note=f"finish reason {_short(str(finish))}")
        withheld = kind == "refusal" or (not thought and told(_loaded(data)).marked)
    tokens_in, tokens_out = _usage(body.usage)
    return Reply(
        text,
        finish if finish in ("stop", "length") else None if finish is None else _short(finish),
        tokens_in,
        tokens_out,
        withheld,
        () if choice.logprobs is None else _choices(choice.logprobs),
        thought=thought,
    )


def read_echo(data: bytes, request: Request) -> Reply:
    """The prompt's own tokens in an answer of ``/completions``; raises as :func:`read_reply`."""
    data = events.whole(data)
    body = _parse(data)
    if not body.choices:
        raise _without_choices(data)
    tokens = echoes.tokens(body.choices[0].logprobs, request.messages[-1].content)
    finish = body.choices[0].finish_reason
    return Reply(None, finish if isinstance(finish, str) else None, *_usage(body.usage), choices=tokens)


@lru_cache(256)
def finish_kind(finish: str) -> Finish:
    """What a finish reason says, whatever its case; also ``content_filter: PROHIBITED_CONTENT``, as Gemini writes it.

    ``refusal`` is Anthropic's classifiers where they left no text; with one it is the model's own.
    """
    plain = "".join(c for c in finish.partition(":")[0].lower().removeprefix("finish_reason_") if c.isalnum())
    if plain in _BROKEN:
        return "broken"
    if plain == "refusal":
        return "refusal"
    return "filter" if plain != "stop" and is_filter_code(plain) else "usual"


def _without_choices(data: bytes) -> ModelError | Filtered:
    """An error told with status 200: in ``error``, at the top, in ``base_resp`` (MiniMax), or only by what is there."""
    loaded = _loaded(data)
    if isinstance(loaded, dict):
        error = loaded.get("error") or {name: part for name, part in loaded.items() if name not in ("usage", "object")}
        said = told(error)
        if said.words or said.marked or "error" in loaded or said.status is not None:
            return body_error(error)
    return ModelError(FailureReason.NO_CHOICES)


def _loaded(data: bytes) -> object:
    try:
        loaded: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return loaded


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
        # Of a page that stands in an answer's place, a portal's say, the title says what it is. Other text may be the
        # answer's own, and is not repeated.
        note = _short(page(data)) if b"<title" in data[:2000].lower() else None
        raise ModelError(FailureReason.INVALID_JSON, transient=True, note=note) from None


def _said(choice: _Choice, *, optional: bool) -> tuple[str | None, str | None]:
    """The answer's text and its thought. A refusal that the model wrote into its own field, or its own part, is text.

    Who withholds an answer may leave its message out (``optional``).
    """
    message = choice.message
    if not isinstance(message, dict):
        if isinstance(choice.text, str):
            return choice.text, None
        if message is None and optional:
            return None, None
        raise ModelError(FailureReason.BAD_SHAPE)
    content = message.get("content")
    thought: str | None = None
    if isinstance(content, list | dict):
        content, thought = _from_parts(content)
    if content is not None and not isinstance(content, str):
        raise ModelError(FailureReason.BAD_SHAPE)
    if not content and isinstance(refusal := message.get("refusal"), str) and refusal:
        content = refusal
    for name in _THOUGHT_FIELDS:
        if not thought and (told_apart := message.get(name)):
            thought = _joined(told_apart)
    return content, thought or None


def _from_parts(content: object) -> tuple[str, str]:
    """Content that is a list of parts (or one): what is said, and what is thought."""
    said: list[str] = []
    thoughts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Mapping):
            is_thought = part.get("thought") is True or _THOUGHT_PART.search(str(part.get("type", ""))) is not None
            (thoughts if is_thought else said).append(_joined(part))
    return "".join(said), "\n".join(text for text in thoughts if text)


def _joined(value: object) -> str:
    """The text in a value of any of the shapes in use: a string, a part, a list of parts."""
    return "".join(_texts(value, 0))


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth > 4:
        return
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, depth + 1)
    elif isinstance(value, Mapping):
        yield from next((texts for name in _PART_TEXT if (texts := [*_texts(value.get(name), depth + 1)])), ())


def _usage(usage: object) -> tuple[int | None, int | None]:
    """Tokens read and written. A thought is written, and paid for; xAI and Gemini count it in the total alone."""
    if not isinstance(usage, dict):
        return None, None
    given = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    read, written, total = (count if type(count) is int and count in _COUNTS else None for count in given)
    if read is not None and written is not None and total is not None:
        written = max(written, total - read)
    return read, written


def _short(finish: str) -> str:
    return terminal(redact(finish))[:MAX_FINISH]
