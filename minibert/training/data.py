"""Rows to learn from: read from a file or given as dicts, with the columns that a task needs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minibert.errors import MinibertError, warn
from minibert.pretrained.files import sha256_of
from minibert.records import ReadFile, Record, decoded, parsed_json, read_csv, read_json_lines, read_parquet, read_tsv
from minibert.text import check_text, counted, is_table, short

Rows = str | Path | Iterable[Mapping[str, Any]]  # or a table of pandas, Polars or Arrow


class Row(NamedTuple):
    """What is learned from: texts and a label.

    Attributes:
        place: where the row is, to begin a message with.
        values: its columns, by the names that the task has for them.
    """

    place: str
    values: Record

    def text(self, column: str) -> str:
        """The text in a column; MinibertError if it is none, or blank."""
        return self._checked(column, self.values[column])

    def texts(self, column: str) -> list[str]:
        """The texts in a column that holds one or a list of them."""
        value = self.values[column]
        if isinstance(value, (list, tuple)) and value:
            return [self._checked(column, text) for text in value]
        return [self.text(column)]

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """The number in a column; MinibertError if it is none, or not within the limits."""
        value = self.values[column]
        number = as_number(value)
        if number is None or not low <= number <= high:
            limits = "" if low == -math.inf else f" from {low:g} to {high:g}"
            raise MinibertError(
                f"{self.place} must have a number{limits} in {column!r}, not {short(value)}; correct it"
            )
        return number

    def _checked(self, column: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise MinibertError(f"{self.place} must have a text in {column!r}, not {short(value)}; remove such rows")
        check_text([value])
        return value


@dataclass(frozen=True)
class Data:
    """The rows of a file, or of an iterable of dicts.

    Attributes:
        name: what it is used for, "train" or "dev".
        title: the name of the file, or the number of rows.
        digest: the sha256 of the file, or of the rows.
        rows: all of them.
    """

    name: str
    title: str
    digest: str
    rows: list[Row]


def read(
    name: str,
    source: Rows,
    columns: Mapping[str, str],
    absent: Sequence[str] = (),
    formats: Mapping[str, ReadFile] | None = None,
) -> Data:
    """Read rows.

    Args:
        name: what they are used for, for messages.
        source: a file, dicts, or a table.
        columns: the names of the columns in the source, by the task's names.
        absent: those that may be absent.
        formats: further readers of files, by suffix; "" reads all files that have no other reader.

    Raises:
        FileNotFoundError: the file does not exist.
        MinibertError: an unknown kind of file, or a broken one; a column is absent; there are no rows.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    found = _given(name, source) if path is None else _records(name, path, formats or {})
    rows = [Row(place, _renamed(place, record, columns, absent)) for place, record in found]
    title = counted(len(rows), "row") if path is None else path.name
    if not rows:
        raise MinibertError(f"{name} ({title}) must have at least one row; it is empty")
    lines = (json.dumps(row.values, sort_keys=True, default=str).encode() + b"\n" for row in rows)
    digest = hashlib.sha256(b"".join(lines)).hexdigest() if path is None else sha256_of(path)
    return Data(name, title, digest, rows)


def _records(name: str, path: Path, formats: Mapping[str, ReadFile]) -> Iterable[tuple[str, Record]]:
    if not path.is_file():
        raise FileNotFoundError(f"{name} ({path}) must be a file that exists; check the name")
    readers = {**READERS, **formats}
    reader = readers.get(path.suffix.lower(), readers.get(""))
    if reader is None:
        raise MinibertError(f"{name} ({path}) must end in one of {', '.join(readers)}; convert it")
    return reader(str(path))


def _given(name: str, source: Any) -> Iterator[tuple[str, Record]]:
    source = _rows_of_table(source)
    if is_table(source):
        raise MinibertError(f"{name} ({type(source).__name__}) must be a file, a table or dicts, one for each row")
    if not isinstance(source, Iterable):
        raise MinibertError(f"{name} ({short(source)}) must be a file or dicts, one for each row")
    names = _label_names(source)
    for number, record in enumerate(source):
        if not isinstance(record, Mapping):
            raise MinibertError(f"{name}, row {number}, ({short(record)}) must be a dict of columns")
        yield f"{name}, row {number},", {column: _named(value, names.get(column)) for column, value in record.items()}


def _rows_of_table(source: Any) -> Any:
    """The rows of a table of pandas, Polars or Arrow; anything else as it is."""
    for method, arguments in (("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",))):
        if hasattr(type(source), "columns") and hasattr(source, method):
            return getattr(source, method)(*arguments)
    return source


def _label_names(source: Any) -> dict[str, list[str]]:
    """The names of numbered labels by column: the ClassLabels of a `datasets.Dataset`, and lists of them."""
    features = getattr(source, "features", None)
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if isinstance(names, list):
            found[column] = names
    return found


def _named(value: Any, names: list[str] | None) -> Any:
    """The names of labels that are numbers; -1 stands for none."""
    if names is None or isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)):
        return [_named(one, names) for one in value]
    if isinstance(value, Integral):
        return names[int(value)] if 0 <= int(value) < len(names) else None
    return value


def _renamed(place: str, record: Record, columns: Mapping[str, str], absent: Sequence[str]) -> Record:
    for ours, theirs in columns.items():
        if theirs not in record and ours not in absent:
            raise MinibertError(
                f"{place} must have the column {theirs!r}; it has {', '.join(map(repr, record)) or 'none'}: name the "
                f"column with columns={{{ours!r}: ...}}, or --column {ours}=..."
            )
    there = [(ours, record.get(theirs)) for ours, theirs in columns.items()]
    return {ours: value for ours, value in there if value is not None or ours not in absent}


