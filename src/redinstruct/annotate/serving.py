"""A page of one's own on 127.0.0.1, as long as a command runs: for labelling and for the viewer. Needs the [ui] extra.

Promised: no request line, header, body or text is written anywhere; a request that the guard refuses reaches nothing.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redinstruct.annotate.guard import HOST, MOST_BYTES, SAFE_HEADERS, new_token, refusal
from redinstruct.errors import UsageError
from redinstruct.files.words import Fields

_SECONDS_TO_END = 2
_POLICY = b"content-security-policy"
_OWN = Path(__file__).parent / "page" / "own.js"
_KINDS = {
    f".{kind}": f"text/{mime}; charset=utf-8" for kind, mime in (("html", "html"), ("css", "css"), ("js", "javascript"))
}


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1, port 0 for any free one.

    Raises:
        UsageError: the port is taken, or not for us.
    """
    # With the protocol named, asyncio sends at once (TCP_NODELAY); without it, each answer waits for 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise UsageError(f"--port {port}: cannot be used ({error.strerror}); leave it out for any free one") from None
    return listener


class Guarded:
    """The application behind the guard: refuses, bounds the body, and puts the safe headers on every answer."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.port, self.token = app, port, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                # A page that this program made brings a policy of its own, which is no weaker (viewer).
                safe = (
                    [h for h in SAFE_HEADERS if h[0] != _POLICY] if any(h[0] == _POLICY for h in own) else SAFE_HEADERS
                )
                message = {**message, "headers": [*own, *safe]}
            await send(message)

        refused = refusal(scope["method"], scope["headers"], self.port, self.token)
        if refused is None and scope["query_string"]:
            refused = 404, "no such address"
        if refused is not None:
            await json_answer(refused[0], {"error": refused[1]})(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


async def body_of(request: Request) -> bytes | None:
    """What a request holds; None where it is more than the guard lets in."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


TOO_LONG = 413, {"error": "at most 64 KiB"}


def json_answer(status: int, document: Fields) -> Response:
    """A document as JSON."""
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def file_route(path: str, file: Path, kind: str) -> Route:
    """A file of a page, read once."""
    content = file.read_bytes()

    async def serve(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return Route(path, serve, methods=["GET"])


def page_routes(folder: Path, *names: str) -> list[Route]:
    """A page's own files, ``index.html`` at ``/``, and the script that every page of ours begins with."""
    files = {f"/{name}": folder / name for name in names}
    files |= {"/": folder / "index.html", "/own.js": _OWN}
    return [file_route(path, file, _KINDS[file.suffix]) for path, file in files.items()]


def guarded_page(routes: Sequence[Route], port: int, token: str) -> ASGIApp:
    """These routes and nothing else, behind the guard."""

    async def missing(_: Request, error: Exception) -> Response:
        return json_answer(getattr(error, "status_code", 404), {"error": "no such address"})

    page = Starlette(routes=list(routes), exception_handlers={404: missing, 405: missing})
    page.router.redirect_slashes = False
    return Guarded(page, port, token)


Maker = Callable[[int, str, Callable[[], None]], ASGIApp]
"""Makes the application of a port, a token, and what ends the server."""


def serve_here(make: Maker, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; ``on_ready`` gets the address, token and all, once it answers.

    Raises:
        UsageError: the port is taken.
    """
    token, listener = new_token(), listen(port)
    try:
        actual = listener.getsockname()[1]

        def stop() -> None:
            server.should_exit = True

        # Whatever a library has to say of a request stays unsaid: it could hold a part of it.
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        config = uvicorn.Config(
            make(actual, token, stop), log_config=None, access_log=False, http="h11", ws="none",
            lifespan="off", server_header=False, proxy_headers=False, timeout_graceful_shutdown=_SECONDS_TO_END,
            timeout_keep_alive=30, h11_max_incomplete_event_size=16 * 1024,
        )  # fmt: skip
        server = uvicorn.Server(config)
        on_ready(f"http://{HOST}:{actual}/#{token}")
        # uvicorn ends at the first signal, then sends it again to whoever listens: this is where that ends.
        previous = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, previous)
    finally:
        listener.close()


def _interrupt(_: int, __: object) -> None:
    raise KeyboardInterrupt
