"""Files of texts in, files of vectors out: streamed, and resumed after an interruption.

While vectors are computed they are kept in a folder beside the output, `OUT.partial`. What is made of a block of texts
is appended to its data files, and then a line to its journal, which counts the texts, vectors and bytes of the block,
and has their digests. An interruption of any kind leaves that folder, and the same command resumes from it. The output
itself appears when it is whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.pretrained.files import locked, path_to_disk, safetensors_header, to_disk, written_whole

INPUTS = (".txt", ".csv", ".jsonl", ".parquet")
OUTPUTS = (".npy", ".safetensors", ".jsonl", ".parquet")
STDIN = "-"
DATA = ("vectors", "rows")  # files of an unfinished output
BLOCK = 4_096  # rows read or written at once
SECONDS = 4.0  # of computing between two lines of the journal: what an interruption loses
FIRST_BLOCK = 8_192  # characters, while nothing is known about the speed
MOST_TEXTS, MOST_CHARACTERS = 16_384, 1_000_000  # of a block: the vectors of its words lie in memory
FORMAT = 1  # of the journal

Vectors = NDArray[np.float32]
Row = dict[str, Any]


# In


def read_rows(path: str, text: str = "text", keep: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """The texts of a file, one after the other.

    Args:
        path: of a .txt file, a text a line; a .csv file with a header; a .jsonl file, an object or a text a line; a
            .parquet file; or "-", standard input, a text a line.
        text: the column with the texts, where there are columns.
        keep: other columns that are wanted.

    Yields:
        Each text, and the values of the columns that are kept.

    Raises:
        FileNotFoundError: no such file.
        MinibertError: another kind of file; no such column; a row whose text is none; with the number of the line.
        ImportError: .parquet, and pyarrow is not installed.
    """
    check_input(path)
    kind = Path(path).suffix.lower()
    if keep and (path == STDIN or kind == ".txt"):
        raise MinibertError(f"columns to keep ({', '.join(keep)}) need a file with columns, which {path} is not")
    rows = _lines(path) if path == STDIN or kind == ".txt" else READERS[kind](path)
    wanted = [text, *keep]
    for place, row in rows:
        if isinstance(row, str):
            yield row, {}
            continue
        missing = [name for name in wanted if name not in row]
        if missing:
            raise MinibertError(
                f"{place} must have the column {missing[0]!r}; it has {', '.join(map(repr, row)) or 'none'}: "
                "name the column of the texts with --text"
            )
        if not isinstance(row[text], str):
            raise MinibertError(f"{place} must hold a text in {text!r}, not {row[text]!r:.40}; leave such rows out")
        for name in wanted:
            _check_characters(place, name, row[name])
        yield row[text], {name: row[name] for name in keep}


def check_input(path: str) -> None:
    """Refuse what `read_rows` would refuse, without reading it."""
    if path != STDIN and Path(path).suffix.lower() not in INPUTS:
        raise MinibertError(f"the input ({path}) must end in {', '.join(INPUTS)}, or be - for standard input")
    if path != STDIN and not Path(path).is_file():
        raise FileNotFoundError(f"the input ({path}) must be a file; there is none of that name")


def _check_characters(place: str, name: str, value: Any) -> None:
    if not isinstance(value, str) or value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MinibertError(
            f"{place} must hold valid Unicode in {name!r}; it has a lone surrogate, {value[error.start]!r}, at "
            f"{error.start}: correct it, or leave the row out"
        ) from None


def _decoded(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, each with its number and its line end."""
    with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise MinibertError(
                    f"{path}, line {number}, must be UTF-8; it is not, from its byte {error.start} on: convert the "
                    "file, with iconv for one"
                ) from None


def _lines(path: str) -> Iterator[tuple[str, str]]:
    for number, line in _decoded(path):
        yield f"{path}, line {number},", line.rstrip("\r\n")


