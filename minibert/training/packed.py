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

    layout = Packed(lengths[order].tolist())
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
