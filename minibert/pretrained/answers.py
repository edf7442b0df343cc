"""What a server answers to the Hub's client, checked before the client acts on it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

SLOWEST = 1_000  # bytes a second that must arrive, on average over WINDOW: slower lines do not load models
WINDOW = 60.0  # seconds
SILENCE = 300.0  # seconds without a byte, where the client sets no limit of its own: in uploads
CONNECT = 4.0  # seconds until a host must have taken a connection
ATTEMPTS = 1_000  # requests to one address; the client tries again after each byte that arrived, or after a conflict
LONGEST_NAME = 200  # characters of an ETag or a commit; the client adds up to 20 to them
LONG_WAIT = re.compile(r"^\s*\d{5,}|t\s*=\s*\d{5,}")  # "Retry-After: 10000", "RateLimit: ...;t=10000": three hours

# Those that the client makes names of files of: `blobs/<ETag>` and `snapshots/<commit>`.
NAMES = ("X-Linked-Etag", "ETag", "X-Repo-Commit")
WAITS = ("Retry-After", "RateLimit")


class AnswerError(ConnectionError):
    """A server answered what no Hub does, and the client was stopped before it acted on that."""


class UnreachableError(AnswerError):
    """A host does not answer."""


class Answers:
    """The rules for the answers to one call of the client.

    Args:
        what: "the download of config.json of ..." or "the upload to ...", for messages.
        upload: whether the call writes to a repository.
    """

    def __init__(self, what: str, *, upload: bool = False) -> None:
        self.what = what
        self.upload = upload
        self.etag: str | None = None  # of the last answer with one, as the client takes it
        self.attempts: Counter[str] = Counter()
        self.asked: set[str] = set()  # the hosts
        self.answered: set[str] = set()
        self.address = ""  # of the answer that is measured
        self.since = 0.0  # when the window began
        self.arrived = 0  # bytes in it

    def ask(self, request: Any) -> None:
        """Note a request, and limit how long it may wait.

        Raises:
            UnreachableError: a host that has never answered is asked again; the client would try for half a minute.
        """
        host = request.url.host
        if host in self.asked - self.answered:
            raise UnreachableError(
                f"{self.what} must reach {host}, which does not answer; check the network and HF_ENDPOINT, or pass a "
                "local folder"
            )
        self.asked.add(host)
        limits = request.extensions.get("timeout") or {}
        connect = min(limits.get("connect") or CONNECT, CONNECT)
        others = {kind: SILENCE if limits.get(kind) is None else limits[kind] for kind in ("read", "write", "pool")}
        request.extensions["timeout"] = {"connect": connect, **others}

    def check(self, answer: Any) -> None:
        """Check a status and headers; the body is checked while the client reads it.

        Raises:
            AnswerError: a name that is not one; a redirect of what should be written; attempts without end.
        """
        headers, method, address = answer.headers, answer.request.method, str(answer.request.url)
        self.answered.add(getattr(answer.request.url, "host", ""))  # of httpx; requests' is a text
        if method == "HEAD":  # it has no body
            for header in NAMES:
                if header in headers:
                    self._check_name(header, headers[header])
            etag = headers.get("X-Linked-Etag") or headers.get("ETag")
            self.etag = etag and _stripped(etag)
            return
        if self.upload and method == "POST" and 300 <= answer.status_code < 400:
            raise AnswerError(
                f"{self.what} must be taken at the address it is sent to ({address}); the answer names another one "
                f"({headers.get('Location')}): push to the name that the repository has now, or set HF_ENDPOINT"
            )
        if answer.status_code >= 400 and any(LONG_WAIT.search(headers.get(name, "")) for name in WAITS):
            raise AnswerError(f"{self.what} must go on within three hours; {address} asks for more: run again later")
        self.attempts[address] += 1
        if self.attempts[address] > ATTEMPTS:
            raise AnswerError(
                f"{self.what} must end after {ATTEMPTS:,} requests to {address}; it does not: check the network"
            )
        if self.upload or address != self.address or answer.status_code >= 400:
            self.address, self.since, self.arrived = address, time.monotonic(), 0
        # httpx's and requests' ways to the bytes as they arrive
        for name in ("iter_raw", "iter_content"):
            if hasattr(answer, name):
                setattr(answer, name, self._counted(getattr(answer, name)))

    def _check_name(self, header: str, value: str) -> None:
        commit = header == "X-Repo-Commit"
        name = value if commit else _stripped(value)
        parts = re.split(r"[/\\]", name)  # there are servers whose ETags are base64, with slashes
        outside = not (parts[0] and parts[-1]) or {".", ".."} & set(parts) or re.match("[A-Za-z]:", name)
        if outside or (commit and len(parts) > 1) or not name.isprintable() or len(name) > LONGEST_NAME:
            raise AnswerError(
                f"{self.what} must be answered with a name for a file of the cache as its {header}; it is "
                f"{value[:80]!r}: nothing was stored, check HF_ENDPOINT"
            )

    def _counted(self, read: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        """A way to read a body, which measures how fast it arrives."""

        def counted(chunk_size: int | None = None, *args: Any, **keywords: Any) -> Iterator[bytes]:
            # httpx gives what is there; requests waits for a whole chunk, which would be 10 MB
            for block in read(chunk_size and min(chunk_size, 1 << 14), *args, **keywords):
                self._count(len(block))
                yield block

        return counted

    def _count(self, size: int) -> None:
        self.arrived += size
        passed = time.monotonic() - self.since
        if passed < WINDOW:
            return
        if self.arrived < SLOWEST * passed:
            raise AnswerError(
                f"{self.what} must bring at least {SLOWEST:,} bytes a second; it brought {self.arrived:,} in "
                f"{passed:.0f} seconds: check the network, and run again"
            )
        self.since, self.arrived = time.monotonic(), 0


def _stripped(etag: str) -> str:
    """An ETag as the client takes it: without quotes and the mark of a weak one."""
    return etag.lstrip("W/").strip('"')


_current: ContextVar[Answers | None] = ContextVar("answers", default=None)


@contextmanager
def checked(answers: Answers) -> Iterator[None]:
    """Apply rules to what the client is answered in the block, in this thread; other calls of it are as ever."""
    _watch()
    token = _current.set(answers)
    try:
        yield
    finally:
        _current.reset(token)


def _on_answer(answer: Any, *_: Any, **__: Any) -> None:
    if (answers := _current.get()) is not None:
        answers.check(answer)


def _on_request(request: Any) -> None:
    if (answers := _current.get()) is not None:
        answers.ask(request)


FACTORY = "_GLOBAL_CLIENT_FACTORY"
FACTORY_BEFORE_1 = "_GLOBAL_BACKEND_FACTORY"
_watching = threading.Lock()


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a line of the client's log is shown: while we wait for it, "Retrying in 1s" would mix into our output."""
    return _current.get() is None


