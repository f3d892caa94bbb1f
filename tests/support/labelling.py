"""Runs to label, and the labelling page called without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.prompts import parse_template
from redinstruct.run import Store
from redinstruct.types import Completion, JudgeCard, Verdict
from tests.support.stores import CARD, Setup, make_bank, text

OVER_REFUSAL_CARD = JudgeCard("refusal", "over_refusal")


def make_run(
    folder: Path,
    labels: Sequence[Sequence[str]],
    *,
    card: JudgeCard = CARD,
    answer: Callable[[int], str] = "an inert answer {}".format,
    topics: Sequence[str | None] = ("first", "second"),
) -> Setup:
    """A run of one bank under as many prompts as ``labels`` has rows; each row holds the judge's labels in order.

    ``""`` leaves an attempt without a verdict. Answers are ``answer(row)``, rows counting from 1 over the whole run.
    """
    names = ("standard", "cou", "cot")[: len(labels)]
    setup = Setup(
        banks=(make_bank(len(labels[0]), topics=topics),),
        templates=tuple(parse_template(name, f"{name}: <question>") for name in names),
        card=card,
    )
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        row = 0
        completions: list[tuple[int, int, Completion]] = []
        verdicts = []
        for of_prompt in labels:
            for label in of_prompt:
                row += 1
                if label in ("no_response", "error"):
                    completions.append((row, 0, Completion(label, reason="empty")))  # type: ignore[arg-type]
                    continue
                completions.append((row, 0, text(answer(row))))
                if label:
                    verdicts.append((row, 0, judge, 0, Verdict(label)))
        store.commit_completions(completions)
        store.commit_verdicts(verdicts)
    return setup


def page_headers(port: int, token: str) -> list[tuple[bytes, bytes]]:
    """What the page's own script sends."""
    return [
        (b"host", f"127.0.0.1:{port}".encode()),
        (b"origin", f"http://127.0.0.1:{port}".encode()),
        (b"sec-fetch-site", b"same-origin"),
        (b"authorization", f"Bearer {token}".encode()),
        (b"content-type", b"application/json"),
    ]


class Client:
    """An ASGI application, asked in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes = b"",
        query: bytes = b"",
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of one request."""
        return asyncio.run(self.answer(method, path, headers, body, query))

    async def answer(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes = b"", query: bytes = b""
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """The same inside a loop."""
        sent: list[Any] = []
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode("utf-8", "replace"), "root_path": "", "query_string": query,
            "headers": list(headers), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        await self.app(scope, receive, send)
        body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
        return sent[0]["status"], dict(sent[0]["headers"]), body


class Page(Client):
    """The labelling page of a session as its own script sees it."""

    PORT, TOKEN = 4321, "t" * 43

    def __init__(self, session: Any) -> None:
        from redinstruct.annotate.server import application

        self.failures: list[Exception] = []
        super().__init__(application(session, self.PORT, self.TOKEN, self.failures.append))

    def post(self, path: str, document: object) -> tuple[int, Any]:
        """One POST; status and JSON."""
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        headers = [*page_headers(self.PORT, self.TOKEN), (b"content-length", str(len(body)).encode())]
        status, _, reply = self.ask("POST", f"/api/{path}", headers, body)
        return status, msgspec.json.decode(reply)
