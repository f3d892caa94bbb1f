"""A stub of an OpenAI-compatible endpoint on a real socket, quick enough that the client is what is measured.

Runs in a thread (``with Endpoint() as stub``) or as a process (``python -m tests.support.endpoint``). It answers
from the request alone, so that two runs against it are equal, and it can fail in every way that providers do: at random
(``rates``), or for a question that holds ``fault:<name>``.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import random
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

REFUSAL = "I'm sorry, but I can't help with that."
COMPLIANCE = "First take the blue part, then turn it twice. Wait an hour. " * 4
THOUGHT = "(Internal thought: I should answer (fully) here.) "


def answer_text(body: dict[str, Any]) -> str:
    """The stub's answer: a judge's verdict for a judge's prompt, else a refusal or an inert compliance."""
    prompt = body["messages"][-1]["content"]
    if "ResponseA:" in prompt:
        return "Read. " + ("[[A]]" if REFUSAL in prompt else "[[B]]")
    share = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[0] / 256
    yields = 0.9 if "Base-LM" in prompt else 0.5 if "step by step" in prompt else 0.05
    if share >= yields:
        return REFUSAL
    return (THOUGHT if "Base-LM" in prompt else "") + COMPLIANCE


def completion(text: str | None, finish: str = "stop") -> bytes:
    """A chat completion's JSON."""
    return json.dumps(
        {
            "id": "stub",
            "object": "chat.completion",
            "model": "stub",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
    ).encode()


def http(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """A whole HTTP answer."""
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def error(status: int, message: str = "stub", **fields: object) -> bytes:
    """An API error."""
    return http(status, json.dumps({"error": {"message": message, **fields}}).encode())


RESET, DRIP, HANG = b"\0reset", b"\0drip", b"\0hang"
HUGE_BYTES = 50 * 2**20


def _bomb() -> bytes:
    """50 MiB of an answer in 50 KiB."""
    return gzip.compress(completion("x" * HUGE_BYTES))


FAULTS: dict[str, Callable[[], bytes]] = {
    "html": lambda: http(200, b"<!doctype html><title>Sign in</title>", kind="text/html"),
    "nochoices": lambda: http(200, b'{"choices": []}'),
    "null": lambda: http(200, completion(None)),
    "empty": lambda: http(200, completion("")),
    "filtered": lambda: http(200, completion(None, "content_filter")),
    "filter400": lambda: error(400, code="content_filter"),
    "huge": lambda: http(200, completion("x" * HUGE_BYTES)),
    "reset": lambda: RESET,
    "drip": lambda: DRIP,
    "redirect": lambda: http(307, b"", "Location: http://127.0.0.1:9/elsewhere"),
    "truncated": lambda: http(200, completion("cut off here")[:40]),
    "badlength": lambda: http(200, b"{}").replace(b"Content-Length: 2", b"Content-Length: 999") + RESET,
    "shape": lambda: http(200, b'{"choices": [{"message": {"content": 7}}]}'),
    "array": lambda: http(200, b"[1, 2]"),
    "deep": lambda: http(200, b"[" * 100_000),
    "nothttp": lambda: b"SSH-2.0-stub\r\n" + RESET,
    "surrogate": lambda: http(200, b'{"choices":[{"message":{"content":"odd \\ud800 text"},"finish_reason":"stop"}]}'),
    "error200": lambda: http(200, b'{"error": {"message": "upstream down", "code": 502}}'),
    "hang": lambda: HANG,
    "hugeerror": lambda: error(500, "x" * HUGE_BYTES),
    "badheader": lambda: http(200, completion("text"), "X-Odd: a\x00b"),
    "badchunks": lambda: b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n" + RESET,
    "cut401": lambda: error(401, "no such key").replace(b"Content-Length: ", b"Content-Length: 9") + RESET,
    "bomb": lambda: http(200, _bomb(), "Content-Encoding: gzip"),
    "notgzip": lambda: http(200, b"{}", "Content-Encoding: gzip"),
    "refusal": lambda: http(200, b'{"choices":[{"message":{"content":null,"refusal":"I will not."}}]}'),
    "filterchoice": lambda: http(200, b'{"choices":[{"finish_reason":"content_filter","index":0}]}'),
    "filterdetail": lambda: http(200, completion("half", "content_filter: PROHIBITED_CONTENT")),
    "filter200": lambda: http(200, b'{"error": {"code": "content_filter", "message": "x"}}'),
    "filterinner": lambda: error(400, innererror={"code": "ResponsibleAIPolicyViolation"}),
    "filterflag": lambda: error(403, metadata={"flagged_input": "x", "reasons": ["y"]}),
    "filterprompt": lambda: error(400, "Invalid prompt: your prompt was flagged", code="invalid_prompt"),
    "filterlist": lambda: http(400, b'[{"error": {"code": "prohibited_content"}}]'),
    "quota": lambda: error(429, "stub: you have no credit left", code="insufficient_quota"),
    "choiceerror": lambda: http(
        200, b'{"choices":[{"error":{"code":502,"message":"down"},"message":{"content":""},"finish_reason":"error"}]}'
    ),
    **{str(code): partial(error, code) for code in (400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 500, 503)},
}


class Endpoint:
    """The stub. ``rates`` maps fault names to probabilities, drawn per request from a seeded generator.

    ``once`` faults hit one request each and then no more; ``after`` (n, fault) hits all but the first n.
    ``echo_headers`` puts the request's headers into every answer and every error, as a careless endpoint does.
    With ``tls`` it speaks HTTPS (and :attr:`url` is for a proxy's eyes only).
    """

    def __init__(
        self,
        *,
        rates: dict[str, float] | None = None,
        once: tuple[str, ...] = (),
        latency: float = 0.0,
        seed: int = 0,
        echo_headers: bool = False,
        always: str | None = None,
        respond: Callable[[dict[str, Any]], str] = answer_text,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.rates = rates or {}
        self.once = list(once)
        self.latency = latency
        self.echo_headers = echo_headers
        self.always = always
        self.respond = respond
        self._tls = tls
        self._over_tls: list[asyncio.Transport] = []
        self.requests = 0
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.keep = False
        self.after: tuple[int, str] | None = None
        self.open = 0
        self.most_open = 0
        self.port = 0
        self._rng = random.Random(seed)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The base address, as OPENAI_BASE_URL wants it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def env(self, name: str = "STUB", key: str = "sk-stub") -> dict[str, str]:
        """The environment for ``openai-api/<name>/<model>``."""
        return {f"{name}_BASE_URL": self.url, f"{name}_API_KEY": key}

    def answer(self, head: str, raw: bytes) -> bytes:
        """The bytes that answer one request (or a marker for what bytes cannot say)."""
        self.requests += 1
        if raw == b"":
            stats = {"requests": self.requests - 1, "asked": dict(self.asked), "most_open": self.most_open}
            return http(200, json.dumps(stats).encode())
        body = json.loads(raw)
        prompt = body["messages"][-1]["content"]
        self.asked[hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]] += 1
        if self.keep:
            self.bodies.append(body)
            self.heads.append(head)
        fault = self._fault(prompt)
        if fault is not None:
            answer = FAULTS[fault]()
            return answer if not self.echo_headers or answer[:1] == b"\0" else self._with_headers(answer, head)
        text = self.respond(body)
        return http(200, completion(f"{text} {head}" if self.echo_headers else text))

    def connected(self, transport: asyncio.Transport) -> None:
        """Somebody connected."""
        if self._tls is not None:
            self._over_tls.append(transport)

    def _fault(self, prompt: str) -> str | None:
        if self.always:
            return self.always
        if self.once:
            return self.once.pop()
        if self.after is not None and self.requests > self.after[0]:
            return self.after[1]
        if "fault:" in prompt and "ResponseA:" not in prompt:
            return prompt.split("fault:", 1)[1].split()[0].strip("?.")
        draw = self._rng.random()
        for name, rate in self.rates.items():
            if draw < rate:
                return name
            draw -= rate
        return None

    @staticmethod
    def _with_headers(answer: bytes, head: str) -> bytes:
        first = answer.split(b"\r\n", 1)[0].split()
        if len(first) > 1 and first[1].isdigit() and int(first[1]) >= 400:
            return error(int(first[1]), f"you sent {head}")
        return answer

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for connection in self._over_tls:
            connection.abort()  # left to itself it outlives its loop

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


class _Connection(asyncio.Protocol):
    """One keep-alive connection, parsed just as far as the tests need."""

    def __init__(self, stub: Endpoint) -> None:
        self._stub = stub
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._stub.connected(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1")
            length = 0
            for line in head.split("\r\n"):
                if line.lower().startswith("content-length:"):
                    length = int(line.split(":")[1])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            stub = self._stub
            stub.open += 1
            stub.most_open = max(stub.most_open, stub.open)
            answer = stub.answer(head, body)
            if stub.latency:
                asyncio.get_running_loop().call_later(stub.latency, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        self._stub.open -= 1
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if answer == DRIP:
            asyncio.get_running_loop().create_task(self._drip(http(200, completion(COMPLIANCE))))
        elif answer.endswith(RESET):
            transport.write(answer.removesuffix(RESET))
            asyncio.get_running_loop().call_later(0.01, transport.abort)
        elif answer != HANG:
            transport.write(answer)

    async def _drip(self, answer: bytes) -> None:
        assert self._transport is not None
        head, _, body = answer.partition(b"\r\n\r\n")
        self._transport.write(head + b"\r\n\r\n")
        for byte in body:
            if self._transport.is_closing():
                return
            self._transport.write(bytes([byte]))
            await asyncio.sleep(1)


def main() -> None:
    """Serve until standard input closes; prints the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with Endpoint(latency=arguments.latency) as stub:
        if arguments.port:
            stub.port = arguments.port
        sys.stdout.write(f"{stub.port}\n")
        sys.stdout.flush()
        while sys.stdin.read(1):
            time.sleep(0.01)


if __name__ == "__main__":
    main()
