"""A server on 127.0.0.1 that speaks the Hub's download protocol to the real `huggingface_hub` client.

What it mirrors of the Hub: `/{repo}/resolve/{revision}/{path}` answers HEAD and GET with `X-Repo-Commit` and an ETag;
small files come at once, named by their git blob's sha1; large ones ("LFS": weights) are named by their sha256 in
`X-Linked-Etag`, with a redirect to a content server; ranges are served; errors are told in `X-Error-Code`; anonymous
requests for what does not exist get 401, as the Hub hides private repositories; canonical short names are redirected.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin")


@dataclass(frozen=True)
class Request:
    """One request, as it was answered."""

    method: str
    path: str
    range: str | None
    status: int
    body: int


@dataclass
class Repo:
    """The commits of a repository, and where its branches and tags point."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    token: str | None = None  # gated: only this token opens it


class LocalHub:
    """The server; `url` is what `HF_ENDPOINT` should be."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.aliases: dict[str, str] = {}
        self.requests: list[Request] = []
        self.cuts: dict[str, list[int]] = {}  # file name -> after how many bytes each next transfer dies
        self.damaged: dict[str, bytes] = {}  # file name -> what is sent instead
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # The Hub keeps contents on another host; the client follows redirects to its own host by itself.
        self.content_url = f"http://localhost:{self.server.server_port}/content"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop serving: connections are refused from now on."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add(self, name: str, folder: Path, branch: str = "main", token: str | None = None) -> str:
        """Make the files of a folder the newest commit of a branch; the value is the commit."""
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
        commit = hashlib.sha1(
            repr([(path, hashlib.sha1(data).digest()) for path, data in files.items()]).encode()
        ).hexdigest()
        repo = self.repos.setdefault(name, Repo())
        repo.commits[commit] = files
        repo.references[branch] = commit
        repo.token = token
        return commit

    def paths(self, method: str = "GET") -> list[str]:
        """The file names asked for, in order."""
        return [request.path.rpartition("/")[2] for request in self.requests if request.method == method]

    def bytes_sent(self) -> int:
        """All bytes of bodies so far."""
        return sum(request.body for request in self.requests)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request and note it."""
        status, headers, body = self._find(handler)
        wanted = handler.headers.get("Range")
        size = len(body)
        if status == 200 and wanted and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            start, end = int(match[1]), int(match[2] or size - 1)
            body = body[start : end + 1]
            status, headers["Content-Range"] = 206, f"bytes {start}-{end}/{size}"
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        sent = 0
        if handler.command == "GET":
            cuts = self.cuts.get(handler.path.rpartition("/")[2])
            sent = min(cuts.pop(0), len(body)) if cuts else len(body)
            handler.wfile.write(body[:sent])
            if sent < len(body):
                handler.close_connection = True
        self.requests.append(Request(handler.command, handler.path, wanted, status, sent))

    def _find(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        content = re.fullmatch(r"/content/(.+?)/([0-9a-f]{40})/(.+)", handler.path)
        if content:
            name, commit, path = content.groups()
            return 200, {}, self.damaged.get(path, self.repos[name].commits[commit][path])
        match = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", handler.path)
        if not match:
            return 404, {}, b""
        name, revision, path = match.groups()
        if name in self.aliases:
            return 307, {"Location": f"/{self.aliases[name]}/resolve/{revision}/{path}"}, b""
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        repo = self.repos.get(name)
        if repo is None:
            return (404 if token else 401), {"X-Error-Code": "RepoNotFound"}, b""
        if repo.token is not None and token != repo.token:
            return (403 if token else 401), {"X-Error-Code": "GatedRepo"}, b""
        commit = revision if revision in repo.commits else repo.references.get(revision, "")
        if not commit:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        headers = {"X-Repo-Commit": commit}
        data = repo.commits[commit].get(path)
        if data is None:
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        if path.endswith(LARGE):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
            return 302, {**headers, "Location": f"{self.content_url}/{name}/{commit}/{path}"}, b""
        headers["ETag"] = f'"{hashlib.sha1(b"blob %d" % len(data) + bytes(1) + data).hexdigest()}"'
        return 200, headers, self.damaged.get(path, data)
