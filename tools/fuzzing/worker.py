"""The worker of tools/fuzz: runs cases, and holds what comes of them against the law.

It reads lines "TARGET NUMBER SEED" and answers each with a line of JSON. A case that ends the process, or does not end,
is seen by tools/fuzz.
"""

import contextlib
import faulthandler
import fnmatch
import json
import os
import shutil
import signal
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import safetensors


def announced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell audit hooks of the files that a library opens outside Python."""

    def opened(path: Any, *arguments: Any, **named: Any) -> Any:
        sys.audit("open", os.fspath(path), "r", 0)
        return function(path, *arguments, **named)

    return opened


safetensors.safe_open = announced(safetensors.safe_open)  # before anybody imports it from there

import torch  # noqa: E402
from changes import CASE, OUTSIDE, change, digests_of, put_digests_right  # noqa: E402
from targets import TARGETS, Find, Target  # noqa: E402

import minibert  # noqa: E402

SECONDS, BYTES = 10, 10**9  # of CPU time and memory, for one case
LONGEST_MESSAGE = 5_000
PROJECT = Path(__file__).resolve().parent.parent.parent
READABLE = [os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, PROJECT, "/proc", "/sys", "/dev")]
DOCUMENTED = (
    *(FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError),
    *(PermissionError, ConnectionError, BlockingIOError),
)


class Watch:
    """Raises `Find` where anything outside the folder of a case is opened or changed, or a program is started."""

    NEVER = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
    WRITES = ("remove", "rename", "rmdir", "mkdir", "truncate", "chmod", "link", "symlink")

    def __init__(self) -> None:
        self.root = Path.cwd().resolve()
        self.on, self.found = False, ""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See `sys.addaudithook`."""
        if not self.on:
            return
        if event in self.NEVER:
            self._find(f"{event} called")
        elif event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or set("wax+") & set(mode or "")
            self._check("written" if writes else "read", path)
        elif event == "shutil.rmtree" or event.removeprefix("os.") in self.WRITES:
            for path in arguments[: 2 if event == "os.rename" else 1]:
                self._check("changed", path)

    def _check(self, what: str, given: Any) -> None:
        if not isinstance(given, (str, bytes, os.PathLike)) or given == os.devnull:
            return
        path = os.path.realpath(os.fsdecode(given))
        inside = Path(path).is_relative_to(self.root) and not Path(path).is_relative_to(self.root / OUTSIDE)
        if not inside and not (what == "read" and path.startswith(tuple(f"{folder}{os.sep}" for folder in READABLE))):
            self._find(f"a file outside the folder {what}")

    def _find(self, what: str) -> None:
        self.found = what
        raise Find(what)


