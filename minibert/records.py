"""Records of files: lines of text, and rows of CSV, JSON lines and Parquet, each with its place for messages."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from minibert.errors import MinibertError, optional

STDIN = "-"
AT_ONCE = 4_096  # rows of Parquet in memory
LONGEST_FIELD = 2**31 - 1  # characters of a CSV field: the most that the csv module can be told on every system
_LIMIT = Lock()

Record = dict[str, Any]
ReadFile = Callable[[str], Iterator[tuple[str, Record]]]  # yields each row with its place, to begin a message with


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


def parsed_json(text: str | bytes, what: str, remedy: str = "fix it", *, unique: bool = False) -> Any:
    """The value of JSON that somebody else may have written.

    Args:
        text: the JSON; bytes are UTF-8.
        what: what it is, to begin the message with.
        remedy: what to do about it, to end the message with.
        unique: refuse an object that has a name twice, of which another reader may take another one.

    Raises:
        MinibertError: it is not JSON, is nested too deeply, or has a number with thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates if unique else None)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # UnicodeDecodeError is one, and so is Python's limit on digits
        reason = str(error)
    raise MinibertError(f"{what} must be valid JSON ({reason}); {remedy}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise MinibertError("an object has a name twice")
    return values


def read_csv(path: str, **dialect: Any) -> Iterator[tuple[str, Record]]:
    """The rows of a CSV file by the names in its header; blank lines are none.

    Args:
        path: the file.
        dialect: as for `csv.reader`.
    """
    reader = csv.reader((line for _, line in decoded(path)), strict=True, **dialect)
    rows = iter(partial(_next_row, reader), None)
    try:
        header = next(rows, [])
        twice = [name for name, count in Counter(header).items() if name and count > 1]
        if twice:
            raise MinibertError(f"{path}, line 1, must name each column once, but names {twice[0]!r:.40} twice; fix it")
        for values in rows:
            place = f"{path}, line {reader.line_num},"
            if values and len(values) != len(header):
                raise MinibertError(
                    f"{place} must have {len(header)} values, like the header, but it has {len(values)}; fix it"
                )
            if values:
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise MinibertError(f"{path}, line {reader.line_num}, must be valid CSV ({error}); fix it") from None


def read_tsv(path: str) -> Iterator[tuple[str, Record]]:
    """The rows of a file of values separated by tabs, by the names in its header.

    Quotes are part of a value, unless they are around one in which all quotes are doubled, as pandas writes it.
    """
    for place, record in read_csv(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        yield place, {name: _unquoted(value) for name, value in record.items()}


DOUBLED = re.compile(r'"(?:[^"]*"")+[^"]*"')


def _unquoted(value: str) -> str:
    return value[1:-1].replace('""', '"') if value.startswith('"') and DOUBLED.fullmatch(value) else value


def _next_row(reader: Any) -> list[str] | None:
    """The next row of a `csv.reader`, with fields of any length; None at the end."""
    with _LIMIT:  # the csv module has one limit for the whole process; others keep theirs
        before = csv.field_size_limit(LONGEST_FIELD)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


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
    broken = optional("pyarrow", "a .parquet file", "pyarrow").ArrowException
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number},", row
    except (broken, OSError, UnicodeDecodeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not Arrow's own
            raise
        raise MinibertError(f"{path} must be valid Parquet ({error}); write it again") from None
