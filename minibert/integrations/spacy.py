"""spaCy: the pipe "minibert", after which the vectors of a Doc, of its spans and of its tokens are BERT's.

spaCy asks `doc.user_hooks` for vectors before it looks for its own. The hooks here read what the pipe has left in
`doc.user_data`, which are arrays, no model: so a Doc can be pickled, hooks and all, and written as bytes, after which
`attach` puts the hooks back.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.bert import Bert
from minibert.engine.engine import Pass, Plan, plan_layers
from minibert.engine.rows import RowMaker
from minibert.errors import MinibertError
from minibert.integrations import as_dtype, check_model, open_bert
from minibert.loading import load
from minibert.text import whole_number
from minibert.vectors.pooling import pool, pooling_modes
from minibert.vectors.words import PIECES, Words, align, split_texts, word_vectors

try:
    import srsly
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token
    from spacy.util import minibatch, raise_error
except ImportError:
    raise ImportError("minibert.integrations.spacy needs spaCy, which is not installed; pip install spacy") from None

KEY = ("._.", "minibert", None, None)  # where spaCy keeps what belongs to doc._.minibert
FOLDER = "model"  # of the component's own, where to_disk writes the checkpoint

# No postponed annotations here: spaCy reads those of the factory, and does not look their names up.


class DocVectors:
    """What BERT makes of a Doc; `doc._.minibert`.

    Attributes:
        vector: (dimension,) float32, what `Bert.encode` gives the text; also `doc.vector`.
        words: the tokens that spaCy had when the pipe ran, white space among them, as `minibert.Words`.
    """

    def __init__(self, data: dict[str, Any], text: str) -> None:
        self.vector: NDArray[np.float32] = data["vector"]
        pieces = list(data["pieces"])
        places = np.arange(len(pieces))
        aligned: Any = SimpleNamespace(spans=data["spans"], ids=places, members=places, counts=data["counts"])
        names: Any = SimpleNamespace(convert_ids_to_tokens=lambda ids: [pieces[place] for place in ids])
        self.words = Words(text, aligned, data["vectors"], names)

    def __repr__(self) -> str:
        return f"DocVectors(vector of {len(self.vector)}; {self.words!r})"


class MinibertPipe:
    """The component. Made by `nlp.add_pipe("minibert", config={"model": ...})`.

    The model is loaded for the first text, not before, since a pipeline that comes from the disk brings its own.

    Args:
        name: of the component, in its pipeline.
        model: a repository's name, or a folder.
        revision: the commit, branch or tag of a repository.
        layers, combine, pieces: what tokens' vectors are made of, as for `Bert.words`.
        pooling: how a Doc's vector is made, as for `Bert.encode`; None: as the checkpoint says.
        dtype: None for float32, "auto", "bfloat16" or another.
        device: as for `minibert.load`.
        batch_tokens: tokens computed at once.

    Raises:
        MinibertError: a setting that makes no sense.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        revision: Any = None,
        layers: Any = None,
        combine: Any = "mean",
        pieces: Any = "mean",
        pooling: Any = None,
        dtype: Any = None,
        device: Any = None,
        batch_tokens: Any = None,
    ) -> None:
        check_model(model)
        as_dtype(dtype)
        if pieces not in PIECES:
            raise MinibertError(f"pieces ({pieces!r}) must be one of {', '.join(PIECES)}")
        if combine not in ("mean", "sum", "concat"):
            raise MinibertError(f"combine ({combine!r}) must be 'mean', 'sum' or 'concat'")
        if pooling is not None:
            pooling_modes(pooling)
        if batch_tokens is not None:
            whole_number("batch_tokens", batch_tokens)
        self.name = name
        self._loading = {"model": model, "revision": revision, "dtype": dtype, "device": device}
        self._of_texts = {"pooling": pooling, "batch_tokens": batch_tokens}
        self._of_words = {"layers": layers, "combine": combine, "pieces": pieces, "batch_tokens": batch_tokens}
        self._bert: Bert | None = None
        self._seen: dict[str, bool] = {}
        self._error_handler: Callable[..., Any] = raise_error

    @property
    def bert(self) -> Bert:
        """The model, loaded now if it was not; another one can be put in its place."""
        if self._bert is None:
            self._bert = open_bert(**self._loading)
        return self._bert

    @bert.setter
    def bert(self, bert: Bert) -> None:
        self._bert, self._seen = bert, {}

    def __call__(self, doc: Doc) -> Doc:
        """Give one Doc its vectors."""
        self._annotate([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Give many Docs their vectors, `batch_size` of them at once.

        Raises:
            MinibertError: in a process that spaCy has started for `n_process`.
        """
        refuse_worker()
        for docs in minibatch(stream, batch_size):
            docs = list(docs)
            try:
                self._annotate(docs)
            except Exception as error:  # whatever it is: the handler that the user has set decides
                self._error_handler(self.name, self, docs, error)
            else:
                yield from docs

    def _annotate(self, docs: list[Doc]) -> None:
        """Compute vectors, and leave them where the hooks find them."""
        places = [[number for number, token in enumerate(doc) if self._has_pieces(token.text)] for doc in docs]
        spans = [[(token.idx, token.idx + len(token)) for token in doc] for doc in docs]
        visible = [[own[number] for number in numbers] for own, numbers in zip(spans, places, strict=True)]
        found, vectors = self._compute([doc.text for doc in docs], visible)
        for doc, vector, words, numbers, own in zip(docs, vectors, found, places, spans, strict=True):
            pieces = words.pieces
            counts = np.zeros(len(own), dtype=np.int64)
            counts[numbers] = [len(some) for some in pieces]
            whole = np.zeros((len(own), words.vectors.shape[1]), dtype=np.float32)
            whole[numbers] = words.vectors
            doc.user_data[KEY] = {
                "vector": vector.copy(),  # not a view, which would keep those of all neighbours in memory
                "vectors": whole,
                "spans": np.array(own, dtype=np.int64).reshape(-1, 2),
                "counts": counts,
                "pieces": [piece for some in pieces for piece in some],
                "length": len(doc.text),
            }
            attach(doc)

    def _compute(self, texts: list[str], spans: list[list[tuple[int, int]]]) -> tuple[list[Words], NDArray[np.float32]]:
        """What `Bert.words` and `Bert.encode` give, in one pass where both want the same hidden states."""
        bert, batch_tokens = self.bert, self._of_texts["batch_tokens"]
        last = len(bert.layers)
        layers = plan_layers(self._of_words["layers"], self._of_words["combine"], last)
        if layers not in ((), (last,)) or self._of_texts["pooling"] or bert.recipe.prompt or bert.recipe.refusal:
            found = bert.words(texts, spans=spans, truncation="window", show_progress_bar=False, **self._of_words)
            return found, bert.encode(texts, truncation="window", show_progress_bar=False, **self._of_texts)
        row_maker = RowMaker(bert.tokenizer, bert.max_seq_length, "window")
        _, places = split_texts(texts, 0, "pretokenizer", spans)
        aligned, rows = align(bert.tokenizer, texts, places, row_maker)
        plan, modes = Plan(most_tokens=batch_tokens), bert.recipe.pooling
        pooled = torch.empty(len(rows.ids), bert.engine.width() * len(modes), dtype=torch.float32, device="cpu")

        def pool_too(found: Pass) -> None:
            pooled[found.indices] = pool(found.states, found.groups, modes)[: len(found.indices)].cpu()

        pieces = self._of_words["pieces"]
        found = word_vectors(bert.engine, bert.tokenizer, texts, aligned, rows, plan, pieces, seen=pool_too)
        numbers = np.array(rows.texts)
        firsts = np.searchsorted(numbers, np.arange(len(texts)))  # the row of each text, or the first of its windows
        vectors = bert.recipe.finish(pooled[firsts])[:, : bert.dimension].numpy()
        long = np.flatnonzero(np.bincount(numbers, minlength=len(texts)) > 1).tolist()
        if long:  # their windows are weighted and averaged there
            several = [texts[number] for number in long]
            vectors[long] = bert.encode(
                several, truncation="window", show_progress_bar=False, batch_tokens=batch_tokens
            )
        return found, vectors

    def _has_pieces(self, text: str) -> bool:
        """Whether a token is something to BERT: white space, control characters and the like are not."""
        if text.isascii() and text.isprintable():
            return not text.isspace()  # and text != ""
        if text not in self._seen:
            self._seen[text] = bool(self.bert.tokenizer.tokenize(text))
        return self._seen[text]

    def set_error_handler(self, error_handler: Callable[..., Any]) -> None:
        """What to do with Docs that cannot be computed; spaCy calls this for the whole pipeline."""
        self._error_handler = error_handler

    def get_error_handler(self) -> Callable[..., Any]:
        """What is done with Docs that cannot be computed."""
        return self._error_handler

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the checkpoint into a folder, unless "model" is excluded."""
        if FOLDER not in exclude:
            self.bert.save_pretrained(Path(path) / FOLDER)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Load the checkpoint that `to_disk` wrote; without one, the pipe keeps the name it has."""
        folder = Path(path) / FOLDER
        if FOLDER not in exclude and folder.is_dir():
            self.bert = load(folder, dtype=as_dtype(self._loading["dtype"]), device=self._loading["device"])
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The checkpoint's files, as one piece, unless "model" is excluded."""
        with TemporaryDirectory() as folder:
            self.to_disk(folder, exclude=exclude)
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file()
            }
        packed: bytes = srsly.msgpack_dumps(files)
        return packed

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Load the checkpoint that `to_bytes` packed."""
        with TemporaryDirectory() as folder:
            for name, content in srsly.msgpack_loads(data).items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.from_disk(folder, exclude=exclude)
        return self


def refuse_worker() -> None:
    """Refuse to run where spaCy was asked for several processes.

    Their Docs come back as bytes, without hooks: `doc.vector` would, in silence, be another one.

    Raises:
        MinibertError: that is so.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_apply_pipes" and frame.f_globals.get("__name__") == "spacy.language":
            raise MinibertError(
                "n_process (2 or more) must not be used with the pipe 'minibert', whose vectors do not come back from "
                "other processes; leave n_process out: one process uses all cores"
            )
        frame = frame.f_back


def attach(doc: Doc) -> Doc:
    """Put the hooks on a Doc that has vectors in its user_data, as one that comes from bytes or a DocBin.

    Raises:
        MinibertError: it has none, or those of another text.
    """
    vectors_of(doc)
    doc.user_hooks.update(HOOKS, vector=doc_vector)
    doc.user_span_hooks.update(HOOKS, vector=span_vector)
    doc.user_span_hooks.pop("vector_norm")  # where it is, spaCy 3 calls the hook "vector"; its own norm is right
    doc.user_token_hooks.update(HOOKS, vector=token_vector)
    return doc


def has_vectors(doc: Doc) -> bool:
    """Whether a Doc has vectors of its own text; that of `span.as_doc()` has its parent's, or none."""
    data = doc.user_data.get(KEY)
    end = doc[-1].idx + len(doc[-1].text_with_ws) if len(doc) else 0
    return data is not None and data["length"] == end


def vectors_of(doc: Doc) -> dict[str, Any]:
    """What the pipe has left in a Doc.

    Raises:
        MinibertError: nothing, or it belongs to another text.
    """
    if not has_vectors(doc):
        raise MinibertError(
            f"the Doc ({doc.text!r:.40}) must have vectors of minibert; pass it through the pipe: "
            "doc = nlp.get_pipe('minibert')(doc)"
        )
    data: dict[str, Any] = doc.user_data[KEY]
    return data


def mean_of(doc: Doc, start: int, end: int) -> NDArray[np.float32]:
    """The mean of the tokens' vectors between two places of the text, of those that have one.

    The places are looked up since tokens may have been merged or split after the pipe.
    """
    data = vectors_of(doc)
    spans, vectors = data["spans"], data["vectors"]
    first = np.searchsorted(spans[:, 1], start, side="right")
    last = np.searchsorted(spans[:, 0], end, side="left")
    some = vectors[first:last][data["counts"][first:last] > 0]
    mean: NDArray[np.float32] = some.mean(0) if len(some) else np.zeros(vectors.shape[1], dtype=np.float32)
    return mean


def doc_vector(doc: Doc) -> NDArray[np.float32]:
    """`doc.vector`: the sentence vector."""
    vector: NDArray[np.float32] = vectors_of(doc)["vector"]
    return vector


def span_vector(span: Span) -> NDArray[np.float32]:
    """`span.vector`: the mean of its tokens'."""
    return mean_of(span.doc, span.start_char, span.end_char)


def token_vector(token: Token) -> NDArray[np.float32]:
    """`token.vector`: what its pieces give; zeros for white space and for what BERT drops."""
    return mean_of(token.doc, token.idx, token.idx + len(token))


def has_vector(one: Doc | Span | Token) -> bool:
    """Whether a vector is not all zeros."""
    doc = one if isinstance(one, Doc) else one.doc
    return has_vectors(doc) and bool(one.vector.any())


def vector_norm(one: Doc | Span | Token) -> float:
    """The length of a vector."""
    return float(np.linalg.norm(one.vector))


def similarity(one: Doc | Span | Token, other: Any) -> float:
    """The cosine of two vectors; 0 where one is all zeros.

    Raises:
        MinibertError: what has no vector, or one of another length.
    """
    a, b = one.vector, getattr(other, "vector", None)
    if b is None:
        raise MinibertError(f"other ({other!r:.40}) must be a Doc, Span, Token or Lexeme; pass nlp(text) for a text")
    if a.shape != b.shape:
        raise MinibertError(
            f"the vectors ({len(a)} and {len(b)} numbers) must be as long as each other; compare what went through one "
            "pipe, and texts with texts where combine='concat' makes tokens' vectors longer"
        )
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a, b)) / lengths if lengths else 0.0


