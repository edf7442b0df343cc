"""scikit-learn: a transformer of texts into vectors, and estimators that predict with the checkpoint's own head."""

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
from minibert.tasks.classify import Cutting

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ImportError(
        "minibert.integrations.sklearn needs scikit-learn, which is not installed; pip install scikit-learn"
    ) from None


class Estimator(BaseEstimator):  # type: ignore[misc]
    """An estimator with a BERT in it. `fit` loads the model, and trains nothing.

    A pickle of a fitted estimator holds the name of its model, which is loaded again on first use. If the model was
    given as a `Bert`, the pickle holds its weights.

    Attributes:
        bert_: the loaded `Bert`.
    """

    model: Any
    revision: str | None
    dtype: Any
    device: Any
    _bert: Bert | None

    @property
    def bert_(self) -> Bert:
        """The loaded model; after unpickling it is loaded on first use."""
        check_is_fitted(self)
        if self._bert is None:
            self._bert = self._open()
        return self._bert

    def _open(self) -> Bert:
        return open_bert(self.model, revision=self.revision, dtype=self.dtype, device=self.device)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: without a model that can be loaded again."""
        state: dict[str, Any] = super().__getstate__()
        if "_bert" in state and not isinstance(self.model, Bert):
            state = {**state, "_bert": None}
        return state

    def __sklearn_clone__(self) -> Self:
        """An unfitted copy. It shares a `Bert` that was given: nothing here changes it, and a copy takes its memory."""
        settings = self.get_params(deep=False)
        shared = {"model": settings.pop("model")} if isinstance(self.model, Bert) else {}
        twin = type(self)(**shared, **copy.deepcopy(settings))
        for name in ("_metadata_request", "_sklearn_output_config"):  # from set_fit_request and set_output
            if name in vars(self):
                setattr(twin, name, copy.deepcopy(vars(self)[name]))
        return twin

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_bert")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags


class BertVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):  # type: ignore[misc]
    """Turn each text into its vector: `Bert.encode` as a step of a Pipeline.

    `fit` loads the model and checks the settings; it learns nothing from the texts.

    Args:
        model: a repository's name, a folder, or a `Bert`, which clones share.
        revision: the commit, branch or tag of a repository.
        pooling, layers, combine, truncate_dim, truncation: as for `Bert.encode`.
        normalize: divide each vector by its length, if the checkpoint does not do so already.
        prompt_name, prompt: as for `Bert.encode`.
        batch_tokens: the most tokens computed at once.
        dtype: None for float32, "auto", "bfloat16" or another, as a name or of torch.
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
            X: texts; checked, not computed.
            y: ignored.

        Raises:
            MinibertError: not a list of texts; a setting that makes no sense. Other errors are those of
                `minibert.load`.
        """
        if X is not None:
            check_texts(X)
        bert = self._open()
        self._n_features_out = bert.encode([], **self._settings()).shape[1]
        self._bert = bert
        return self

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:  # noqa: N803
        """`fit`, then `transform`; an iterator is read once."""
        return super().fit_transform(list(X) if isinstance(X, Iterator) else X, y, **params)

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The vectors of texts.

        Args:
            X: a list, a column of a table, a one-dimensional array, or another iterable of texts.

        Returns:
            (N, dimension) float32.

        Raises:
            NotFittedError: `fit` was not called.
            MinibertError: not a list of texts.
        """
        check_is_fitted(self)
        vectors: NDArray[np.float32] = self.bert_.encode(check_texts(X), **self._settings())
        return vectors

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags


class Head(Estimator):
    """An estimator that predicts with the checkpoint's own head.

    Args:
        model: a repository's name, a folder, or a `Bert`, which clones share.
        revision: the commit, branch or tag of a repository.
        truncation: "warn" truncates long texts with a warning, "error" rejects them.
        batch_tokens: the most tokens computed at once.
        dtype: None for float32, "auto", "bfloat16" or another, as a name or of torch.
        device: as for `minibert.load`.
    """

    def __init__(
        self,
        model: Any,
        *,
        revision: str | None = None,
        truncation: Cutting = "warn",
        batch_tokens: int | None = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        self.model = model
        self.revision = revision
        self.truncation = truncation
        self.batch_tokens = batch_tokens
        self.dtype = dtype
        self.device = device

    def _scores(self, bert: Bert, texts: Any) -> NDArray[np.float32]:
        return bert.label_scores(check_texts(texts), truncation=self.truncation, batch_tokens=self.batch_tokens)

    def _load(self, texts: Any, regression: bool, other: str) -> Bert:
        """Load the model, and check the settings and the texts.

        Raises:
            MinibertError: not a list of texts; no head for texts, or one for the `other` class; a setting that makes no
                sense.
        """
        if texts is not None:
            check_texts(texts)
        bert = self._open()
        self._scores(bert, [])
        kind = bert.config.problem_type
        if (kind == "regression") != regression:
            raise MinibertError(
                f"the problem_type of {bert.source} ({kind}) must {'' if regression else 'not '}be 'regression' for "
                f"{type(self).__name__}; use {other}"
            )
        return bert


class BertClassifier(ClassifierMixin, Head):  # type: ignore[misc]
    """Classify texts with the checkpoint's own classifier: `Bert.label_scores` as an estimator.

    `fit` loads the model and trains nothing; predictions are names from the checkpoint's `id2label`. The labels are
    sorted, as scikit-learn's metrics expect. A checkpoint that gives a text several labels at once, or one probability,
    follows scikit-learn's multilabel format: a column for each label.

    The arguments are those of `Head`.

    Attributes:
        classes_: the names in the checkpoint's `id2label`, sorted.
        multilabel_: whether a text may have several labels.
        bert_: the loaded `Bert`.
    """

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803
        """Load the model; the texts are checked, `y` is ignored.

        Raises:
            MinibertError: not a list of texts; a checkpoint that is not a classifier; a setting that makes no sense.
        """
        bert = self._load(X, False, "BertRegressor")
        names = bert.config.id2label or {}
        self._order = sorted(names, key=lambda number: names[number])
        self.classes_ = np.array([names[number] for number in self._order])
        self.multilabel_ = bert.config.problem_type == "multi_label_classification" or len(names) == 1
        self._bert = bert
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The probability of each label, (N, labels), in the order of `classes_`."""
        check_is_fitted(self)
        return self._scores(self.bert_, X)[:, self._order]

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The most probable label of each text, (N,); for a multilabel checkpoint, (N, labels) of 0 and 1."""
        probabilities = self.predict_proba(X)
        return (probabilities > 0.5).astype(int) if self.multilabel_ else self.classes_[probabilities.argmax(1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.classifier_tags.multi_label = True
        return tags


class BertRegressor(RegressorMixin, Head):  # type: ignore[misc]
    """Predict numbers with a checkpoint whose head is a regression; `fit` loads the model and trains nothing.

    The arguments are those of `Head`.
    """

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803
        """Load the model; the texts are checked, `y` is ignored.

        Raises:
            MinibertError: not a list of texts; a checkpoint whose `problem_type` is not "regression".
        """
        self._bert = self._load(X, True, "BertClassifier")
        return self

    def predict(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The number of each text, (N,); (N, outputs) if the head has several."""
        check_is_fitted(self)
        scores = self._scores(self.bert_, X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


def check_texts(texts: Any) -> Iterable[Any]:
    """Texts as `Bert.encode` takes them.

    Raises:
        MinibertError: one text, a table, or something else that is not a list of texts.
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
