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

SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2", "manhattan": "l2"}  # the nearest thing that Chroma has


class ChromaEmbeddingFunction(Adapter):
    """What Chroma calls an embedding function.

    Args:
        model: a repository's name, a folder, or a `Bert`; the last cannot be written into a collection's configuration.
        revision, dtype, device: as for `minibert.load`; `dtype` may also be a name.
        settings: of `Bert.encode`, for queries and documents alike: normalize_embeddings, truncate_dim, ...
    """

    def __init__(
        self, model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None, **settings: Any
    ) -> None:
        super().__init__(model, revision=revision, dtype=dtype, device=device, **settings)
        self._model = str(model) if isinstance(model, (str, Path)) else None
        if self._model is not None and Path(self._model).is_dir():  # found from another directory, too
            self._model = str(Path(self._model).absolute())
        self._loading = {
            "revision": revision,
            "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
            "device": None if device is None else str(device),
        }

    def __call__(self, input: list[str]) -> list[NDArray[np.float32]]:
        """The vectors of texts that are searched, by `Bert.encode_document`."""
        return list(self.bert.encode_document(list_of(input), **self.settings))

    def embed_query(self, input: list[str]) -> list[NDArray[np.float32]]:
        """The vectors of texts that are searched for, by `Bert.encode_query`."""
        return list(self.bert.encode_query(list_of(input), **self.settings))

    @staticmethod
    def name() -> str:
        """What a collection's configuration calls it."""
        return "minibert"

    def default_space(self) -> str:
        """How Chroma is to compare vectors: as the checkpoint says."""
        return SPACES[self.bert.recipe.similarity]

    def supported_spaces(self) -> list[str]:
        """How Chroma may compare vectors."""
        return ["cosine", "l2", "ip"]

    def is_legacy(self) -> bool:
        """Whether there is no configuration to write down: that is so for a model which has no name."""
        return self._model is None

    def get_config(self) -> dict[str, Any]:
        """All that `build_from_config` needs, as plain values.

        Raises:
            MinibertError: the model has no name.
        """
        if self._model is None:
            raise MinibertError(
                f"model ({type(self.bert).__name__}) must be a name or a folder to be written down; save it with "
                "save_pretrained, and pass the folder"
            )
        return {"model": self._model, **self._loading, **self.settings}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ChromaEmbeddingFunction:
        """The same function once more."""
        return ChromaEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse what `build_from_config` cannot use.

        Raises:
            MinibertError: no model is named.
        """
        if not config.get("model"):
            raise MinibertError(f"config ({config}) must name a model; what get_config returns does")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse to change what vectors are made of, once a collection has some.

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
