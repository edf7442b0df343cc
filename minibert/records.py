"""Records of files: lines of text, and rows of CSV, JSON lines and Parquet, each with its place for messages."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from minibert.errors import MinibertError, optional

STDIN = "-"
AT_ONCE = 4_096  # rows of Parquet in memory

Record = dict[str, Any]


def decoded(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, or of standard input, with their numbers and line endings."""
    with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise MinibertError(
                    f"{path}, line {number}, must be UTF-8, but its byte {error.start} is not; convert the file, for "
                    "example with iconv"
                ) from None


def read_csv(path: str, **dialect: Any) -> Iterator[tuple[str, Record]]:
    """The rows of a CSV file by the names in its header; blank lines are none.

    Args:
        path: the file.
        dialect: as for `csv.reader`.
    """
    reader = csv.reader((line for _, line in decoded(path)), strict=True, **dialect)
    try:
        header = next(reader, [])
        for values in reader:
            place = f"{path}, line {reader.line_num},"
            if values and len(values) != len(header):
                raise MinibertError(
                    f"{place} must have {len(header)} values, like the header, but it has {len(values)}; fix it"
                )
            if values:
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise MinibertError(f"{path}, line {reader.line_num}, must be valid CSV ({error}); fix it") from None


def parsed_json(text: str | bytes, what: str, remedy: str = "fix it") -> Any:
    """The value that JSON stands for.

    Args:
        text: the JSON; as bytes, UTF-8 with or without a byte order mark.
        what: what it is, for the message.
        remedy: what to do about it, for the message.

    Raises:
        MinibertError: it is not JSON, or nested too deeply for Python's reader.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise MinibertError(f"{what} must be valid JSON ({reason}); {remedy}")


def read_json_lines(path: str) -> Iterator[tuple[str, Any]]:
    """The value on each line of a file; blank lines are none."""
    for number, line in decoded(path):
        place = f"{path}, line {number},"
        if not line.strip():
            continue
        yield place, parsed_json(line, place)


def read_parquet(path: str) -> Iterator[tuple[str, Record]]:
    """The rows of a Parquet file, which is not read at once."""
    parquet = optional("pyarrow.parquet", "a .parquet file", "pyarrow")
    invalid = optional("pyarrow", "a .parquet file", "pyarrow").ArrowInvalid
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number},", row
    except invalid as error:
        raise MinibertError(f"{path} must be valid Parquet ({error}); write it again") from None