def _watch() -> None:
    """Let each session of the client call the two functions above.

    The client makes a new session after some errors, so it is not enough to change the session that is there: what
    makes the sessions, which may be the user's own, is wrapped.
    """
    hub, http = import_module("huggingface_hub"), import_module("huggingface_hub.utils._http")
    replace = getattr(hub, "set_client_factory", None) or hub.configure_http_backend  # the latter before version 1
    logging.getLogger(http.__name__).addFilter(_is_wanted)
    with _watching:
        make = getattr(http, FACTORY, None) or getattr(http, FACTORY_BEFORE_1, None)
        if make is None:  # a version of the client that keeps it elsewhere: watch the session that is there
            _watched(http.get_session())
        elif getattr(make, "func", None) is not _made:
            replace(partial(_made, make))


def _made(make: Callable[[], Any]) -> Any:
    return _watched(make())


def _watched(session: Any) -> Any:
    """The session, which calls the functions above."""
    if hasattr(session, "event_hooks"):  # httpx's
        hooks = session.event_hooks
        if _on_answer not in hooks["response"]:
            session.event_hooks = {
                "request": [*hooks["request"], _on_request],
                "response": [*hooks["response"], _on_answer],
            }
    elif _on_answer not in session.hooks["response"]:  # requests'
        session.hooks["response"].append(_on_answer)
    return session