class Worker:
    """Runs cases in the working directory.

    Args:
        targets: by name.
        keep: leave the files of a case in the folder `kept`.
    """

    def __init__(self, targets: dict[str, Target], keep: bool = False) -> None:
        self.targets, self.keep = targets, keep
        self.target = ""  # whose files are outside
        self.unchanged: dict[tuple[str, str], Any] = {}  # what a target returns for unchanged files
        self.watch = Watch()

    def case(self, name: str, number: int, seed: int) -> dict[str, Any]:
        """Run a case.

        Returns:
            "outcome" ("accepted", "refused" or a find), "change", and of a find "where" and "traceback".
        """
        random, target = Random(f"{seed} {name} {number}"), self.targets[name]
        template = self._template(name)
        files = sorted(path.relative_to(template).as_posix() for path in template.rglob("*") if path.is_file())
        changed = random.choice([file for file in files if _matches(file, target.changed)])
        expected = self._expected(name, changed)
        self._copy(template)
        before = digests_of(Path(CASE)) if target.vouched and random.random() < 0.4 else None
        what = f"{changed}: {'; '.join(change(random, Path(CASE) / changed) for _ in range(random.choice((1, 1, 2))))}"
        if before is not None:
            what += ", digests put right"
            put_digests_right(Path(CASE), before)
        Path("change").write_text(what, "utf-8", "backslashreplace")
        if self.keep:
            shutil.copytree(CASE, "kept")
        vouched = before is None and _matches(changed, target.vouched)
        return {"change": what, **self._judged(target, changed, expected if vouched else None)}

    def _template(self, name: str) -> Path:
        """The unchanged files of a target; they are made if they are missing."""
        template = Path("templates") / name
        if not template.exists():
            shutil.rmtree(CASE, ignore_errors=True)
            Path(CASE).mkdir()
            self.targets[name].build(Path(CASE))
            template.parent.mkdir(exist_ok=True)
            Path(CASE).rename(template)
        if self.target != name:  # bait, under the names that the files have
            shutil.rmtree(OUTSIDE, ignore_errors=True)
            for folder in [template, *(path for path in template.iterdir() if path.is_dir())]:
                shutil.copytree(folder, OUTSIDE, dirs_exist_ok=True)
            self.target = name
        return template

    def _expected(self, name: str, changed: str) -> Any:
        part = changed.split("/")[0]
        if (name, part) not in self.unchanged:
            self._copy(self._template(name))
            self.unchanged[name, part] = repr(self.targets[name].read(Path(CASE), changed))
        return self.unchanged[name, part]

    @staticmethod
    def _copy(template: Path) -> None:
        shutil.rmtree(CASE, ignore_errors=True)
        shutil.copytree(template, CASE)

    def _judged(self, target: Target, changed: str, expected: str | None) -> dict[str, Any]:
        """What comes of reading the files."""
        self.watch.found = ""
        try:
            with limited(), warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                self.watch.on = True
                try:
                    result = repr(target.read(Path(CASE), changed))
                finally:
                    self.watch.on = False
            for warning in warned:
                if issubclass(warning.category, UserWarning):
                    check_wording("a warning", str(warning.message))
            if self.watch.found:
                raise Find(self.watch.found)
            if expected is not None and result != expected:
                raise Find("another result than before the change")
        except BaseException as error:  # a panic of Rust is no Exception
            found = find_in(error)
            if not found:
                return {"outcome": "refused", "message": str(error)}
            return {"outcome": found, "ended": not isinstance(error, (Exception, Find)), **described(error)}
        return {"outcome": "accepted"}


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def find_in(error: BaseException) -> str:
    """What is wrong with an error; empty if it is one that a user can be told."""
    documented = isinstance(error, (minibert.MinibertError, *DOCUMENTED)) or (
        type(error) is OSError and not error.errno
    )
    try:
        if documented:
            check_wording(type(error).__name__, str(error))
    except Find as find:
        return str(find)
    return "" if documented else str(error) if isinstance(error, Find) else type(error).__name__


def check_wording(what: str, message: str) -> None:
    """Messages are one line that every terminal can show."""
    if not message:
        raise Find(f"{what} without a message")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in message):
        raise Find(f"{what} with control characters")
    if len(message) > LONGEST_MESSAGE:
        raise Find(f"{what} of more than {LONGEST_MESSAGE:,} characters")


def described(error: BaseException) -> dict[str, str]:
    """The innermost line of minibert in a traceback, and the traceback."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    path, line = [frame for frame in frames if PROJECT / "minibert" in frame[0].parents or frame is frames[0]][-1]
    lines = "".join(traceback.format_exception(error)).splitlines()
    shown = [f"{line:.300}" for line in (lines if len(lines) < 80 else [*lines[:20], "...", *lines[-40:]])]
    return {"where": f"{os.path.relpath(path, PROJECT)}:{line}", "traceback": "\n".join(shown)}


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit time and memory, where the system can. More time ends the process, more memory fails."""
    if sys.platform != "linux":
        yield
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limits = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + SECONDS,
        resource.RLIMIT_DATA: pages * resource.getpagesize() + BYTES,
        resource.RLIMIT_CORE: 0,
    }
    before = {kind: resource.getrlimit(kind) for kind in limits}
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, before[kind][1]))
    try:
        yield
    finally:
        for kind, limit in before.items():
            resource.setrlimit(kind, limit)


def serve(targets: dict[str, Target] = TARGETS, keep: bool = False) -> None:
    """Answer the lines of standard input. The first answer has the targets and their shares of a round."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever is printed is no answer
    faulthandler.enable()
    if sys.platform != "win32":
        faulthandler.register(signal.SIGXCPU, all_threads=False, chain=True)
    os.fsync = lambda handle: None  # nothing here has to survive a power cut
    torch.set_num_threads(1)
    worker = Worker(targets, keep)
    print(json.dumps({name: target.share for name, target in targets.items()}), file=answers, flush=True)
    for line in sys.stdin:
        name, number, seed = line.split()
        answer = worker.case(name, int(number), int(seed))
        print(json.dumps(answer), file=answers, flush=True)
        if answer.get("ended"):  # after a panic, a library may be in any state
            os._exit(0)


if __name__ == "__main__":
    serve(keep="keep" in sys.argv[1:])
