"""Code written for sentence-transformers, taken through both libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import with_real_vocabulary
from sentence_transformers import CrossEncoder, SentenceTransformer, util

import minibert
from minibert.compat import INSTEAD

TEXTS = ["The bank of the river.", "He robbed the bank.", "It rains.", "A man eats."]
PAIRS = [("Where can I fish?", text) for text in TEXTS]
ENCODER: dict[str, Callable[[Any], Any]] = {
    "encode": lambda m: m.encode(TEXTS),
    "one text": lambda m: m.encode("one"),
    "none": lambda m: m.encode([]).size,
    "sentences=": lambda m: m.encode(sentences=TEXTS),
    "inputs=": lambda m: m.encode(inputs=TEXTS),
    "batch_size": lambda m: m.encode(TEXTS, batch_size=2),
    "position of batch_size": lambda m: m.encode(TEXTS, None, None, 2),
    "no bar": lambda m: m.encode(TEXTS, show_progress_bar=False),
    "tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True),
    "normalized": lambda m: m.encode(TEXTS, normalize_embeddings=True),
    "prompt": lambda m: m.encode(TEXTS, prompt="query: "),
    "prompt_name": lambda m: m.encode(TEXTS, prompt_name="query"),
    "truncate_dim": lambda m: m.encode(TEXTS, truncate_dim=9),
    "binary": lambda m: m.encode(TEXTS, precision="binary"),
    "ubinary": lambda m: m.encode(TEXTS, precision="ubinary"),
    "output_value": lambda m: m.encode(TEXTS, output_value="sentence_embedding"),
    "encode_query": lambda m: m.encode_query(TEXTS),
    "encode_document": lambda m: m.encode_document(TEXTS),
    "similarity": lambda m: m.similarity(m.encode(TEXTS), m.encode(TEXTS)),
    "similarity_pairwise": lambda m: m.similarity_pairwise(m.encode(TEXTS), m.encode(TEXTS[::-1])),
    "similarity_fn_name": lambda m: str(m.similarity_fn_name),
    "eval": lambda m: m.eval() is m,
    "device": lambda m: m.device,
    "dtype": lambda m: m.dtype,
    "max_seq_length": lambda m: m.max_seq_length,
    "get_max_seq_length": lambda m: m.get_max_seq_length(),
    "embedding dimension": lambda m: m.get_embedding_dimension(),
    "prompts": lambda m: m.prompts,
    "tokenize": lambda m: m.tokenize(TEXTS)["input_ids"],
    "tokenizer": lambda m: m.tokenizer(TEXTS)["input_ids"],
    "parameters": lambda m: sum(p.numel() for name, p in enumerate(m.parameters())) > 10_000_000,
    "semantic_search": lambda m: [h["corpus_id"] for h in util.semantic_search(m.encode("rain"), m.encode(TEXTS))[0]],
    "cos_sim": lambda m: util.cos_sim(m.encode(TEXTS), m.encode(TEXTS)),
    "numpy array of texts": lambda m: m.encode(np.array(TEXTS)),
    "tuple": lambda m: m.encode(tuple(TEXTS)),
}
RERANKER: dict[str, Callable[[Any], Any]] = {
    "predict": lambda m: m.predict(PAIRS),
    "lists": lambda m: m.predict([list(pair) for pair in PAIRS]),
    "one pair": lambda m: m.predict(PAIRS[0]),
    "predict batch_size": lambda m: m.predict(PAIRS, batch_size=2),
    "predict no bar": lambda m: m.predict(PAIRS, show_progress_bar=False),
    "predict tensor": lambda m: m.predict(PAIRS, convert_to_tensor=True),
    "predict logits": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Identity()),
    "predict prompt": lambda m: m.predict(PAIRS, prompt="query: "),
    "rank": lambda m: [number(one) for one in m.rank("Where can I fish?", TEXTS)],
    "rank top_k": lambda m: [number(one) for one in m.rank("Where can I fish?", TEXTS, top_k=2)],
    "rank documents": lambda m: [text(one) for one in m.rank("Where can I fish?", TEXTS, return_documents=True)],
    "rank logits": lambda m: [
        score(one) for one in m.rank("Where can I fish?", TEXTS, activation_fn=torch.nn.Identity())
    ],
    "rank batch_size": lambda m: [score(one) for one in m.rank("Where can I fish?", TEXTS, batch_size=2)],
}


def number(one: Any) -> int:
    return int(one["corpus_id"] if isinstance(one, dict) else one.index)


def text(one: Any) -> str:
    return str(one["text"] if isinstance(one, dict) else one.text)


def score(one: Any) -> float:
    return float(one["score"] if isinstance(one, dict) else one.score)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, (np.ndarray, torch.Tensor, np.floating, float)) or (
        isinstance(theirs, list) and isinstance(theirs[0], float)
    ):
        assert isinstance(ours, type(theirs)) or isinstance(theirs, np.floating)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=5e-6, atol=2e-6)
    else:
        assert ours == theirs


@pytest.fixture(scope="module")
def encoders(minilm: Path) -> tuple[minibert.Bert, SentenceTransformer]:
    """The same model in both libraries."""
    return minibert.load(minilm), SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def rerankers(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[minibert.Bert, CrossEncoder]:
    """The same random reranker in both libraries."""
    folder = tmp_path_factory.mktemp("reranker")
    with_real_vocabulary(folder, minilm, "BertForSequenceClassification", num_labels=1)
    return minibert.load(folder), CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("call", ENCODER)
def test_calls_of_sentence_transformer(call: str, encoders: tuple[minibert.Bert, SentenceTransformer]) -> None:
    ours, theirs = encoders
    assert_same(ENCODER[call](ours), ENCODER[call](theirs))


@pytest.mark.parametrize("call", RERANKER)
def test_calls_of_cross_encoder(call: str, rerankers: tuple[minibert.Bert, CrossEncoder]) -> None:
    ours, theirs = rerankers
    assert_same(RERANKER[call](ours), RERANKER[call](theirs))


@pytest.mark.parametrize("name", INSTEAD)
def test_names_that_mean_something_else_are_answered_with_ours(
    name: str, encoders: tuple[minibert.Bert, SentenceTransformer]
) -> None:
    with pytest.raises(AttributeError) as told:
        getattr(encoders[0], name)
    assert str(told.value) == f"'Bert' object has no attribute {name!r}; use {INSTEAD[name]}"


def test_other_names_are_python_s_own_error(encoders: tuple[minibert.Bert, SentenceTransformer]) -> None:
    with pytest.raises(AttributeError, match=r"^'Bert' object has no attribute 'no_such_thing'$"):
        getattr(encoders[0], "no_such_thing")  # noqa: B009
    assert not hasattr(encoders[0], "no_such_thing")
    with pytest.raises(TypeError, match=r"has no parts \(\[0\]\); use bert.model, bert.tokenizer and bert.recipe"):
        encoders[0][0]


def test_a_model_may_be_loaded_with_shorter_vectors(minilm: Path, tmp_path: Path) -> None:
    ours = minibert.load(minilm, truncate_dim=9, backend="torch")
    theirs = SentenceTransformer(str(minilm), device="cpu", truncate_dim=9)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=2e-6)
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 9
    ours.save(tmp_path / "saved")
    assert minibert.load(tmp_path / "saved").encode("one").shape == (9,)
    with pytest.raises(minibert.MinibertError, match=r"truncate_dim \(500\) must not exceed 384"):
        minibert.load(minilm, truncate_dim=500)
    with pytest.raises(minibert.MinibertError, match=r"backend \('onnx'\) must be None or 'torch'"):
        minibert.load(minilm, backend="onnx")  # type: ignore[arg-type]


def test_pairs_are_mined_from_a_model_and_texts(encoders: tuple[minibert.Bert, SentenceTransformer]) -> None:
    ours, theirs = encoders
    expected = util.paraphrase_mining(theirs, TEXTS)
    found = minibert.paraphrase_mining(ours, TEXTS)
    assert [pair.numbers for pair in found] == [(i, j) for _, i, j in expected]
    np.testing.assert_allclose([pair.score for pair in found], [score for score, *_ in expected], atol=2e-6)
    index = minibert.Index(ours)
    for given in ((ours,), (index, TEXTS)):
        with pytest.raises(minibert.MinibertError, match="must be given with a model, and only then"):
            minibert.paraphrase_mining(*given)
