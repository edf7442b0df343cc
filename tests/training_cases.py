"""Random examples of each head, packed for us and padded for transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minibert.training.objectives import (
    Choices,
    MaskedTokens,
    MaskedTokensAndNextSentence,
    Objective,
    Spans,
    TextLabels,
    TokenLabels,
)
from minibert.training.packed import Example

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTHS = (9, 4, 17, 4, 6, 30, 9, 5)


class Case:
    """Random examples of a head, for us and, padded, for transformers."""

    def __init__(
        self, kind: str, objective: Objective, labels: Callable[[np.random.Generator, int], Any], **config: Any
    ):
        self.kind, self.objective, self.labels, self.config = kind, objective, labels, config

    def examples(self, seed: int) -> list[Example]:
        """A batch of eight."""
        random = np.random.default_rng(seed)
        rows = 3 if self.kind == "BertForMultipleChoice" else 1
        batch = []
        # transformers lets padding compete as an answer, so its losses are ours only where there is none
        lengths = [12] * 8 if self.kind == "BertForQuestionAnswering" else random.permutation(LENGTHS)
        for length in lengths:
            texts = tuple(random.integers(1, 99, length + j) for j in range(rows))
            types = tuple((np.arange(len(text)) > 2).astype(np.int64) for text in texts)
            batch.append(Example(texts, self.labels(random, length), types))
        return batch

    def padded(self, batch: Sequence[Example]) -> dict[str, Tensor]:
        """The same batch as transformers takes it."""
        longest = max(len(row) for e in batch for row in e.rows)

        def pad(rows: Any, value: int = 0) -> Tensor:
            return torch.tensor(np.stack([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows]))

        inputs = {
            "input_ids": pad([row for e in batch for row in e.rows]),
            "token_type_ids": pad([row for e in batch for row in e.types]),
            "attention_mask": pad([np.ones(len(row), np.int64) for e in batch for row in e.rows]),
        }
        labels = [e.labels for e in batch]
        if self.kind == "BertForMultipleChoice":
            inputs = {name: tensor.view(len(batch), 3, -1) for name, tensor in inputs.items()}
        if self.kind == "BertForQuestionAnswering":
            starts, ends = zip(*labels, strict=True)
            return inputs | {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
        if self.kind == "BertForPreTraining":
            words, follows = zip(*labels, strict=True)
            return inputs | {"labels": pad(words, -100), "next_sentence_label": torch.tensor(follows)}
        if isinstance(self.objective, TokenLabels):
            return inputs | {"labels": pad(labels, -100)}
        found = torch.tensor(np.array(labels))
        return inputs | {"labels": found.float() if found.is_floating_point() else found}


def some_tokens(random: np.random.Generator, length: int, most: int = 99) -> Any:
    """Labels of about a third of the tokens."""
    labels = np.where(random.random(length) < 0.3, random.integers(0, most, length), -100)
    labels[0] = 1
    return labels


CASES = [
    Case("BertForMaskedLM", MaskedTokens(), some_tokens),
    Case("BertForNextSentencePrediction", TextLabels(), lambda random, _: int(random.integers(2))),
    Case(
        "BertForPreTraining",
        MaskedTokensAndNextSentence(),
        lambda random, n: (some_tokens(random, n), int(random.integers(2))),
    ),
    Case("BertForSequenceClassification", TextLabels(), lambda random, _: int(random.integers(3)), num_labels=3),
    Case("BertForSequenceClassification", TextLabels(), lambda random, _: random.random(), num_labels=1),
    Case(
        "BertForSequenceClassification",
        TextLabels(),
        lambda random, _: random.integers(0, 2, 4).astype(float),
        num_labels=4,
        problem_type="multi_label_classification",
    ),
    Case("BertForTokenClassification", TokenLabels(), lambda random, n: some_tokens(random, n, 5), num_labels=5),
    Case("BertForQuestionAnswering", Spans(), lambda random, n: tuple(sorted(random.integers(0, n, 2).tolist()))),
    Case("BertForMultipleChoice", Choices(), lambda random, _: int(random.integers(3))),
]
IDS = [f"{case.kind}-{case.config.get('num_labels', '')}" for case in CASES]
