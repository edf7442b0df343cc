"""Folders that sentence-transformers builds and saves: the same vectors, prompts, precisions and similarities."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import assert_same_vectors
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer import modules as models
from sentence_transformers.util.quantization import quantize_embeddings as their_quantize

import minibert

TEXTS = [
    "How do I reset my password?",
    "They fished from the bank of the river until the sun went down. " * 5,
    "",
    "Zürich, 北京 and São Paulo: 3 cities! 👍",
    "ok",
]
PROMPTS = {"query": "Represent this question: ", "document": "passage: ", "other": "classify "}


def built(folder: Path, minilm: Path, *modules: Any, **settings: Any) -> SentenceTransformer:
    """A model of sentence-transformers, saved in `folder`."""
    transformer = models.Transformer(str(minilm), max_seq_length=settings.pop("max_seq_length", 128))
    theirs = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
    theirs.save(str(folder))
    return theirs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        (torch.nn.Tanh(), True),
        (torch.nn.Identity(), False),
        (torch.nn.ReLU(), True),
        (torch.nn.GELU(), True),
    ],
    ids=str,
)
def test_dense_maps_are_computed(tmp_path: Path, minilm: Path, activation: Any, bias: bool) -> None:
    dense = models.Dense(384, 96, bias=bias, activation_function=activation)
    theirs = built(tmp_path, minilm, models.Pooling(384, "cls"), dense, models.Normalize())
    ours = minibert.load(tmp_path)
    assert ours.dimension == theirs.get_embedding_dimension() == 96
    assert "cls, mapped, normalized" in repr(ours)
    assert_same_vectors(ours.encode(TEXTS), theirs.encode(TEXTS))
    ours.save_pretrained(tmp_path / "again")
    assert np.array_equal(minibert.load(tmp_path / "again").encode(TEXTS), ours.encode(TEXTS))
    assert_same_vectors(SentenceTransformer(str(tmp_path / "again"), device="cpu").encode(TEXTS), theirs.encode(TEXTS))


def test_two_maps_one_after_the_other_and_none_normalized(tmp_path: Path, minilm: Path) -> None:
    maps = models.Dense(768, 32), models.Dense(32, 16, activation_function=torch.nn.Sigmoid())
    theirs = built(tmp_path, minilm, models.Pooling(384, ("cls", "max")), *maps)
    ours = minibert.load(tmp_path)
    assert_same_vectors(ours.encode(TEXTS), theirs.encode(TEXTS))
    message = "the pooled vector (384 numbers) must have 768, since the checkpoint maps it on; leave out layers="
    with pytest.raises(ValueError, match=re.escape(message)):
        ours.encode(TEXTS, pooling="cls")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "my.Own"}, "activation_function ('Own') of"),
        ({"module_input_name": "token_embeddings"}, "must map sentence_embedding to itself, not 'token_embeddings'"),
        ({"use_residual": True}, "use_residual of the Dense module of"),
    ],
    ids=str,
)
def test_a_map_that_is_not_known_is_refused_when_it_is_needed(
    tmp_path: Path, minilm: Path, change: Any, message: str
) -> None:
    built(tmp_path, minilm, models.Pooling(384, "mean"), models.Dense(384, 8))
    config = tmp_path / "2_Dense" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.warns(UserWarning, match=re.escape(message)):
        ours = minibert.load(tmp_path)
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        ours.encode("one")


@pytest.mark.parametrize("kind", ["Dropout", "LayerNorm"])
def test_a_module_that_is_not_there_is_named(tmp_path: Path, minilm: Path, kind: str) -> None:
    module = models.Dropout(0.1) if kind == "Dropout" else models.LayerNorm(384)
    built(tmp_path, minilm, models.Pooling(384, "mean"), module)
    with pytest.raises(ValueError, match=re.escape(f"(Transformer, Pooling, {kind}) must be Transformer, Pooling and")):
        minibert.load(tmp_path).encode("one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "include"),
    [
        ("mean", True),
        *((mode, False) for mode in ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
    ],
)
def test_prompts_are_put_before_texts(tmp_path: Path, minilm: Path, mode: str, include: bool) -> None:
    pooling = models.Pooling(384, mode, include_prompt=include)
    theirs = built(tmp_path, minilm, pooling, prompts=PROMPTS, default_prompt_name="other")
    ours = minibert.load(tmp_path)
    asked: list[dict[str, Any]] = [{}, {"prompt_name": "query"}, {"prompt": "Say: "}, {"prompt": ""}]
    for settings in asked:
        assert_same_vectors(ours.encode(TEXTS, **settings), theirs.encode(TEXTS, **settings))
    assert_same_vectors(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_same_vectors(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    ours.save_pretrained(tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert again.prompts == theirs.prompts
    assert_same_vectors(again.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_same_vectors(minibert.load(tmp_path / "again").encode(TEXTS), theirs.encode(TEXTS))


def test_a_prompt_that_is_not_there_is_refused(tmp_path: Path, minilm: Path) -> None:
    built(tmp_path, minilm, models.Pooling(384, "mean"), prompts=PROMPTS)
    ours = minibert.load(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"prompt_name \('qeury'\) must be a prompt of the checkpoint \('query', 'document', 'other'\); pass pr",
    ):
        ours.encode("one", prompt_name="qeury")
    plain, theirs = minibert.load(minilm), SentenceTransformer(str(minilm), device="cpu")
    for name in ("query", "document"):  # of every model, and empty
        assert np.array_equal(plain.encode("one", prompt_name=name), plain.encode("one"))
        assert_same_vectors(plain.encode("one", prompt_name=name), theirs.encode("one", prompt_name=name))
    for model in (plain, theirs):
        with pytest.raises(ValueError, match="'passage'"):
            model.encode("one", prompt_name="passage")
    assert np.array_equal(plain.encode_query("one"), plain.encode("one"))


def test_windows_each_have_the_prompt(tmp_path: Path, minilm: Path) -> None:
    built(tmp_path, minilm, models.Pooling(384, "mean", include_prompt=False), prompts=PROMPTS, max_seq_length=20)
    ours = minibert.load(tmp_path)
    long = "the bank of the river was steep " * 20
    seen: list[torch.Tensor] = []
    handle = ours.encoder.embeddings.register_forward_pre_hook(
        lambda module, inputs, kwargs: seen.append(inputs[0]), with_kwargs=True
    )
    ours.encode(long, prompt_name="document", truncation="window")
    handle.remove()
    ids = seen[0].tolist()
    starts = [place for place, token in enumerate(ids) if token == 101]
    prompt = ours.tokenizer.encode("passage: ", add_special_tokens=False)
    assert len(starts) > 5
    assert all(ids[start + 1 : start + 1 + len(prompt)] == prompt for start in starts)
    with pytest.raises(ValueError, match=r"the prompt \(\d+ tokens\) must leave room for text within 20 tokens"):
        ours.encode(long, prompt="word " * 30, truncation="window")


@pytest.mark.slow
def test_a_cased_checkpoint_that_is_lower_cased_here(tmp_path: Path, minilm: Path) -> None:
    theirs = built(tmp_path, minilm, models.Pooling(384, "mean"), prompts={"q": "ASK: "})
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": true}')
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    ours = minibert.load(tmp_path)
    texts = ["WHO robbed the BANK in İstanbul, ΟΔΟΣ?", "x"]
    assert_same_vectors(ours.encode(texts, prompt_name="q"), theirs.encode(texts, prompt_name="q"))
    words = ours.words(texts[0])
    assert words.words[:4] == ["WHO", "robbed", "the", "BANK"]  # the caller's own text
    assert words.pieces[0] == ["who"]


# Precisions


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary", "float32"])
def test_precisions_are_those_of_sentence_transformers(minilm: Path, precision: Any) -> None:
    rng = np.random.default_rng(0)
    vectors, sample = rng.normal(size=(50, 20)).astype(np.float32), rng.normal(size=(200, 20)).astype(np.float32)
    for settings in ({}, {"calibration_embeddings": sample}, {"ranges": np.stack([sample.min(0), sample.max(0)])}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = their_quantize(vectors, precision, **settings)
        ours = minibert.quantize_embeddings(vectors, precision, **settings)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
        assert np.array_equal(minibert.quantize_embeddings(torch.from_numpy(vectors), precision, **settings), theirs)


def test_encode_gives_precisions(minilm: Path) -> None:
    bert = minibert.load(minilm)
    vectors = bert.encode(TEXTS)
    assert np.array_equal(bert.encode(TEXTS, precision="float16"), vectors.astype(np.float16))
    assert np.array_equal(bert.encode(TEXTS, precision="ubinary"), np.packbits(vectors > 0, axis=-1))
    expected = their_quantize(vectors, "int8", calibration_embeddings=vectors[:3])
    assert np.array_equal(bert.encode(TEXTS, precision="int8", calibration_embeddings=vectors[:3]), expected)
    one = bert.encode("one", precision="int8", calibration_embeddings=vectors)
    assert one.shape == (384,)
    assert one.dtype == np.int8
    assert bert.encode(TEXTS, precision="binary", convert_to_tensor=True).dtype == torch.int8
    assert bert.encode([], precision="binary").shape == (0, 48)
    with pytest.raises(
        ValueError, match="precision='int8' needs the range of each dimension, which one vector does not"
    ):
        bert.encode("one", precision="int8")
    with pytest.raises(ValueError, match=r"precision \('int4'\) must be one of float32, float16, int8, uint8, binary"):
        bert.encode("one", precision="int4")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"embeddings \(int8\) must be float; they have been made smaller already"):
        minibert.quantize_embeddings(one, "binary")


def test_without_calibration_ranges_are_those_of_the_texts_and_that_is_told(minilm: Path) -> None:
    bert = minibert.load(minilm)
    with pytest.warns(
        UserWarning, match=r"the ranges of precision='int8' are those of these 5 texts alone; pass calib"
    ):
        assert bert.encode(TEXTS, precision="int8").dtype == np.int8


# Similarities


@pytest.mark.parametrize(
    "kind", ["cosine", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dot", "euclidean", "manhattan"))]
)
def test_similarities_are_those_of_sentence_transformers(tmp_path: Path, minilm: Path, kind: Any) -> None:
    theirs = built(tmp_path, minilm, models.Pooling(384, "mean"), similarity_fn_name=kind)
    ours = minibert.load(tmp_path)
    a, b = theirs.encode(TEXTS), theirs.encode(TEXTS[::-1])
    for x, y in ((a, b), (a[0], b), (torch.from_numpy(a), list(map(torch.from_numpy, b)))):
        torch.testing.assert_close(ours.similarity(x, y), theirs.similarity(x, y), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours.similarity_pairwise(a, b), theirs.similarity_pairwise(a, b), atol=2e-5, rtol=1e-5)
    ours.save_pretrained(tmp_path / "again")
    assert SentenceTransformer(str(tmp_path / "again"), device="cpu").similarity_fn_name == kind
    with pytest.raises(ValueError, match=r"the vectors \(384 and 8 numbers\) must be of one length"):
        ours.similarity(a, b[:, :8])
    with pytest.raises(ValueError, match=r"the vectors \(5 and 4\) must be as many on both sides; use similarity for"):
        ours.similarity_pairwise(a, b[:4])


def test_distances_of_equal_vectors_are_zero(minilm: Path) -> None:
    x = util.normalize_embeddings(torch.randn(40, 384))
    for kind in ("euclidean", "manhattan"):
        assert (minibert.similarity(x, x, kind).diag() == 0).all()
    with pytest.raises(ValueError, match=r"similarity \('angle'\) must be one of cosine, dot, euclidean, manhattan"):
        minibert.similarity(x, x, "angle")


# Whitening


@pytest.mark.slow
def test_whitened_vectors_vary_alike_in_all_directions(tmp_path: Path, minilm: Path, evaldata: Path) -> None:
    lines = (evaldata / "stsb" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines[:250] for text in line.split("\t")[5:7]]
    bert = minibert.load(minilm)
    raw = minibert.Bert(bert.model, bert.tokenizer, minibert.Recipe(), bert.source)
    white = raw.whiten(texts, 64)
    vectors = white.encode(texts).astype(np.float64)
    assert vectors.shape == (500, 64)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(vectors.T), np.eye(64), atol=1e-2)
    pooled = raw.encode(texts).astype(np.float64)  # the directions kept are those that vary most
    kept = white.recipe.dense[0].weight.numpy().T
    total = np.linalg.svd(pooled - pooled.mean(0), compute_uv=False)
    basis = np.linalg.qr(kept)[0]
    assert ((pooled - pooled.mean(0)) @ basis).var() * 64 * 500 == pytest.approx((total[:64] ** 2).sum(), rel=1e-3)

    white.save_pretrained(tmp_path)
    assert np.array_equal(minibert.load(tmp_path).encode(texts[:9]), white.encode(texts[:9]))
    assert_same_vectors(
        white.encode(texts[:9]), SentenceTransformer(str(tmp_path), device="cpu").encode(texts[:9]), 1e-5
    )


def test_centred_vectors_have_lost_their_mean_alone(minilm: Path) -> None:
    bert = minibert.load(minilm)
    raw = minibert.Bert(bert.model, bert.tokenizer, minibert.Recipe(), bert.source)
    texts = [*TEXTS, "one", "two"]
    pooled = raw.encode(texts)
    assert_same_vectors(raw.whiten(texts, rotate=False).encode(texts), pooled - pooled.mean(0), 1e-5)
    unit = bert.whiten(texts, rotate=False).encode(texts)  # what the checkpoint normalises stays so
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"texts \(7\) must be at least as many as dimensions \(384\); thousands are"):
        raw.whiten(texts)
    with pytest.raises(ValueError, match=r"dimensions \(400\) must not exceed 384"):
        raw.whiten(texts, 400)


def test_the_limit_can_be_set(minilm: Path) -> None:
    ours, theirs = minibert.load(minilm), SentenceTransformer(str(minilm), device="cpu")
    ours.max_seq_length = theirs.max_seq_length = 12
    with pytest.warns(UserWarning, match="exceed 12 tokens"):
        assert_same_vectors(ours.encode(TEXTS), theirs.encode(TEXTS))
    for wrong in (2, 513):
        with pytest.raises(
            ValueError, match=rf"max_seq_length \({wrong}\) must be at least 3 and at most 512, the model"
        ):
            ours.max_seq_length = wrong