def results_of(doc: Doc) -> DocVectors | None:
    """`doc._.minibert`; None before the pipe has run."""
    return DocVectors(vectors_of(doc), doc.text) if has_vectors(doc) else None


def make_pipe(
    nlp: Language,
    name: str,
    model: Any,
    revision: Any,
    layers: Any,
    combine: Any,
    pieces: Any,
    pooling: Any,
    dtype: Any,
    device: Any,
    batch_tokens: Any,
) -> MinibertPipe:
    """Make a `MinibertPipe`; this is what `nlp.add_pipe("minibert")` calls."""
    return MinibertPipe(name, model, revision, layers, combine, pieces, pooling, dtype, device, batch_tokens)


HOOKS: dict[str, Callable[..., Any]] = {
    "has_vector": has_vector,
    "vector_norm": vector_norm,
    "similarity": similarity,
}
DEFAULTS = {
    "model": None,
    "revision": None,
    "layers": None,
    "combine": "mean",
    "pieces": "mean",
    "pooling": None,
    "dtype": None,
    "device": None,
    "batch_tokens": None,
}
Doc.set_extension("minibert", getter=results_of, force=True)
Language.factory(
    "minibert",
    default_config=DEFAULTS,
    assigns=["doc.vector", "token.vector", "doc._.minibert"],
    func=make_pipe,
)
