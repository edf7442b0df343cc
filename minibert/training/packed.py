"""Examples become packed hidden states, with gradients: no padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.attention import Packed, attention, fused_attention
from minibert.engine.engine import positions
from minibert.model import BertModel, recomputed_states
from minibert.training.fast import fast_operations

Ids = NDArray[np.integer[Any]]

# In training, attention is dozens of small operations for each batch. A batch of its own costs about as much time as
# this many scores of a head that are only padding (TREC's questions, 12 heads, AMX and AVX-512).
PADDING = 2**14


class Example(NamedTuple):
    """What is learned from at once.

    Attributes:
        rows: token ids with special tokens, (S,) for each row. Most objectives take one row; texts that are compared
            with each other, and the choices of a question, have a row each.
        labels: what the model should predict; each objective says in which form.
        types: token types of each row, (S,); empty if all are 0.
    """

    rows: tuple[Ids, ...]
    labels: Any = None
    types: tuple[Ids, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows."""
        return sum(map(len, self.rows))


@dataclass(frozen=True)
class States:
    """The hidden states of rows.

    Attributes:
        x: (T, H) float, packed. The order of the rows is not the one they were given in.
        layout: the layout of `x`.
        order: the number of each packed row in the order given.
        starts, lengths: where each row begins in `x`, and its number of tokens, in the order given.
    """

    x: Tensor
    layout: Packed
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def first(self) -> Tensor:
        """The states of the first tokens, [CLS], (N, H), in the order given."""
        return self.x[torch.from_numpy(self.starts)]

    def where(self, chosen: Sequence[NDArray[np.bool_]]) -> Tensor:
        """The states of chosen tokens, row after row in the order given.

        Args:
            chosen: (S,) bool for each row.
        """
        places = [start + np.flatnonzero(row) for start, row in zip(self.starts, chosen, strict=True)]
        return self.x[torch.from_numpy(np.concatenate(places))]


class Batches(Packed):
    """`Packed`, but attention reads texts of similar lengths as one batch, padded, with a mask.

    Args:
        lengths: how many tokens each text has, the longest first.
        device: of the hidden states.

    Attributes:
        batches: (texts, longest) of each.
        places: where each token is in the padded batches, (T,); they lie one after another.
        masks: bool, (texts, 1, 1, longest), True = a token; None for a batch without padding.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths)
        self.batches: list[tuple[int, int]] = []
        padding = PADDING
        for length in lengths:
            padding += self.batches[-1][1] ** 2 - length**2 if self.batches else 0
            if padding >= PADDING:
                self.batches.append((0, length))
                padding = 0
            count, longest = self.batches[-1]
            self.batches[-1] = (count + 1, longest)
        counts, longest_ones = np.array(self.batches).T
        widths = np.repeat(longest_ones, counts)
        places = np.repeat(np.cumsum(widths) - widths, lengths) + positions(lengths)
        real = np.zeros(widths.sum(), dtype=bool)
        real[places] = True
        self.size = len(real)
        self.places = torch.from_numpy(places).to(device)
        self.masks = [
            None if part.all() else torch.from_numpy(part.reshape(count, 1, 1, -1)).to(device)
            for part, count in zip(np.split(real, np.cumsum(counts * longest_ones)[:-1]), counts, strict=True)
        ]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (T, A, D)."""
        self.check(v)
        plain = self.size == self.total  # no padding
        padded = [
            x if plain else Scattered.apply(x, self.places, self.size)  # type: ignore[no-untyped-call]
            for x in (q, k, v)
        ]
        sizes = [count * longest for count, longest in self.batches]
        # on a CPU, the fused kernel has no dropout, and takes several times as long in bfloat16 (with AMX)
        fused = not dropout and (q.dtype == torch.float32 or q.device.type != "cpu")
        mixed = []
        for (count, longest), mask, *parts in zip(
            self.batches, self.masks, *(torch.split(x, sizes) for x in padded), strict=True
        ):
            # (T, A, D) -> (B, S, A, D) -> (B, A, S, D): B texts of S tokens
            q_, k_, v_ = (x.reshape(count, longest, *x.shape[1:]).transpose(1, 2) for x in parts)
            x = fused_attention(q_, k_, v_, mask) if fused else attention(q_, k_, v_, mask, dropout)[0]
            mixed.append(x.transpose(1, 2).flatten(0, 1))
        found = torch.cat(mixed)
        return found if plain else Gathered.apply(found, self.places)  # type: ignore[no-untyped-call]


class Scattered(torch.autograd.Function):
    """Rows put at different places of a longer tensor, with zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, size: int) -> Tensor:
        """(T, ...) -> (size, ...)."""
        ctx.save_for_backward(places)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the rows."""
        return gradients[0].index_select(0, *ctx.saved_tensors), None, None


class Gathered(torch.autograd.Function):
    """The inverse of `Scattered`. Because the places differ, the gradient is copied, not added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        """(size, ...) -> (T, ...)."""
        ctx.save_for_backward(places)
        ctx.size = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of the longer tensor."""
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, places, gradient), None


def hidden_states(model: BertModel, examples: Sequence[Example]) -> States:
    """Compute the last hidden states of all rows of examples; dropout and gradients are those of the model's mode.

    Args:
        model: the encoder.
        examples: their ids come from the tokenizer and are not checked again.
    """
    rows = [row for example in examples for row in example.rows]
    types = [row for example in examples for row in example.types]
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    starts = np.empty_like(lengths)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]

    def joined(parts: Sequence[Ids]) -> Tensor:
        return torch.from_numpy(np.concatenate([parts[i] for i in order]).astype(np.int64)).to(model.device)

    layout = Batches(lengths[order].tolist(), model.device)
    places = torch.from_numpy(positions(lengths[order].tolist())).to(model.device)
    x = model.embeddings(joined(rows), joined(types) if types else None, places)
    if model._recompute is not None:
        # what is computed again runs in the backward pass, outside the context that the step runs in
        again = {"context_fn": lambda: (nullcontext(), fast_operations(model.device))}
        *_, x = recomputed_states(model.encoder, x, layout, model._recompute | again)
    else:
        x = model.encoder(x, layout)
    return States(x, layout, order, starts, lengths)


def parts_of(examples: Sequence[Example], most_tokens: int) -> Iterator[Sequence[Example]]:
    """Cut a batch into parts of at most `most_tokens` tokens; a longer example is a part of its own."""
    start = tokens = 0
    for i, example in enumerate(examples):
        if i > start and tokens + example.tokens > most_tokens:
            yield examples[start:i]
            start, tokens = i, 0
        tokens += example.tokens
    if examples:
        yield examples[start:]
