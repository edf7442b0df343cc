"""KeyBERT: a backend that computes its embeddings.

KeyBERT knows models by the class of its own that they inherit from. For any other object it loads a default model.
"""

from __future__ import annotations

from minibert.integrations.adapters import Backend

try:
    from keybert.backend import BaseEmbedder
except ImportError:
    raise ImportError(
        "minibert.integrations.keybert needs KeyBERT, which is not installed; pip install keybert"
    ) from None


class KeyBERTBackend(Backend, BaseEmbedder):  # type: ignore[misc]
    """Give KeyBERT the vectors of `Bert.encode`: `KeyBERT(model=KeyBERTBackend(...))`.

    The arguments are those of `Adapter`.
    """
