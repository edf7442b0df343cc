"""KeyBERT: a backend that computes its embeddings.

KeyBERT knows models by the class of its own that they inherit from. For any other object it loads a default model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.integrations import open_bert
from minibert.integrations.adapters import check_settings, list_of

try:
    from keybert.backend import BaseEmbedder
except ImportError:
    raise ImportError(
        "minibert.integrations.keybert needs KeyBERT, which is not installed; pip install keybert"
    ) from None


class KeyBERTBackend(BaseEmbedder):  # type: ignore[misc]
    """Give KeyBERT the vectors of `Bert.encode`: `KeyBERT(model=KeyBERTBackend(...))`.

    Args:
        model: a repository's name, a folder, or a `Bert`.
        revision, dtype, device: as for `minibert.load`; `dtype` may also be a name.
        settings: of `Bert.encode`: normalize_embeddings, truncation, ...
    """

    def __init__(
        self, model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None, **settings: Any
    ) -> None:
        super().__init__()
        self.bert = open_bert(model, revision=revision, dtype=dtype, device=device)
        self.settings = settings
        check_settings(self.bert, settings)

    def embed(self, documents: list[str], verbose: bool = False) -> NDArray[np.float32]:
        """The vectors of texts and candidate keywords, (n, H)."""
        vectors: NDArray[np.float32] = self.bert.encode(
            list_of(documents), **{"show_progress_bar": verbose, **self.settings}
        )
        return vectors
