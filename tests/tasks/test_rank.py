"""Scores and orders are those of sentence-transformers' CrossEncoder, with the activation that the files name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracle import TINY, with_real_vocabulary
from sentence_transformers import CrossEncoder

import minibert
from minibert import MinibertError, Ranked

QUERY = "Where can I fish?"
DOCUMENTS = [
    "They fished from the bank of the river until the sun went down. " * 60,
    "Zürich, 北京 and São Paulo: 3 cities! 👍",
    "",
    "ok",
    *(f"Sentence {i} is about {word}. " * (3 * i % 17 + 1) for i, word in enumerate(["banks", "lakes", "fish"] * 9)),
]
PAIRS = [(QUERY, text) for text in DOCUMENTS] + [("river " * 600, "lake " * 600), ("a " * 700, "b"), ("", "")]
MINILM_SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"

pytestmark = pytest.mark.filterwarnings("ignore:.*exceed .* tokens")


def reranker(folder: Path, minilm: Path, **config: Any) -> Path:
    size = {**TINY, "vocab_size": 30522, "num_labels": 1, "initializer_range": 0.2}
    return with_real_vocabulary(folder, minilm, "BertForSequenceClassification", **{**size, **config})


def set_in(path: Path, **values: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("shape", [TINY, pytest.param(MINILM_SHAPE, marks=pytest.mark.slow)], ids=["tiny", "minilm"])
def test_scores_and_order_are_those_of_the_cross_encoder(tmp_path: Path, minilm: Path, shape: dict[str, Any]) -> None:
    size = {**shape, "vocab_size": 30522, "initializer_range": 0.2 if shape is TINY else 0.05}
    reranker(tmp_path, minilm, **size)
    set_in(tmp_path / "config.json", sbert_ce_default_activation_function=IDENTITY)
    theirs, bert = CrossEncoder(str(tmp_path), device="cpu"), minibert.load(tmp_path)
    expected = theirs.predict(PAIRS)
    ours = bert.score(PAIRS)
    assert ours.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(bert.score(PAIRS, batch_size=1), expected, rtol=0, atol=1e-5)
    ranked, hits = bert.rank(QUERY, DOCUMENTS, top_k=10), theirs.rank(QUERY, DOCUMENTS, top_k=10)
    assert [one.index for one in ranked] == [hit["corpus_id"] for hit in hits]
    np.testing.assert_allclose([one.score for one in ranked], [hit["score"] for hit in hits], rtol=0, atol=1e-5)
    assert [one.text for one in ranked] == [DOCUMENTS[one.index] for one in ranked]


ACTIVATIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "none named": ({}, torch.nn.Sigmoid),
    "old files, sigmoid": ({"sbert_ce_default_activation_function": SIGMOID}, torch.nn.Sigmoid),
    "old files, identity": ({"sbert_ce_default_activation_function": IDENTITY}, torch.nn.Identity),
    "old files, tanh": ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, torch.nn.Tanh),
    "version 4": ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}}, torch.nn.Identity),
    "both": (
        {
            "sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"},
            "sbert_ce_default_activation_function": SIGMOID,
        },
        torch.nn.Identity,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "kind"), ACTIVATIONS.values(), ids=list(ACTIVATIONS))
def test_the_activation_is_the_one_that_the_files_name(
    tmp_path: Path, minilm: Path, fields: dict[str, Any], kind: Any
) -> None:
    set_in(reranker(tmp_path, minilm) / "config.json", **fields)
    theirs = CrossEncoder(str(tmp_path), device="cpu")
    assert type(theirs.activation_fn) is kind
    ours = minibert.load(tmp_path).score(PAIRS)
    np.testing.assert_allclose(ours, theirs.predict(PAIRS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", [torch.nn.Identity(), torch.nn.Sigmoid()], ids=repr)
def test_a_folder_that_the_newest_cross_encoder_saves_scores_alike(
    tmp_path: Path, minilm: Path, activation: Any
) -> None:
    folder = reranker(tmp_path / "old", minilm)
    theirs = CrossEncoder(str(folder), device="cpu", activation_fn=activation, max_length=40)
    theirs.save_pretrained(str(tmp_path / "new"))
    again = CrossEncoder(str(tmp_path / "new"), device="cpu")
    bert = minibert.load(tmp_path / "new")
    assert bert.max_seq_length == again.max_seq_length == 40
    np.testing.assert_allclose(bert.score(PAIRS), again.predict(PAIRS), rtol=0, atol=1e-5)


def test_an_activation_that_is_unknown_here_is_rejected(tmp_path: Path, minilm: Path) -> None:
    set_in(reranker(tmp_path, minilm) / "config.json", sbert_ce_default_activation_function="mine.Cube")
    with pytest.raises(MinibertError, match=re.escape("activation (mine.Cube) must be one of Identity")):
        minibert.load(tmp_path).score(PAIRS)


@pytest.mark.parametrize("theirs", [[], ["activation_fn"], "Sigmoid", 3, {"activation_fn": None}], ids=str)
def test_settings_that_are_no_object_name_no_activation(tmp_path: Path, minilm: Path, theirs: object) -> None:
    set_in(reranker(tmp_path, minilm) / "config.json", sentence_transformers=theirs)
    assert 0 < minibert.load(tmp_path).score(PAIRS[3]) < 1


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    """A random reranker."""
    torch.manual_seed(1)
    return minibert.load(reranker(tmp_path_factory.mktemp("reranker"), minilm))


def test_one_pair_has_a_number_and_several_have_an_array(bert: minibert.Bert) -> None:
    scores = bert.score(PAIRS[:3])
    assert scores.shape == (3,)
    for pair, expected in zip(PAIRS[:3], scores, strict=True):
        assert bert.score(pair) == bert.score(list(pair)) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(bert.score(pair for pair in PAIRS[:3]), scores, atol=1e-6)
    frame = pd.DataFrame(PAIRS[:3], columns=["query", "passage"])
    for array in (frame.values, frame.to_numpy(dtype=object), np.array(PAIRS[:3]), frame.values.tolist()):
        np.testing.assert_allclose(bert.score(array), scores, atol=1e-6)
        assert bert.score(array[0]) == pytest.approx(scores[0], abs=1e-6)
    frame.loc[1, "passage"] = None
    with pytest.raises(MinibertError, match=re.escape("pair 1 (") + r".* must be two texts, \(query, document\)"):
        bert.score(frame.values)
    assert bert.score([]).shape == (0,)


def test_equal_scores_keep_the_order_of_the_documents(bert: minibert.Bert) -> None:
    with torch.no_grad():
        bert = minibert.Bert(bert.model, bert.tokenizer)
        weight = bert.model.get_submodule("classifier").weight
        before = weight.clone()  # type: ignore[operator]
        weight.zero_()  # type: ignore[operator]
        ranked = bert.rank(QUERY, DOCUMENTS)
        weight.copy_(before)  # type: ignore[operator]
    assert [one.index for one in ranked] == list(range(len(DOCUMENTS)))


def test_rank_takes_a_stream_and_may_have_nothing_to_rank(bert: minibert.Bert) -> None:
    assert bert.rank(QUERY, iter(DOCUMENTS)) == bert.rank(QUERY, DOCUMENTS)
    assert bert.rank(QUERY, []) == []
    assert len(bert.rank(QUERY, DOCUMENTS, top_k=3)) == 3


def test_a_ranked_document_prints_on_one_line() -> None:
    assert repr(Ranked(2, 0.98765, "a\nb " * 30)) == (
        r"Ranked(index=2, score=0.9877, text='a\nb a\nb a\nb a\nb a\nb a\nb a\nb a...)"
    )


@pytest.mark.parametrize("pairs", ["ok", ["ok"], [("a", "b", "c")], [("a", None)], 3, {"a": "b"}])
def test_what_is_not_a_pair_is_rejected(bert: minibert.Bert, pairs: Any) -> None:
    with pytest.raises(MinibertError, match=r"^pairs? "):
        bert.score(pairs)


def test_a_query_is_one_text_and_documents_are_texts(bert: minibert.Bert) -> None:
    for query, documents in ([["a"], ["b"]], ["a", 3], ["a", [3]]):
        with pytest.raises(MinibertError, match="text"):
            bert.rank(query, documents)  # type: ignore[arg-type]
    with pytest.raises(MinibertError, match="top_k"):
        bert.rank("a", ["b"], top_k=0)


def test_a_classifier_of_several_labels_does_not_rank_and_says_what_does(tmp_path: Path, minilm: Path) -> None:
    bert = minibert.load(reranker(tmp_path, minilm, num_labels=3))
    for call in (lambda: bert.score(PAIRS), lambda: bert.rank(QUERY, DOCUMENTS)):
        with pytest.raises(MinibertError, match=r"num_labels \(3\) must be 1 .* classify\(texts, pair\)"):
            call()
