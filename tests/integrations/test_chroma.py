"""Chroma: its own client stores and finds texts with our vectors, and opens a collection again in another process."""

from __future__ import annotations

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

chromadb = pytest.importorskip("chromadb", reason="Chroma is not installed")
from minibert.integrations.chroma import ChromaEmbeddingFunction  # noqa: E402

TEXTS = ["How do I reset my password?", "Where is my parcel?", ""]


@pytest.fixture(scope="module")
def theirs(prompted: Path) -> Any:
    return SentenceTransformer(str(prompted))


def client_at(folder: Path) -> Any:
    return chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))


REOPEN = """
import json, sys
import chromadb
import minibert.integrations.chroma
client = chromadb.PersistentClient(sys.argv[1], settings=chromadb.Settings(anonymized_telemetry=False))
collection = client.get_collection("faq")
found = collection.query(query_texts=["Where is my parcel?"], n_results=2)
collection.add(ids=["3"], documents=["Pay by card"])
vector = collection.get(ids=["3"], include=["embeddings"])["embeddings"][0].tolist()
print(json.dumps([found["documents"], found["distances"], vector]))
"""


@pytest.mark.slow
def test_a_collection_that_another_process_opens_has_its_function(prompted: Path, theirs: Any, tmp_path: Path) -> None:
    documents = ["I forgot my password", "Track your delivery"]
    shutil.copytree(prompted, tmp_path / "here" / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "here")
        function = ChromaEmbeddingFunction("model", truncate_dim=64)
    collection = client_at(tmp_path / "store").create_collection("faq", embedding_function=function)
    collection.add(ids=["1", "2"], documents=documents)
    stored = np.asarray(collection.get(include=["embeddings"])["embeddings"])
    assert_same_vectors(stored, theirs.encode_document(documents, truncate_dim=64))
    done = subprocess.run(
        [sys.executable, "-c", REOPEN, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    found, distances, vector = json.loads(done.stdout)
    assert found == [documents[::-1]]
    query = theirs.encode_query("Where is my parcel?", truncate_dim=64)
    cosines = stored[::-1] @ query / (np.linalg.norm(stored[::-1], axis=1) * np.linalg.norm(query))
    assert distances[0] == pytest.approx((1 - cosines).tolist(), abs=1e-5)  # its space is the checkpoint's
    assert_same_vectors(np.array(vector), theirs.encode_document("Pay by card", truncate_dim=64))


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


def test_a_bert_is_taken_as_it_is_and_has_no_name(prompted: Path) -> None:
    bert = minibert.load(prompted)
    function = ChromaEmbeddingFunction(bert)
    assert function.bert is bert
    assert function.is_legacy()
    message = r"^model \(Bert\) must be a name or a folder to be written down; save it with"
    with pytest.raises(ValueError, match=message):
        function.get_config()


def test_mistakes_are_told_at_once(prompted: Path) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape("truncate_dim (999)")):
        ChromaEmbeddingFunction(prompted, truncate_dim=999)
    function = ChromaEmbeddingFunction(prompted)
    for call in (function, function.embed_query):
        with pytest.raises(minibert.MinibertError, match=r"^texts \('one'\)"):
            call("one")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_missing_chroma_is_one_sentence() -> None:
    code = "import sys; sys.modules['chromadb'] = None; import minibert.integrations.chroma"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: minibert.integrations.chroma needs Chroma, which is not installed; pip install chromadb"
    )
