"""Chroma: an embedding function. Importing this module registers it, so that Chroma finds it for a saved collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import MinibertError
from minibert.integrations.adapters import Adapter, list_of

try:
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError:
    raise ImportError(
        "minibert.integrations.chroma needs Chroma, which is not installed; pip install chromadb"
    ) from None

SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2", "manhattan": "l2"}  # Chroma's nearest equivalent


class ChromaEmbeddingFunction(Adapter):
    """Chroma's embedding function.

    Args:
        model: a repository's name, a folder, or a `Bert`, which a collection's configuration cannot store.
        revision, dtype, device: as for `minibert.load`; `dtype` may also be a name.
        settings: arguments of `Bert.encode`, for queries and documents: normalize_embeddings, truncate_dim, ...
    """

    def __init__(
        self, model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None, **settings: Any
    ) -> None:
        super().__init__(model, revision=revision, dtype=dtype, device=device, **settings)
        self._model = str(model) if isinstance(model, (str, Path)) else None
        if self._model is not None and Path(self._model).is_dir():  # so that it is found from another directory
            self._model = str(Path(self._model).absolute())
        self._loading = {
            "revision": revision,
            "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
            "device": None if device is None else str(device),
        }

    def __call__(self, input: list[str]) -> list[NDArray[np.float32]]:
        """The vectors of documents, by `Bert.encode_document`."""
        return list(self.bert.encode_document(list_of(input), **self.settings))

    def embed_query(self, input: list[str]) -> list[NDArray[np.float32]]:
        """The vectors of queries, by `Bert.encode_query`."""
        return list(self.bert.encode_query(list_of(input), **self.settings))

    @staticmethod
    def name() -> str:
        """Its name in a collection's configuration."""
        return "minibert"

    def default_space(self) -> str:
        """How Chroma compares vectors by default: as the checkpoint says."""
        return SPACES[self.bert.recipe.similarity]

    def supported_spaces(self) -> list[str]:
        """The ways in which Chroma may compare vectors."""
        return ["cosine", "l2", "ip"]

    def is_legacy(self) -> bool:
        """Whether it has no configuration to store, because its model was given as a `Bert`."""
        return self._model is None

    def get_config(self) -> dict[str, Any]:
        """The arguments for `build_from_config`, as plain values.

        Raises:
            MinibertError: the model was given as a `Bert`.
        """
        if self._model is None:
            raise MinibertError(
                f"model ({type(self.bert).__name__}) must be a name or a folder to be written down; save it with "
                "save_pretrained, and pass the folder"
            )
        return {"model": self._model, **self._loading, **self.settings}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ChromaEmbeddingFunction:
        """Make the function from what `get_config` returned."""
        return ChromaEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Reject a configuration that `build_from_config` cannot use.

        Raises:
            MinibertError: no model is named.
        """
        if not config.get("model"):
            raise MinibertError(f"config ({config}) must name a model; what get_config returns does")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Reject changes that would give a collection different vectors.

        Raises:
            MinibertError: something other than the device changes.
        """
        for name in sorted({*old_config, *new_config} - {"device", "batch_tokens", "batch_size"}):
            old, new = old_config.get(name), new_config.get(name)
            if old != new:
                raise MinibertError(
                    f"{name} ({new!r}) must stay {old!r}, of which the collection's vectors are made; make a new "
                    "collection"
                )


register_embedding_function(ChromaEmbeddingFunction)
