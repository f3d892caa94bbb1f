"""A stub endpoint that also has ``/completions``: it echoes a prompt's tokens with log-probabilities that are known."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.endpoint import Endpoint, error, http

PIECE = re.compile(r"\s*\S+|\s+$")
GENERATED = " more"


def pieces(text: str) -> list[str]:
    """The stub's tokens: a word with the white space in front of it."""
    return PIECE.findall(text)


def logprob(piece: str) -> float:
    """The stub's probability of a token: longer words are less likely, capital ones a little more."""
    return -len(piece) / 8 + (0.25 if piece.strip()[:1].isupper() else 0.0)


def echoed(prompt: str) -> dict[str, Any]:
    """The body of an echo, with one generated token at its end."""
    tokens = [*pieces(prompt), GENERATED]
    offsets = [sum(len(token) for token in tokens[:number]) for number in range(len(tokens))]
    chances = [None, *(logprob(token) for token in tokens[1:])]
    top = [None, *({token: chance, " the": -0.5} for token, chance in zip(tokens[1:], chances[1:], strict=True))]
    logprobs = {"tokens": tokens, "text_offset": offsets, "token_logprobs": chances, "top_logprobs": top}
    return {"choices": [{"index": 0, "text": prompt + GENERATED, "logprobs": logprobs, "finish_reason": "length"}]}


class EchoingEndpoint(Endpoint):
    """The stub with ``/completions``; ``broken`` leaves the log-probabilities out."""

    broken = False

    chat_only = False
    """``/completions`` is not there at all; ``refusal`` says so."""

    refusal = error(404, "not found")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.plain: list[dict[str, Any]] = []

    def continued(self, body: dict[str, Any]) -> bytes:
        """Plain text, continued."""
        if self.chat_only:
            return self.refusal
        self.plain.append(body)
        text = self.respond({**body, "messages": [{"role": "user", "content": body["prompt"]}]})
        return http(200, json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}).encode())

    def answer(self, head: str, raw: bytes) -> bytes:
        """The bytes that answer one request."""
        if not head.startswith("POST /v1/completions"):
            return super().answer(head, raw)
        self.requests += 1
        body = json.loads(raw)
        if "echo" not in body:
            return self.continued(body)
        if not (body["echo"] and body["logprobs"] and body["max_tokens"] == 1):
            return error(400, "not an echo")
        document = echoed(body["prompt"])
        if self.broken:
            document["choices"][0]["logprobs"] = None
        return http(200, json.dumps(document).encode())
