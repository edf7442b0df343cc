"""A server on 127.0.0.1 that speaks the Hugging Face Hub's download protocol to its real client.

With it, tests of `huggingface_hub.hf_hub_download` need no network: let `HF_ENDPOINT` (or `endpoint=`) be
`HubServer.url`. Set `HF_HUB_DISABLE_TELEMETRY=1` as well, or the client asks the Hub questions of its own.

What the Hub answers, and this server too:

- A file is asked for at `/{repository}/resolve/{revision}/{path}`. The answer is a redirect to its content.
- A small file, kept in git: 307 to `/api/resolve-cache/models/{repository}/{commit}/{path}` of the same host,
  where `ETag` is the sha1 of its git blob. The client follows before it takes the headers.
- A large file, kept in LFS (told by its suffix): 302 to a content server of another origin, here at another
  port, `/cdn/{repository}/{commit}/{path}`. The client takes `X-Linked-Etag`, the sha256, and `X-Linked-Size`
  from the redirect, and must not take its token along.
- A canonical short name: 307 to the full name, with a relative `Location`.
- An error: no body, but `X-Error-Code` and `X-Error-Message`, from which the client chooses its exception.

    missing repository, no token    401 RepoNotFound      RepositoryNotFoundError
    missing repository, any token   404 RepoNotFound      RepositoryNotFoundError
    gated, no token                 401 GatedRepo         GatedRepoError
    gated, a token not granted      403 GatedRepo         GatedRepoError
    an expired or made-up token     401 (no code)         HfHubHTTPError
    missing revision                404 RevisionNotFound  RevisionNotFoundError
    missing file                    404 EntryNotFound     RemoteEntryNotFoundError

Uploads, which need a token that `allow_writing` has named:

- `POST /api/repos/create` makes an empty repository, private or not.
- `POST /api/models/{repository}/preupload/{revision}` says which files go to LFS.
- `POST /{repository}.git/info/lfs/objects/batch` gives each of these an address of the content server to PUT it to.
- `POST /api/models/{repository}/commit/{revision}` takes the others and the digests of these, and makes the commit.

Left out: Xet (the client then uses plain HTTP), compression, `/api/models` (`hf_hub_download` never asks it).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".ot")

_RESOLVE = re.compile(r"/([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
_CONTENT = re.compile(r"/(cdn|api/resolve-cache/models)/([^/]+(?:/[^/]+)?)/([0-9a-f]{40})/(.+)")
_UPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/?]+)")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_BLOCK = 1 << 16  # bytes written at once


@dataclass
class Request:
    """A request, and how it was answered."""

    method: str
    path: str
    range_header: str | None
    authorized: bool  # it carried a token, right or wrong
    file: str = ""  # the file it is about, as named in its repository
    status: int = 0
    body_bytes_sent: int = 0


@dataclass(frozen=True)
class _File:
    content: bytes
    large: bool
    etag: str

    @classmethod
    def of(cls, path: str, content: bytes) -> _File:
        large = path.endswith(LARGE_SUFFIXES)
        if large:
            return cls(content, large, hashlib.sha256(content).hexdigest())
        return cls(content, large, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


@dataclass
class _Repository:
    commits: dict[str, dict[str, _File]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cut:
    after: int
    reset: bool


@dataclass
class _Faults:
    """What goes wrong with one file, at all commits."""

    cuts: list[_Cut] = field(default_factory=list)
    flip_at: int | None = None
    size: int | None = None
    size_is_advertised: bool = True

    def advertised(self, content: bytes) -> bytes:
        """What the size in headers is taken from."""
        return content[: self.size] if self.size_is_advertised else content

    def served(self, content: bytes) -> bytes:
        """What is sent as the body."""
        content = content[: self.size]
        if self.flip_at is None:
            return content
        flipped = bytearray(content)
        flipped[self.flip_at] ^= 0xFF
        return bytes(flipped)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: str = ""
    cut: _Cut | None = None
    drip: float = 0.0  # seconds before each byte of the body


class HubServer:
    """The server, as a context manager; `requests` is what it was asked, in order."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._repositories: dict[str, _Repository] = {}
        self._aliases: dict[str, str] = {}
        self._gates: dict[str, str] = {}
        self._invalid_tokens: set[str] = set()
        self._faults: defaultdict[tuple[str, str], _Faults] = defaultdict(_Faults)
        self._lock = threading.Lock()
        self._writers: dict[str, str] = {}
        self._instead: list[tuple[str, re.Pattern[str], _Answer]] = []
        self._uploaded: dict[str, bytes] = {}
        self.refuse_commits = False  # as if the Hub failed at the last moment
        self.refuse_files = False  # as if the content server failed
        self.verify_at = ""  # where the client is to say that a large file was uploaded
        self.private: dict[str, bool | None] = {}
        self._ports = [0, 0]
        self._running: list[tuple[_Listener, threading.Thread]] = []

    @property
    def url(self) -> str:
        """What `HF_ENDPOINT` should be; it stays the same when the server is stopped and started again."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def cdn_url(self) -> str:
        """Where the contents of large files are: another port, and so another origin to the client."""
        return f"http://127.0.0.1:{self._ports[1]}"

    def start(self) -> None:
        """Listen, and answer in threads of the background."""
        for position, port in enumerate(self._ports):
            listener = _Listener(self, port)
            self._ports[position] = listener.server_port
            thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self._running.append((listener, thread))

    def stop(self) -> None:
        """Refuse connections from now on; all sockets are closed and all threads have ended on return."""
        while self._running:
            listener, thread = self._running.pop()
            listener.shutdown()
            thread.join()
            listener.server_close()

    def __enter__(self) -> HubServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def add_repo(
        self,
        name: str,
        files: str | Path | Mapping[str, bytes],
        commit: str | None = None,
        branch: str = "main",
    ) -> str:
        """Commit files, given as a folder or as contents by path, to a branch; the value is the commit.

        Earlier commits stay reachable. Without `commit`, equal files give equal commits.
        """
        if not isinstance(files, Mapping):
            folder = Path(files)
            found = sorted(path for path in folder.rglob("*") if path.is_file())
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
        tree = {path: _File.of(path, content) for path, content in sorted(files.items())}
        if commit is None:
            listing = "".join(f"{file.etag} {path}\n" for path, file in tree.items())
            commit = hashlib.sha1(listing.encode()).hexdigest()
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise ValueError(f"commit ({commit}) must be 40 hex digits")
        self._repositories.setdefault(name, _Repository()).commits[commit] = tree
        self.point(name, branch, commit)
        return commit

    def point(self, name: str, reference: str, commit: str) -> None:
        """Make a branch or tag of a repository stand for a commit that was added before."""
        repository = self._repositories.get(name, _Repository())
        if commit not in repository.commits:
            raise ValueError(f"commit ({commit}) must have been added to {name}")
        repository.references[reference] = commit

    def add_alias(self, short_name: str, name: str) -> None:
        """Redirect a canonical short name to the full name, as for `bert-base-uncased`."""
        self._aliases[short_name] = name

    def gate(self, name: str, token: str) -> None:
        """Open a repository to this token alone; others stand for users who were not granted access."""
        self._gates[name] = token

    def invalidate_token(self, token: str) -> None:
        """Refuse a token everywhere, public repositories included, as the Hub does with expired tokens."""
        self._invalid_tokens.add(token)

    def cut(self, name: str, path: str, after: int, times: int = 1, reset: bool = False) -> None:
        """Close the connection after so many bytes of the body of each of the next downloads of a file.

        With `reset`, it is not closed in order but reset (RST), after which the client does not try again.
        """
        self._faults[name, path].cuts += [_Cut(after, reset)] * times

    def corrupt(self, name: str, path: str, flip_at: int) -> None:
        """Flip the bits of the byte at this offset, under the ETag and size of the undamaged file."""
        self._faults[name, path].flip_at = flip_at

    def truncate(self, name: str, path: str, to: int, advertised: bool = True) -> None:
        """Serve only the first bytes of a file, under the ETag of the whole file.

        The client is told of the smaller size beforehand, unless `advertised` is false.
        """
        faults = self._faults[name, path]
        faults.size, faults.size_is_advertised = to, advertised

    def heal(self) -> None:
        """Undo all cuts, corruptions, truncations and other answers."""
        self._faults.clear()
        self._instead.clear()

    def answer_instead(
        self,
        method: str,
        path: str,
        status: int = 200,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        drip: float = 0.0,
    ) -> None:
        """Give this answer to requests whose path matches a pattern, at both ports, and not the Hub's.

        With `drip`, each byte of the body waits for so many seconds.
        """
        answer = _Answer(status, {"Content-Type": "application/json", **(headers or {})}, body, drip=drip)
        self._instead.append((method, re.compile(path), answer))

    def instead(self, method: str, target: str) -> _Answer | None:
        """What `answer_instead` has for a request."""
        path = urlsplit(target).path
        return next((a for asked, known, a in self._instead if asked == method and known.search(path)), None)

    def clear(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    @property
    def body_bytes_sent(self) -> int:
        """Bytes of all bodies; redirects and errors have none."""
        return sum(request.body_bytes_sent for request in self.requests)

    def files(self, method: str = "GET") -> list[str]:
        """The files of the requests with this method, in order."""
        return [request.file for request in self.requests if request.method == method]

    def allow_writing(self, token: str, owner: str) -> None:
        """Let a token write to the repositories of an owner."""
        self._writers[token] = owner

    def files_of(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The contents of a branch, by path."""
        repository = self._repositories[name]
        return {path: file.content for path, file in repository.commits[repository.references[branch]].items()}

    def commits_of(self, name: str) -> int:
        """How many commits a repository has."""
        return len(self._repositories[name].commits)

    def receive(self, method: str, target: str, token: str | None, body: bytes) -> _Answer:
        """Route one request that brings something."""
        path = urlsplit(target).path
        if method == "PUT" and path.startswith("/upload/"):
            digest = hashlib.sha256(body).hexdigest()
            if path != f"/upload/{digest}" or self.refuse_files:
                return _Answer(400)
            self._uploaded[digest] = body
            return _Answer(200)
        if method == "POST" and path == "/verify":
            return _Answer(200)
        if path == "/api/validate-yaml":
            return _Answer(200, {"Content-Type": "application/json"}, _json({"errors": [], "warnings": []}))
        owner = self._writers.get(token or "")
        if owner is None:
            return _Answer(401, {"X-Error-Message": "Invalid username or password."})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or owner}/{wanted['name']}"
            if not name.startswith(f"{owner}/"):
                return _Answer(403, {"X-Error-Message": "You don't have the rights to create a model there"})
            status = 409 if name in self._repositories else 200
            if status == 200:
                named = {"private": True, "public": False}.get(wanted.get("visibility"))
                self.private[name] = wanted.get("private", named)
                self.add_repo(name, {})
            return _Answer(status, {"Content-Type": "application/json"}, _json({"url": f"{self.url}/{name}"}))
        if match := _BATCH.fullmatch(path):
            verify = {"verify": {"href": self.verify_at}} if self.verify_at else {}
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.cdn_url}/upload/{one['oid']}"}, **verify}}
                for one in json.loads(body)["objects"]
            ]
            return _Answer(200, {"Content-Type": "application/json"}, _json({"transfer": "basic", "objects": objects}))
        if match := _UPLOAD.fullmatch(path):
            name, step, branch = map(unquote, match.groups())
            if branch not in self._repositories[name].references:
                return _refuse(404, "RevisionNotFound", f"Invalid rev id: {branch}")
            return self._preupload(body) if step == "preupload" else self._commit(name, branch, body)
        return _Answer(404)

    def _preupload(self, body: bytes) -> _Answer:
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(body)["files"]
        ]
        return _Answer(200, {"Content-Type": "application/json"}, _json({"files": modes}))

    def _commit(self, name: str, branch: str, body: bytes) -> _Answer:
        if self.refuse_commits:
            return _Answer(500)
        files = dict(self.files_of(name, branch))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile" and value["oid"] not in self._uploaded:
                return _Answer(400)
            if line["key"] == "lfsFile":
                files[value["path"]] = self._uploaded[value["oid"]]
        commit = self.add_repo(name, files, branch=branch)
        address = f"{self.url}/{name}/commit/{commit}"
        made = {"success": True, "commitOid": commit, "commitUrl": address}
        return _Answer(200, {"Content-Type": "application/json"}, _json(made))

    def answer(self, method: str, target: str, token: str | None) -> _Answer:
        """Route one request."""
        path = urlsplit(target).path
        if token in self._invalid_tokens:
            return _Answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if match := _RESOLVE.fullmatch(path):
            name, revision, file = map(unquote, match.groups())
            return self._redirect(name, revision, file, token)
        if match := _CONTENT.fullmatch(path):
            kind, name, commit, file = map(unquote, match.groups())
            refusal = None if kind == "cdn" else self._refusal(name, token)
            return refusal or self._content(method, name, commit, file)
        return _Answer(404)

    def _refusal(self, name: str, token: str | None) -> _Answer | None:
        if name not in self._repositories:
            # To strangers the Hub does not tell missing repositories from private ones.
            if token is None:
                return _refuse(401, "RepoNotFound", "Invalid username or password.")
            return _refuse(404, "RepoNotFound", "Repository not found")
        if self._gates.get(name, token) == token:
            return None
        if token is None:
            return _refuse(401, "GatedRepo", f"Access to model {name} is restricted. Please log in.")
        return _refuse(403, "GatedRepo", f"Access to model {name} is restricted: you are not in its list.")

    def _redirect(self, name: str, revision: str, path: str, token: str | None) -> _Answer:
        if name in self._aliases:
            location = f"/{self._aliases[name]}/resolve/{quote(revision, safe='')}/{quote(path)}"
            return _Answer(307, {"Location": location}, file=path)
        if refusal := self._refusal(name, token):
            return refusal
        repository = self._repositories[name]
        commit = revision if revision in repository.commits else repository.references.get(revision)
        if commit is None:
            return _refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}", path)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        file = repository.commits[commit].get(path)
        if file is None:
            return _refuse(404, "EntryNotFound", "Entry not found", path, **headers)
        place = quote(f"{name}/{commit}/{path}")
        if not file.large:
            return _Answer(307, {**headers, "Location": f"/api/resolve-cache/models/{place}"}, file=path)
        headers["Location"] = f"{self.cdn_url}/cdn/{place}"
        headers["X-Linked-Etag"] = f'"{file.etag}"'
        headers["X-Linked-Size"] = str(len(self._faults[name, path].advertised(file.content)))
        return _Answer(302, headers, file=path)

    def _content(self, method: str, name: str, commit: str, path: str) -> _Answer:
        file = self._repositories.get(name, _Repository()).commits.get(commit, {}).get(path)
        if file is None:
            return _Answer(404, file=path)
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.large:
            headers["X-Repo-Commit"] = commit
        faults = self._faults[name, path]
        if method == "HEAD":
            return _Answer(200, headers, faults.advertised(file.content), path)
        with self._lock:
            cut = faults.cuts.pop(0) if faults.cuts else None
        return _Answer(200, headers, faults.served(file.content), path, cut)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _refuse(status: int, code: str, message: str, file: str = "", **headers: str) -> _Answer:
    return _Answer(status, {"X-Error-Code": code, "X-Error-Message": message, **headers}, file=file)


