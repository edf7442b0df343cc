"""The names that sentence-transformers has for what a `Bert` has, so that code written for it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from typing_extensions import Self

from minibert.base import PretrainedModel
from minibert.vectors.recipe import Recipe

# What is named otherwise here, or decided elsewhere, and what to write instead.
INSTEAD = {
    "to": "minibert.load(..., device=...)",
    "cpu": "minibert.load(..., device='cpu')",
    "cuda": "minibert.load(..., device='cuda')",
    "half": "minibert.load(..., dtype='float16')",
    "bfloat16": "minibert.load(..., dtype='bfloat16')",
    "float": "minibert.load(..., dtype='float32')",
    "train": "bert.finetune(rows, task=...)",
    "fit": "bert.finetune(rows, task=...)",
    "start_multi_process_pool": "bert.encode(texts), which uses all of torch's threads",
    "stop_multi_process_pool": "bert.encode(texts), which uses all of torch's threads",
    "encode_multi_process": "bert.encode(texts), which uses all of torch's threads",
    "smart_batching_collate": "bert.tokenize(texts)",
    "forward": "bert.model(**bert.tokenize(texts))",
    "state_dict": "bert.model.state_dict()",
    "modules": "bert.model.modules()",
    "push_to_hub_sentence_transformers": "bert.push_to_hub(name)",
    "truncate_dim": "bert.encode(texts, truncate_dim=...)",
    "max_length": "bert.max_seq_length",
}


class OtherNames:
    """Methods and properties of `SentenceTransformer` and `CrossEncoder` that mean the same for a `Bert`."""

    if TYPE_CHECKING:
        model: PretrainedModel
        recipe: Recipe

        @property
        def dimension(self) -> int:
            """The length of a sentence vector."""

        @property
        def max_seq_length(self) -> int:
            """The most tokens of a text."""

        def save_pretrained(self, folder: str | Path) -> None:
            """Save everything."""

    else:

        def __getattr__(self, name: str) -> Any:
            """AttributeError that names what to write instead, for names that others have."""
            remedy = f"; use {INSTEAD[name]}" if name in INSTEAD else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{remedy}")

    def __getitem__(self, part: int) -> Any:
        """TypeError that names what to write instead of the modules of a `SentenceTransformer`."""
        raise TypeError(
            f"{type(self).__name__!r} object has no parts ([{part!r}]); use bert.model, bert.tokenizer and bert.recipe"
        )

    def eval(self) -> Self:
        """The same object: a loaded model is in evaluation mode."""
        return self

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model."""
        return self.model.dtype

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the model."""
        return self.model.parameters()

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts by name; "query" and "document" are there for every model, empty where it has none."""
        return {"query": "", "document": "", **self.recipe.prompts}

    @property
    def similarity_fn_name(self) -> str:
        """How vectors are compared: "cosine", "dot", "euclidean" or "manhattan"."""
        return self.recipe.similarity

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        """`dimension`."""
        return self.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """`dimension`."""
        return self.dimension

    def predict(self: Any, sentences: Any, batch_size: int | None = None, **settings: Any) -> Any:
        """`score`; with `convert_to_tensor=True`, as a tensor."""
        as_tensor, _ = settings.pop("convert_to_tensor", False), settings.pop("convert_to_numpy", True)
        scores = self.score(sentences, batch_size=batch_size, **settings)
        return torch.from_numpy(np.asarray(scores)) if as_tensor else scores

    def save(self, path: str | Path) -> None:
        """`save_pretrained`."""
        self.save_pretrained(path)
