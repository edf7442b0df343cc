"""Similarities and small vectors: right for numbers of any size, and NaN is refused where it enters."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util.quantization import quantize_embeddings as their_quantize

import minibert

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
