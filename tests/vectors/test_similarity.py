"""Similarities and small vectors: right for numbers of any size, and NaN is refused where it enters."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util.quantization import quantize_embeddings as their_quantize

import minibert
from minibert.pictures.plots import plot_similarity

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e-12, 1.0, 1e18, 1e25, 3e38])
def test_cosine_is_right_for_numbers_of_any_size(scale: float) -> None:
    rng = np.random.default_rng(0)
    a = (rng.integers(-1, 2, (7, 20)) * scale).astype(np.float32)
    b = rng.normal(size=(5, 20)).astype(np.float32)
    exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(exact_a, axis=1)[:, None] * np.linalg.norm(exact_b, axis=1)
    np.testing.assert_allclose(minibert.similarity(a, b), exact_a @ exact_b.T / lengths, atol=1e-6)
    np.testing.assert_allclose(minibert.similarity_pairwise(a, a), np.ones(7), atol=1e-6)
    assert (minibert.similarity(np.zeros((1, 20)), b) == 0).all()


REFUSED = [
    ([[1.0, NAN]], "vectors (nan at [0, 1]) must be finite numbers in float32; look at the text that this vector is"),
    ([[1.0, 2.0], [-INF, 0.0]], "vectors (-inf at [1, 0]) must be finite numbers in float32"),
    ([1.0, 1e300], "vectors (1e+300 at [1]) must be finite numbers in float32"),
    (torch.tensor([NAN, 1.0]), "vectors (nan at [0]) must be finite numbers in float32"),
    ([torch.tensor([1.0, 2.0]), torch.tensor([1.0, NAN])], "vectors (nan at [1, 1]) must be finite numbers in"),
    ([[1.0, 2j]], "vectors (complex128) must be real numbers; pass an array (N, H), as np.stack makes one"),
    (torch.ones(2, dtype=torch.complex64), "vectors (torch.complex64) must be real numbers"),
    (["a", "b"], "vectors (<U1) must be real numbers"),
    ([None, None], "vectors (object) must be real numbers"),
    ([[1.0, 2.0], [1.0]], "vectors must be of one length; they are not: pass an array (N, H)"),
    ([torch.ones(2), torch.ones(3)], "vectors must be of one length; they are not"),
    (1.0, "vectors () must be (N, H), or (H,) for one"),
    (np.ones((1, 1, 2)), "vectors (1, 1, 2) must be (N, H), or (H,) for one"),
]


@pytest.mark.parametrize(("vectors", "message"), REFUSED)
@pytest.mark.parametrize("compare", [minibert.similarity, minibert.similarity_pairwise])
def test_what_are_no_finite_vectors_is_refused(compare: Any, vectors: Any, message: str) -> None:
    for pair in ((vectors, [1.0, 2.0]), ([1.0, 2.0], vectors)):
        with pytest.raises(ValueError, match=re.escape(message)):
            compare(*pair)


@pytest.mark.parametrize("kind", ["dot", "euclidean", "manhattan"])
def test_vectors_whose_products_float32_cannot_hold_are_refused(kind: str) -> None:
    message = f"the length of a vector (3e+38) must be less than 4.61e+18 where the similarity is {kind!r}; divide the"
    with pytest.raises(ValueError, match=re.escape(message)):
        minibert.similarity([3e38, 0.0], [1.0, 2.0], kind)
    longest = minibert.similarity([4.6e18, 0.0], [-4.6e18, 0.0], kind)
    assert longest.item() == pytest.approx(-(4.6e18**2) if kind == "dot" else -9.2e18, rel=1e-6)


def test_any_real_array_is_taken() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = minibert.similarity(vectors, vectors)
    readonly = vectors.copy()
    readonly.flags.writeable = False
    for same in (readonly, vectors[::-1][::-1], vectors.astype(">f8"), vectors.astype(np.int8), vectors.tolist()):
        assert torch.equal(minibert.similarity(same, vectors), expected)
    assert torch.equal(minibert.similarity(torch.tensor(vectors, dtype=torch.bfloat16), vectors), expected)


def test_similarity_may_be_trained_through() -> None:
    a = torch.randn(3, 4, requires_grad=True)
    minibert.similarity_pairwise(a, torch.randn(3, 4)).sum().backward()
    assert a.grad is not None


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_only_finite_numbers_are_made_smaller(precision: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    for value in (NAN, INF, -INF):
        wrong = vectors.copy()
        wrong[2, 5] = value
        for embeddings in (wrong, torch.from_numpy(wrong)):
            with pytest.raises(
                ValueError, match=re.escape(f"embeddings ({value} at [2, 5]) must be finite numbers in")
            ):
                minibert.quantize_embeddings(embeddings, precision)


def test_numbers_too_large_for_a_precision_are_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("embeddings (100000.0 at [0, 1]) must be finite numbers in float16")
    ):
        minibert.quantize_embeddings(np.array([[1.0, 1e5]], dtype=np.float32), "float16")
    with pytest.raises(ValueError, match=re.escape("embeddings (1e+300 at [0]) must be finite numbers in float32")):
        minibert.quantize_embeddings(np.array([1e300]), "float32")
    with pytest.raises(ValueError, match=re.escape("embeddings (complex64) must be float")):
        minibert.quantize_embeddings(torch.ones(2, 2, dtype=torch.complex64), "binary")
    with pytest.raises(ValueError, match=re.escape("embeddings (int8) must be float; they have been made smaller")):
        minibert.quantize_embeddings(torch.ones(2, 2, dtype=torch.int8), "int8")


def test_ranges_are_two_finite_rows() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    low, high = vectors.min(0), vectors.max(0)
    for ranges in ([low], [low, high, high], [low[:2], high[:2]], [high, low], [low, high * NAN], [low, [INF] * 3]):
        with pytest.raises(
            ValueError, match=r"ranges .* must be \(2, 3\) finite numbers, the lowest and the highest of"
        ):
            minibert.quantize_embeddings(vectors, "int8", ranges=np.stack(ranges))
    sample = vectors.copy()
    sample[1, 2] = NAN
    with pytest.raises(ValueError, match=re.escape("calibration_embeddings (nan at [1, 2]) must be finite numbers in")):
        minibert.quantize_embeddings(vectors, "uint8", calibration_embeddings=sample)
    outside = np.array([[3e38, -3e38, 0.0]], dtype=np.float32)
    ours = minibert.quantize_embeddings(outside, "uint8", ranges=np.stack([low, high]))
    assert ours.tolist()[0][:2] == [255, 0]
    assert np.array_equal(ours[:, 2:], their_quantize(outside[:, 2:], "uint8", ranges=np.stack([low, high])[:, 2:]))


# Vectors in fewer bits


def spearman(a: Any, b: Any) -> float:
    """The correlation of the ranks."""
    ranks = [np.argsort(np.argsort(np.ravel(values), kind="stable")) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("width", [64, 61])
def test_bits_are_compared_by_their_hamming_distance(precision: Any, width: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(count, width)).astype(np.float32) for count in (7, 5))
    bits = [minibert.quantize_embeddings(one, precision) for one in (a, b)]
    expected = -((a > 0)[:, None] != (b > 0)[None]).sum(-1)
    for kind in ("cosine", "dot", "euclidean", "manhattan"):
        for made in (bits, [torch.from_numpy(one) for one in bits], [list(one) for one in bits]):
            assert np.array_equal(minibert.similarity(*made, kind, precision=precision), expected)
            pairwise = minibert.similarity_pairwise(made[0][:5], made[1], kind, precision=precision)
            assert np.array_equal(pairwise, expected.diagonal())
    assert minibert.similarity(bits[0][0], bits[0][0], precision=precision).item() == 0
    assert minibert.similarity(bits[0][0], bits[0], precision=precision).shape == (1, 7)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_steps_are_compared_as_the_numbers_they_stand_for(precision: Any, kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(1, 1 + np.arange(48) % 3, size=(count, 48)).astype(np.float32) for count in (20, 9))
    sample = np.concatenate([a, b])
    small = [minibert.quantize_embeddings(one, precision, calibration_embeddings=sample) for one in (a, b)]
    exact = minibert.similarity(a, b, kind)
    spread = float(exact.max() - exact.min())
    ranges = np.stack([sample.min(0), sample.max(0)])
    for how in ({"calibration_embeddings": sample}, {"ranges": ranges}):
        found = minibert.similarity(*small, kind, precision=precision, **how)
        torch.testing.assert_close(found, exact, rtol=0, atol=spread / 100)
        one_side = minibert.similarity(a, torch.from_numpy(small[1]), kind, precision=precision, **how)
        torch.testing.assert_close(one_side, exact, rtol=0, atol=spread / 100)
        pairwise = minibert.similarity_pairwise(small[0][:9], small[1], kind, precision=precision, **how)
        torch.testing.assert_close(pairwise, exact.diagonal(), rtol=0, atol=spread / 100)


def test_small_vectors_keep_the_order_of_the_cosine(bert: minibert.Bert) -> None:
    texts = [f"{who} {what} the {thing}" for who in ("she", "he") for what in ("saw", "sold") for thing in
             ("bank", "card", "fish", "river", "house")]  # fmt: skip
    vectors = bert.encode(texts)
    exact = bert.similarity(vectors, vectors)[np.triu_indices(len(texts), 1)]
    least: list[tuple[Any, dict[str, Any], float]] = [
        ("binary", {}, 0.85),
        ("ubinary", {}, 0.85),
        ("int8", {"calibration_embeddings": vectors}, 0.999),
        ("uint8", {"calibration_embeddings": vectors}, 0.999),
    ]
    for precision, how, correlation in least:
        small = bert.encode(texts, precision=precision, **how)
        scores = bert.similarity(small, small, precision=precision, **how)[np.triu_indices(len(texts), 1)]
        assert spearman(exact, scores) > correlation


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_vectors_of_an_unknown_kind_are_refused(bert: minibert.Bert, dtype: str) -> None:
    small = np.ones((2, 384), dtype)
    message = f"vectors ({dtype}) must be compared by the precision that made them; pass precision='binary' or"
    for given in (small, torch.from_numpy(small), list(small), small[:, :48]):
        for compare in (minibert.similarity, minibert.similarity_pairwise, bert.similarity, bert.similarity_pairwise):
            with pytest.raises(minibert.MinibertError, match=re.escape(message)):
                compare(given, given)
    for use in (lambda: minibert.Index(bert).add_vectors(small, ["a", "b"]), lambda: plot_similarity(small)):
        with pytest.raises(minibert.MinibertError, match=re.escape(f"vectors ({dtype}) must be float here; leave")):
            use()


@pytest.mark.parametrize(
    ("vectors", "how", "message"),
    [
        (np.ones((2, 4), "f4"), {"precision": "binary"}, "vectors (float32) must be int8 where precision is 'binary';"),
        (np.ones((2, 4), "i1"), {"precision": "ubinary"}, "vectors (int8) must be uint8 where precision is 'ubinary'"),
        (np.ones((2, 4), "u1"), {"precision": "int8"}, "vectors (uint8) must be int8 where precision is 'int8'"),
        (np.ones((2, 4), "i1"), {"precision": "float16"}, "vectors (int8) must be float16 where precision is"),
        (np.ones((2, 4), "i1"), {"precision": "int8"}, "precision='int8' needs the ranges that made the vectors; pass"),
        (np.ones((2, 4), "i1"), {"precision": "int8", "ranges": [[0], [1]]}, "ranges (2, 1) must be (2, 4) finite"),
        (np.ones((2, 4), "i1"), {"precision": "bits"}, "precision ('bits') must be one of float32, float16, int8"),
    ],
    ids=["floats", "other bits", "other steps", "no float", "no ranges", "other ranges", "unknown"],
)
def test_vectors_that_a_precision_does_not_make_are_refused(vectors: Any, how: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        minibert.similarity(vectors, vectors, **how)
