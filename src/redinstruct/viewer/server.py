"""The viewer's server: on 127.0.0.1, behind the labelling page's guard, as long as the command runs. Needs [ui].

Promised: nothing is written; only runs that the list named are read, whatever path is asked for; what a run says is
shown by a report's page under its own policy, at an address that nobody can guess and that the list alone hands out.
Questions and answers stay hidden unless the reader asks for them.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from redinstruct.annotate.serving import TOO_LONG, body_of, guarded_page, json_answer, page_routes, serve_here
from redinstruct.errors import RedInstructError
from redinstruct.files.opening import NOT_JSON
from redinstruct.render.overview import read_runs
from redinstruct.render.page import page_policy, render
from redinstruct.safetext import shown
from redinstruct.viewer.shelf import Shelf

_PAGE = Path(__file__).parent / "page"
MOST_TOGETHER = 12
"""How many runs one report may stand for."""
MOST_KEPT = 8
"""How many reports are kept for a reload; an older one is opened from the list again."""


class ReportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The runs of a report, by their places, the one before first; ``content``: with questions and answers."""

    runs: tuple[str, ...]
    content: bool = False


class Reports:
    """The pages that were made, each under a word that nobody can guess."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def made(self, wanted: ReportRequest) -> str:
        """Make a report; returns the word that it is kept under.

        Raises:
            RedInstructError: a run is not in the list, or does not read.
        """
        places = [self.shelf.run(place) for place in wanted.runs]
        runs = [place for place in places if place is not None]
        if not 0 < len(places) <= MOST_TOGETHER or len(runs) != len(places):
            raise RedInstructError("these runs are not in the list: read it again")
        page = render(read_runs(runs), show_content=wanted.content).encode()
        with self._lock:
            word = secrets.token_urlsafe(32)
            self._kept[word] = page
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return word

    def kept(self, word: str) -> bytes | None:
        """A report that was made, None where it is no longer kept."""
        with self._lock:
            return self._kept.get(word)


def application(shelf: Shelf, port: int, token: str) -> ASGIApp:
    """The viewer of a folder, guarded."""
    reports, reading = Reports(shelf), threading.Lock()

    def listed() -> Response:
        with reading:
            return json_answer(200, {"folder": shown(shelf.folder.name or "/"), "runs": shelf.lines()})

    def opened(body: bytes) -> Response:
        try:
            wanted = msgspec.json.decode(body, type=ReportRequest)
        except NOT_JSON:
            return json_answer(400, {"error": "not what this page sends"})
        try:
            with reading:
                return json_answer(200, {"address": f"/report/{reports.made(wanted)}"})
        except (RedInstructError, OSError) as error:
            return json_answer(422, {"error": shown(str(error).replace(f"{shelf.folder}/", ""))})

    async def runs(_: Request) -> Response:
        return await run_in_threadpool(listed)

    async def open_one(request: Request) -> Response:
        if (body := await body_of(request)) is None:
            return json_answer(*TOO_LONG)
        return await run_in_threadpool(opened, body)

    async def report(request: Request) -> Response:
        page = reports.kept(request.path_params["word"])
        if page is None:
            return json_answer(404, {"error": "this report is no longer kept; open it from the list again"})
        policy = f"{page_policy()}; frame-ancestors 'none'"
        return Response(page, headers={"content-type": "text/html; charset=utf-8", "content-security-policy": policy})

    routes = page_routes(_PAGE, "view.css", "view.js")
    routes += [
        Route("/api/runs", runs, methods=["POST"]),
        Route("/api/open", open_one, methods=["POST"]),
        Route("/report/{word}", report, methods=["GET"]),
    ]
    return guarded_page(routes, port, token)


def serve(folder: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the viewer of a folder until Ctrl-C or SIGTERM; ``on_ready`` gets its address, token and all.

    Raises:
        UsageError: the port is taken.
    """
    serve_here(lambda actual, token, _: application(Shelf(folder), actual, token), port, on_ready)