def _span(range_header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte asked for and the one after the last; None, for all, if the range is not understood."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", range_header or "")
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the answers under way

    def __init__(self, hub: HubServer, port: int) -> None:
        self.hub = hub
        self.to_reset: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection in order, or reset it, which must not come after the usual farewell."""
        if request not in self.to_reset:
            return super().shutdown_request(request)
        self.to_reset.remove(request)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds that a silent client can hold up `stop`

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: tests look at `requests`."""

    def _answer(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(self.command, self.path, self.headers.get("Range"), authorized=token is not None)
        if instead := self.server.hub.instead(self.command, self.path):
            self._body()
            answer = instead
        elif self.command in ("GET", "HEAD"):
            answer = self.server.hub.answer(self.command, self.path, token)
        else:
            answer = self.server.hub.receive(self.command, self.path, token, self._body())
        status, headers, body = answer.status, dict(answer.headers), memoryview(answer.body)
        if self.command == "GET" and status == 200 and (span := _span(request.range_header, len(body))):
            start, stop = span
            status, content_range = (206, f"{start}-{stop - 1}") if start < stop else (416, "*")
            headers["Content-Range"] = f"bytes {content_range}/{len(body)}"
            body = body[start:stop]
        request.file, request.status = answer.file, status
        # Noted before the first byte leaves: the client must never be ahead of the list.
        self.server.hub.requests.append(request)
        self.send_response(status)
        # One connection for each request, so that no thread waits for another one when the server stops.
        for name, value in {"Content-Length": str(len(body)), **headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(request, body if answer.cut is None else body[: answer.cut.after], answer.drip)
        if answer.cut is not None and answer.cut.reset:
            self.server.to_reset.add(self.connection)

    def _body(self) -> bytes:
        """What the client sent, at once or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, request: Request, body: memoryview, drip: float) -> None:
        step = 1 if drip else _BLOCK
        for start in range(0, len(body), step):
            block = body[start : start + step]
            threading.Event().wait(drip)  # time.sleep does not, in these tests
            request.body_bytes_sent += len(block)
            try:
                self.wfile.write(block)
            except OSError:  # the client hung up
                request.body_bytes_sent -= len(block)
                return
