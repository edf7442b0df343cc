"""spaCy: the pipe "minibert" gives Docs, spans and tokens BERT's vectors.

spaCy asks `doc.user_hooks` for a vector before it looks for its own. The hooks here read the arrays that the pipe has
stored in `doc.user_data`. They hold no model, so a Doc can be pickled with its hooks. It can also be written as bytes;
`attach` puts the hooks back.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.base import PretrainedModel
from minibert.bert import Bert
from minibert.engine.engine import COMBINE
from minibert.errors import MinibertError
from minibert.integrations import check_dtype_name, check_model, open_bert
from minibert.loading import load
from minibert.tasks.annotate import Annotator
from minibert.tasks.classify import text_classifier
from minibert.tasks.entities import STRATEGIES, tagger_of
from minibert.text import check_choice, whole_number
from minibert.vectors.pooling import pooling_modes
from minibert.vectors.sentences import SentenceEncoder
from minibert.vectors.words import PIECES, WordEncoder, Words

try:
    import srsly
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token
    from spacy.util import filter_spans, minibatch, raise_error
except ImportError:
    raise ImportError("minibert.integrations.spacy needs spaCy, which is not installed; pip install spacy") from None

KEY = ("._.", "minibert", None, None)  # where spaCy keeps doc._.minibert
FOLDER = "model"  # of the component, where to_disk writes the checkpoint

# No postponed annotations here: spaCy reads those of the factory without looking up their names.


class DocVectors:
    """BERT's vectors for a Doc; `doc._.minibert`.

    Attributes:
        vector: (dimension,) float32, the vector of the text by `Bert.encode`; also `doc.vector`.
        words: the tokens that the Doc had when the pipe ran, with white space, as `minibert.Words`.
    """

    def __init__(self, data: dict[str, Any], text: str) -> None:
        self.vector: NDArray[np.float32] = data["vector"]
        self.words = Words(text, data["spans"], data["counts"], list(data["pieces"]), data["vectors"])

    def __repr__(self) -> str:
        return f"DocVectors(vector of {len(self.vector)}; {self.words!r})"


class MinibertPipe:
    """The component. Made by `nlp.add_pipe("minibert", config={"model": ...})`.

    The model is loaded for the first text, because a pipeline loaded from disk brings its own.

    Args:
        name: the component's name in the pipeline.
        model: a repository's name, or a folder.
        revision: the commit, branch or tag of a repository.
        layers, combine, pieces: how tokens' vectors are made, as for `Bert.words`.
        pooling: how a Doc's vector is made, as for `Bert.encode`; None does what the checkpoint says.
        dtype: None for float32, or "auto", "bfloat16" or another.
        device: as for `minibert.load`.
        batch_tokens: the most tokens computed at once.
        entities: a strategy of `Bert.entities`, to add to `doc.ents`, which needs a tagger; entities that an earlier
            component found stay, and win. None leaves `doc.ents` as it is.
        cats: whether to set `doc.cats` to the labels of `Bert.classify`, which needs a classifier of texts.

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
        entities: Any = None,
        cats: Any = False,
    ) -> None:
        check_model(model)
        check_dtype_name(dtype)
        if pieces not in PIECES:
            raise MinibertError(f"pieces ({pieces!r}) must be one of {', '.join(PIECES)}")
        check_choice("combine", combine, COMBINE)
        if pooling is not None:
            pooling_modes(pooling)
        if batch_tokens is not None:
            whole_number("batch_tokens", batch_tokens)
        if entities is not None:
            check_choice("entities", entities, STRATEGIES)
        if not isinstance(cats, bool):
            raise MinibertError(f"cats ({cats!r}) must be True or False; with True, the pipe sets doc.cats")
        self.name, self._entities, self._cats = name, entities, cats
        self._loading = {"model": model, "revision": revision, "dtype": dtype, "device": device}
        self._pieces, self._pooling = pieces, pooling
        self._layers, self._combine, self._batch_tokens = layers, combine, batch_tokens
        self._bert: Bert | None = None
        self._error_handler: Callable[..., Any] = raise_error

    @property
    def bert(self) -> Bert:
        """The model, loaded on first use; assign another one to replace it."""
        if self._bert is None:
            self._bert = open_bert(**self._loading)
        return self._bert

    @bert.setter
    def bert(self, bert: Bert) -> None:
        self._bert = bert

    def __call__(self, doc: Doc) -> Doc:
        """Give one Doc its vectors."""
        self._annotate([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Give many Docs their vectors, `batch_size` at a time.

        Raises:
            MinibertError: spaCy was asked for several processes.
        """
        refuse_worker()
        for docs in minibatch(stream, batch_size):
            docs = list(docs)
            try:
                self._annotate(docs)
            except Exception as error:  # the user's handler decides, whatever the error is
                self._error_handler(self.name, self, docs, error)
            else:
                yield from docs

    def _annotate(self, docs: list[Doc]) -> None:
        """Compute vectors, and store them where the hooks find them; set entities and labels."""
        spans = [[(token.idx, token.idx + len(token)) for token in doc] for doc in docs]
        annotated = self._annotator()([doc.text for doc in docs], spans)
        for doc, own, (vector, words, entities, labels) in zip(docs, spans, annotated, strict=True):
            pieces = words.pieces
            doc.user_data[KEY] = {
                "vector": vector.copy(),  # a view would keep the vectors of all Docs in memory
                "vectors": words.vectors.copy(),
                "spans": np.array(own, dtype=np.int64).reshape(-1, 2),
                "counts": np.array([len(some) for some in pieces], dtype=np.int64),
                "pieces": [piece for some in pieces for piece in some],
                "length": len(doc.text),
            }
            attach(doc)
            if entities is not None:  # whole tokens; of spans that share a token, the longest stays
                found = [doc.char_span(one.start, one.end, one.label, alignment_mode="expand") for one in entities]
                free = [span for span in found if span and not any(token.ent_type_ for token in span)]
                doc.ents = (*doc.ents, *filter_spans(free))  # earlier ones stay, as with spaCy's own tagger
            if labels is not None:
                doc.cats.update(labels)

    def _annotator(self) -> Annotator:
        """What `Bert.annotate` uses, with the pipe's settings; long texts are computed in windows."""
        bert = self.bert
        engine = bert.engine
        model: PretrainedModel = bert.encoder  # without a head
        if self._entities is not None:
            model = tagger_of(bert.model, bert.source)
        if self._cats:
            model = text_classifier(bert.model, bert.source)
        words = WordEncoder(
            engine,
            bert.tokenizer,
            bert.max_seq_length,
            plan=engine.plan(self._layers, self._combine, self._batch_tokens),
            pieces=self._pieces,
            truncation="window",
        )
        sentences = SentenceEncoder(
            engine,
            bert.tokenizer,
            bert.recipe,
            bert.max_seq_length,
            plan=engine.plan(most_tokens=self._batch_tokens),
            pooling=self._pooling,
            prompt=bert.recipe.prompt,
            truncation="window",
        )
        return Annotator(words, sentences, model, self._entities or "simple")

    def set_error_handler(self, error_handler: Callable[..., Any]) -> None:
        """Set the handler of Docs that fail; spaCy calls this for the whole pipeline."""
        self._error_handler = error_handler

    def get_error_handler(self) -> Callable[..., Any]:
        """The handler of Docs that fail."""
        return self._error_handler

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the checkpoint to a folder, unless "model" is excluded."""
        if FOLDER not in exclude:
            self.bert.save_pretrained(Path(path) / FOLDER)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Load the checkpoint that `to_disk` wrote; without one, the pipe keeps its model's name."""
        folder = Path(path) / FOLDER
        if FOLDER not in exclude and folder.is_dir():
            self.bert = load(folder, dtype=self._loading["dtype"], device=self._loading["device"])
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The checkpoint's files packed as bytes, unless "model" is excluded."""
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
    """Reject spaCy's `n_process`: Docs return from other processes without hooks, so `doc.vector` would be wrong.

    Raises:
        MinibertError: this is such a process.
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
    """Add the hooks to a Doc with vectors in its user_data, such as one from bytes or a DocBin.

    Raises:
        MinibertError: it has no vectors, or those of another text.
    """
    vectors_of(doc)
    doc.user_hooks.update(HOOKS, vector=doc_vector)
    doc.user_span_hooks.update(HOOKS, vector=span_vector)
    doc.user_span_hooks.pop("vector_norm")  # if present, spaCy 3 calls the hook "vector" instead; its own norm is right
    doc.user_token_hooks.update(HOOKS, vector=token_vector)
    return doc


def has_vectors(doc: Doc) -> bool:
    """Whether a Doc has vectors of its own text; `span.as_doc()` has its parent's, or none."""
    data = doc.user_data.get(KEY)
    end = doc[-1].idx + len(doc[-1].text_with_ws) if len(doc) else 0
    return data is not None and data["length"] == end


def vectors_of(doc: Doc) -> dict[str, Any]:
    """What the pipe stored in a Doc.

    Raises:
        MinibertError: nothing is stored, or it belongs to another text.
    """
    if not has_vectors(doc):
        raise MinibertError(
            f"the Doc ({doc.text!r:.40}) must have vectors of minibert; pass it through the pipe: "
            "doc = nlp.get_pipe('minibert')(doc)"
        )
    data: dict[str, Any] = doc.user_data[KEY]
    return data


def mean_of(doc: Doc, start: int, end: int) -> NDArray[np.float32]:
    """The mean of the tokens' vectors between two places in the text, without tokens that have none.

    Tokens may have been merged or split after the pipe ran, so they are found by their place in the text.
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
    """`span.vector`: the mean of its tokens' vectors."""
    return mean_of(span.doc, span.start_char, span.end_char)


def token_vector(token: Token) -> NDArray[np.float32]:
    """`token.vector`: from its pieces; zeros for white space and for what BERT drops."""
    return mean_of(token.doc, token.idx, token.idx + len(token))


def has_vector(one: Doc | Span | Token) -> bool:
    """Whether the vector has a number other than zero."""
    doc = one if isinstance(one, Doc) else one.doc
    return has_vectors(doc) and bool(one.vector.any())


def vector_norm(one: Doc | Span | Token) -> float:
    """The length of a vector."""
    return float(np.linalg.norm(one.vector))


def similarity(one: Doc | Span | Token, other: Any) -> float:
    """The cosine of two vectors; 0 if one of them is all zeros.

    Raises:
        MinibertError: `other` has no vector, or one of another length.
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
    """`doc._.minibert`; None before the pipe ran."""
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
    entities: Any,
    cats: Any,
) -> MinibertPipe:
    """Make a `MinibertPipe`, for `nlp.add_pipe("minibert")`."""
    return MinibertPipe(
        name, model, revision, layers, combine, pieces, pooling, dtype, device, batch_tokens, entities, cats
    )


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
    "entities": None,
    "cats": False,
}
Doc.set_extension("minibert", getter=results_of, force=True)
Language.factory(
    "minibert",
    default_config=DEFAULTS,
    assigns=["doc.vector", "token.vector", "doc._.minibert"],
    func=make_pipe,
)
