"""Files of texts in, files of vectors out: streamed, and able to go on after an interruption.

While vectors are computed they are kept in a folder beside the output, `OUT.partial`, with a journal that says how far
the data files are good. An interruption, of whatever kind, leaves that folder; the same command goes on from there. The
output itself appears when it is whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.pretrained.files import safetensors_header, to_disk, written_whole

INPUTS = (".txt", ".csv", ".jsonl", ".parquet")
OUTPUTS = (".npy", ".safetensors", ".jsonl", ".parquet")
STDIN = "-"
BLOCK = 4_096  # texts of a step: what an interruption loses at most

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
        ValueError: another kind of file; no such column; a row whose text is none; with the number of the line.
        ImportError: .parquet, and pyarrow is not installed.
    """
    check_input(path)
    kind = Path(path).suffix.lower()
    if keep and (path == STDIN or kind == ".txt"):
        raise ValueError(f"columns to keep ({', '.join(keep)}) need a file with columns, which {path} is not")
    rows = _lines(path) if path == STDIN or kind == ".txt" else READERS[kind](path)
    wanted = [text, *keep]
    for place, row in rows:
        if isinstance(row, str):
            yield row, {}
            continue
        missing = [name for name in wanted if name not in row]
        if missing:
            raise ValueError(
                f"{place} must have the column {missing[0]!r}; it has {', '.join(map(repr, row)) or 'none'}: "
                "name the column of the texts with --text"
            )
        if not isinstance(row[text], str):
            raise ValueError(f"{place} must hold a text in {text!r}, not {row[text]!r:.40}; leave such rows out")
        yield row[text], {name: row[name] for name in keep}


def check_input(path: str) -> None:
    """Refuse what `read_rows` would refuse, without reading it."""
    if path != STDIN and Path(path).suffix.lower() not in INPUTS:
        raise ValueError(f"the input ({path}) must end in {', '.join(INPUTS)}, or be - for standard input")
    if path != STDIN and not Path(path).is_file():
        raise FileNotFoundError(f"the input ({path}) must be a file; there is none of that name")


def _decoded(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, each with its number and its line end."""
    with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
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
            raise ValueError(f"{path} must begin with the names of its columns; it is empty")
        for values in reader:
            place = f"{path}, line {reader.line_num},"
            if not values:
                continue
            if len(values) != len(header):
                raise ValueError(f"{place} must have {len(header)} values, as the header has; it has {len(values)}")
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}, must be CSV; it is not ({error}): correct it") from None


def _read_jsonl(path: str) -> Iterator[tuple[str, Row]]:
    for number, line in _decoded(path):
        place = f"{path}, line {number},"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place} must be JSON; it is not ({error}): correct it") from None
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise ValueError(f"{place} must be a JSON object, or a text; it is a {type(row).__name__}")
        yield place, row


def _read_parquet(path: str) -> Iterator[tuple[str, Row]]:
    parquet = _parquet()
    with parquet.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=BLOCK):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number},", row


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
    """A file of vectors in the making.

    Args:
        path: the file; its ending says the form.
        what: all that decides what will be in it; an unfinished file of something else is not gone on with.
        width: numbers of a vector.
        counts_rows: whether "text", "start" and "end" of a row are numbers, those of words.

    Raises:
        ValueError: an unknown form; an unfinished output that belongs to another command.
        FileExistsError: the file is there already.
    """

    def __init__(self, path: str, what: dict[str, Any], width: int, counts_rows: bool = False) -> None:
        self.path, self.width, self.counts_rows = Path(path), width, counts_rows
        self.kind = self.path.suffix.lower()
        if self.kind not in OUTPUTS:
            raise ValueError(f"the output ({path}) must end in {', '.join(OUTPUTS)}")
        if self.path.exists():
            raise FileExistsError(f"the output ({path}) must not exist yet; choose another name, or delete it")
        if self.kind == ".parquet":
            _parquet()
        self.folder = self.path.with_name(self.path.name + ".partial")
        self.digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        self.texts = self.rows = 0
        self._sizes = {"vectors": 0, "rows": 0}
        self._recover(what)

    def _recover(self, what: dict[str, Any]) -> None:
        """Go on where the journal says, and drop what was written after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        journal = self.folder / "journal.json"
        if journal.exists():
            state = json.loads(journal.read_text(encoding="utf-8"))
            if state["digest"] != self.digest:
                raise ValueError(
                    f"{self.folder} must be of the same command to go on with it; it is of another one "
                    f"({_differences(state['what'], what)}): give that one again, or delete the folder"
                )
            self.texts, self.rows, self._sizes = state["texts"], state["rows"], state["sizes"]
        self._what = json.loads(json.dumps(what, default=str))
        for name, size in self._sizes.items():
            with (self.folder / name).open("ab") as file:
                file.truncate(size)
        if not journal.exists():
            self._write_journal()

    def _write_journal(self) -> None:
        state = {
            "digest": self.digest,
            "what": self._what,
            "texts": self.texts,
            "rows": self.rows,
            "sizes": self._sizes,
        }
        with written_whole(self.folder / "journal.json") as temporary, temporary.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            to_disk(file)

    def add(self, texts: int, vectors: Vectors, rows: Iterable[Row]) -> None:
        """Add what was made of the next texts: their vectors (n, H), and what is known of each of these."""
        data = {"vectors": np.ascontiguousarray(vectors, dtype="<f4").tobytes()}
        data["rows"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        for name, content in data.items():
            with (self.folder / name).open("ab") as file:
                file.write(content)
                to_disk(file)
        self._sizes = {name: size + len(data[name]) for name, size in self._sizes.items()}
        self.texts += texts
        self.rows += len(vectors)
        self._write_journal()

    def finish(self) -> None:
        """Write the output, whole, and remove what was kept for it."""
        with written_whole(self.path) as temporary:
            WRITERS[self.kind](temporary, self)
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
    output: Output, paths: Sequence[str], text: str, compute: Callable[[list[str], int], tuple[Vectors, list[Row]]]
) -> Iterator[int]:
    """Compute what is missing of an output, block by block, and finish it.

    Args:
        output: what is made.
        paths, text: where the texts are; as for `read_rows`.
        compute: gives the vectors of texts, and what is to be kept of each vector; told the number of the first text.

    Yields:
        After each block, how many texts are done.
    """
    texts = islice((row for path in paths for row, _ in read_rows(path, text)), output.texts, None)
    while block := list(islice(texts, BLOCK)):
        vectors, rows = compute(block, output.texts)
        output.add(len(block), vectors, rows)
        yield output.texts
    output.finish()


def fingerprint(paths: Sequence[str]) -> list[Any]:
    """What tells files from others of the same names: sizes, and when they were written."""
    facts = []
    for path in paths:
        status = None if path == STDIN or not Path(path).exists() else Path(path).stat()
        facts.append([path, *([] if status is None else [status.st_size, status.st_mtime_ns])])
    return facts
