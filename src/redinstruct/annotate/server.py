"""The labelling page's server: on 127.0.0.1, for one annotator, as long as the command runs. Needs the [ui] extra.

Promised: no request line, header, body or text is written anywhere; files are those of ``page/``, read once; a request
that the guard refuses reaches nothing; an act is answered after its commit. Not promised: a second person at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from redinstruct.annotate.serving import TOO_LONG, body_of, guarded_page, json_answer, page_routes, serve_here
from redinstruct.annotate.session import PATHS, Session, answer
from redinstruct.errors import StoreError

_PAGE = Path(__file__).parent / "page"


def application(session: Session, port: int, token: str, on_failure: Callable[[StoreError], None]) -> ASGIApp:
    """The page of a session, guarded; ``on_failure`` hears of a store that can no longer be written or read."""

    async def api(request: Request) -> Response:
        if (body := await body_of(request)) is None:
            return json_answer(*TOO_LONG)
        try:
            # In this thread, on purpose: the store is one thread's, and an act takes a few milliseconds.
            return json_answer(*answer(session, request.url.path, body))
        except StoreError as error:
            on_failure(error)
            return json_answer(500, {"error": f"not recorded: {error}"})

    routes = page_routes(_PAGE, "page.css", "page.js")
    routes += [Route(path, api, methods=["POST"]) for path in PATHS]
    return guarded_page(routes, port, token)


def serve(session: Session, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM; ``on_ready`` gets its address, token and all, once it answers.

    Raises:
        UsageError: the port is taken.
        StoreError: the store could no longer be written; what was acknowledged is safe.
    """
    failures: list[StoreError] = []

    def made(actual: int, token: str, stop: Callable[[], None]) -> ASGIApp:
        def failed(error: StoreError) -> None:
            failures.append(error)
            stop()

        # The first label's figures would wait a second for it.
        importlib.import_module("scipy.special")
        return application(session, actual, token, failed)

    serve_here(made, port, on_ready)
    if failures:
        raise failures[0]
