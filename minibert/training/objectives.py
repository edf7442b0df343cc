"""Objectives: what a model is trained to predict, and the loss of its predictions.

An objective computes `outputs` (only where the loss needs them: the masked-LM head runs at masked tokens alone) and,
from these, the `loss`. A batch may be computed in parts. Each part's loss is its share of the loss of the whole batch,
whatever the parts are: a sum over the part, divided by a count over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from minibert.training.packed import Example, States, hidden_states
from minibert.vectors.pooling import pool
from minibert.vectors.recipe import Recipe

Counts = tuple[int, ...]  # what the sums of losses are divided by

IGNORED = -100  # the label of a token that nothing is predicted for


class Objective:
    """What a model is trained to predict.

    Attributes:
        divides: whether the loss of a batch is a sum over its examples. If each example's loss depends on the others,
            it does not; the outputs of the whole batch are then computed before its loss (`gradients.gradients`).
    """

    divides = True

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """The predictions."""
        raise NotImplementedError

    def counts(self, examples: Sequence[Example]) -> Counts:
        """What the sums of losses are divided by, counted over the whole batch."""
        return (len(examples),)

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The share of examples in the loss of the batch, a scalar."""
        raise NotImplementedError


def _pooled(model: Any, states: States) -> Tensor:
    """The pooler's vectors of rows, (N, H)."""
    vectors: Tensor = model.bert.pooler(states.first()[:, None])  # (N, H) -> (N, 1, H) -> (N, H)
    return vectors


class TextLabels(Objective):
    """Labels of texts, or of pairs of texts, from the first token: classification, regression, next sentences.

    `labels`: what `model.loss` takes for one text: an integer, a float, or an array of floats.
    """

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """(N, labels) logits."""
        head = model.nsp_head if hasattr(model, "nsp_head") else model.classifier
        logits: Tensor = head(_pooled(model, hidden_states(model.bert, examples)))
        return logits

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The model's own loss, by its `problem_type`."""
        labels = torch.from_numpy(np.array([example.labels for example in examples])).to(outputs.device)
        if labels.is_floating_point():
            labels = labels.float()
        part: Tensor = model.loss(outputs.float(), labels) * (len(examples) / counts[0])
        return part


class Relevance(TextLabels):
    """The relevance of a passage to a query, as a cross-encoder learns it. `labels`: a float between 0 and 1.

    Source: sentence-transformers' `BinaryCrossEntropyLoss` for cross-encoders.
    """

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The binary cross-entropy of the one logit."""
        labels = torch.tensor([float(example.labels) for example in examples], device=outputs.device)
        return F.binary_cross_entropy_with_logits(outputs.squeeze(-1), labels, reduction="sum") / counts[0]


class TokenLabels(Objective):
    """Labels of tokens. `labels`: (S,) int for the row; -100 where nothing is predicted."""

    def head(self, model: Any, x: Tensor) -> Tensor:
        """(N, H) -> (N, labels) logits."""
        logits: Tensor = model.classifier(x)
        return logits

    def labels(self, example: Example) -> Any:
        """The labels of an example's tokens."""
        return example.labels

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """The logits of the labelled tokens of all examples, (N, labels)."""
        labelled = [np.asarray(self.labels(example)) != IGNORED for example in examples]
        return self.head(model, hidden_states(model.bert, examples).where(labelled))

    def counts(self, examples: Sequence[Example]) -> Counts:
        """The number of labelled tokens; 1 if there are none."""
        labels = (np.asarray(self.labels(example)) for example in examples)
        return (max(1, sum(int(np.count_nonzero(row != IGNORED)) for row in labels)),)

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The cross-entropy of each labelled token."""
        labels = np.concatenate([self.labels(example) for example in examples])
        targets = torch.from_numpy(labels[labels != IGNORED].astype(np.int64)).to(outputs.device)
        return F.cross_entropy(outputs.float(), targets, reduction="sum") / counts[0]


class MaskedTokens(TokenLabels):
    """The tokens behind masks. `labels`: (S,) int, the masked tokens' ids; -100 elsewhere."""

    def head(self, model: Any, x: Tensor) -> Tensor:
        """(N, H) -> (N, V) logits."""
        logits: Tensor = model.mlm_head(x, model.bert.embeddings.token.weight)
        return logits


class Spans(Objective):
    """Answers in a text. `labels`: the first and the last token of the answer; [CLS] (0, 0) if there is none.

    Only the tokens of a row compete. In a padded batch of transformers, padding does, too.
    """

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """(N, S, 2) logits of each token as first and as last; -inf past the end of a row."""
        states = hidden_states(model.bert, examples)
        logits = model.span_head(states.x)  # (T, H) -> (T, 2)
        rows = [logits[start : start + n] for start, n in zip(states.starts, states.lengths, strict=True)]
        return pad_sequence(rows, batch_first=True, padding_value=-torch.inf)

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The mean of the cross-entropies of both ends."""
        ends = torch.tensor([example.labels for example in examples], device=outputs.device)  # (N, 2)
        return F.cross_entropy(outputs.float(), ends, reduction="sum") / (2 * counts[0])


class Choices(Objective):
    """The right one of several rows. `labels`: its number. All examples of a batch have as many rows."""

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """(N, choices) logits."""
        logits = model.classifier(_pooled(model, hidden_states(model.bert, examples)))
        choices: Tensor = logits.view(len(examples), -1)
        return choices

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The cross-entropy over the choices."""
        labels = torch.tensor([example.labels for example in examples], device=outputs.device)
        return F.cross_entropy(outputs.float(), labels, reduction="sum") / counts[0]


