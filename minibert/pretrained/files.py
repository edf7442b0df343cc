"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, that takes its place when the block ends without an error.

    An older file stays as it was until then: an interruption or a full disk leaves no half-written file, and weights
    that are mapped from the older file stay valid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs: one holder at a time, among threads and processes.

    The system releases the lock when its holder ends, even if it is killed. The lock file is removed at the end of the
    block; one that a killed process has left behind means nothing.

    Args:
        path: the lock file, made if need be. It must not lie in a folder that is removed while the lock is held.
        busy: the message of the error if somebody else holds the lock.
        wait: wait for the lock instead.

    Raises:
        BlockingIOError: somebody else holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, wait):
                raise BlockingIOError(busy)
            if _is_at(handle, path):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the last holder has removed this file after we opened it
    try:
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there, and nobody else's will be
            os.close(handle)
            with suppress(OSError):
                path.unlink()
        else:
            path.unlink(missing_ok=True)
            os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # LK_LOCK gives up after 10 s
            except OSError:
                if not wait:
                    return False
            else:
                return True

else:
    import fcntl

    def _lock(handle: int, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            warnings.warn(
                f"this file system has no locks ({error.strerror}), which would keep other processes from writing the "
                "same files; see to it that none does",
                stacklevel=5,
            )
        return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


SAVING, SAVED, LOCK = ".minibert-saving", ".minibert-saved", ".minibert-lock"


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A new folder to write to, whose files all take their places in `folder` when the block ends without an error.

    Whatever happens meanwhile, even a power cut, `folder` holds the old files or the new ones, never some of each.
    Files that are not written stay. One process writes at a time; the others wait.

    The new files are first written into a folder inside `folder`. Renaming that to `SAVED` is the moment at which they
    count: `place` finds them there. Then they are moved to where others look for them, `config.json` last, so that a
    program that does not know of `SAVED` finds no model rather than a mixed one, should the process die right then. The
    next save finishes what was interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, f"another process is saving to {folder}", wait=True):
        _settle(folder)
        saving = folder / SAVING
        if saving.exists():
            shutil.rmtree(saving)
        saving.mkdir()
        try:
            yield saving
            for path in [*saving.rglob("*"), saving]:
                path_to_disk(path)
            saving.rename(folder / SAVED)
            path_to_disk(folder)
        except BaseException:
            shutil.rmtree(saving, ignore_errors=True)
            raise
        _settle(folder)


def place(folder: Path, name: str) -> Path | None:
    """Where a file of a folder is, be it still where an interrupted `folder_written_whole` left it; None: nowhere."""
    return next((path for path in (folder / SAVED / name, folder / name) if path.is_file()), None)


def _settle(folder: Path) -> None:
    """Move files that count already to where others look for them."""
    saved = folder / SAVED
    if not saved.is_dir():
        return
    names = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    if (saved / "config.json").exists():
        (folder / "config.json").unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: str(name) == "config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (saved / name).replace(folder / name)
    for parent in {(folder / name).parent for name in names} | {folder}:
        path_to_disk(parent)
    shutil.rmtree(saved)


def path_to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything else is done."""
    if path.is_dir():
        if os.name != "posix":  # elsewhere a folder cannot be opened
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)  # Windows flushes what can be written to
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_disk(file: IO[Any]) -> None:
    """Have what was written on the disk before anything else is done."""
    file.flush()
    os.fsync(file.fileno())


def safetensors_header(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """The beginning of a safetensors file, for data that is to be streamed: the library wants all of it in memory.

    Args:
        tensors: by name "F32" or "I64", and the shape; their data follow in this order.
    """
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + {"F32": 4, "I64": 8}[dtype] * math.prod(shape)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
