"""Attention: a soft dictionary lookup.

A dictionary returns the value of the one key that equals the query. Attention returns the mean of all values, weighted
by how well each key matches the query. Each token has a query (what it looks for), a key (what it can be found by) and
a value (what it passes on). The result is the token's new vector: a mixture of the values of the tokens in its context.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(D)) V                          Vaswani et al. 2017, eq. 1
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.config import BertConfig
from minibert.errors import MinibertError


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, as the paper writes it.

    Args:
        q, k, v: (..., S, D) float. Queries, keys and values.
        mask: bool, broadcast to (..., S, S); True = this query may attend to this key. None: all may.
        dropout: chance that a probability is set to zero; 0 outside training.

    Returns:
        The mixed values (..., S, D), and the probabilities (..., S, S): row i has the weights of token i's mixture.
    """
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (..., S, D) x (..., D, S) -> (..., S, S)
    if mask is not None:
        # The lowest finite number, not -inf: a row with no key to attend to stays finite (every key alike).
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = F.dropout(scores.softmax(dim=-1), dropout)
    return probabilities @ v, probabilities


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """The same in one fast kernel, which does not write the (S, S) probabilities to memory."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


class Padded:
    """The layout of texts padded to one length: hidden states are (B, S, H).

    Args:
        mask: (B, S) bool, True = a real token; None: there is no padding.
        probabilities: a list to append each layer's (B, A, S, S) attention probabilities to. This runs the explicit
            `attention`, since the fused kernel does not return them.

    Raises:
        MinibertError: a mask that is not bool.
    """

    def __init__(self, mask: Tensor | None = None, probabilities: list[Tensor] | None = None) -> None:
        if mask is not None and mask.dtype != torch.bool:
            raise MinibertError(f"mask dtype ({mask.dtype}) must be torch.bool; pass mask != 0")
        self.mask = None if mask is None else mask[:, None, None, :]  # (B, S) -> (B, 1, 1, S): any head, any query
        self.probabilities = probabilities

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (B, S, A, D)."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, S, A, D) -> (B, A, S, D)
        if self.probabilities is None:
            mixed = fused_attention(q, k, v, self.mask, dropout)
        else:
            mixed, probabilities = attention(q, k, v, self.mask, dropout)
            self.probabilities.append(probabilities)
        return mixed.transpose(1, 2).contiguous()  # (B, A, S, D) -> (B, S, A, D)


class Packed:
    """The layout of texts packed end to end, without padding: hidden states are (T, H).

    Neighbouring texts of the same length are computed as one batch, which needs no mask. So sort texts by length.

    Args:
        lengths: how many tokens each text has.

    Attributes:
        groups: (start, count, length) of each batch: its first token, the number of texts, the tokens of each.

    Raises:
        MinibertError: by `attend`, if the lengths do not add up to T.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.total = 0
        self.groups: list[tuple[int, int, int]] = []
        for length, run in groupby(lengths):
            count = len(list(run))
            self.groups.append((self.total, count, length))
            self.total += count * length

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (T, A, D)."""
        self.check(v)
        # the fused kernel has no dropout on a CPU; torch then falls back on a slower form of `attention`
        return self.mix(q, k, v, dropout, fused=not dropout)

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout: float,
        *,
        fused: bool,
        masks: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """`attend` by the fused kernel, which then ignores dropout, or by the explicit `attention`.

        Args:
            q, k, v, dropout: as for `attend`.
            fused: which of them.
            masks: of each group, (B, 1, 1, S) bool, as for `attention`; None: no text has padding.
        """
        sizes = [count * length for _, count, length in self.groups]
        masks = masks or [None] * len(sizes)
        mixed = []
        for (_, count, length), mask, *parts in zip(
            self.groups, masks, *(torch.split(x, sizes) for x in (q, k, v)), strict=True
        ):
            # (T, A, D) -> (B, S, A, D) -> (B, A, S, D): B texts of S tokens
            q_, k_, v_ = (x.reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in parts)
            x = fused_attention(q_, k_, v_, mask) if fused else attention(q_, k_, v_, mask, dropout)[0]
            mixed.append(x.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed)

    def check(self, x: Tensor) -> None:
        """Reject hidden states (T, ...) with another number of tokens."""
        if self.total != len(x):
            raise MinibertError(f"lengths (sum {self.total}) must add up to the number of tokens ({len(x)})")


class SelfAttention(nn.Module):
    """Multi-head self-attention: A lookups side by side, each in its own D dimensions, then concatenated.

    Source: Vaswani et al. 2017, sec. 3.2.2; Devlin et al. 2018, sec. 3.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = (config.num_attention_heads, config.head_size)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, layout: Padded | Packed) -> Tensor:
        """Mix each token with the tokens it may attend to.

        Args:
            x: (..., H) float. Hidden states.
            layout: which tokens belong to the same text.

        Returns:
            Same shape, dtype and device as `x`.
        """
        q = self.query(x).unflatten(-1, self.heads)  # (..., H) -> (..., A, D)
        k = self.key(x).unflatten(-1, self.heads)
        v = self.value(x).unflatten(-1, self.heads)
        mixed = layout.attend(q, k, v, self.dropout if self.training else 0.0)
        return self.output(mixed.flatten(-2))  # (..., A, D) -> (..., H)
