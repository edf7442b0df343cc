"""The encoder: L layers. Each mixes tokens by attention, then transforms each token by a feed-forward network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.attention import Packed, Padded, SelfAttention
from minibert.config import BertConfig
from minibert.errors import MinibertError


def gelu_new(x: Tensor) -> Tensor:
    """The tanh form of GELU of google-research/bert, operation by operation; up to 5e-4 from the exact one."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def gelu_fast(x: Tensor) -> Tensor:
    """`gelu_new` with the constant and the cube written differently, which rounds differently."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def gelu_tanh(x: Tensor) -> Tensor:
    """`gelu_new` in one kernel."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact: x times the normal distribution function, by erf
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(config: BertConfig) -> Callable[[Tensor], Tensor]:
    """The function that `config.hidden_act` names."""
    if not isinstance(config.hidden_act, str) or config.hidden_act not in ACTIVATIONS:
        raise MinibertError(
            f"hidden_act ({config.hidden_act!r:.40}) must be one of {', '.join(ACTIVATIONS)}; "
            "add the function to minibert.encoder.ACTIVATIONS under that name"
        )
    return ACTIVATIONS[config.hidden_act]


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, for each token alone: H -> I -> H."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., H) to (..., H)."""
        return self.down(self.activation(self.up(x)))


class EncoderLayer(nn.Module):
    """Attention, then feed-forward, each with a residual connection and a LayerNorm after it.

    Source: Vaswani et al. 2017, fig. 1 (left) and sec. 3.1.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, layout: Padded | Packed) -> Tensor:
        """Transform (..., H) to (..., H); `layout` says which tokens belong to the same text."""
        x = self.attention_norm(self.dropout(self.attention(x, layout)) + x)
        return self.feed_forward_norm(self.dropout(self.feed_forward(x)) + x)


class Encoder(nn.Module):
    """The L layers in sequence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def states(self, x: Tensor, layout: Padded | Packed) -> Iterator[Tensor]:
        """Yield the L + 1 hidden states (..., H): the embeddings, then the output of each layer."""
        yield x
        for layer in self.layers:
            x = layer(x, layout)
            yield x

    def forward(self, x: Tensor, layout: Padded | Packed) -> Tensor:
        """The last hidden state, (..., H)."""
        for layer in self.layers:
            x = layer(x, layout)
        return x