def _read_csv(path: str) -> Iterator[tuple[str, Row]]:
    reader = csv.reader((line for _, line in _decoded(path)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise MinibertError(f"{path} must begin with the names of its columns; it is empty")
        for values in reader:
            place = f"{path}, line {reader.line_num},"
            if not values:
                continue
            if len(values) != len(header):
                raise MinibertError(f"{place} must have {len(header)} values, as the header has; it has {len(values)}")
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise MinibertError(f"{path}, line {reader.line_num}, must be CSV; it is not ({error}): correct it") from None


def _read_jsonl(path: str) -> Iterator[tuple[str, Row]]:
    for number, line in _decoded(path):
        place = f"{path}, line {number},"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise MinibertError(f"{place} must be JSON; it is not ({error}): correct it") from None
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise MinibertError(f"{place} must be a JSON object, or a text; it is a {type(row).__name__}")
        yield place, row


def _read_parquet(path: str) -> Iterator[tuple[str, Row]]:
    parquet, number = _parquet(), 0
    from pyarrow import ArrowInvalid

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number},", row
    except ArrowInvalid as error:
        raise MinibertError(f"{path} must be Parquet; it is not ({error}): correct it") from None


READERS: dict[str, Callable[[str], Iterator[tuple[str, Row]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(".parquet files need pyarrow, which is not installed; pip install pyarrow") from None
    return pyarrow.parquet


def count_rows(paths: Sequence[str], text: str) -> int | None:
    """How many texts there are, for the time that is left; None where that cannot be known beforehand.

    All of a file is read once for this, and what is wrong with it is told before hours of work.
    """
    if STDIN in paths:
        return None
    return sum(1 for path in paths for _ in read_rows(path, text))


# Out


class Output:
    """A file of vectors in the making, to be used in a `with` statement: one process at a time makes it.

    Args:
        path: the file; its ending says the form.
        what: all that decides what will be in it; an unfinished file of something else is not resumed.
        width: numbers of a vector.
        counts_rows: whether "text", "start" and "end" of a row are numbers, those of words.

    Attributes:
        blocks: the lines of the journal, but for its first: what was made so far.

    Raises:
        BlockingIOError: another process is making it.
        MinibertError: an unknown form; an unfinished output that belongs to another command, or that was damaged.
        FileExistsError: the file is there already.
    """

    def __init__(self, path: str, what: dict[str, Any], width: int, counts_rows: bool = False) -> None:
        self.path, self.width, self.counts_rows = Path(path), width, counts_rows
        self.kind = self.path.suffix.lower()
        if self.kind not in OUTPUTS:
            raise MinibertError(f"the output ({path}) must end in {', '.join(OUTPUTS)}")
        if self.kind == ".parquet":
            _parquet()
        self.folder = self.path.with_name(self.path.name + ".partial")
        self.blocks: list[Row] = []
        self._seal = ""  # of the journal's last line
        busy = f"the output ({path}) is being written by another process; wait for it, or choose another name"
        with ExitStack() as stack:
            stack.enter_context(locked(self.path.with_name(self.path.name + ".partial.lock"), busy))
            self._check_absent("choose another name, or delete it")
            self._resume(json.loads(json.dumps(what | {"width": width}, default=str)))
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def texts(self) -> int:
        """How many texts are done."""
        return sum(block["texts"] for block in self.blocks)

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return sum(block["vectors"] for block in self.blocks)

    def _check_absent(self, remedy: str) -> None:
        if self.path.exists():
            raise FileExistsError(f"the output ({self.path}) must not exist yet; {remedy}")

    def _resume(self, what: Row) -> None:
        """Start where the journal ends, and drop what was written after it; or begin."""
        self.folder.mkdir(exist_ok=True)
        journal = self.folder / "journal"
        if not journal.exists():
            others = [path.name for path in self.folder.iterdir() if not path.name.startswith(".journal.")]
            if others:
                raise MinibertError(
                    f"{self.folder} must hold a journal to be resumed; it does not, but has {min(others)}: delete the "
                    "folder, or choose another output"
                )
            with written_whole(journal) as temporary:
                temporary.write_bytes(self._sealed({"format": FORMAT, "what": what}))
                path_to_disk(temporary)
            for name in DATA:
                (self.folder / name).touch()
            path_to_disk(self.folder)
            path_to_disk(self.folder.parent)
            return
        (head, *self.blocks), end = self._read_journal(journal)
        if head["what"] != what:
            raise MinibertError(
                f"{self.folder} must be of the same command to be resumed; it is of another one "
                f"({_differences(head['what'], what)}): give that one again, or delete the folder"
            )
        sizes = self._check_data()
        for name, size in {"journal": end, **sizes}.items():
            with (self.folder / name).open("r+b") as file:
                file.truncate(size)

    def _read_journal(self, journal: Path) -> tuple[list[Row], int]:
        """The lines of the journal, and where the last whole one ends; the one after it may have been cut off."""
        lines = journal.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        entries: list[Row] = []
        for number, line in enumerate(lines or [b""], 1):
            try:
                entry = json.loads(line)
                del entry["seal"]
                whole = self._sealed(entry) == line and entry.get("format", FORMAT) == FORMAT
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise MinibertError(
                    f"the journal ({journal}) must be as this minibert wrote it; its line {number} is not: delete "
                    f"{self.folder} to begin again"
                )
            entries.append(entry)
        return entries, sum(map(len, lines))

    def _sealed(self, entry: Row) -> bytes:
        """A line of the journal, with a digest of itself and of all lines before it."""
        content = json.dumps(entry, sort_keys=True)
        self._seal = hashlib.sha256((self._seal + content).encode()).hexdigest()
        return (json.dumps({**entry, "seal": self._seal}, sort_keys=True) + "\n").encode()

    def _check_data(self) -> dict[str, int]:
        """Read the data files and compare them with the journal, block by block.

        Returns:
            By name, how many bytes the journal knows of.

        Raises:
            MinibertError: a file is too small, or holds something else than was written.
        """
        sizes = {}
        for name in DATA:
            size = sum(block["bytes"][name] for block in self.blocks)
            path = self.folder / name
            there = path.stat().st_size if path.is_file() else 0
            if there < size:
                raise MinibertError(
                    f"{path} ({there:,} bytes) must have at least {size:,}, as its journal says; it was cut off: "
                    f"delete {self.folder} to begin again"
                )
            sizes[name] = size
            if not size:
                path.touch()
                continue
            with path.open("rb") as file:
                for number, block in enumerate(self.blocks, 1):
                    if _digest_of_file(file, block["bytes"][name]) != block["digests"][name]:
                        raise MinibertError(
                            f"{path} must hold what was written; it has been changed in block {number} of "
                            f"{len(self.blocks)}: delete {self.folder} to begin again"
                        )
        return sizes

    def add(self, texts: Sequence[str], vectors: Vectors, rows: Iterable[Row]) -> None:
        """Add what was made of the next texts: their vectors (n, H), and what is known of each of these."""
        data = {"vectors": np.ascontiguousarray(vectors, dtype="<f4").tobytes()}
        data["rows"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        for name, content in data.items():
            with (self.folder / name).open("ab") as file:
                file.write(content)
                to_disk(file)
        block = {
            "texts": len(texts),
            "vectors": len(vectors),
            "read": digest_of_texts(texts),
            "bytes": {name: len(content) for name, content in data.items()},
            "digests": {name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
        }
        with (self.folder / "journal").open("ab") as file:
            file.write(self._sealed(block))
            to_disk(file)
        self.blocks.append(block)

    def finish(self) -> None:
        """Check what was written, make the output of it, whole, and remove what was kept for it."""
        sizes = self._check_data()
        for name, size in sizes.items():
            there = (self.folder / name).stat().st_size
            if there != size:
                raise MinibertError(
                    f"{self.folder / name} ({there:,} bytes) must have {size:,}; give the command again"
                )
        whole = self.folder / f"whole{self.kind}"
        WRITERS[self.kind](whole, self)
        path_to_disk(whole)
        self._check_absent(f"it has appeared meanwhile: move it away, and give the command again to use {self.folder}")
        whole.rename(self.path)
        path_to_disk(self.path.parent)  # before what it was made of goes
        shutil.rmtree(self.folder)

    def vectors(self) -> Vectors:
        """All vectors, mapped."""
        if not self.rows:
            return np.empty((0, self.width), dtype=np.float32)
        return np.memmap(self.folder / "vectors", dtype="<f4", mode="r", shape=(self.rows, self.width))

    def table(self) -> Iterator[list[tuple[Row, Vectors]]]:
        """What is known of each vector, and the vector; in blocks."""
        vectors = self.vectors()
        with (self.folder / "rows").open(encoding="utf-8") as file:
            for start in range(0, self.rows, BLOCK):
                known = [json.loads(line) for line in islice(file, BLOCK)]
                yield list(zip(known, vectors[start : start + BLOCK], strict=True))


def _differences(one: Row, other: Row) -> str:
    names = [name for name in {**one, **other} if str(one.get(name)) != str(other.get(name))]
    return "; ".join(f"{name}: {one.get(name)!s:.60} there, {other.get(name)!s:.60} here" for name in names)


def _write_npy(path: Path, output: Output) -> None:
    with path.open("wb") as file:
        shape = (output.rows, output.width)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with (output.folder / "vectors").open("rb") as data:
            shutil.copyfileobj(data, file, 1 << 22)


def _write_safetensors(path: Path, output: Output) -> None:
    names = [name for name in ("text", "start", "end") if output.counts_rows]
    vectors = {"vectors": ("F32", [output.rows, output.width])}
    with path.open("wb") as file:
        file.write(safetensors_header(vectors | {name: ("I64", [output.rows]) for name in names}))
        with (output.folder / "vectors").open("rb") as data:
            shutil.copyfileobj(data, file, 1 << 22)
        for name in names:
            for block in output.table():
                file.write(np.array([row[name] for row, _ in block], dtype="<i8").tobytes())


def _write_jsonl(path: Path, output: Output) -> None:
    with path.open("w", encoding="utf-8") as file:
        for block in output.table():
            for row, vector in block:
                file.write(json.dumps({**row, "vector": vector.tolist()}, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, output: Output) -> None:
    import pyarrow

    parquet, writer = _parquet(), None
    try:
        for block in output.table() if output.rows else [[]]:
            vectors = np.stack([vector for _, vector in block]) if block else np.empty((0, output.width), np.float32)
            names = list(block[0][0]) if block else ["text"]
            columns = {name: pyarrow.array([row[name] for row, _ in block]) for name in names}
            columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), output.width)
            table = pyarrow.table(columns)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


WRITERS: dict[str, Callable[[Path, Output], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def fill(
    output: Output,
    paths: Sequence[str],
    text: str,
    compute: Callable[[list[str], int], tuple[Vectors, list[Row]]],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[int]:
    """Compute what is missing of an output, block by block, and finish it.

    Args:
        output: what is made.
        paths, text: where the texts are; as for `read_rows`.
        compute: gives the vectors of texts, and what is to be kept of each vector; told the number of the first text.
        clock: the time, in seconds.

    Yields:
        After each block, how many texts are done.

    Raises:
        MinibertError: the texts of the blocks that are done are not what they were.
    """
    texts = (row for path in paths for row, _ in read_rows(path, text))
    first = 0
    for done in output.blocks:
        again = list(islice(texts, done["texts"]))
        if digest_of_texts(again) != done["read"]:
            raise MinibertError(
                f"the texts ({', '.join(paths)}) must be the same as before to be resumed; they differ between text "
                f"{first + 1:,} and {first + done['texts']:,}: give the same texts, or delete {output.folder}"
            )
        first += done["texts"]
    room = float(FIRST_BLOCK)
    while block := list(_taken(texts, room)):
        start = clock()
        vectors, rows = compute(block, output.texts)
        output.add(block, vectors, rows)
        # a small block may be quick or slow by chance; no time at all is the clock's fault
        speed = sum(map(_cost, block)) / max(clock() - start, 1e-3)
        room = min(speed * SECONDS, 8 * room, MOST_CHARACTERS)
        yield output.texts
    output.finish()


def _taken(texts: Iterator[str], room: float) -> Iterator[str]:
    """The next texts, up to so many characters, one at least."""
    for text in islice(texts, MOST_TEXTS):
        yield text
        room -= _cost(text)
        if room <= 0:
            return


def _cost(text: str) -> int:
    return len(text) + 8  # [CLS] and [SEP] are computed, too


def digest_of_texts(texts: Sequence[str]) -> str:
    """A digest that tells lists of texts apart."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(b"%d " % len(content) + content)
    return digest.hexdigest()


def _digest_of_file(file: IO[bytes], size: int) -> str:
    """The digest of the next bytes."""
    digest = hashlib.sha256()
    while size and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()
