"""scikit-learn: texts in, vectors out, as a transformer like the others."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.bert import Bert
from minibert.engine.engine import Combine
from minibert.engine.rows import Truncation
from minibert.errors import MinibertError
from minibert.integrations import open_bert

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ImportError(
        "minibert.integrations.sklearn needs scikit-learn, which is not installed; pip install scikit-learn"
    ) from None


class BertVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Give each text its vector: `Bert.encode` as a step of a Pipeline.

    Nothing is learnt: `fit` loads the model and checks the settings. A fitted vectorizer that is pickled keeps the name
    of its model, which is loaded again where it is needed; a model that was given as a `Bert` goes along.

    Args:
        model: a repository's name, a folder, or a `Bert`, which clones share.
        revision: the commit, branch or tag of a repository.
        pooling, layers, combine, truncate_dim, truncation: as for `Bert.encode`.
        normalize: divide each vector by its length, if the checkpoint does not do so already.
        prompt_name, prompt: as for `Bert.encode`.
        batch_tokens: tokens computed at once.
        dtype: None for float32, "auto", "bfloat16" or another, as name or of torch.
        device: as for `minibert.load`.

    Attributes:
        bert_: the loaded `Bert`.
    """

    def __init__(
        self,
        model: Any = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        revision: str | None = None,
        pooling: str | Sequence[str] | None = None,
        layers: int | Sequence[int] | None = None,
        combine: Combine = "mean",
        normalize: bool = False,
        truncate_dim: int | None = None,
        truncation: Truncation = "warn",
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        self.model = model
        self.revision = revision
        self.pooling = pooling
        self.layers = layers
        self.combine = combine
        self.normalize = normalize
        self.truncate_dim = truncate_dim
        self.truncation = truncation
        self.prompt_name = prompt_name
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.dtype = dtype
        self.device = device

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803
        """Load the model and check the settings.

        Args:
            X: texts; looked at, not computed.
            y: not looked at.

        Raises:
            MinibertError: what is not a list of texts; a setting that makes no sense; what `minibert.load` refuses.
        """
        if X is not None:
            check_texts(X)
        bert = open_bert(self.model, revision=self.revision, dtype=self.dtype, device=self.device)
        self._n_features_out = bert.encode([], **self._settings()).shape[1]
        self._bert = bert
        return self

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:  # noqa: N803
        """`fit`, then `transform`; texts that can be read but once are read once."""
        return super().fit_transform(list(X) if isinstance(X, Iterator) else X, y, **params)

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The vectors of texts.

        Args:
            X: a list, a column of a table, a one-dimensional array, or another iterable of texts.

        Returns:
            (N, dimension) float32.

        Raises:
            NotFittedError: `fit` was not called.
            MinibertError: what is not a list of texts.
        """
        check_is_fitted(self)
        vectors: NDArray[np.float32] = self.bert_.encode(check_texts(X), **self._settings())
        return vectors

    @property
    def bert_(self) -> Bert:
        """The loaded model; after unpickling it is loaded once more."""
        check_is_fitted(self)
        if self._bert is None:
            self._bert = open_bert(self.model, revision=self.revision, dtype=self.dtype, device=self.device)
        return self._bert

    def _settings(self) -> dict[str, Any]:
        """The arguments of `Bert.encode`."""
        return {
            "pooling": self.pooling,
            "layers": self.layers,
            "combine": self.combine,
            "normalize_embeddings": self.normalize,
            "truncate_dim": self.truncate_dim,
            "truncation": self.truncation,
            "prompt_name": self.prompt_name,
            "prompt": self.prompt,
            "batch_tokens": self.batch_tokens,
        }

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not a model that can be loaded again."""
        state: dict[str, Any] = super().__getstate__()
        if "_bert" in state and not isinstance(self.model, Bert):
            state = {**state, "_bert": None}
        return state

    def __sklearn_clone__(self) -> Self:
        """An unfitted twin; a `Bert` is shared with it, since nothing here changes it and a copy costs its size."""
        settings = self.get_params(deep=False)
        shared = {"model": settings.pop("model")} if isinstance(self.model, Bert) else {}
        twin = type(self)(**shared, **copy.deepcopy(settings))
        for name in ("_metadata_request", "_sklearn_output_config"):  # what set_fit_request and set_output have said
            if name in vars(self):
                setattr(twin, name, copy.deepcopy(vars(self)[name]))
        return twin

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # float32, whatever comes in
        return tags


def check_texts(texts: Any) -> Iterable[Any]:
    """Texts in the form in which `Bert.encode` takes them, which looks at each.

    Raises:
        MinibertError: one text, a table, or nothing of several.
    """
    dimensions = getattr(texts, "ndim", 1)
    if dimensions != 1:
        shape = " x ".join(map(str, texts.shape)) or "a single value"
        raise MinibertError(
            f"X ({type(texts).__name__}, {shape}) must have one dimension, a text each; pass one column: table['text'] "
            "instead of table[['text']], and its name as a string, not as a list, to ColumnTransformer"
        )
    if isinstance(texts, (str, bytes, dict, set, frozenset)) or not isinstance(texts, Iterable):
        raise MinibertError(f"X ({texts!r:.40}) must be several texts, not {type(texts).__name__}; pass a list of them")
    if not hasattr(texts, "__len__"):
        return texts
    found = texts.tolist() if isinstance(texts, np.ndarray) else list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise MinibertError(
                f"X[{number}] ({text!r:.40}) must be str, not {type(text).__name__}; fill in what is missing, "
                "X.fillna('') in pandas, or convert it"
            )
    return found
