"""LangChain: a class with the methods that it calls, without importing it. Also the base classes of other adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.bert import Bert
from minibert.errors import MinibertError
from minibert.integrations import open_bert
from minibert.text import unwrapped


class Adapter:
    """A `Bert` with settings, which another library calls.

    Args:
        model: a repository's name, a folder, or a `Bert`.
        revision, dtype, device: as for `minibert.load`.
        settings: arguments of `Bert.encode`, for queries and documents: normalize_embeddings, truncate_dim, ...
    """

    def __init__(
        self, model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None, **settings: Any
    ) -> None:
        super().__init__()  # backends also inherit from a class of the other library
        self.bert = open_bert(model, revision=revision, dtype=dtype, device=device)
        self.settings = settings
        check_settings(self.bert, settings)


class Backend(Adapter):
    """The base class for KeyBERT and BERTopic, which call one method for documents and words."""

    def embed(self, documents: list[str], verbose: bool = False) -> NDArray[np.float32]:
        """The vectors of texts, (n, H)."""
        settings = {"show_progress_bar": verbose, **self.settings}
        vectors: NDArray[np.float32] = self.bert.encode(list_of(documents), **settings)
        return vectors


class LangChainEmbeddings(Adapter):
    """LangChain's Embeddings interface: texts in, lists of numbers out. The arguments are those of `Adapter`."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, by `Bert.encode_document`."""
        settings = {"show_progress_bar": False, **self.settings}  # LangChain's own bars are enough
        vectors: list[list[float]] = self.bert.encode_document(list_of(texts), **settings).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, by `Bert.encode_query`.

        Raises:
            MinibertError: not a single text.
        """
        if not isinstance(text, str):
            raise MinibertError(
                f"text ({text!r:.40}) must be one str, not {type(text).__name__}; pass several to embed_documents"
            )
        vector: list[float] = self.bert.encode_query(text, **{"show_progress_bar": False, **self.settings}).tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a thread, which does not block the event loop."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread, which does not block the event loop."""
        return await asyncio.to_thread(self.embed_query, text)

    def __call__(self, text: str) -> list[float]:
        """`embed_query`. Some vector stores call an object that does not inherit from LangChain's own class."""
        return self.embed_query(text)


def check_settings(bert: Bert, settings: dict[str, Any]) -> None:
    """Encode no texts with the settings, so that a mistake is reported at once.

    Raises:
        MinibertError: a setting that makes no sense, or that would change the type of the result.
    """
    if settings.get("convert_to_tensor"):
        raise MinibertError("convert_to_tensor (True) must be left out; lists of numbers are what is asked for here")
    bert.encode_query([], **settings)
    bert.encode_document([], **settings)


def list_of(texts: Any) -> list[str]:
    """Several texts as a list.

    Raises:
        MinibertError: a single text.
    """
    texts = unwrapped(texts)
    if isinstance(texts, str):
        raise MinibertError(f"texts ({texts!r:.40}) must be several texts, not str; pass a list of them")
    return list(texts)
