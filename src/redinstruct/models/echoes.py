"""The log-probabilities of a text's own tokens, as ``/completions`` of an OpenAI-compatible endpoint echoes them.

vLLM, SGLang and others offer it beside ``/chat/completions``: ``echo`` with ``logprobs``. Chat endpoints have nothing
of the kind. Pure.

Where each token stands in the text is found by the tokens themselves. The offsets beside them are no measure: vLLM adds
up the lengths of what it calls the tokens, the mark that begins a text (``<|begin_of_text|>``) and the halves of a
character among them; SGLang says -1. They count where the tokens do not tell (OpenAI's, which may be bytes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from redinstruct.models.base import Request, TokenChoice

_MOST_MARKS = 3
"""So many marks that are not of the text may stand before it."""
_LONGEST_UNREAD = 8
"""Characters that one token may stand for that was not decoded by itself."""


def fields(model: str, request: Request) -> dict[str, object]:
    """The request's fields. One token is generated, and dropped: many endpoints refuse to generate none."""
    return {"model": model, "prompt": request.messages[-1].content, "echo": True, "logprobs": 1, "max_tokens": 1,
            "temperature": 0.0}  # fmt: skip


def tokens(logprobs: Any, text: str) -> tuple[TokenChoice, ...]:
    """The tokens of ``text`` in order; joined they are the text. Nothing where the endpoint gave another shape.

    The first alternative of each is the token itself. A token without a log-probability (the first one) has none.
    """
    try:
        own, top = logprobs["token_logprobs"], logprobs["top_logprobs"] or []
        skipped, pieces = _placed(logprobs.get("tokens"), logprobs.get("text_offset"), text)
        if len(own) < skipped + len(pieces):
            return ()
        found: list[TokenChoice] = []
        for number, piece in enumerate(pieces, skipped):
            chance = own[number]
            others = (top[number] or {}) if number < len(top) else {}
            if chance is not None and not math.isfinite(float(chance)):
                return ()
            best = tuple((str(token), float(value)) for token, value in others.items())
            found.append(TokenChoice(piece, () if chance is None else ((piece, float(chance)), *best)))
        return tuple(found)
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        return ()


def _placed(named: Any, offsets: Any, text: str) -> tuple[int, list[str]]:
    """How many tokens stand before the text, and what of it each of the following ones is; none where nobody knows."""
    told = isinstance(named, list) and all(isinstance(token, str) for token in named)
    for skipped in range(min(_MOST_MARKS + 1, len(named)) if told else 0):
        if pieces := _pieces(named[skipped:], text):
            return skipped, pieces
    if told and offsets == [0, *accumulate(map(len, named))][:-1]:
        return 0, []
    inside = [at for at in offsets if at < len(text)]
    if not inside or inside[0] != 0 or sorted(inside) != inside:
        return 0, []
    return 0, [text[start:end] for start, end in zip(inside, [*inside[1:], len(text)], strict=True)]


def _length(token: str, text: str, start: int) -> int | None:
    """How much of the text a token is that begins at ``start``; None where it is not there.

    Tokens that are decoded one by one lose the blank in front of them (SentencePiece: Llama 2, Mistral), or have it
    put back, also in front of the first one, where the text has none.
    """
    if start < 0:
        return None
    if text.startswith(token, start):
        return len(token)
    if text.startswith(f" {token}", start):
        return len(token) + 1
    return len(token) - 1 if start == 0 and token[0] == " " and text.startswith(token[1:]) else None


def _pieces(named: Sequence[str], text: str) -> list[str]:
    """The text taken apart as the tokens say; empty where they say another text.

    Of a character that is several tokens some decode to nothing, or to U+FFFD: the first of them stands for all of it.
    """
    found: list[str] = []
    unread: list[str] = []
    at = 0
    for token in named:
        if at == len(text):
            break
        if not token or ("\ufffd" in token and not text.startswith(token, at)):
            found.append("")
            unread.append(token)
            continue
        # The one that completes a character is told with all of it by some; by others it is one of those without.
        own = bool(unread) and not any(unread) and text.startswith(token, at)
        start = at if own or not unread else text.find(token, at + 1, at + _LONGEST_UNREAD * len(unread) + len(token))
        length = _length(token, text, start)
        if length is None:
            break  # the one that was generated, or one of another text
        if unread:
            found[-len(unread)] = token if own else text[at:start]
        found.append("" if own else text[start : start + length])
        at = start + length
        unread.clear()
    if unread and len(text) - at <= _LONGEST_UNREAD * len(unread):
        found[-len(unread)] = text[at:]
        at = len(text)
    return found if at == len(text) else []
