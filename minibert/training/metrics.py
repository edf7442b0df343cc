"""Metrics: how good predictions are. All are from 0 to 1, except correlations, from -1 to 1, and squared errors."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import optional
from minibert.tasks.entities import OUTSIDE, Scheme

Metrics = dict[str, float]
Numbers = Sequence[float] | NDArray[np.floating[Any]]
EXTRA = "scikit-learn"


def check_installed() -> None:
    """ImportError, with what to install, if scikit-learn is not there: before hours of work, not after."""
    optional("sklearn.metrics", "measuring", EXTRA)


def label_metrics(gold: Sequence[str], predicted: Sequence[str]) -> Metrics:
    """Accuracy and macro F1 of texts with one label each."""
    sklearn = optional("sklearn.metrics", "measuring", EXTRA)
    return {
        "accuracy": float(sklearn.accuracy_score(gold, predicted)),
        "macro_f1": float(sklearn.f1_score(gold, predicted, average="macro", zero_division=0)),
    }


def label_set_metrics(gold: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Metrics:
    """F1 of texts with several labels each, (N, labels): over all labels, and its mean over labels; exact matches."""
    sklearn = optional("sklearn.metrics", "measuring", EXTRA)
    return {
        "micro_f1": float(sklearn.f1_score(gold, predicted, average="micro", zero_division=0)),
        "macro_f1": float(sklearn.f1_score(gold, predicted, average="macro", zero_division=0)),
        "accuracy": float((gold == predicted).all(1).mean()),
    }


def number_metrics(gold: Numbers, predicted: Numbers) -> Metrics:
    """Correlations, and the mean squared error. Where one side is constant, a correlation is 0."""
    gold, predicted = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    error = float(((gold - predicted) ** 2).mean())
    return {**correlations(gold, predicted), "mean_squared_error": error}


def correlations(gold: Numbers, predicted: Numbers) -> Metrics:
    """Pearson's correlation, and Spearman's; 0 where one side is constant."""
    stats = optional("scipy.stats", "measuring", EXTRA)
    if min(np.ptp(gold), np.ptp(predicted)) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(gold, predicted).statistic),
        "spearman": float(stats.spearmanr(gold, predicted).statistic),
    }


def spans(labels: Sequence[str], scheme: Scheme) -> set[tuple[str, int, int]]:
    """The entities of a sentence: kind, first and last word."""
    found: list[tuple[str, int, int]] = []
    open_ = False  # whether the entity of the word before can go on
    for place, label in enumerate(labels):
        number = scheme.labels.index(label)
        kind = scheme.kinds[scheme.kind[number]]
        if kind == OUTSIDE:
            open_ = False
            continue
        if open_ and found[-1][0] == kind and not scheme.starts[number]:
            found[-1] = (kind, found[-1][1], place)
        else:
            found.append((kind, place, place))
        open_ = not scheme.ends[number]
    return set(found)


def entity_metrics(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """Precision, recall and F1 of entities, which must agree in kind, start and end; accuracy of words.

    Source: Tjong Kim Sang and De Meulder 2003, sec. 3, `conlleval`.
    """
    scheme = Scheme(dict(enumerate(sorted({label for labels in (*gold, *predicted) for label in labels}))))
    right = right_words = 0
    counts = np.zeros(3, np.int64)  # entities predicted, entities there, words
    for one, other in zip(gold, predicted, strict=True):
        there, found = spans(one, scheme), spans(other, scheme)
        right += len(there & found)
        right_words += sum(a == b for a, b in zip(one, other, strict=True))
        counts += (len(found), len(there), len(one))
    precision, recall, accuracy = np.array([right, right, right_words]) / np.maximum(counts, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"f1": float(f1), "precision": float(precision), "recall": float(recall), "accuracy": float(accuracy)}


def ranking_metrics(queries: Sequence[tuple[Numbers, Numbers]], cutoff: int = 10) -> Metrics:
    """MRR and nDCG of queries, each with the gains of its documents, 0 to 1, and their scores.

    A document is relevant from a gain of 0.5. Of documents with equal scores, the less relevant come first.

    Source: Järvelin and Kekäläinen 2002, with the gains as they are.
    """
    reciprocal, discounted = [], []
    discounts = 1 / np.log2(np.arange(2, cutoff + 2))
    for gains, scores in queries:
        gains = np.asarray(gains, np.float64)
        ranked = gains[np.lexsort((gains, -np.asarray(scores)))]
        relevant = np.flatnonzero(ranked >= 0.5)
        reciprocal.append(1 / (relevant[0] + 1) if len(relevant) else 0.0)
        best = np.sort(gains)[::-1][:cutoff]
        ideal = (best * discounts[: len(best)]).sum()
        found = (ranked[:cutoff] * discounts[: len(best)]).sum()
        discounted.append(found / ideal if ideal else 0.0)
    return {"mrr": float(np.mean(reciprocal)), f"ndcg@{cutoff}": float(np.mean(discounted))}


def retrieval_metrics(ranks: Sequence[int]) -> Metrics:
    """MRR, and recall at 1 and 10, from the rank of each query's first right document, the first being 1."""
    found = np.asarray(ranks)
    return {
        "mrr": float((1 / found).mean()),
        "recall@1": float((found <= 1).mean()),
        "recall@10": float((found <= 10).mean()),
    }


def plain_words(text: str) -> list[str]:
    """The words of an answer in small letters, without articles and punctuation.

    Source: Rajpurkar et al. 2016, `evaluate-v1.1.py`.
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def answer_metrics(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Metrics:
    """Exact match and F1 of answers: for each question, the best over its right answers; none means "no answer".

    Source: Rajpurkar et al. 2018, `evaluate-v2.0.py`.
    """
    exact, f1 = [], []
    for answers, answer in zip(gold, predicted, strict=True):
        found = plain_words(answer)
        rights = list(filter(None, map(plain_words, answers))) or [[]]  # answers such as "the" count as none
        exact.append(max(float(found == right) for right in rights))
        f1.append(max(_overlap(right, found) for right in rights))
    return {"f1": float(np.mean(f1)), "exact_match": float(np.mean(exact))}


def _overlap(right: list[str], found: list[str]) -> float:
    if not right or not found:
        return float(right == found)
    common = sum((Counter(right) & Counter(found)).values())
    return 2 * common / (len(right) + len(found))
