"""A hub on this machine: the endpoints that ``huggingface_hub`` calls to make, read and write repositories.

In memory. Files that end in ``.safetensors`` go the way of large files (LFS: batch, PUT), the others inside the commit.
``gated`` are names that are refused as the real one refuses them; ``requests`` is what was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote

TOKEN = "hf_loopback_token"


class Repo:
    """One repository: its commits, each a whole tree."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {"0" * 40: {}}

    @property
    def head(self) -> str:
        """The newest commit."""
        return [*self.commits][-1]

    def at(self, revision: str) -> str | None:
        """The commit of a revision."""
        return self.head if revision == "main" else revision if revision in self.commits else None

    def add(self, files: dict[str, bytes]) -> str:
        """A commit on top; its id is that of what it holds."""
        tree = self.commits[self.head] | files
        name = hashlib.sha1(repr((len(self.commits), sorted(tree.items()))).encode()).hexdigest()
        self.commits[name] = tree
        return name


class Hub:
    """A running hub."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.fail: int | None = None
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repo(self, kind: str, name: str, files: dict[str, bytes], *, private: bool = True) -> str:
        """Put a repository there; gives its commit."""
        made = self.repos[kind, name] = Repo(private)
        return made.add(files)


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def do_PUT(self) -> None:
        oid = self.path.rpartition("/")[2]
        body = self._body()
        self.hub.requests.append(f"PUT {self.path}")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._say(200, {})

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        body = self._body()
        if self.hub.fail is not None:
            self._say(self.hub.fail, {"error": "no"})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "Invalid username or password."})
        elif self.path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            told = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/large/{one['oid']}"}}} for one in wanted
            ]
            self._say(200, {"transfer": "basic", "objects": told})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._say(200, {"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None} for f in files
            ]})  # fmt: skip
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._say(404, {"error": "Not found"})

    # ---- what is asked ----

    def _create(self, asked: dict[str, Any]) -> None:
        key = (asked.get("type", "model"), f"{asked['organization']}/{asked['name']}")
        if key in self.hub.repos:
            self._say(409, {"error": "You already created this repo", "url": self._url(*key)})
            return
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repos[key] = Repo(bool(private))
        self._say(200, {"url": self._url(*key)})

    def _url(self, kind: str, name: str) -> str:
        return f"{self.hub.address}/{'datasets/' if kind == 'dataset' else ''}{name}"

    def _commit(self, body: bytes) -> None:
        _, _, kinds, owner, name, *_ = self.path.split("/")
        repo = self.hub.repos[kinds.removesuffix("s"), f"{owner}/{name}"]
        files = {}
        for line in body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "lfsFile":
                files[row["value"]["path"]] = self.hub.large[row["value"]["oid"]]
        oid = repo.add(files)
        self._say(200, {"commitUrl": f"{self.hub.address}/c/{oid}", "commitOid": oid, "hookOutput": ""})

    def _read(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path, _, _ = self.path.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and "tree" in parts:
            self._tree(parts[1].removesuffix("s"), "/".join(parts[2:4]), parts[5])
            return
        if parts[0] == "api":
            self._info(parts[1].removesuffix("s"), "/".join(parts[2:4]), (*parts[4:], "revision", "main")[1])
            return
        kind = "dataset" if parts[0] == "datasets" else "model"
        owner, name, resolve, revision, *rest = parts[kind == "dataset" :]
        repo = self._found(kind, f"{owner}/{name}")
        if repo is None or resolve != "resolve":
            return
        commit = repo.at(revision)
        content = None if commit is None else repo.commits[commit].get("/".join(rest))
        if content is None:
            self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": str(commit)})

    def _info(self, kind: str, name: str, revision: str) -> None:
        repo = self._found(kind, name)
        if repo is None:
            return
        commit = repo.at(revision)
        if commit is None:
            self._say(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": path, "size": len(held)} for path, held in repo.commits[commit].items()]
        self._say(200, {"id": name, "sha": commit, "private": repo.private, "siblings": siblings, "tags": []})

    def _tree(self, kind: str, name: str, revision: str) -> None:
        repo = self._found(kind, name)
        commit = None if repo is None else repo.at(revision)
        if repo is not None and commit is not None:
            held = repo.commits[commit]
            told = {path: (len(of), hashlib.sha1(of).hexdigest()) for path, of in held.items()}
            self._say(200, [{"type": "file", "path": p, "size": n, "oid": oid} for p, (n, oid) in told.items()])

    def _found(self, kind: str, name: str) -> Repo | None:
        if self.hub.fail is not None:
            self._say(self.hub.fail, {"error": "no"})
            return None
        if name in self.hub.gated:
            self._say(403, {"error": "Access to this is restricted"}, {"X-Error-Code": "GatedRepo"})
            return None
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            self._say(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repo

    # ---- what is said ----

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, status: int, value: object, more: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(more or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
