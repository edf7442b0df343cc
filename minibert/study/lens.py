"""The lens: what the masked-LM head would answer if the model ended after each layer.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens". BERT's hidden states are normalised after each layer,
so they go to the head as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minibert.base import PretrainedModel
from minibert.errors import MinibertError
from minibert.model import BertForMaskedLM, BertForPreTraining
from minibert.study.trace import Trace, trace_one
from minibert.text import whole_number
from minibert.tokenizer import BertTokenizer


class Guess(NamedTuple):
    """A token that the head names, and its probability."""

    token: str
    probability: float


class Lens:
    """The masked-LM head, read at every hidden state of a text: 0 is the embeddings, L the last layer.

    The hidden states are kept; logits are computed when asked for.

    Attributes:
        tokens: the S tokens.
        words: the words; each special token counts as one.
        states: L + 1 tensors (1, S, H).
    """

    def __init__(self, model: BertForMaskedLM | BertForPreTraining, tokenizer: BertTokenizer, traced: Trace) -> None:
        self.tokens = traced.tokens
        self.words = traced.words
        self.states = tuple(traced.values())
        self._model = model
        self._tokenizer = tokenizer

    @property
    def logits(self) -> Tensor:
        """The logits of all layers, (L + 1, S, V): 4 (L + 1) S V bytes in float32, 50 MB for 32 tokens of bert-base."""
        return torch.cat([self.layer(number) for number in range(len(self.states))])

    @torch.no_grad()
    def layer(self, number: int, positions: Sequence[int] | None = None) -> Tensor:
        """The logits at one hidden state, (1, S, V); or at some of the tokens only, (N, V)."""
        if not isinstance(number, int) or not -len(self.states) <= number < len(self.states):
            raise MinibertError(f"layer ({number!r}) must be a whole number from 0 to {len(self.states) - 1}")
        x = self.states[number] if positions is None else self.states[number][0, list(positions)]
        logits: Tensor = self._model.mlm_head(x, self._model.bert.embeddings.token.weight)
        return logits

    def at(self, position: int) -> Tensor:
        """The logits at one token through all layers, (L + 1, V)."""
        return torch.cat([self.layer(number, [position]) for number in range(len(self.states))])

    def top(self, k: int = 5) -> list[list[list[Guess]]]:
        """For each hidden state and each token, the k most probable tokens, the most probable first."""
        whole_number("k", k)
        found = []
        for number in range(len(self.states)):
            named = self.layer(number)[0].float().softmax(-1)[:, : len(self._tokenizer)]
            best = named.topk(min(k, named.shape[-1]))
            rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found.append([[Guess(self._token(i), p) for i, p in zip(*row, strict=True)] for row in rows])
        return found

    def _token(self, number: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(number))

    def __repr__(self) -> str:
        rows = [["", *self.tokens]]
        rows += [[str(number), *(row[0].token for row in layer)] for number, layer in enumerate(self.top(1))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def lens(model: PretrainedModel, tokenizer: BertTokenizer, text: str, pair: str | None = None) -> Lens:
    """Read the masked-LM head at every hidden state of a text, or pair.

    Raises:
        MinibertError: the model has no masked-LM head; more tokens than it takes.
    """
    if not isinstance(model, (BertForMaskedLM, BertForPreTraining)):
        raise MinibertError(
            f"the model ({type(model).__name__}) must have a masked-LM head for the lens; load a checkpoint that has "
            "it, google-bert/bert-base-uncased for one"
        )
    return Lens(model, tokenizer, trace_one(model, tokenizer, text, pair, ["embeddings", "encoder.layers.*"]))
