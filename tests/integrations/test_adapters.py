"""LangChain: the methods that it calls, with the vectors of sentence-transformers."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same_vectors
from sentence_transformers import SentenceTransformer

import minibert
from minibert.integrations.adapters import LangChainEmbeddings

TEXTS = ["How do I reset my password?", "Where is my parcel?", ""]


@pytest.fixture(scope="module")
def theirs(prompted: Path) -> Any:
    return SentenceTransformer(str(prompted))


def test_langchain_gets_lists_of_numbers(prompted: Path, theirs: Any) -> None:
    embeddings = LangChainEmbeddings(prompted)
    documents, query = embeddings.embed_documents(TEXTS), embeddings.embed_query(TEXTS[0])
    assert {type(documents), type(documents[0]), type(query)} == {list}
    assert {type(documents[0][0]), type(query[0])} == {float}
    assert_same_vectors(np.array(documents), theirs.encode_document(TEXTS))
    assert_same_vectors(np.array(query), theirs.encode_query(TEXTS[0]))
    assert not np.allclose(documents[0], query)  # each with its prompt
    assert embeddings(TEXTS[0]) == query
    assert embeddings.embed_documents([]) == []


def test_langchain_may_wait_for_them(prompted: Path) -> None:
    embeddings = LangChainEmbeddings(str(prompted))

    async def both() -> tuple[list[list[float]], list[float]]:
        return await asyncio.gather(embeddings.aembed_documents(TEXTS), embeddings.aembed_query(TEXTS[0]))

    documents, query = asyncio.run(both())
    assert_same_vectors(np.array(documents), np.array(embeddings.embed_documents(TEXTS)))
    assert_same_vectors(np.array(query), np.array(embeddings.embed_query(TEXTS[0])))


def test_a_bert_is_taken_as_it_is(prompted: Path) -> None:
    bert = minibert.load(prompted)
    assert LangChainEmbeddings(bert).bert is bert


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": 7}, "model (7) must be the name of a checkpoint, a folder, or a Bert"),
        ({"truncate_dim": 999}, "truncate_dim (999)"),
        ({"convert_to_tensor": True}, "convert_to_tensor (True) must be left out; lists of numbers"),
        ({"dtype": "int3"}, "dtype ('int3') must be a floating-point type of torch"),
    ],
    ids=str,
)
def test_mistakes_are_told_at_once(prompted: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        LangChainEmbeddings(**{"model": prompted, **settings})


def test_one_text_is_not_several_and_several_are_not_one(prompted: Path) -> None:
    embeddings = LangChainEmbeddings(prompted)
    with pytest.raises(minibert.MinibertError, match=r"^texts \('one'\)"):
        embeddings.embed_documents("one")  # type: ignore[arg-type]
    with pytest.raises(
        minibert.MinibertError, match=r"^text \(\['one'\]\) must be one str, not list; pass several to embed_docum"
    ):
        embeddings.embed_query(["one"])  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_library_is_imported() -> None:
    code = "import sys, minibert.integrations.adapters; print(*sorted(name.split('.')[0] for name in sys.modules))"
    root = str(Path(minibert.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert not {"langchain", "langchain_core", "chromadb", "keybert", "bertopic"} & set(done.stdout.split())


def test_langchains_own_store_searches_with_it(prompted: Path) -> None:
    vectorstores = pytest.importorskip("langchain_core.vectorstores", reason="langchain-core is not installed")
    store = vectorstores.InMemoryVectorStore.from_texts(
        ["I forgot my password", "Track your delivery"], LangChainEmbeddings(prompted)
    )
    assert store.similarity_search("Where is my parcel?", k=1)[0].page_content == "Track your delivery"
