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

from minibert.attention import Packed
from minibert.engine.engine import positions
from minibert.model import BertModel, recomputed_states
from minibert.training.fast import fast_operations

Ids = NDArray[np.integer[Any]]

# In training, attention is dozens of small operations for each batch. One more batch costs about as much time as this
# many scores of padding in each head (estimated from a profile of TREC's questions on a Xeon, 12 heads).
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
        padded: the layout of the texts with their padding, one after another.
        places: where each token is in it, (T,).
        masks: of each batch, bool, (texts, 1, 1, longest), True = a token; None for a batch without padding.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths)
        widths: list[int] = []
        padding = 0
        for length in lengths:
            width = widths[-1] if widths else length
            padding += width**2 - length**2
            if padding >= PADDING:
                width, padding = length, 0
            widths.append(width)
        self.padded = Packed(widths)
        places = np.repeat(np.cumsum(widths) - widths, lengths) + positions(lengths)
        real = np.zeros(self.padded.total, dtype=bool)
        real[places] = True
        self.places = torch.from_numpy(places).to(device)
        batches = [real[start : start + n * width].reshape(n, 1, 1, width) for start, n, width in self.padded.groups]
        self.masks = [None if batch.all() else torch.from_numpy(batch).to(device) for batch in batches]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (T, A, D)."""
        self.check(v)
        # on a CPU, the fused kernel has no dropout, and takes several times as long in bfloat16 (with AMX)
        fused = not dropout and (q.dtype == torch.float32 or q.device.type != "cpu")
        if self.padded.total == self.total:
            return self.padded.mix(q, k, v, dropout, fused=fused)
        q, k, v = (Scattered.apply(x, self.places, self.padded.total) for x in (q, k, v))  # type: ignore[no-untyped-call]
        mixed = self.padded.mix(q, k, v, dropout, fused=fused, masks=self.masks)
        gathered: Tensor = Gathered.apply(mixed, self.places)  # type: ignore[no-untyped-call]
        return gathered


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
