"""Token ids become vectors: what the token is, which text it belongs to, and where it stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minibert.config import BertConfig


class Embeddings(nn.Module):
    """The sum of three tables, normalised: token + token type + position.

    Source: Devlin et al. 2018, fig. 2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        # padding_idx: the padding token's row starts at zero and gets no gradient from the lookup
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Look up and add.

        Args:
            input_ids: (B, S) or, packed, (T,) int.
            token_type_ids: same shape, int; zeros when None.
            position_ids: same shape, or one that broadcasts to it, int; 0, 1, 2, ... along S when None.

        Returns:
            (B, S, H) or (T, H), in the dtype of the tables.

        Raises:
            ValueError: an id outside its table, or a text longer than `config.max_position_embeddings`.
        """
        length = input_ids.shape[-1]
        check_ids(input_ids, self.token.num_embeddings, "input_ids", "vocab_size")
        if position_ids is None:
            if length > self.position.num_embeddings:
                raise ValueError(
                    f"sequence length ({length}) must not exceed max_position_embeddings "
                    f"({self.position.num_embeddings}); pass truncation=True to the tokenizer, or split the text"
                )
            position_ids = torch.arange(length, device=input_ids.device)
        else:
            check_ids(position_ids, self.position.num_embeddings, "position_ids", "max_position_embeddings")
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        else:
            check_ids(token_type_ids, self.token_type.num_embeddings, "token_type_ids", "type_vocab_size")

        # Floating-point sums depend on their order: this one is that of transformers, to the bit.
        x = self.token(input_ids) + self.token_type(token_type_ids)  # (..., ) -> (..., H)
        x = x + self.position(position_ids)
        return self.dropout(self.norm(x))


def check_ids(ids: Tensor, size: int, name: str, rule: str) -> None:
    """Refuse ids that are not whole numbers in [0, size)."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} dtype ({ids.dtype}) must be torch.int64 or torch.int32; pass {name}.long()")
    if ids.numel():
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise ValueError(
                f"{name} ({wrong}) must be at least 0 and less than {rule} ({size}); "
                "use the tokenizer and the model of the same checkpoint"
            )
