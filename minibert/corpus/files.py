"""Turn files of texts into files of results: streamed, and resumable after an interruption.

Until the output is complete, its data is in a folder next to it, `OUT.partial`. For each block of texts, the results
are appended to the data files, then a line to the journal, with the block's number of texts, rows and bytes, and their
digests. After an interruption of any kind, the same command resumes from that folder. The output itself appears
only when it is complete.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.errors import MinibertError, optional
from minibert.pretrained.files import locked, path_to_disk, safetensors_header, to_disk, written_whole
from minibert.records import (
    STDIN,
    ReadFile,
    Record,
    decoded,
    parsed_json,
    read_csv,
    read_json_lines,
    read_parquet,
    read_tsv,
)

INPUTS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
BLOCK = 4_096  # rows per read or write
SECONDS = 4.0  # computing time between two lines of the journal: the most that an interruption loses
FIRST_BLOCK = 8_192  # characters, before the speed is known
FIXED_BLOCK = 16_384  # characters, where blocks do not depend on the speed
MOST_TEXTS, MOST_CHARACTERS = 16_384, 1_000_000  # limits of a block, whose word vectors are in memory
FORMAT = 2  # version of the journal

Vectors = NDArray[np.float32]
Item = tuple[str, Record]  # a text, and the values of its other columns


# Input


def read_records(path: str, text: str = "text", keep: Sequence[str] = (), second: str | None = None) -> Iterator[Item]:
    """Read the texts of a file one by one.

    Args:
        path: a .txt file with one text per line; a .csv or .tsv file with a header; a .jsonl file with one object or
            string per line; a .parquet file; or "-" for standard input, with one text per line, or one JSON object per
            line if other columns are read.
        text: the column with the texts, if the file has columns.
        keep: other columns to return.
        second: the column with the second text of each pair, to return as well.

    Yields:
        Each text, and the values of its other columns.

    Raises:
        FileNotFoundError: the file does not exist.
        MinibertError: the file type is unknown, a column is missing, or a text is not a string; the message has the
            line number.
        ImportError: the file is .parquet and pyarrow is not installed.
    """
    check_input(path)
    kind = Path(path).suffix.lower()
    texts = [text] if second is None else [text, second]
    others = list(dict.fromkeys([*texts[1:], *keep]))
    if others and kind == ".txt":
        raise MinibertError(
            f"the columns to read ({', '.join([text, *others])}) must be of a file with columns, not {path}; give a "
            ".csv, .tsv, .jsonl or .parquet file"
        )
    if path == STDIN:
        records = _read_jsonl(path) if others else _lines(path)
    else:
        records = _lines(path) if kind == ".txt" else READERS[kind](path)
    for place, record in records:
        if isinstance(record, str):
            yield record, {}
            continue
        missing = [name for name in [text, *others] if name not in record]
        if missing:
            option = "--keep" if missing[0] not in texts else "--text" if second is None else "--columns"
            raise MinibertError(
                f"{place} must have the column {missing[0]!r}; it has {', '.join(map(repr, record)) or 'none'}: "
                f"name the column with {option}"
            )
        for name in texts:
            if not isinstance(record[name], str):
                raise MinibertError(f"{place} must have a text in {name!r}, not {record[name]!r:.40}; remove such rows")
        for name in [text, *others]:
            _check_characters(place, name, record[name])
        yield record[text], {name: record[name] for name in others}


def check_input(path: str) -> None:
    """Reject a path that `read_records` would reject, without reading the file."""
    if path != STDIN and Path(path).suffix.lower() not in INPUTS:
        raise MinibertError(f"the input ({path}) must end in one of {', '.join(INPUTS)}; use - for standard input")
    if path != STDIN and not Path(path).is_file():
        raise FileNotFoundError(f"the input ({path}) must be a file that exists; check the name")


def _check_characters(place: str, name: str, value: Any) -> None:
    if not isinstance(value, str):  # it may have texts inside
        value = json.dumps(value, ensure_ascii=False, default=str)
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MinibertError(
            f"{place} must have valid Unicode in {name!r}, but it has a lone surrogate ({value[error.start]!r} at "
            f"{error.start}); fix or remove the row"
        ) from None


def _lines(path: str) -> Iterator[tuple[str, str]]:
    for number, line in decoded(path):
        yield f"{path}, line {number},", line.rstrip("\r\n")


def _read_table(read: ReadFile, path: str) -> Iterator[tuple[str, Record]]:
    if not Path(path).stat().st_size:
        raise MinibertError(f"{path} must start with a header, but it is empty; add the names of its columns")
    yield from read(path)


def _read_jsonl(path: str) -> Iterator[tuple[str, Record]]:
    for place, value in read_json_lines(path):
        record = {"text": value} if isinstance(value, str) else value
        if not isinstance(record, dict):
            raise MinibertError(f"{place} must be a JSON object or string, not {type(record).__name__}; fix it")
        yield place, record


READERS: dict[str, ReadFile] = {
    ".csv": partial(_read_table, read_csv),
    ".tsv": partial(_read_table, read_tsv),
    ".jsonl": _read_jsonl,
    ".parquet": read_parquet,
}


@dataclass(frozen=True)
class Source:
    """Files of texts, and the columns to read, as for `read_records`."""

    paths: Sequence[str]
    text: str = "text"
    keep: Sequence[str] = ()
    second: str | None = None

    def __iter__(self) -> Iterator[Item]:
        """The items of all files, one file after the other."""
        for path in self.paths:
            yield from read_records(path, self.text, self.keep, self.second)

    def count(self) -> int | None:
        """The number of items, for the progress bar; None for standard input.

        This reads each file once, which reports invalid lines before hours of work.
        """
        return None if STDIN in self.paths else sum(1 for _ in self)


# Output


class Output:
    """An unfinished file of rows, as a context manager. Only one process at a time can hold it.

    Args:
        path: the file; its suffix determines the format.
        what: everything that determines the content; an unfinished output with another value is not resumed.
        columns: the names of the values of a row.

    Attributes:
        data: the names of its data files.
        timed: whether the size of blocks depends on the speed. If not, the same texts make the same blocks, and so the
            same scores to the last digit, which depends on what is computed together.
        writers: for each format, the function that writes it.
        blocks: the journal without its first line: the blocks done so far.

    Raises:
        BlockingIOError: another process is writing it.
        MinibertError: the format is unknown, or the unfinished output belongs to another command or is damaged.
        FileExistsError: the file already exists.
    """

    data: ClassVar[tuple[str, ...]] = ("rows",)
    timed: ClassVar[bool] = False
    writers: ClassVar[dict[str, Callable[[Path, Any], None]]]

    def __init__(self, path: str, what: dict[str, Any], columns: Sequence[str]) -> None:
        self.path, self.columns = Path(path), tuple(columns)
        self.kind = self.path.suffix.lower()
        if self.kind not in self.writers:
            raise MinibertError(f"the output ({path}) must end in one of {', '.join(self.writers)}; change its name")
        if self.kind == ".parquet":
            optional("pyarrow", "a .parquet file", "pyarrow")  # before hours of work
        self.folder = self.path.with_name(self.path.name + ".partial")
        self.blocks: list[Record] = []
        self._seal = ""  # digest in the journal's last line
        busy = f"the output ({path}) is being written by another process; wait for it, or choose another name"
        with ExitStack() as stack:
            stack.enter_context(locked(self.path.with_name(self.path.name + ".partial.lock"), busy))
            self._check_absent("choose another name, or delete it")
            self._resume(json.loads(json.dumps(what | {"columns": columns}, default=str)))
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def texts(self) -> int:
        """The number of texts done."""
        return sum(block["texts"] for block in self.blocks)

    @property
    def rows(self) -> int:
        """The number of rows done."""
        return sum(block["rows"] for block in self.blocks)

    @property
    def content(self) -> str:
        """What is done, in words."""
        return f"{self.texts:,} texts, {self.rows:,} rows"

    def _check_absent(self, remedy: str) -> None:
        if self.path.exists():
            raise FileExistsError(f"the output ({self.path}) must not exist yet; {remedy}")

    def _resume(self, what: Record) -> None:
        """Resume at the end of the journal and truncate data written after it, or start a new journal."""
        if not self.folder.is_symlink():
            self.folder.mkdir(exist_ok=True)
        links = [path for path in (self.folder, *self.folder.iterdir()) if path.is_symlink()]
        if links:
            raise MinibertError(
                f"{links[0]} must not be a link, since what it points to would be written; remove it, or choose "
                "another output"
            )
        journal = self.folder / "journal"
        leftovers = [path for path in self.folder.iterdir() if _is_leftover(path)]
        if not journal.exists():
            others = [path.name for path in self.folder.iterdir() if path not in leftovers]
            if others:
                raise MinibertError(
                    f"{self.folder} must have a journal to be resumed, but it has only {min(others)}; delete "
                    "the folder, or choose another output"
                )
            for path in leftovers:
                path.unlink()
            with written_whole(journal) as temporary:
                temporary.write_bytes(self._sealed({"format": FORMAT, "what": what}))
                path_to_disk(temporary)
            for name in self.data:
                (self.folder / name).touch()
            path_to_disk(self.folder)
            path_to_disk(self.folder.parent)
            return
        (head, *self.blocks), end = self._read_journal(journal)
        if head["what"] != what:
            raise MinibertError(
                f"{self.folder} must be from the same command to be resumed, but they differ "
                f"({_differences(head['what'], what)}); repeat that command, or delete the folder"
            )
        sizes = self._check_data()
        for name, size in {"journal": end, **sizes}.items():
            with (self.folder / name).open("r+b") as file:
                file.truncate(size)

    def _read_journal(self, journal: Path) -> tuple[list[Record], int]:
        """The complete lines of the journal, and their size in bytes; the last line may be cut off."""
        lines = journal.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        entries: list[Record] = []
        for number, line in enumerate(lines or [b""], 1):
            try:
                entry = parsed_json(line, str(journal))
                del entry["seal"]
                whole = self._sealed(entry) == line and (self._is_block(entry) if entries else self._is_head(entry))
            except (MinibertError, KeyError, TypeError, AttributeError):
                whole = False
            if not whole:
                raise MinibertError(
                    f"the journal ({journal}) must be intact and of this version, but its line {number} is not; delete "
                    f"{self.folder} to start over"
                )
            entries.append(entry)
        return entries, sum(map(len, lines))

    @staticmethod
    def _is_head(entry: Record) -> bool:
        return entry["format"] == FORMAT and isinstance(entry["what"], dict)

    def _is_block(self, entry: Record) -> bool:
        """Whether a line of the journal has what `_append` writes; its sizes decide what is kept of the data."""
        counts = [entry["texts"], entry["rows"], *entry["bytes"].values()]
        return (
            all(isinstance(count, int) and count >= 0 for count in counts)
            and entry["bytes"].keys() == entry["digests"].keys() == set(self.data)
            and all(isinstance(digest, str) for digest in (entry["read"], *entry["digests"].values()))
        )

    def _sealed(self, entry: Record) -> bytes:
        """A line of the journal, with a digest of it and all earlier lines."""
        content = json.dumps(entry, sort_keys=True)
        self._seal = hashlib.sha256((self._seal + content).encode()).hexdigest()
        return (json.dumps({**entry, "seal": self._seal}, sort_keys=True) + "\n").encode()

    def _check_data(self) -> dict[str, int]:
        """Check the data files against the digests in the journal, block by block.

        Returns:
            For each file, the number of bytes that the journal records.

        Raises:
            MinibertError: a file is too small, or its content has changed.
        """
        sizes = {}
        for name in self.data:
            size = sum(block["bytes"][name] for block in self.blocks)
            path = self.folder / name
            there = path.stat().st_size if path.is_file() else 0
            if there < size:
                raise MinibertError(
                    f"{path} ({there:,} bytes) must have at least {size:,}, as recorded in the journal; it was "
                    f"truncated: delete {self.folder} to start over"
                )
            sizes[name] = size
            if not size:
                path.touch()
                continue
            with path.open("rb") as file:
                for number, block in enumerate(self.blocks, 1):
                    if _digest_of_file(file, block["bytes"][name]) != block["digests"][name]:
                        raise MinibertError(
                            f"{path} must be unchanged, but block {number} of {len(self.blocks)} differs from what was "
                            f"written; delete {self.folder} to start over"
                        )
        return sizes

    def add(self, items: Sequence[Item], rows: Sequence[Record]) -> None:
        """Append the rows of the next items."""
        self._append(items, len(rows), {"rows": _json_lines(rows)})

    def _append(self, items: Sequence[Item], rows: int, data: dict[str, bytes]) -> None:
        for name, content in data.items():
            with (self.folder / name).open("ab") as file:
                file.write(content)
                to_disk(file)
        block = {
            "texts": len(items),
            "rows": rows,
            "read": digest_of_items(items),
            "bytes": {name: len(content) for name, content in data.items()},
            "digests": {name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
        }
        with (self.folder / "journal").open("ab") as file:
            file.write(self._sealed(block))
            to_disk(file)
        self.blocks.append(block)

    def finish(self) -> None:
        """Check the data, write the output atomically, and delete the folder."""
        sizes = self._check_data()
        for name, size in sizes.items():
            there = (self.folder / name).stat().st_size
            if there != size:
                raise MinibertError(
                    f"{self.folder / name} ({there:,} bytes) must have {size:,}, as in the journal; repeat the command"
                )
        whole = self.folder / f"whole{self.kind}"
        self.writers[self.kind](whole, self)
        path_to_disk(whole)
        self._check_absent(f"it was created meanwhile: move it away, and repeat the command to use {self.folder}")
        whole.rename(self.path)
        path_to_disk(self.path.parent)  # before its data is deleted
        for path in [*self.folder.iterdir()]:
            if path.name in ("journal", *self.data) or _is_leftover(path):
                path.unlink()
        with suppress(OSError):  # somebody else has put a file there, which stays
            self.folder.rmdir()

    def records(self) -> Iterator[Record]:
        """The rows, in order."""
        with (self.folder / "rows").open("rb") as file:
            for line in file:
                yield parsed_json(line, str(self.folder / "rows"))

    def tables(self) -> Iterator[Any]:
        """The rows as tables of Arrow; an empty one if there are none."""
        import pyarrow

        records = self.records()
        for _ in range(0, max(self.rows, 1), BLOCK):
            block = list(islice(records, BLOCK))
            yield pyarrow.table({name: [record.get(name) for record in block] for name in self.columns})


class VectorOutput(Output):
    """An unfinished file of vectors, and of a row for each vector.

    Args:
        path, what: as for `Output`.
        width: the dimension of the vectors.

    Attributes:
        names: what one vector and all of them are called in the file.
    """

    data: ClassVar[tuple[str, ...]] = ("vectors", "rows")
    timed: ClassVar[bool] = True  # large blocks are faster
    names: ClassVar[tuple[str, str]] = ("vector", "vectors")
    numbers: ClassVar[tuple[str, ...]] = ()  # columns of the rows that .safetensors files have, too

    def __init__(self, path: str, what: dict[str, Any], width: int) -> None:
        self.width = width
        super().__init__(path, what | {"width": width}, [self.names[0]])

    def add(self, items: Sequence[Item], results: Any) -> None:
        """Append the results for the next items: vectors (n, H), and a row for each vector."""
        vectors, rows = results
        if self.kind in (".npy", ".safetensors") and not self.numbers:  # which have no room for texts
            rows = []
        content = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
        self._append(items, len(vectors), {"vectors": content, "rows": _json_lines(rows)})

    @property
    def content(self) -> str:
        """What is done, in words."""
        return f"{self.rows:,} vectors of {self.width} numbers"

    def records(self) -> Iterator[Record]:
        """The rows with their vectors, in order."""
        for block in self.table():
            for row, vector in block:
                yield {**row, self.names[0]: vector.tolist()}

    def vectors(self) -> Vectors:
        """All vectors, memory-mapped."""
        if not self.rows:
            return np.empty((0, self.width), dtype=np.float32)
        return np.memmap(self.folder / "vectors", dtype="<f4", mode="r", shape=(self.rows, self.width))

    def table(self) -> Iterator[list[tuple[Record, Vectors]]]:
        """The rows and their vectors, in blocks."""
        vectors, known = self.vectors(), super().records()
        for start in range(0, self.rows, BLOCK):
            yield list(zip(islice(known, BLOCK), vectors[start : start + BLOCK], strict=True))

    def tables(self) -> Iterator[Any]:
        """The rows and their vectors as tables of Arrow; an empty one if there are none."""
        import pyarrow

        for block in self.table() if self.rows else [[]]:
            vectors = np.stack([vector for _, vector in block]) if block else np.empty((0, self.width), np.float32)
            names = list(block[0][0]) if block else ["text"]
            columns = {name: pyarrow.array([row[name] for row, _ in block]) for name in names}
            columns[self.names[0]] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), self.width)
            yield pyarrow.table(columns)


class WordOutput(VectorOutput):
    """An unfinished file of the vectors of words; a row has the word, and as numbers its place."""

    numbers: ClassVar[tuple[str, ...]] = ("text", "start", "end")


class ScoreOutput(VectorOutput):
    """An unfinished file of the scores of labels."""

    timed: ClassVar[bool] = False
    names: ClassVar[tuple[str, str]] = ("scores", "scores")


def _is_leftover(path: Path) -> bool:
    """Whether a killed process left this file: a journal or an output that it had not finished."""
    if re.fullmatch(r"whole\.\w+", path.name):
        return True
    return re.fullmatch(r"\.journal\.\w{8}", path.name) is not None and path.read_bytes()[:10] in (b"", b'{"format":')


def _json_lines(rows: Iterable[Record]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode()


def _differences(one: Record, other: Record) -> str:
    names = [name for name in {**one, **other} if str(one.get(name)) != str(other.get(name))]
    return "; ".join(f"{name}: {one.get(name)!s:.60} there, {other.get(name)!s:.60} here" for name in names)


def _write_npy(path: Path, output: VectorOutput) -> None:
    with path.open("wb") as file:
        shape = (output.rows, output.width)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with (output.folder / "vectors").open("rb") as data:
            shutil.copyfileobj(data, file, 1 << 22)


def _write_safetensors(path: Path, output: VectorOutput) -> None:
    vectors = {output.names[1]: ("F32", [output.rows, output.width])}
    with path.open("wb") as file:
        file.write(safetensors_header(vectors | {name: ("I64", [output.rows]) for name in output.numbers}))
        with (output.folder / "vectors").open("rb") as data:
            shutil.copyfileobj(data, file, 1 << 22)
        for name in output.numbers:
            for block in output.table():
                file.write(np.array([row[name] for row, _ in block], dtype="<i8").tobytes())


def _write_jsonl(path: Path, output: Output) -> None:
    with path.open("wb") as file:
        for record in output.records():
            file.write(_json_lines([record]))


def _write_csv(path: Path, output: Output) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, output.columns, lineterminator="\n")
        writer.writeheader()
        for record in output.records():
            writer.writerow(
                {
                    name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
                    for name, value in record.items()
                }
            )


def _write_parquet(path: Path, output: Output) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    try:  # a column may have only nulls or whole numbers in one block, and others in the next
        schema = pyarrow.unify_schemas([table.schema for table in output.tables()], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise MinibertError(
            f"the columns to keep must have values of one type each for .parquet ({error}); write .jsonl instead"
        ) from None
    with ParquetWriter(path, schema) as writer:
        for table in output.tables():
            writer.write_table(table.cast(schema))


Output.writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
VectorOutput.writers = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def fill(
    output: Output,
    source: Source,
    compute: Callable[[list[Item], int], Any],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[int]:
    """Compute the missing blocks of an output, then finish it.

    Args:
        output: the output.
        source: the texts.
        compute: takes items and the number of the first one; returns what `output.add` takes.
        clock: returns the time in seconds.

    Yields:
        The number of texts done, after each block.

    Raises:
        MinibertError: the texts of the finished blocks have changed.
    """
    items, first = iter(source), 0
    for done in output.blocks:
        again = list(islice(items, done["texts"]))
        if digest_of_items(again) != done["read"]:
            raise MinibertError(
                f"the texts ({', '.join(source.paths)}) must be the same as before to resume, but they differ between "
                f"text {first + 1:,} and {first + done['texts']:,}; use the same texts, or delete {output.folder}"
            )
        first += done["texts"]
    room = float(FIRST_BLOCK if output.timed else FIXED_BLOCK)
    while block := list(_taken(items, room)):
        start = clock()
        output.add(block, compute(block, output.texts))
        # the time of a small block varies by chance; the clock may even return 0
        speed = sum(map(_cost, block)) / max(clock() - start, 1e-3)
        if output.timed:
            room = min(speed * SECONDS, 8 * room, MOST_CHARACTERS)
        yield output.texts
    output.finish()


def _taken(items: Iterator[Item], room: float) -> Iterator[Item]:
    """The next items, up to `room` characters, but at least one."""
    for item in islice(items, MOST_TEXTS):
        yield item
        room -= _cost(item)
        if room <= 0:
            return


def _cost(item: Item) -> int:
    text, columns = item
    texts = [text, *(value for value in columns.values() if isinstance(value, str))]
    return sum(map(len, texts)) + 8  # [CLS] and [SEP] cost time, too


def digest_of_items(items: Sequence[Item]) -> str:
    """A digest of texts and their other columns."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def _digest_of_file(file: IO[bytes], size: int) -> str:
    """The digest of the next `size` bytes."""
    digest = hashlib.sha256()
    while size and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()