def plain(value: Any) -> Any:
    """A value of numpy or torch, a set or a Decimal as plain Python has it; text without spaces around it."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return plain(value.tolist())
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=str)
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)  # float() also takes "1_0" and "infinity"


def as_number(value: Any) -> float | None:
    """A finite number, or text that is one; None for anything else."""
    if isinstance(value, str):
        value = value if NUMBER.fullmatch(value) else None
    elif isinstance(value, (Decimal, np.generic, torch.Tensor)):
        value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def without_bad_rows(data: Data, check: Callable[[Row], object], skip: bool) -> Data:
    """The rows that can be learned from.

    Args:
        data: all rows.
        check: raises MinibertError for a row that cannot be learned from.
        skip: leave such rows out, with a warning.

    Raises:
        MinibertError: there are such rows, and they are not to be left out; or no row is left.
    """
    bad: list[tuple[Row, MinibertError]] = []
    good = []
    for row in data.rows:
        try:
            check(row)
            good.append(row)
        except MinibertError as error:
            bad.append((row, error))
    if not bad:
        return data
    shown = "; ".join(row.place.rstrip(",") for row, _ in bad[:5])
    rows = f"{len(bad):,} of {counted(len(data.rows), 'row')} ({shown}{'; ...' if len(bad) > 5 else ''})"
    first = str(bad[0][1])
    if not skip:
        raise MinibertError(f"{first}; {rows} cannot be learned from: skip_bad_rows=True leaves them out") from None
    if not good:
        raise MinibertError(f"{first}; so it is with every row: nothing is left to learn from") from None
    warn(f"{rows} were left out; the first one: {first}")
    return replace(data, rows=good)


def read_objects(path: str) -> Iterator[tuple[str, Record]]:
    """The objects of a file with one on each line."""
    for place, value in read_json_lines(path):
        if not isinstance(value, dict):
            raise MinibertError(f"{place} must be a JSON object, not {short(value)}; fix it")
        yield place, value


HEADS = {"word", "words", "token", "tokens", "form", "text"}  # of a column of words


def read_conll(path: str) -> Iterator[tuple[str, Record]]:
    """The sentences of a CoNLL file: a word and its label on each line, first and last; a blank line between sentences.

    Tabs alone separate the columns of a line that has any. A comment, a line that begins with "#" before a sentence,
    is skipped. Each column is also there by its number, from "1" on.

    Source: Tjong Kim Sang and De Meulder 2003, sec. 2.1; https://universaldependencies.org/format.html.
    """
    lines = [(number, _columns(line)) for number, line in decoded(path)]
    words = [columns for _, columns in lines if columns and not columns[0].startswith("#")]
    lengths = Counter(map(len, words))
    width = max(lengths, key=lengths.__getitem__, default=0)
    labels = {columns[-1] for columns in words if len(columns) == width}
    sentence: list[list[str]] = []
    first = 1
    for number, columns in [*lines, (len(lines) + 1, [])]:
        if not columns or columns[0] == "-DOCSTART-":
            if sentence:
                values = list(map(list, zip(*sentence, strict=True)))
                numbered = {str(place): column for place, column in enumerate(values, 1)}
                yield f"{path}, line {first},", {"words": values[0], "labels": values[-1], **numbered}
            sentence, first = [], number + 1
            continue
        if not sentence and columns[0].startswith("#") and not (len(columns) == width and columns[-1] in labels):
            first = number + 1
            continue
        if len(columns) < 2 or width < 2:
            line = short(" ".join(columns))
            raise MinibertError(f"{path}, line {number}, must have a word and a label, not {line}; fix it")
        if len(columns) != width:
            raise MinibertError(
                f"{path}, line {number}, must have {width} columns, like most lines, not {len(columns)}; fix it"
            )
        if number == 1 and HEADS & set(map(str.lower, columns)) and [w[-1] for w in words].count(columns[-1]) == 1:
            raise MinibertError(
                f"{path}, line 1, must be a word and its label, not the names of columns ({short(' '.join(columns))}); "
                "remove the line"
            )
        sentence.append(columns)


def _columns(line: str) -> list[str]:
    """The columns of a line; none of a blank one."""
    line = line.strip(" \t\r\n")
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")]
    return re.split(" +", line) if line else []


def read_squad(path: str) -> Iterator[tuple[str, Record]]:
    """The questions of a file in SQuAD's format, each with its context and answers.

    Source: Rajpurkar et al. 2016 and 2018.
    """
    text = "".join(line for _, line in decoded(path))
    try:
        articles = parsed_json(text, path, "fix it, or use .jsonl")["data"]
        for number, article in enumerate(articles):
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    place = f"{path}, article {number}, question {asked.get('id', short(asked['question']))},"
                    answers = [] if asked.get("is_impossible") else asked["answers"]
                    yield place, {"question": asked["question"], "context": paragraph["context"], "answers": answers}
    except (KeyError, TypeError, AttributeError) as error:  # other JSON
        raise MinibertError(f"{path} must be JSON in SQuAD's format ({error!r}); fix it, or use .jsonl") from None


READERS: dict[str, ReadFile] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_objects,
    ".parquet": read_parquet,
}
