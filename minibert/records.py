"""Read the rows of files: CSV, TSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from minibert.errors import MinibertError

STDIN = "-"
BLOCK = 4_096  # rows per read or write

Record = dict[str, Any]


def decoded(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, with their numbers and line endings."""
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
    """The rows of a CSV file by the names in its header, each with its place in the file, for messages."""
    reader = csv.reader((line for _, line in decoded(path)), strict=True, **dialect)
    try:
        header = next(reader, None)
        if header is None:
            raise MinibertError(f"{path} must start with a header, but it is empty; add the names of its columns")
        for values in reader:
            place = f"{path}, line {reader.line_num},"
            if not values:
                continue
            if len(values) != len(header):
                raise MinibertError(
                    f"{place} must have {len(header)} values, like the header, but it has {len(values)}; fix it"
                )
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise MinibertError(f"{path}, line {reader.line_num}, must be valid CSV ({error}); fix it") from None


def read_jsonl(path: str) -> Iterator[tuple[str, Record]]:
    """The objects of a file with one per line; a string stands for an object with this "text"."""
    for number, line in decoded(path):
        place = f"{path}, line {number},"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise MinibertError(f"{place} must be valid JSON ({error}); fix it") from None
        if isinstance(record, str):
            record = {"text": record}
        if not isinstance(record, dict):
            raise MinibertError(f"{place} must be a JSON object or string, not {type(record).__name__}; fix it")
        yield place, record


def read_parquet(path: str) -> Iterator[tuple[str, Record]]:
    """The rows of a Parquet file."""
    parquet, number = pyarrow_parquet(), 0
    from pyarrow import ArrowInvalid

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number},", row
    except ArrowInvalid as error:
        raise MinibertError(f"{path} must be valid Parquet ({error}); write it again") from None


READERS: dict[str, Callable[[str], Iterator[tuple[str, Record]]]] = {
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}


def pyarrow_parquet() -> Any:
    """pyarrow's module for Parquet; ImportError, with what to install, if it is not there."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(".parquet files need pyarrow, which is not installed; pip install pyarrow") from None
    return pyarrow.parquet
