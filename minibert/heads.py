"""Heads: small layers on top of the encoder, each for one task."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.config import BertConfig
from minibert.encoder import activation


class Pooler(nn.Module):
    """The transformed vector of the first token, [CLS]: the input of next-sentence prediction and classification.

    Source: google-research/bert `modeling.BertModel`, "pooler".
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H) -> (B, H)."""
        return torch.tanh(self.dense(x[:, 0]))


class MaskedLMHead(nn.Module):
    """Predicts the token at each position: one logit for each token of the vocabulary.

    The decoder is the token table, which the caller passes in, so that the two share one parameter. Only a checkpoint
    with `tie_word_embeddings: false` has a `decoder` of its own.

    Source: Devlin et al. 2018, sec. 3.1, task 1; google-research/bert `run_pretraining.get_masked_lm_output`.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder = (
            None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """Compute the logits of all tokens of the vocabulary.

        Args:
            x: (..., H) float. The last hidden states.
            token_table: (V, H) float. The weight of `Embeddings.token`.

        Returns:
            (..., V) logits.
        """
        x = self.norm(self.activation(self.dense(x)))
        return F.linear(x, token_table if self.decoder is None else self.decoder.weight, self.bias)


class Classifier(nn.Linear):
    """Dropout, then one linear layer: (..., H) -> (..., labels)."""

    def __init__(self, config: BertConfig, labels: int) -> None:
        super().__init__(config.hidden_size, labels)
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> (..., labels) logits."""
        return super().forward(self.dropout(x))
