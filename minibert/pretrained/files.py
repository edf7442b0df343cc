"""Atomic writes: a file, or the files of a folder, are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from minibert.errors import MinibertError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces `path` when the block ends without an error.

    Until then an older file is unchanged: an interruption or a full disk leaves no half-written file, and weights that
    are mapped from the older file stay valid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(file_mode())  # mkstemp's files are for their owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_mode() -> int:
    """The rights that the umask gives a new file."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def check_readable(path: Path, holds: str = "weights") -> None:
    """Reject a file that is not what it should hold, before a library that maps or parses it says something else.

    Raises:
        PermissionError: it may not be read.
        MinibertError: it is what Git leaves in its place if Git LFS is not installed.
    """
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise MinibertError(
                f"{path} must hold {holds}, but it is a pointer of Git LFS to the file; install git-lfs, and run "
                "`git lfs pull` in the repository"
            )


def is_temporary(path: Path, names: Iterable[str]) -> bool:
    """Whether a file is one that a killed process left of `written_whole`, for a file of one of these names."""
    return any(re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", path.name) for name in names) and path.is_file()


@contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs: one holder at a time, among threads and processes.

    The system releases the lock when its holder ends, even if it is killed. The lock file is removed at the end of the
    block; one left behind by a killed process does no harm.

    Args:
        path: the lock file, created if needed. It must not be in a folder that is removed while the lock is held.
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


LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SAVING, SAVED, LOCK = ".minibert-saving", ".minibert-saved", ".minibert-lock"


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder, whose files all replace those of `folder` when the block ends without an error.

    Even after a power cut, `folder` has all the old files or all the new ones, never a mixture. Files that are not
    written are kept. One process writes at a time; the others wait.

    The new files are first written to a folder inside `folder`. Renaming that to `SAVED` makes them valid: from then
    on, `place` finds them there. Then they are moved to their final places, `config.json` last. If the process dies in
    between, other programs, which do not know `SAVED`, find no model rather than a mixed one. The next save completes
    the move.
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
    """The path of a file of a folder, also after an interrupted `folder_written_whole`; None if there is none."""
    return next((path for path in (folder / SAVED / name, folder / name) if is_file(path)), None)


# A path with one of these errors has no file or folder, as for pathlib.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP, errno.ENAMETOOLONG)


def is_file(path: Path) -> bool:
    """Whether a path is a file.

    Raises:
        PermissionError: a folder on the way to it may not be read; pathlib's own says False there since Python 3.14.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder.

    Raises:
        PermissionError: as for `is_file`.
    """
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except PermissionError:
        raise PermissionError(
            f"{path} must be readable by this user; it or its folder is not: change its rights"
        ) from None
    except ValueError:  # a NUL in it
        return 0
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return 0


def _settle(folder: Path) -> None:
    """Move the files of a completed save to their final places."""
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
    """Flush a file, or the names in a folder, to the disk."""
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
    """Flush what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safetensors_header(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """The header of a safetensors file whose data is streamed; the library needs all of the data in memory.

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
    """Write UTF-8 text atomically."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
