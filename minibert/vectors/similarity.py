"""How alike vectors are, and vectors in fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")

# Each pair of rows, and all pairs of two sets of rows; the larger, the more alike.
PAIRWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -(a - b).square().sum(-1).sqrt(),
    "manhattan": lambda a, b: -(a - b).abs().sum(-1),
}
ALL_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"),
    "manhattan": lambda a, b: -torch.cdist(a, b, p=1.0),
}


def similarity(a: Any, b: Any, kind: str = "cosine") -> Tensor:
    """Compare each vector of `a` with each of `b`.

    Args:
        a, b: (N, H) and (M, H), or (H,) for one: arrays, tensors or lists.
        kind: "cosine", "dot", "euclidean" or "manhattan"; distances are negative, so that more is more alike.

    Returns:
        (N, M) float32.

    Raises:
        ValueError: vectors of different lengths; an unknown kind.
    """
    a, b = _rows(a), _rows(b)
    _check(a, b, kind)
    return ALL_PAIRS[kind](a, b)


def similarity_pairwise(a: Any, b: Any, kind: str = "cosine") -> Tensor:
    """Compare the first vector of `a` with the first of `b`, the second with the second, and so on: (N,) float32.

    Raises:
        ValueError: not as many vectors, or of different lengths; an unknown kind.
    """
    a, b = _rows(a), _rows(b)
    _check(a, b, kind)
    if len(a) != len(b):
        raise ValueError(
            f"the vectors ({len(a)} and {len(b)}) must be as many on both sides; use similarity for all pairs"
        )
    return PAIRWISE[kind](a, b)


def quantize_embeddings(
    embeddings: Any, precision: Precision, *, ranges: Any = None, calibration_embeddings: Any = None
) -> NDArray[Any]:
    """Vectors in fewer bits.

    Args:
        embeddings: (N, H) or (H,) float.
        precision: "float16"; "int8" or "uint8": each dimension's range in 256 steps; "binary" or "ubinary": one bit a
            dimension, whether it is above 0, eight to a byte.
        ranges: (2, H) the lowest and highest number of each dimension, for "int8" and "uint8".
        calibration_embeddings: (M, H) vectors whose ranges are taken if `ranges` is None; the vectors themselves
            if this is None, too, and then a vector's numbers depend on the vectors beside it.

    Returns:
        (N, H) in the dtype of the precision; (N, ceil(H / 8)) for bits.

    Raises:
        ValueError: an unknown precision; one vector, and no ranges.

    Source: sentence-transformers `util/quantization.py`, whose numbers these are.
    """
    check_precision(precision)
    values = embeddings.float().cpu().numpy() if isinstance(embeddings, Tensor) else np.asarray(embeddings)
    if values.dtype.kind != "f":
        raise ValueError(f"embeddings ({values.dtype}) must be float; they have been made smaller already")
    if precision in ("float32", "float16"):
        return values.astype(precision)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(values > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        sample = values if calibration_embeddings is None else np.asarray(calibration_embeddings)
        if values.ndim == 2 and not len(values):
            return np.empty(values.shape, dtype=precision)
        if sample.ndim != 2 or len(sample) < 2:
            raise ValueError(
                f"precision={precision!r} needs the range of each dimension, which one vector does not have; pass "
                "calibration_embeddings=, vectors of a hundred typical texts or more"
            )
        ranges = np.stack([sample.min(0), sample.max(0)])
    low, high = np.asarray(ranges, dtype=np.float32)
    steps = (high - low) / 255
    levels: NDArray[Any] = np.clip(np.floor((values - low) / np.where(steps == 0, 1, steps)), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def check_precision(precision: str) -> None:
    """Refuse a precision that is none."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision ({precision!r}) must be one of {', '.join(PRECISIONS)}")


def _rows(vectors: Any) -> Tensor:
    if isinstance(vectors, (list, tuple)) and vectors and isinstance(vectors[0], Tensor):
        vectors = torch.stack(list(vectors))
    tensor = torch.as_tensor(vectors).float()
    return tensor[None] if tensor.ndim == 1 else tensor


def _check(a: Tensor, b: Tensor, kind: str) -> None:
    if kind not in PAIRWISE:
        raise ValueError(f"similarity ({kind!r}) must be one of {', '.join(PAIRWISE)}")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"the vectors ({a.shape[-1]} and {b.shape[-1]} numbers) must be of one length")
