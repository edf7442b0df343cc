"""Adapters: the methods that LangChain and Chroma call, with the vectors of sentence-transformers."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same_vectors
from sentence_transformers import SentenceTransformer

import minibert
from minibert.integrations.adapters import ChromaEmbeddingFunction, LangChainEmbeddings

TEXTS = ["How do I reset my password?", "Where is my parcel?", ""]


@pytest.fixture(scope="module")
def prompted(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with prompts for queries and documents, written by sentence-transformers."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(minilm, folder)
    prompts = {"query": "query: ", "document": "passage: "}
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text("utf-8")), "prompts": prompts}))
    return folder


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


def test_chroma_gets_a_list_of_arrays(prompted: Path, theirs: Any) -> None:
    function = ChromaEmbeddingFunction(prompted)
    vectors, queries = function(TEXTS), function.embed_query(input=TEXTS)
    assert type(vectors) is list
    assert all(isinstance(vector, np.ndarray) and vector.dtype == np.float32 for vector in vectors)
    assert_same_vectors(np.stack(vectors), theirs.encode_document(TEXTS))
    assert_same_vectors(np.stack(queries), theirs.encode_query(TEXTS))
    assert list(inspect.signature(ChromaEmbeddingFunction.__call__).parameters) == ["self", "input"]  # Chroma checks it


def test_chroma_writes_the_function_down_and_makes_it_again(prompted: Path) -> None:
    function = ChromaEmbeddingFunction(prompted, normalize_embeddings=True, truncate_dim=64, dtype="float32")
    config = json.loads(json.dumps(function.get_config()))
    assert config["model"] == str(prompted)
    assert not function.is_legacy()
    function.validate_config(config)
    again = ChromaEmbeddingFunction.build_from_config(config)
    assert again.get_config() == config
    assert np.array_equal(np.stack(again(TEXTS)), np.stack(function(TEXTS)))
    assert again(TEXTS)[0].shape == (64,)
    assert ChromaEmbeddingFunction.name() == again.name() == "minibert"
    again.validate_config_update(config, {**config, "device": "cpu"})
    with pytest.raises(
        ValueError, match=r"^truncate_dim \(32\) must stay 64, of which the collection's vectors are mad"
    ):
        again.validate_config_update(config, {**config, "truncate_dim": 32})
    with pytest.raises(ValueError, match=r"^config \(\{\}\) must name a model"):
        ChromaEmbeddingFunction.validate_config({})


def test_chroma_compares_as_the_checkpoint_says(prompted: Path, tmp_path: Path) -> None:
    assert ChromaEmbeddingFunction(prompted).default_space() == "cosine"
    folder = tmp_path / "dot"
    shutil.copytree(prompted, folder)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text("utf-8")), "similarity_fn_name": "dot"}))
    assert SentenceTransformer(str(folder)).similarity_fn_name == "dot"
    function = ChromaEmbeddingFunction(folder)
    assert function.default_space() == "ip"
    assert function.default_space() in function.supported_spaces()


def test_a_bert_is_taken_as_it_is(prompted: Path) -> None:
    bert = minibert.load(prompted)
    assert LangChainEmbeddings(bert).bert is bert
    function = ChromaEmbeddingFunction(bert)
    assert function.is_legacy()
    with pytest.raises(
        ValueError, match=r"^model \(Bert\) must be a name or a folder to be written down; save it with"
    ):
        function.get_config()


@pytest.mark.parametrize("adapter", [LangChainEmbeddings, ChromaEmbeddingFunction])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": 7}, "model (7) must be the name of a checkpoint, a folder, or a Bert"),
        ({"truncate_dim": 999}, "truncate_dim (999) must not exceed 384"),
        ({"convert_to_tensor": True}, "convert_to_tensor (True) must be left out; lists of numbers"),
        ({"dtype": "int3"}, "dtype ('int3') must be 'auto', 'float32'"),
    ],
    ids=str,
)
def test_mistakes_are_told_at_once(prompted: Path, adapter: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        adapter(**{"model": prompted, **settings})


def test_one_text_is_not_several_and_several_are_not_one(prompted: Path) -> None:
    embeddings, function = LangChainEmbeddings(prompted), ChromaEmbeddingFunction(prompted)
    for call in (embeddings.embed_documents, function, function.embed_query):
        with pytest.raises(ValueError, match=r"^texts \('one'\) must be several texts, not str; pass a list of them"):
            call("one")
    with pytest.raises(ValueError, match=r"^text \(\['one'\]\) must be one str, not list; pass several to embed_docum"):
        embeddings.embed_query(["one"])  # type: ignore[arg-type]


def test_neither_library_is_imported() -> None:
    code = "import sys, minibert.integrations.adapters; print(*sorted(name.split('.')[0] for name in sys.modules))"
    root = str(Path(minibert.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert not {"langchain", "langchain_core", "chromadb"} & set(done.stdout.split())


def test_langchains_own_store_searches_with_it(prompted: Path) -> None:
    vectorstores = pytest.importorskip("langchain_core.vectorstores", reason="langchain-core is not installed")
    store = vectorstores.InMemoryVectorStore.from_texts(
        ["I forgot my password", "Track your delivery"], LangChainEmbeddings(prompted)
    )
    assert store.similarity_search("Where is my parcel?", k=1)[0].page_content == "Track your delivery"
