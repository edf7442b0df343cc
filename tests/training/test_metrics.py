"""Metrics beside scikit-learn's, and beside values computed by hand or published by their authors."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from minibert.training.metrics import (
    answer_metrics,
    correlations,
    entity_metrics,
    label_metrics,
    label_set_metrics,
    number_metrics,
    plain_words,
    ranking_metrics,
    retrieval_metrics,
)


def test_labels_by_hand() -> None:
    found = label_metrics(["a", "a", "b", "c"], ["a", "b", "b", "b"])
    assert found == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 1 / 2 + 0) / 3})


def test_sets_of_labels_by_hand() -> None:
    gold = np.array([[1, 1], [0, 1], [0, 0]], bool)
    found = label_set_metrics(gold, np.array([[1, 0], [0, 1], [1, 0]], bool))
    assert found == pytest.approx({"micro_f1": 2 * 2 / (3 + 3), "macro_f1": (2 / 3 + 2 / 3) / 2, "accuracy": 1 / 3})


def test_numbers_by_hand() -> None:
    found = number_metrics([1, 2, 3], [1, 2, 9])
    assert found["mean_squared_error"] == pytest.approx(12)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 2, 3], [1, 2, 9])[0, 1])
    assert correlations([1, 2], [3, 3]) == {"pearson": 0, "spearman": 0}


# the first is the example in seqeval's README, with its results; the others by hand
SEQEVAL = [
    (
        [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        (0.5, 0.5, 0.5, 0.8),
    ),
    ([["I-A", "I-A", "O", "I-B"]], [["B-A", "I-A", "O", "B-B"]], (1, 1, 1, 0.5)),  # IOB1 and BIO are the same entities
    ([["B-A", "B-A"]], [["B-A", "I-A"]], (0, 0, 0, 0.5)),
    ([["B-A", "I-A"]], [["B-A", "I-B"]], (0, 0, 0, 0.5)),
    ([["B-A", "O", "B-B"]], [["B-A", "O", "O"]], (2 / 3, 1, 0.5, 2 / 3)),
    ([["S-A", "B-B", "E-B", "B-B", "E-B"]], [["S-A", "B-B", "E-B", "B-B", "I-B"]], (1, 1, 1, 0.8)),
    ([["O"]], [["O"]], (0, 0, 0, 1)),
]


@pytest.mark.parametrize(("gold", "predicted", "expected"), SEQEVAL)
def test_entities_count_as_seqeval_counts_them(
    gold: list[list[str]], predicted: list[list[str]], expected: tuple[float, ...]
) -> None:
    found = entity_metrics(gold, predicted)
    assert tuple(found[name] for name in ("f1", "precision", "recall", "accuracy")) == pytest.approx(expected)


def test_rankings_are_those_of_scikit_learn_and_by_hand() -> None:
    random = np.random.default_rng(0)
    queries = [(random.random(n), random.random(n)) for n in (2, 5, 10, 30)]
    expected = np.mean([sklearn.metrics.ndcg_score([gains], [scores], k=10) for gains, scores in queries])
    assert ranking_metrics(queries)["ndcg@10"] == pytest.approx(expected)
    assert ranking_metrics([([0, 1, 0], [3, 2, 1]), ([1, 0], [1, 0]), ([0, 0.2], [0, 1])])["mrr"] == pytest.approx(0.5)


def test_of_equal_scores_the_less_relevant_come_first() -> None:
    gains = [1.0, 0.0, 0.0, 0.5]
    worst = ranking_metrics([(gains, [1.0, 4.0, 3.0, 2.0])])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]):
        assert ranking_metrics([([gains[i] for i in order], [7.0] * 4)]) == ranking_metrics(
            [([0.0, 0.0, 0.5, 1.0], [4.0, 3.0, 2.0, 1.0])]
        )
    assert worst["mrr"] == pytest.approx(1 / 3)


def test_right_answers_of_articles_alone_count_as_none() -> None:
    """As in `evaluate-v2.0.py`: of the gold answers, those that normalize to nothing are left out."""
    assert answer_metrics([["the", "a"]], [""])["exact_match"] == 1
    assert answer_metrics([["the", "Rome"]], [""]) == {"f1": 0, "exact_match": 0}
    assert answer_metrics([["the", "Rome"]], ["rome"])["exact_match"] == 1


def test_retrieval_by_hand() -> None:
    assert retrieval_metrics([1, 2, 20]) == pytest.approx({"mrr": 1.55 / 3, "recall@1": 1 / 3, "recall@10": 2 / 3})


def test_answers_are_compared_without_articles_case_and_punctuation() -> None:
    assert plain_words("The  Denver-Broncos, (a team)!") == ["denverbroncos", "team"]
    found = answer_metrics([["the cat"], ["a dog", "two dogs"], [], [], ["b"]], ["Cat.", "two cats", "", "x", ""])
    assert found == pytest.approx({"exact_match": 2 / 5, "f1": (1 + 0.5 + 1 + 0 + 0) / 5})
