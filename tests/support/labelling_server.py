"""``redinstruct annotate`` in a process of its own, and its page asked over HTTP."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec

from tests.support.cli import start
from tests.support.labelling import page_headers


class Server:
    """A labelling page that a process serves; ``address`` holds its token, as the terminal shows it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        self.printed = ""
        self.address = ""
        for line in process.stdout:
            self.printed += line.decode()
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/#(\S+)", self.printed):
                self.address, self.port, self.token = found[0], int(found[1]), found[2]
                break
        else:
            raise AssertionError(f"no address: {self.printed!r} {process.communicate()[1]!r}")

    def post(self, path: str, document: object) -> Any:
        """One POST as the page's script sends it; the JSON of a 200.

        Raises:
            OSError: the server is gone.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            body = msgspec.json.encode(document)
            headers = {
                name.decode(): value.decode() for name, value in page_headers(self.port, self.token) if name != b"host"
            }
            connection.request("POST", f"/api/{path}", body, headers)
            reply = connection.getresponse()
            content = reply.read()
            assert reply.status == 200, content
            return msgspec.json.decode(content)

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; exit code and all that was said."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, self.printed + out.decode(), err.decode()


@contextlib.contextmanager
def served(run: Path, *flags: object, verb: str = "annotate") -> Iterator[Server]:
    """A server that is gone afterwards, whatever happens."""
    process = start(verb, run, *flags)
    try:
        yield Server(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