class MaskedTokensAndNextSentence(MaskedTokens):
    """BERT's pretraining. `labels`: the labels of the tokens (as for `MaskedTokens`), and 0 if the second text follows.

    Source: Devlin et al. 2018, sec. 3.1.
    """

    def labels(self, example: Example) -> Any:
        """The labels of an example's tokens."""
        return example.labels[0]

    def outputs(self, model: Any, examples: Sequence[Example]) -> Any:
        """The logits of the masked tokens, (N, V), and of the pairs, (N, 2)."""
        states = hidden_states(model.bert, examples)
        masked = states.where([np.asarray(self.labels(example)) != IGNORED for example in examples])
        return self.head(model, masked), model.nsp_head(_pooled(model, states))

    def counts(self, examples: Sequence[Example]) -> Counts:
        """The number of masked tokens, and of pairs."""
        return (*super().counts(examples), len(examples))

    def loss(self, model: Any, outputs: Any, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The sum of both mean losses."""
        words, follows = outputs
        labels = torch.tensor([example.labels[1] for example in examples], device=follows.device)
        pairs = F.cross_entropy(follows.float(), labels, reduction="sum") / counts[1]
        return super().loss(model, words, examples, counts) + pairs


class Vectors(Objective):
    """Sentence vectors: the rows of an example are texts whose vectors are compared.

    Args:
        recipe: how token vectors become a sentence vector.
    """

    divides = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def outputs(self, model: Any, examples: Sequence[Example]) -> Tensor:
        """(N, texts, H) float vectors of length 1; all examples have as many texts."""
        encoder = getattr(model, "bert", model)
        states = hidden_states(encoder, examples)
        pooled = pool(states.x, states.layout.groups, self.recipe.pooling)
        vectors = F.normalize(self.recipe.finish(pooled), dim=-1)
        given = torch.from_numpy(np.argsort(states.order)).to(vectors.device)
        return vectors[given].view(len(examples), -1, vectors.shape[-1])


class ScoredPairs(Vectors):
    """Pairs of texts with a score: the more similar pair should have the higher cosine. `labels`: a number.

    Source: CoSENT, Su 2022, https://kexue.fm/archives/8847; sentence-transformers' `CoSENTLoss`.
    """

    scale = 20.0

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """log(1 + the sum, over pairs in the wrong order, of exp(scale * difference of cosines))."""
        labels = torch.tensor([float(example.labels) for example in examples], device=outputs.device)
        cosines = (outputs[:, 0] * outputs[:, 1]).sum(-1) * self.scale
        differences = cosines[:, None] - cosines[None, :]  # [i, j]: how much higher pair i is than pair j
        wrong = labels[:, None] < labels[None, :]
        return F.pad(differences[wrong], (1, 0)).logsumexp(0)  # the 0 padded in is the logarithm of the 1


class CosineScores(ScoredPairs):
    """Pairs of texts with the cosine that they should have. `labels`: a number between -1 and 1."""

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The mean squared error of the cosines."""
        labels = torch.tensor([float(example.labels) for example in examples], device=outputs.device)
        return F.mse_loss((outputs[:, 0] * outputs[:, 1]).sum(-1), labels)


class Positives(Vectors):
    """Texts and their positives: each is to find its own among those of the whole batch.

    The rows of an example are a text, its positive and, if there are any, negatives. There are no labels. Examples may
    share texts: what is known to be a positive of a text, or is the text itself, is no wrong answer to it.

    Source: Henderson et al. 2017, sec. 4.4; sentence-transformers' `MultipleNegativesRankingLoss`.
    """

    scale = 20.0

    def loss(self, model: Any, outputs: Tensor, examples: Sequence[Example], counts: Counts) -> Tensor:
        """The cross-entropy of each text's positive among all candidates."""
        candidates = outputs[:, 1:].transpose(0, 1).flatten(0, 1)  # (N, texts, H) -> (candidates, H), positives first
        scores = outputs[:, 0] @ candidates.T * self.scale
        scores = scores.masked_fill(_not_wrong(examples).to(scores.device), -torch.inf)
        return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def _not_wrong(examples: Sequence[Example]) -> Tensor:
    """Which candidates are no wrong answers to a text, besides its own positive: (N, candidates) bool."""
    texts = [[row.tobytes() for row in example.rows] for example in examples]
    candidates = [text for column in list(zip(*texts, strict=True))[1:] for text in column]
    places: dict[bytes, list[int]] = {}  # of a text among the candidates
    right: dict[bytes, set[bytes]] = {}  # the positives of a text, and the text itself
    for place, text in enumerate(candidates):
        places.setdefault(text, []).append(place)
    for first, positive, *_ in texts:
        right.setdefault(first, {first}).add(positive)
    found = torch.zeros(len(texts), len(candidates), dtype=torch.bool)
    for number, (first, *_) in enumerate(texts):
        for text in right[first]:
            found[number, places.get(text, [])] = True
        found[number, number] = False
    return found
