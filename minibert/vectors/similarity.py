"""Similarity of vectors, and vectors in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from minibert.errors import MinibertError

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
SMALL, BITS = ("int8", "uint8"), ("binary", "ubinary")

# Squares and products of vectors of this length or more overflow float32.
LONGEST = 2.0**62


def unit_vectors(vectors: Tensor) -> Tensor:
    """Divide each vector (N, H) by its length; a vector of zeros stays as it is.

    The squares of very large and very small numbers overflow or underflow float32, so such vectors are scaled first.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    extreme = (lengths < 1e-12) | lengths.isinf()
    if extreme.any():
        largest = vectors.abs().amax(-1, keepdim=True)
        vectors = vectors / torch.where(extreme & (largest > 0), largest, 1)
    return F.normalize(vectors, dim=-1)


# PAIRWISE compares row by row, ALL_PAIRS every row with every other; larger numbers mean more similar vectors.
PAIRWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: (unit_vectors(a) * unit_vectors(b)).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -(a - b).square().sum(-1).sqrt(),
    "manhattan": lambda a, b: -(a - b).abs().sum(-1),
}
ALL_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: unit_vectors(a) @ unit_vectors(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"),
    "manhattan": lambda a, b: -torch.cdist(a, b, p=1.0),
}


def similarity(
    a: Any,
    b: Any,
    kind: str = "cosine",
    *,
    precision: Precision | None = None,
    ranges: Any = None,
    calibration_embeddings: Any = None,
) -> Tensor:
    """Compare each vector of `a` with each of `b`.

    Args:
        a, b: (N, H) and (M, H), or (H,) for one: arrays, tensors or lists.
        kind: "cosine", "dot", "euclidean" or "manhattan"; distances are negated, so that a larger number
            always means more similar.
        precision: how `quantize_embeddings` made the vectors; needed if both sides are int8 or uint8, which do not say
            so themselves. "binary" and "ubinary" compare bits, whatever the kind: the Hamming distance, negated. "int8"
            and "uint8" compare the numbers that the steps stand for; one side may be float.
        ranges, calibration_embeddings: those that "int8" and "uint8" vectors were made with.

    Returns:
        (N, M) float32.

    Raises:
        MinibertError: vectors of different lengths, or with numbers that are not finite; an unknown kind; int8 or uint8
            vectors without a precision, with another one than theirs, or without their ranges.
    """
    a, b = _comparable(a, b, precision, ranges, calibration_embeddings)
    _check(a, b, kind)
    return (a @ b.T - a.shape[1]) / 2 if precision in BITS else ALL_PAIRS[kind](a, b)


def similarity_pairwise(
    a: Any,
    b: Any,
    kind: str = "cosine",
    *,
    precision: Precision | None = None,
    ranges: Any = None,
    calibration_embeddings: Any = None,
) -> Tensor:
    """Compare the first vector of `a` with the first of `b`, the second with the second, and so on: (N,) float32.

    The arguments are those of `similarity`.

    Raises:
        MinibertError: as for `similarity`; different numbers of vectors.
    """
    a, b = _comparable(a, b, precision, ranges, calibration_embeddings)
    _check(a, b, kind)
    if len(a) != len(b):
        raise MinibertError(
            f"the vectors ({len(a)} and {len(b)}) must be as many on both sides; use similarity for all pairs"
        )
    return ((a * b).sum(-1) - a.shape[1]) / 2 if precision in BITS else PAIRWISE[kind](a, b)


def _comparable(a: Any, b: Any, precision: Precision | None, ranges: Any, sample: Any) -> tuple[Tensor, Tensor]:
    """Both sides as rows of numbers; bits as 1 and -1."""
    sides = [_array(a), _array(b)]
    types = [str(side.dtype).removeprefix("torch.") for side in sides]
    if precision is None:
        if all(kind in SMALL for kind in types):
            raise MinibertError(
                f"vectors ({types[0]}) must be compared by the precision that made them; pass precision='binary' or "
                "'ubinary' for bits, 'int8' or 'uint8' for steps, or vectors.astype('float32') for plain numbers"
            )
        return _rows(sides[0]), _rows(sides[1])
    check_precision(precision)
    wanted = {"binary": "int8", "ubinary": "uint8"}.get(precision, precision)
    found = []
    for side, kind in zip(sides, types, strict=True):
        if kind == wanted and precision in BITS:
            side = _signs(_rows(side))
        elif kind == wanted and precision in SMALL:
            side = _middles(side, precision, _ranges(precision, side.shape[-1:], ranges, sample))
        elif precision in BITS or not kind.startswith(("float", "bfloat")):
            raise MinibertError(
                f"vectors ({kind}) must be {wanted} where precision is {precision!r}; pass what quantize_embeddings "
                "returned"
            )
        found.append(_rows(side))
    return found[0], found[1]


