"""A compact token table: while a model is fine-tuned, it keeps only the rows of tokens that occur.

The gradient of bert-base's token table has 23 million numbers, nearly all of them zero, and the optimizer visits every
one. Tokens that do not occur get no gradient, so Adam leaves them alone; only weight decay would shrink them, by the
same factor for all, which is applied at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minibert.inputs import check_ids
from minibert.model import BertModel
from minibert.training.packed import Example


class CompactTable:
    """A model's token table, reduced to the rows that occur in examples.

    Args:
        model: the encoder; its `embeddings.token` is replaced until `restore`.
        examples: all that the model will see until then.

    Attributes:
        used: the ids that occur, sorted.
        examples: the same examples with ids of the compact table.

    Raises:
        MinibertError: a token without a row.
    """

    def __init__(self, model: BertModel, examples: Sequence[Example]) -> None:
        self.model = model
        self.whole = model.embeddings.token
        self.used: NDArray[np.int64] = np.unique(np.concatenate([row for e in examples for row in e.rows]))
        check_ids(torch.from_numpy(self.used).long(), self.whole, "a token id", "vocab_size")
        self.examples = [
            example._replace(rows=tuple(np.searchsorted(self.used, row) for row in example.rows))
            for example in examples
        ]
        table = nn.Embedding(len(self.used), self.whole.embedding_dim, device=self.whole.weight.device)
        table.weight.data.copy_(self.whole.weight.data[torch.from_numpy(self.used)])
        model.embeddings.token = table

    def restore(self, decay: float = 1.0) -> None:
        """Give the model its whole table back, with the trained rows.

        Args:
            decay: what weight decay has left of the other rows: the product of 1 - rate * decay over all steps.
        """
        with torch.no_grad():
            weight: Tensor = self.whole.weight
            weight.mul_(decay)
            weight[torch.from_numpy(self.used)] = self.model.embeddings.token.weight
        self.model.embeddings.token = self.whole
