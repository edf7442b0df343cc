"""Files that are either whole or not there."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
