"""What models return: fields by name (`outputs.logits`) or by index (`outputs[0]`), as in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


class Outputs:
    """Access by index to the fields that are not None, in the order of their declaration."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> tuple[str, ...]:
        """The names of the fields that are not None."""
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return tuple(name for name in names if getattr(self, name) is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.to_tuple())


@dataclass
class BertOutput(Outputs):
    """What `BertModel` returns.

    Attributes:
        last_hidden_state: (B, S, H).
        pooler_output: (B, H); None if the checkpoint has no pooler.
        hidden_states: L + 1 tensors (B, S, H), the embeddings first; None unless requested.
        attentions: L tensors (B, A, S, S) of probabilities; None unless requested.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class HeadOutput(Outputs):
    """What a model with one head returns; `loss` is a scalar, or None without labels."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PreTrainingOutput(Outputs):
    """What `BertForPreTraining` returns: (B, S, V) and (B, 2) logits."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class QuestionAnsweringOutput(Outputs):
    """What `BertForQuestionAnswering` returns: (B, S) logits of where the answer starts and ends."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
