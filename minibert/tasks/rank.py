"""Pairs of texts become scores, and documents an order: what rerankers (cross-encoders) do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from minibert.config import BertConfig
from minibert.errors import MinibertError
from minibert.tasks.classify import TextScorer
from minibert.text import as_list, check_text, several, short, whole_number
from minibert.vectors.recipe import DENSE_ACTIVATIONS

Activation = Callable[[Tensor], Tensor]


class Ranked(NamedTuple):
    """A document, and how well it answers the query.

    Attributes:
        index: its number among the documents.
        score: the higher, the better.
        text: the document.
    """

    index: int  # type: ignore[assignment]  # of a tuple, the method of that name
    score: float
    text: str

    def __repr__(self) -> str:
        return f"Ranked(index={self.index}, score={self.score:.4g}, text={short(self.text)})"


def activation_of(config: BertConfig, settings: Mapping[str, Any]) -> Activation:
    """What the files of a reranker do with its one output; sigmoid, unless they name something else.

    Args:
        config: holds `sentence_transformers.activation_fn`, or in old files `sbert_ce_default_activation_function`.
        settings: the content of `config_sentence_transformers.json`, which wins.

    Raises:
        MinibertError: the model has several outputs; an activation that is unknown here.

    Source: sentence-transformers `CrossEncoder.get_default_activation_fn`.
    """
    if config.num_labels != 1:
        raise MinibertError(
            f"num_labels ({config.num_labels}) must be 1 to score and rank; use classify(texts, pair), which gives "
            "each pair its labels"
        )
    theirs = config.extra.get("sentence_transformers")
    named = [
        settings.get("activation_fn"),
        theirs.get("activation_fn") if isinstance(theirs, Mapping) else None,
        config.extra.get("sbert_ce_default_activation_function"),
    ]
    path = str(next(filter(None, named), "Sigmoid"))
    name = path.rpartition(".")[2]
    if name not in DENSE_ACTIVATIONS:
        raise MinibertError(f"the reranker's activation ({path:.100}) must be one of {', '.join(DENSE_ACTIVATIONS)}")
    return DENSE_ACTIVATIONS[name]


def is_pair(value: Any) -> bool:
    """Whether a value is one pair of texts, not several pairs."""
    sequence = isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return sequence and len(value) == 2 and all(isinstance(text, str) for text in value)


def score(scorer: TextScorer, activation: Activation, pairs: Iterable[Any], prompt: str = "") -> NDArray[np.float32]:
    """The scores of pairs, (N,), with `prompt` before the first text of each.

    Raises:
        MinibertError: what is not a pair of texts; a long pair with `truncation="error"`.
    """
    given = [pairs] if is_pair(pairs) else pairs if isinstance(pairs, Iterator) else several("pairs", pairs)
    total = len(given) if isinstance(given, list) else None
    found = [activation(logits)[:, 0].numpy() for logits in scorer(_checked(given, prompt), total)]
    return np.concatenate([np.empty(0, np.float32), *found])


def _checked(pairs: Iterable[Any], prompt: str) -> Iterator[tuple[str, str]]:
    for number, pair in enumerate(pairs):
        if not is_pair(pair):
            raise MinibertError(f"pair {number} ({short(pair)}) must be two texts, (query, document)")
        check_text(pair)
        yield prompt + pair[0], pair[1]


def rank(
    scorer: TextScorer, activation: Activation, query: str, documents: Any, top_k: int | None = None, prompt: str = ""
) -> list[Ranked]:
    """The documents, the best first; equal scores keep the order of the documents.

    Args:
        scorer, activation: compute the scores.
        query: a text.
        documents: texts.
        top_k: how many; None means all.
        prompt: put before the query.

    Raises:
        MinibertError: what is not text; a long pair with `truncation="error"`.
    """
    top_k = None if top_k is None else whole_number("top_k", top_k)
    check_text([query])
    texts = as_list(documents)
    scores = score(scorer, activation, iter([(query, text) for text in texts]), prompt)
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Ranked(index, float(scores[index]), texts[index]) for index in order]
