"""What a server answers to the Hub's client, checked before the client acts on it."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

SLOWEST = 1_000  # bytes a second that must arrive, on average over WINDOW: slower lines do not load models
WINDOW = 60.0  # seconds
SILENCE = 300.0  # seconds without a byte, where the client sets no limit of its own: in uploads
ATTEMPTS = 1_000  # requests to one address; the client tries again after each byte that arrived, or after a conflict
LONGEST_NAME = 200  # characters of an ETag or a commit; the client adds up to 20 to them
LONG_WAIT = re.compile(r"^\s*\d{5,}|t\s*=\s*\d{5,}")  # "Retry-After: 10000", "RateLimit: ...;t=10000": three hours

# Those that the client makes names of files of: `blobs/<ETag>` and `snapshots/<commit>`.
NAMES = ("X-Linked-Etag", "ETag", "X-Repo-Commit")
WAITS = ("Retry-After", "RateLimit")


class AnswerRefused(ConnectionError):
    """A server answered what no Hub does, and the client was stopped before it acted on that."""


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
        self.address = ""  # of the answer that is measured
        self.since = 0.0  # when the window began
        self.arrived = 0  # bytes in it

    def check(self, answer: Any) -> None:
        """Check a status and headers; the body is checked while the client reads it.

        Raises:
            AnswerRefused: a name that is not one; a redirect of what should be written; attempts without end.
        """
        headers, method, address = answer.headers, answer.request.method, str(answer.request.url)
        if method == "HEAD":  # it has no body
            for header in NAMES:
                if header in headers:
                    self._check_name(header, headers[header])
            etag = headers.get("X-Linked-Etag") or headers.get("ETag")
            self.etag = etag and _stripped(etag)
            return
        if self.upload and method == "POST" and 300 <= answer.status_code < 400:
            raise AnswerRefused(
                f"{self.what} must be taken at the address it is sent to ({address}); the answer names another one "
                f"({headers.get('Location')}): push to the name that the repository has now, or set HF_ENDPOINT"
            )
        if answer.status_code >= 400 and any(LONG_WAIT.search(headers.get(name, "")) for name in WAITS):
            raise AnswerRefused(f"{self.what} must go on within three hours; {address} asks for more: run again later")
        self.attempts[address] += 1
        if self.attempts[address] > ATTEMPTS:
            raise AnswerRefused(
                f"{self.what} must end after {ATTEMPTS:,} requests to {address}; it does not: check the network"
            )
        if self.upload or address != self.address or answer.status_code >= 400:
            self.address, self.since, self.arrived = address, time.monotonic(), 0
        # httpx's and requests' ways to the bytes as they arrive
        for name in ("iter_raw", "iter_content"):
            if hasattr(answer, name):
                setattr(answer, name, self._counted(getattr(answer, name)))

    def _check_name(self, header: str, value: str) -> None:
        name = _stripped(value)
        folder = os.path.abspath("folder")
        inside = os.path.abspath(os.path.join(folder, name)).startswith(folder + os.sep)
        if not inside or not name.isprintable() or len(name) > LONGEST_NAME:
            raise AnswerRefused(
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
            raise AnswerRefused(
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
    if _current.get() is not None:
        waits = request.extensions.get("timeout") or {}
        limits = {kind: waits.get(kind) for kind in ("connect", "read", "write", "pool")}
        request.extensions["timeout"] = {k: SILENCE if limit is None else limit for k, limit in limits.items()}


def _watch() -> None:
    """Let each session of the client call the functions above.

    The client makes a new session after some errors, so it is not enough to change the session that is there: what
    makes the sessions, which may be the user's own, is wrapped.
    """
    import huggingface_hub as hub
    from huggingface_hub.utils import _http  # type: ignore[attr-defined]

    if hasattr(hub, "set_client_factory"):
        make, replace = _http._GLOBAL_CLIENT_FACTORY, hub.set_client_factory
    else:  # before version 1
        make, replace = _http._GLOBAL_BACKEND_FACTORY, hub.configure_http_backend  # type: ignore[attr-defined]
    if getattr(make, "_watched", False):
        return

    @wraps(make)
    def watched() -> Any:
        session = make()
        if hasattr(session, "event_hooks"):
            hooks = session.event_hooks
            session.event_hooks = {
                "request": [*hooks.get("request", ()), _on_request],
                "response": [*hooks.get("response", ()), _on_answer],
            }
        else:
            session.hooks["response"].append(_on_answer)
        return session

    watched._watched = True  # type: ignore[attr-defined]
    replace(watched)