def _signs(bytes_: Tensor) -> Tensor:
    """The bits of packed vectors (N, W), -128 to 255, as 1 and -1: (N, 8 W) float32."""
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], device=bytes_.device)
    # the bytes of "binary" are those of "ubinary" less 128, which turns the first bit of each on both sides
    return ((bytes_.long()[..., None] & places) != 0).flatten(-2).float() * 2 - 1


def _middles(steps: Any, precision: str, ranges: NDArray[np.float32]) -> Tensor:
    """The numbers in the middle of the steps that `quantize_embeddings` made."""
    levels = as_vectors(steps) + (128 if precision == "int8" else 0)
    low, high = torch.from_numpy(ranges).to(levels.device)
    middles: Tensor = low + (levels + 0.5).clamp(max=255) * ((high - low) / 255)
    return middles


def quantize_embeddings(
    embeddings: Any, precision: Precision, *, ranges: Any = None, calibration_embeddings: Any = None
) -> NDArray[Any]:
    """Convert vectors to a type of fewer bits.

    Args:
        embeddings: (N, H) or (H,) float.
        precision: "float16"; "int8" or "uint8", which divide each dimension's range into 256 steps; "binary" or
            "ubinary", which store one bit per dimension (1 if it is above 0), eight to a byte.
        ranges: (2, H) the lowest and highest number of each dimension, for "int8" and "uint8".
        calibration_embeddings: (M, H) vectors whose ranges are used if `ranges` is None. If both are None, the ranges
            are those of `embeddings`, and a vector's numbers then depend on the other vectors.

    Returns:
        (N, H) in the dtype of the precision; (N, ceil(H / 8)) for bits.

    Raises:
        MinibertError: an unknown precision; numbers that are not finite, or too large for it; invalid ranges; a single
            vector without ranges.

    Source: sentence-transformers `util/quantization.py`, which gives the same numbers.
    """
    check_precision(precision)
    floats = isinstance(embeddings, Tensor) and embeddings.is_floating_point()
    values = embeddings.float().cpu().numpy() if floats else np.asarray(embeddings)
    if values.dtype.kind != "f":
        raise MinibertError(f"embeddings ({values.dtype}) must be float; they have been made smaller already")
    _check_finite("embeddings", values, np.isfinite(values), str(values.dtype))
    if precision in ("float32", "float16"):
        with np.errstate(over="ignore"):  # rejected by the next line
            rounded = values.astype(precision)
        _check_finite("embeddings", values, np.isfinite(rounded), precision)
        return rounded
    if precision in ("binary", "ubinary"):
        bits = np.packbits(values > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None and calibration_embeddings is None:
        if values.ndim == 2 and not len(values):
            return np.empty(values.shape, dtype=precision)
        calibration_embeddings = values
    ranges = _ranges(precision, values.shape[-1:], ranges, calibration_embeddings)
    steps = (ranges[1] - ranges[0]) / 255
    with np.errstate(over="ignore"):  # larger numbers are clipped
        levels: NDArray[Any] = np.clip(np.floor((values - ranges[0]) / np.where(steps == 0, 1, steps)), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def _ranges(precision: str, width: Sequence[int], ranges: Any, sample: Any) -> NDArray[np.float32]:
    """The lowest and the highest number of each dimension, (2, *width): as given, or those of sample vectors."""
    if ranges is None:
        if sample is None:
            raise MinibertError(
                f"precision={precision!r} needs the ranges that made the vectors; pass the ranges= or "
                "calibration_embeddings= that quantize_embeddings had"
            )
        sample = np.asarray(sample)
        if sample.ndim != 2 or len(sample) < 2:
            raise MinibertError(
                f"precision={precision!r} needs the range of each dimension, which one vector does not have; pass "
                "calibration_embeddings=, vectors of a hundred typical texts or more"
            )
        _check_finite("calibration_embeddings", sample, np.isfinite(sample), str(sample.dtype))
        ranges = np.stack([sample.min(0), sample.max(0)])
    with np.errstate(over="ignore", invalid="ignore"):  # infinite ranges are rejected
        ranges = np.asarray(ranges, dtype=np.float32)
        wanted = (2, *width)
        if ranges.shape != wanted or not (((spread := ranges[1] - ranges[0]) >= 0) & (spread < np.inf)).all():
            raise MinibertError(
                f"ranges {ranges.shape} must be {wanted} finite numbers, the lowest and the highest of "
                "each dimension; take them of typical vectors"
            )
    found: NDArray[np.float32] = ranges
    return found


def check_precision(precision: str) -> None:
    """Raise MinibertError unless this is a precision."""
    if precision not in PRECISIONS:
        raise MinibertError(f"precision ({precision!r}) must be one of {', '.join(PRECISIONS)}")


def as_vectors(vectors: Any, name: str = "vectors") -> Tensor:
    """Vectors as a float32 tensor. A tensor stays on its device; an array may share its memory with the result.

    Raises:
        MinibertError: they are not real numbers, differ in length, or are not finite in float32.
    """
    vectors = _array(vectors, name)
    real = not vectors.is_complex() if isinstance(vectors, Tensor) else vectors.dtype.kind in "fiub"
    if not real:
        raise MinibertError(
            f"{name} ({vectors.dtype}) must be real numbers; pass an array (N, H), as np.stack makes one"
        )
    if isinstance(vectors, Tensor):
        values = vectors.float()
    else:
        with np.errstate(over="ignore"):  # rejected by the check below
            values = torch.from_numpy(np.require(vectors, np.float32, ["C", "W"]))
    _check_finite(name, vectors, torch.isfinite(values), "float32")
    return values


def _array(vectors: Any, name: str = "vectors") -> Any:
    """Vectors as a tensor or an array, whatever its dtype."""
    if isinstance(vectors, (list, tuple)) and vectors and all(isinstance(vector, Tensor) for vector in vectors):
        if len({vector.shape for vector in vectors}) > 1:
            raise MinibertError(f"{name} must be of one length; they are not: pass an array (N, H)")
        vectors = torch.stack(list(vectors))
    if not isinstance(vectors, Tensor):
        try:
            vectors = np.asarray(vectors)
        except ValueError:  # lists of different lengths
            raise MinibertError(f"{name} must be of one length; they are not: pass an array (N, H)") from None
    return vectors


def check_plain(vectors: Any) -> None:
    """Reject int8 and uint8 vectors where their steps or bits would be taken for numbers.

    Raises:
        MinibertError: these are such vectors.
    """
    if (kind := str(getattr(vectors, "dtype", "")).removeprefix("torch.")) in SMALL:
        raise MinibertError(f"vectors ({kind}) must be float here; leave precision= out")


def check_lengths(vectors: Tensor, kind: str) -> None:
    """Reject vectors (N, H) that are too long to be compared.

    Raises:
        MinibertError: the squares of their lengths overflow float32, and `kind` needs them.
    """
    if kind != "cosine" and (torch.linalg.vector_norm(vectors, dim=-1) >= LONGEST).any():
        longest = torch.linalg.vector_norm(vectors.double(), dim=-1).max()
        raise MinibertError(
            f"the length of a vector ({float(longest):.3g}) must be less than {LONGEST:.3g} where the similarity "
            f"is {kind!r}; divide the vectors by one number"
        )


def _check_finite(name: str, given: Any, finite: Any, dtype: str) -> None:
    if not finite.all():
        place = np.argwhere(~np.asarray(torch.as_tensor(finite).cpu()))[0].tolist()
        raise MinibertError(
            f"{name} ({float(given[tuple(place)])} at {place}) must be finite numbers in {dtype}; look at the text "
            "that this vector is of, and at the model"
        )


def _rows(vectors: Any) -> Tensor:
    tensor = as_vectors(vectors)
    if tensor.ndim not in (1, 2):
        raise MinibertError(f"vectors {tuple(tensor.shape)} must be (N, H), or (H,) for one")
    return tensor[None] if tensor.ndim == 1 else tensor


def _check(a: Tensor, b: Tensor, kind: str) -> None:
    if kind not in PAIRWISE:
        raise MinibertError(f"similarity ({kind!r}) must be one of {', '.join(PAIRWISE)}")
    if a.shape[-1] != b.shape[-1]:
        raise MinibertError(f"the vectors ({a.shape[-1]} and {b.shape[-1]} numbers) must be of one length")
    for vectors in (a, b):
        check_lengths(vectors, kind)
