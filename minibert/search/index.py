"""Search by meaning: an index of texts and their vectors, searched exactly, in blocks, and saved in a folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import Any, NamedTuple, overload
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minibert.bert import Bert
from minibert.errors import MinibertError
from minibert.pretrained.files import locked, path_to_disk, safetensors_header, sha256_of, to_disk, written_whole
from minibert.pretrained.source import Source
from minibert.records import parsed_json
from minibert.text import check_text, several, whole_number
from minibert.vectors.fingerprint import fingerprint
from minibert.vectors.similarity import ALL_PAIRS, LONGEST, as_vectors, check_lengths, check_plain, unit_vectors

FORMAT = 2  # 1 used another digest of the model
MANIFEST = "manifest.json"
LOCK = ".index.lock"
# Vectors and queries per matrix product: at most 8 MB of scores. Smaller blocks fit the caches better but cost more, as
# the threads wait for one another at the end of each product.
BLOCK = 16_384
QUERIES = 128
EXACTLY = 2_048  # pairs of vectors compared in float64 at once
WIDER = 32  # times as many vectors in a product as are wanted
MANY = 40  # if one pair in so many is a candidate, a product in float64 is faster than the pairs one by one

EXACT: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "cosine": lambda a, b: np.clip((a * b).sum(-1), -1, 1),  # of unit vectors, whose lengths are rounded
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum(-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(-1),
}


Vectors = NDArray[np.float32]


class Hit(NamedTuple):
    """A search result.

    Attributes:
        score: the similarity of query and text; higher is better.
        text: the text.
        data: the value added with the text.
        number: the position of the text in the order of addition.
    """

    score: float
    text: str
    data: Any
    number: int


@dataclass(frozen=True)
class Contents:
    """An immutable snapshot of an index. Adding creates a new one; a reader keeps the one it started with.

    Attributes:
        blocks: (n, H) float32 each; unit vectors if the similarity is cosine.
        rows: the texts and data of each block.
        mapped: how many blocks are memory-mapped files. They come first.
    """

    blocks: tuple[Tensor, ...] = ()
    rows: tuple[Rows, ...] = ()
    mapped: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def row(self, number: int) -> tuple[str, Any]:
        """The text of that number, and what was added with it; negative numbers count from the end."""
        place = number + len(self) if number < 0 else number
        if place >= 0:
            for rows in self.rows:
                if place < len(rows):
                    return rows[place]
                place -= len(rows)
        raise IndexError(f"number ({number}) must be at least {-len(self)} and less than {len(self)}")

    def appended(self, block: Tensor, rows: Rows) -> Contents:
        """A snapshot with one more block, merged with the last blocks that are no larger, which keeps blocks few.

        Mapped blocks are never merged.
        """
        blocks, kept = list(self.blocks), list(self.rows)
        while len(blocks) > self.mapped and len(blocks[-1]) <= len(block):
            block, rows = torch.cat([blocks.pop(), block]), kept.pop().joined(rows)
        return Contents((*blocks, block), (*kept, rows), self.mapped)

    def joined(self) -> Contents:
        """The same contents as one block."""
        if len(self.blocks) < 2:
            return self
        rows = self.rows[0]
        for more in self.rows[1:]:
            rows = rows.joined(more)
        return Contents((torch.cat(self.blocks),), (rows,))


class Index:
    """An index of texts, optional data for each, and their vectors. Create one and add texts, or use `Index.load`.

    An index is thread-safe: several threads may add, search, read and save at the same time. The texts of one `add`
    stay together, and a search sees all of them or none.

    Args:
        bert: encodes texts with `encode_document` and queries with `encode_query`, which apply their prompts.
    """

    def __init__(self, bert: Bert) -> None:
        self.bert = bert
        self._contents = Contents()
        self._lock = Lock()  # held while `_contents` is replaced; readers do not need it

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles: everything except the lock."""
        return {**vars(self), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undo `__getstate__`."""
        vars(self).update(state, _lock=Lock())

    def __len__(self) -> int:
        return len(self._contents)

    def __repr__(self) -> str:
        return f"Index({len(self):,} texts, vectors of {self.bert.dimension}, {self.bert.source})"

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(N, H) float32, read-only; unit vectors if the similarity is cosine."""
        contents = self.snapshot()
        view = contents.blocks[0].numpy().view() if len(contents) else np.empty((0, self.bert.dimension), np.float32)
        view.flags.writeable = False
        return view

    def snapshot(self) -> Contents:
        """The contents as they are now, in one block; what is added later does not change them."""
        with self._lock:
            self._contents = contents = self._contents.joined()
        return contents

    @property
    def texts(self) -> list[str]:
        """All texts, in the order of addition; `index[number]` reads one."""
        return [text for rows in self._contents.rows for text, _ in map(rows.__getitem__, range(len(rows)))]

    def add(self, texts: Iterable[str], data: Iterable[Any] | None = None, **settings: Any) -> None:
        """Add texts.

        Args:
            texts: any number of texts.
            data: a JSON value for each text, for example an answer, an address, or an object.
            settings: keyword arguments of `Bert.encode`.

        Raises:
            MinibertError: an item is not a string, the lengths differ, or a value is not JSON. Nothing is added then.
        """
        texts = several("texts", texts)
        check_text(texts)
        data = None if data is None else several("data", data)
        self.add_vectors(self.bert.encode_document(texts, **settings), texts, data)

    def add_vectors(self, vectors: Any, texts: Iterable[str], data: Iterable[Any] | None = None) -> None:
        """Add texts whose vectors (N, H) the same model computed elsewhere.

        Raises:
            MinibertError: as for `add`; or the vectors have another shape or are rejected by `as_vectors` or
                `check_lengths`.
        """
        texts = several("texts", texts)
        values = [None] * len(texts) if data is None else several("data", data)
        check_text(texts)
        if len(values) != len(texts):
            raise MinibertError(
                f"data ({len(values)} values) must have one value per text ({len(texts)}); use None for no data"
            )
        rows = Rows.of(texts, values)
        block = self._comparable(vectors, len(texts))
        if len(block):
            with self._lock:
                self._contents = self._contents.appended(block, rows)

    def _comparable(self, vectors: Any, count: int | None = None) -> Tensor:
        """A copy of the vectors (N, H), in the form in which they are stored and compared.

        Args:
            vectors: of texts or of queries.
            count: the number of texts; None for queries.

        Raises:
            MinibertError: the vectors have another shape, or `as_vectors`, `check_plain` or `check_lengths` rejects
                them.
        """
        check_plain(vectors)
        values = as_vectors(vectors).detach().cpu()
        if values.shape != (len(values) if count is None and values.ndim else count, self.bert.dimension):
            wanted = f"(Q, {self.bert.dimension})" if count is None else f"({count}, {self.bert.dimension})"
            raise MinibertError(
                f"vectors {tuple(values.shape)} must be {wanted}, one for each {'query' if count is None else 'text'}"
            )
        if self._kind == "cosine":
            return unit_vectors(values)
        check_lengths(values, self._kind)
        return values.clone()

    @property
    def _kind(self) -> str:
        return str(self.bert.recipe.similarity)

    # Search

    @overload
    def search(self, queries: str, top_k: int = 10, **settings: Any) -> list[Hit]: ...

    @overload
    def search(self, queries: Sequence[str], top_k: int = 10, **settings: Any) -> list[list[Hit]]: ...

    def search(self, queries: str | Sequence[str], top_k: int = 10, **settings: Any) -> list[Hit] | list[list[Hit]]:
        """Find the texts most similar to a query.

        Args:
            queries: one query or several.
            top_k: the number of hits per query; all texts if there are fewer.
            settings: keyword arguments of `Bert.encode`.

        Returns:
            A list of hits, best first; ties go to the text added first. For several queries, a list of such lists.

        Raises:
            MinibertError: a query is not a string, or `top_k` is below 1.
        """
        single = isinstance(queries, str)
        several = [queries] if isinstance(queries, str) else list(queries)
        check_text(several)
        top_k = whole_number("top_k", top_k)
        vectors = self._comparable(self.bert.encode_query(several, **settings))
        contents = self._contents  # one snapshot for scores and texts, even if texts are added meanwhile
        scores, numbers = self._nearest(contents, vectors, top_k)
        hits = [
            [Hit(score, *contents.row(number), number) for score, number in zip(*row, strict=True)]
            for row in zip(scores.tolist(), numbers.tolist(), strict=True)
        ]
        return hits[0] if single else hits

    def __getitem__(self, number: int) -> tuple[str, Any]:
        """The text of that number, and what was added with it; negative numbers count from the end."""
        return self._contents.row(number)

    def search_vectors(self, vectors: Any, top_k: int = 10) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Like `search`, for query vectors (Q, H). Returns scores (Q, k) and numbers (Q, k).

        A score does not depend on the other queries and texts: see `nearest`.

        Raises:
            MinibertError: as for `search`; or the vectors have another shape or are rejected by `as_vectors` or
                `check_lengths`.
        """
        return self._nearest(self._contents, self._comparable(vectors), whole_number("top_k", top_k))

    def _nearest(
        self, contents: Contents, queries: Tensor, top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return nearest(contents.blocks, queries, top_k, self._kind)

    def approximate(self, **settings: Any) -> Approximate:
        """Build an approximate index: faster, but it misses some of the best texts. Worthwhile from a million texts.

        Args:
            settings: keyword arguments of `usearch.index.Index`.

        Raises:
            ImportError: usearch is not installed.
        """
        return Approximate(self, settings)

    # Files

    def save(self, folder: str | Path) -> None:
        """Save the index to a folder: its vectors, its texts, and a manifest that names these files and the model.

        The manifest is written last and replaces the old one atomically. An interrupted save leaves the old index or
        the new one, complete. Threads and processes that save to the same folder take turns, and the last one wins.

        Raises:
            MinibertError: the folder contains something other than an index.
        """
        folder, description = Path(folder), described(self.bert)
        others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if others and MANIFEST not in others and not all(name == LOCK or OURS.fullmatch(name) for name in others):
            raise MinibertError(
                f"the folder ({folder}) must be empty or hold an index, but it holds {others[0]}; choose another"
            )
        with locked(folder / LOCK, f"the index ({folder}) is being saved", wait=True):
            _write(self._contents, folder, description)  # the contents of now, not of when the wait began

    @classmethod
    def load(cls, folder: str | Path, bert: Bert) -> Index:
        """Load an index. Vectors and texts are validated once and memory-mapped; a text is parsed when it is a hit.

        If another process is saving, this loads the old index or the new one.

        Raises:
            FileNotFoundError: the folder has no index.
            MinibertError: the index was made with another model or another version, or its files are incomplete or
                invalid.
        """
        folder = Path(folder)
        manifest, ours = read_manifest(folder), described(bert)
        while True:
            different = [name for name in ours if name != "model" and manifest.get(name) != ours[name]]
            if different:
                raise MinibertError(
                    f"the model ({bert.source}) must be the one that made the index ({folder}), {_named(manifest)}; "
                    f"they differ in {', '.join(different)}: load that model, or rebuild the index"
                )
            try:
                contents = _mapped(folder, manifest, bert)
            except (OSError, ValueError):
                old, manifest = manifest, read_manifest(folder)
                if manifest["files"]["vectors"]["name"] == old["files"]["vectors"]["name"]:
                    raise
                continue  # another save has deleted the files of the old manifest
            index = cls(bert)
            index._contents = contents
            return index


OURS = re.compile(r"vectors-\w{8}\.safetensors|texts-\w{8}\.jsonl|\.manifest\.json\.\w+")


def _write(contents: Contents, folder: Path, description: dict[str, Any]) -> None:
    """Write an index to a locked folder, and delete the files of older ones."""
    version = uuid4().hex[:8]
    names = {"vectors": f"vectors-{version}.safetensors", "texts": f"texts-{version}.jsonl"}
    digest = hashlib.sha256()
    with (folder / names["vectors"]).open("wb") as file:
        file.write(safetensors_header({"vectors": ("F32", [len(contents), description["dimensions"]])}))
        for block in contents.blocks:
            for part in torch.split(block, BLOCK):
                file.write(part.numpy().astype("<f4").tobytes())
        to_disk(file)
    with (folder / names["texts"]).open("wb") as file:
        for rows in contents.rows:
            for lines in rows.lines():
                digest.update(lines)
                file.write(lines)
        to_disk(file)
    path_to_disk(folder)  # before the manifest, which names these files
    manifest = {
        "format": FORMAT,
        "files": {kind: {"name": name, "bytes": (folder / name).stat().st_size} for kind, name in names.items()},
        "texts": len(contents),
        "texts_sha256": digest.hexdigest(),
        **description,
    }
    with written_whole(folder / MANIFEST) as temporary, temporary.open("w", encoding="utf-8") as text_file:
        text_file.write(json.dumps(manifest, indent=2) + "\n")
        to_disk(text_file)
    path_to_disk(folder)  # before the files of the old manifest are deleted
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in names.values():
            with suppress(PermissionError):  # Windows does not delete a mapped file; a later save will
                path.unlink()  # on other systems, existing maps of it stay valid


def _mapped(folder: Path, manifest: dict[str, Any], bert: Bert) -> Contents:
    """Validate the files of an index and memory-map them.

    This reads all vectors and takes about as long as two searches.

    Raises:
        MinibertError: a file is incomplete, or holds something that this library would not have written.
    """
    for part in manifest["files"].values():
        path = folder / part["name"]
        there = path.stat().st_size if path.is_file() else 0
        if there != part["bytes"]:
            raise MinibertError(
                f"{path.name} of the index ({folder}, {there} bytes) must have {part['bytes']} bytes; copy it again"
            )
    paths = {kind: folder / part["name"] for kind, part in manifest["files"].items()}
    wanted = [manifest["texts"], bert.dimension]
    try:
        with safe_open(paths["vectors"], framework="pt") as file:
            vectors = file.get_slice("vectors")
            found = [vectors.get_dtype(), *vectors.get_shape()]
            if found != ["F32", *wanted]:
                raise MinibertError(
                    f"the vectors of the index ({folder}, {found}) must be {['F32', *wanted]}; rebuild the index"
                )
            block = file.get_tensor("vectors")
    except (SafetensorError, RuntimeError) as error:  # RuntimeError is torch's, which opens the file again to map it
        raise MinibertError(
            f"{paths['vectors']} must be a safetensors file with vectors ({error}); rebuild the index"
        ) from None
    if not manifest["texts"]:
        return Contents()
    _check_file(paths["vectors"], wanted[1], str(bert.recipe.similarity))
    expected = manifest.get("texts_sha256")  # absent in older indexes
    if expected is not None and sha256_of(paths["texts"]) != expected:
        raise MinibertError(
            f"{paths['texts']} must be as it was saved; it has changed: copy it again, or rebuild the index"
        )
    rows = Rows.open(paths["texts"])
    if len(rows) != manifest["texts"]:
        raise MinibertError(
            f"the index ({folder}) must hold {manifest['texts']} texts, but it holds {len(rows)}; rebuild it"
        )
    return Contents((block,), (rows,), mapped=1)


def _check_file(path: Path, dimension: int, kind: str) -> None:
    """Reject vectors that `Index.add_vectors` would not have stored.

    The file is read in parts, not mapped, which keeps the resident memory small.
    """
    first = 0
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while len(part := np.fromfile(file, "<f4", BLOCK * dimension)):
            part = part.reshape(-1, dimension)
            lengths = np.sqrt(
                np.einsum("nh,nh->n", part, part)
            )  # numpy: torch would start threads, which forbids a later fork
            right = (np.abs(lengths - 1) < 1e-4) | (lengths == 0) if kind == "cosine" else lengths < LONGEST
            if not right.all():
                place = int(right.argmin())
                rule = "of length 1 or 0" if kind == "cosine" else f"finite and shorter than {LONGEST:.3g}"
                raise MinibertError(
                    f"vector {first + place} of {path} (length {float(lengths[place]):.4g}) must be {rule}; "
                    "rebuild the index"
                )
            first += len(lengths)


class Rows:
    """Texts and their data as lines of JSON. Rows of a file are read only when they are accessed."""

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._data, self._ends = data, ends

    @classmethod
    def of(cls, texts: Sequence[str], values: Sequence[Any]) -> Rows:
        """Rows in memory.

        Raises:
            MinibertError: a value is not JSON.
        """
        lines = []
        for number, (text, value) in enumerate(zip(texts, values, strict=True)):
            try:
                line = json.dumps({"text": text, "data": value}, ensure_ascii=False, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:  # ValueError includes a lone surrogate
                raise MinibertError(
                    f"data of text {number} ({value!r:.40}) must be a JSON value ({error}); convert it"
                ) from None
            lines.append(line + b"\n")
        ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        return cls(np.frombuffer(b"".join(lines), dtype=np.uint8), ends)

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Rows of a memory-mapped file."""
        data = np.memmap(path, dtype=np.uint8, mode="r")
        steps = range(0, len(data), 1 << 24)
        ends = [np.flatnonzero(data[start : start + (1 << 24)] == 10) + start + 1 for start in steps]
        return cls(data, np.concatenate(ends))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> tuple[str, Any]:
        start = self._ends[number - 1] if number else 0
        what = f"text {number} of the index"
        row = parsed_json(self._data[start : self._ends[number]].tobytes(), what, "rebuild it")
        try:
            return row["text"], row["data"]
        except (KeyError, TypeError):
            raise MinibertError(f"{what} must be an object with text and data; rebuild it") from None

    def joined(self, other: Rows) -> Rows:
        """These rows followed by the others."""
        ends = np.concatenate([self._ends, other._ends + len(self._data)])
        return Rows(np.concatenate([self._data, other._data]), ends)

    def lines(self) -> Iterable[bytes]:
        """All lines, in large chunks."""
        for start in range(0, len(self._data), 1 << 24):
            yield self._data[start : start + (1 << 24)].tobytes()


class Approximate:
    """The result of `Index.approximate`; it has the same `search`."""

    def __init__(self, index: Index, settings: dict[str, Any]) -> None:
        try:
            from usearch.index import Index as Graph
        except ImportError:
            raise ImportError("approximate search needs usearch, which is not installed; pip install usearch") from None
        metrics = {"cosine": "cos", "dot": "ip", "euclidean": "l2sq"}
        if index._kind not in metrics:
            raise MinibertError(
                f"similarity ({index._kind!r}) must be one of {', '.join(metrics)} for approximate search"
            )
        self.index = index
        self._contents = index._contents.joined()  # a snapshot: later additions are not in the graph
        self._graph = Graph(ndim=index.bert.dimension, metric=metrics[index._kind], dtype="f32", **settings)
        for vectors in self._contents.blocks:
            self._graph.add(np.arange(len(vectors)), vectors.numpy())

    @overload
    def search(self, queries: str, top_k: int = 10, **settings: Any) -> list[Hit]: ...

    @overload
    def search(self, queries: Sequence[str], top_k: int = 10, **settings: Any) -> list[list[Hit]]: ...

    def search(self, queries: str | Sequence[str], top_k: int = 10, **settings: Any) -> list[Hit] | list[list[Hit]]:
        """Like `Index.search`, with the same scores, but a text may be missed."""
        single = isinstance(queries, str)
        several = [queries] if isinstance(queries, str) else list(queries)
        check_text(several)
        whole_number("top_k", top_k)
        found = []
        for query in self.index._comparable(self.index.bert.encode_query(several, **settings)):
            hits: list[Hit] = []
            for vectors in self._contents.blocks:  # one, or none
                numbers = self._graph.search(query.numpy(), top_k).keys.astype(np.int64)
                owner = np.zeros(len(numbers), np.int64)
                scores = exact_scores(query[None].numpy(), vectors.numpy(), owner, numbers, self.index._kind)
                pairs = zip(scores.tolist(), numbers.tolist(), strict=True)
                hits = [Hit(score, *self._contents.row(number), number) for score, number in pairs]
            found.append(sorted(hits, key=lambda hit: (-hit.score, hit.number)))
        return found[0] if single else found


@torch.inference_mode()
def nearest(
    blocks: Sequence[Tensor], queries: Tensor, top_k: int, kind: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the vectors most similar to each query. The result is exact, although most of the work is in float32.

    One matrix product per block gives rough scores. A vector is a candidate unless its rough score is below the worst
    of the best so far by more than the rounding error of the product. The candidates are scored in float64. So a score
    is right to the last bit of float32, and equal vectors have equal scores, whatever their position.

    Args:
        blocks: (n, H) each.
        queries: (Q, H).
        top_k: the number of vectors per query; all if there are fewer.
        kind: a key of `PAIRWISE`; with "cosine", all vectors have length 1.

    Returns:
        Scores and numbers, (Q, k), best first; ties go to the lower number.
    """
    total = sum(map(len, blocks))
    count = min(top_k, total)
    # where many are wanted, a product has more vectors, so that most are no candidates, and fewer queries
    size = max(BLOCK, min(total, WIDER * count))
    best = Best(len(queries), count)
    for start in range(0, len(queries), step := max(8, QUERIES * BLOCK // size)):
        some = queries[start : start + step]
        lengths = torch.linalg.vector_norm(some, dim=1)
        first = 0
        for part in (part for block in blocks for part in torch.split(block, size)):
            scores, error = (found.numpy() for found in rough_scores(some, lengths, part, kind))
            worst = _as_rough(best.scores[start : start + step, -1], lengths.numpy(), kind) - error
            better = np.flatnonzero(scores.max(1) > worst)
            if len(better):  # numpy from here on: too few rows to be worth torch's threads
                scores, worst = scores[better], worst[better]
                if count < len(part):
                    kept = np.partition(scores, -count, axis=1)[:, -count]
                    worst = np.maximum(worst, kept - 2 * error[better])
                owners, places = np.divmod(np.flatnonzero(scores >= worst[:, None]), len(part))
                exact = exact_scores(some.numpy()[better], part.numpy(), owners, places, kind)
                best.add(better + start, owners, exact, places + first)
            first += len(part)
    return best.scores, best.numbers


def rough_scores(queries: Tensor, lengths: Tensor, part: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Rough scores (Q, n), higher is more similar, and a bound on their error, (Q,).

    For euclidean distances d the score is (|q|^2 - d^2) / 2 = qv - |v|^2 / 2: one product, and the same order.
    """
    unit = (queries.shape[1] + 8) * 2.0**-23  # twice the error of a sum of H float32 products and later steps
    if kind == "cosine":
        return queries @ part.T, unit * lengths
    norms = torch.linalg.vector_norm(part, dim=1)
    longest = norms.max()
    if kind == "manhattan":
        return ALL_PAIRS[kind](queries, part), unit * queries.shape[1] ** 0.5 * (lengths + longest)
    if kind == "euclidean":
        return torch.addmm(norms.square() / -2, queries, part.T), unit * (lengths + longest) ** 2
    return queries @ part.T, unit * lengths * longest


def _as_rough(scores: NDArray[Any], lengths: NDArray[Any], kind: str) -> NDArray[Any]:
    """Exact scores, converted to the scale of `rough_scores`."""
    return (lengths**2 - scores**2) / 2 if kind == "euclidean" else scores


def exact_scores(
    queries: Vectors, part: Vectors, owners: NDArray[np.int64], places: NDArray[np.int64], kind: str
) -> Vectors:
    """The scores of (query, vector) pairs, computed in float64."""
    if kind in ("cosine", "dot") and len(owners) * MANY > len(queries) * len(part):
        products = exact_products(queries, part)[owners, places]
        return np.clip(products, -1, 1) if kind == "cosine" else products
    scores = np.empty(len(owners), dtype=np.float32)
    for start in range(0, len(owners), EXACTLY):
        some = slice(start, start + EXACTLY)
        scores[some] = EXACT[kind](queries[owners[some]].astype(np.float64), part[places[some]].astype(np.float64))
    return scores


def exact_products(queries: Vectors, part: Vectors) -> Vectors:
    """The scalar products (Q, n) of all pairs, rounded to the same float32 as those of `EXACT`, and faster.

    A matrix product adds in another order, so its sums differ in the last bits of float64. Where that could round to
    another float32, the sum is computed as elsewhere.
    """
    scores = np.empty((len(queries), len(part)), dtype=np.float32)
    wide = queries.astype(np.float64)
    unit = queries.shape[1] * 2.0**-51 * np.linalg.norm(wide, axis=1)
    for start in range(0, len(part), EXACTLY):
        rows = part[start : start + EXACTLY].astype(np.float64)
        products, error = wide @ rows.T, np.outer(unit, np.linalg.norm(rows, axis=1))
        found = products.astype(np.float32)
        owners, places = np.nonzero((products - error).astype(np.float32) != (products + error).astype(np.float32))
        found[owners, places] = EXACT["dot"](wide[owners], rows[places])
        scores[:, start : start + EXACTLY] = found
    return scores


class Best:
    """The best scores of each query so far, (Q, k), and the numbers of their vectors."""

    def __init__(self, queries: int, count: int) -> None:
        self.count = count
        self.scores = np.full((queries, count), -np.inf, dtype=np.float32)
        self.numbers = np.full((queries, count), np.iinfo(np.int64).max)

    def add(
        self, queries: NDArray[np.int64], owners: NDArray[np.int64], scores: Vectors, numbers: NDArray[np.int64]
    ) -> None:
        """Merge in scores and the numbers of their vectors, which are higher than all before.

        Args:
            queries: which have new scores.
            owners: the index in `queries` of each score, in order, and in the order of the numbers.
        """
        ends = np.searchsorted(owners, np.arange(len(queries) + 1)).tolist()
        for query, start, end in zip(queries.tolist(), ends, ends[1:], strict=False):
            together = np.concatenate([self.scores[query], scores[start:end]])
            order = np.argsort(-together, kind="stable")[: self.count]  # so ties stay in the order of the numbers
            self.scores[query] = together[order]
            self.numbers[query] = np.concatenate([self.numbers[query], numbers[start:end]])[order]


def described(bert: Bert) -> dict[str, Any]:
    """What an index and the model that searches it must share, and the model's source."""
    recipe = bert.recipe
    return {
        "model": asdict(bert.source),
        "fingerprint": fingerprint(bert),
        "pooling": list(recipe.pooling),
        "normalize": recipe.normalize,
        "similarity": recipe.similarity,
        "dimensions": bert.dimension,
    }


def _named(manifest: dict[str, Any]) -> str:
    """The name of a manifest's model, for messages."""
    return str(Source(**manifest["model"]))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index.

    Raises:
        FileNotFoundError: there is none.
        MinibertError: it is invalid, or has another format version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"the index ({folder}) must be a folder with a {MANIFEST}; create one with Index.save")
    try:
        manifest = parsed_json(path.read_bytes(), str(path))
        version, parts = manifest["format"], manifest["files"]
        valid = version != FORMAT or (
            all(isinstance(value, (str, NoneType)) for value in vars(Source(**manifest["model"])).values())
            and parts.keys() == {"vectors", "texts"}
            and all(OURS.fullmatch(part["name"]) for part in parts.values())
            and all(
                isinstance(number, int) and number >= 0
                for number in (manifest["texts"], *(part["bytes"] for part in parts.values()))
            )
        )
    except (MinibertError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise MinibertError(f"the manifest of the index ({folder}) must be valid; rebuild the index")
    if version != FORMAT:
        raise MinibertError(
            f"the format of the index ({folder}, {version}) must be {FORMAT}; rebuild the index, or use the "
            "version of minibert that made it"
        )
    return manifest  # type: ignore[no-any-return]
