"""From token ids to vectors: the sum of the embeddings of the token, its token type and its position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minibert.config import BertConfig
from minibert.errors import MinibertError


class Embeddings(nn.Module):
    """LayerNorm(token + token type + position).

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
        """Look up the three embeddings, add and normalise them.

        Args:
            input_ids: (B, S) or, packed, (T,) int. They are not checked here, but by `BertModel.forward`.
                Or (B, S, H) or (T, H) float: vectors of tokens, in place of those that the table has for them.
            token_type_ids: same shape, int; zeros when None.
            position_ids: same shape, or one that broadcasts to it, int; 0, 1, 2, ... along S when None.

        Returns:
            (B, S, H) or (T, H), in the dtype of the tables.

        Raises:
            MinibertError: a text is longer than `config.max_position_embeddings`; on a CPU, an id has no row.
        """
        try:
            x = input_ids if input_ids.is_floating_point() else self.token(input_ids)  # (..., ) -> (..., H)
        except IndexError:
            raise MinibertError(
                f"a token id ({int(input_ids.max())}) must be less than vocab_size ({len(self.token.weight)}); use "
                "the tokenizer that belongs to the weights"
            ) from None
        if position_ids is None:
            length = x.shape[-2]
            if length > self.position.num_embeddings:
                raise MinibertError(
                    f"sequence length ({length}) must not exceed max_position_embeddings "
                    f"({self.position.num_embeddings}); pass truncation=True to the tokenizer, or split the text"
                )
            position_ids = torch.arange(length, device=x.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros(x.shape[:-1], dtype=torch.int64, device=x.device)

        # Floating-point sums depend on their order: this one is that of transformers, to the bit.
        x = x + self.token_type(token_type_ids)
        x = x + self.position(position_ids)
        return self.dropout(self.norm(x))
