"""BERTopic: a backend that computes its embeddings.

BERTopic knows models by the class of its own that they inherit from. For any other object it loads a default model.
"""

from __future__ import annotations

from minibert.integrations.adapters import Backend

try:
    from bertopic.backend import BaseEmbedder
except ImportError:
    raise ImportError(
        "minibert.integrations.bertopic needs BERTopic, which is not installed; pip install bertopic"
    ) from None


class BERTopicBackend(Backend, BaseEmbedder):  # type: ignore[misc]
    """Give BERTopic the vectors of `Bert.encode`: `BERTopic(embedding_model=BERTopicBackend(...))`.

    The arguments are those of `Adapter`.
    """
