"""Many token vectors become one vector for the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _cls(x: Tensor, mask: Tensor) -> Tensor:
    return x[:, 0]


def _max(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[..., None], -torch.inf).amax(1)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return _sum(x, mask) / mask.sum(1, keepdim=True)


def _mean_sqrt_len(x: Tensor, mask: Tensor) -> Tensor:
    return _sum(x, mask) / mask.sum(1, keepdim=True).sqrt()


def _weighted_mean(x: Tensor, mask: Tensor) -> Tensor:
    weights = mask.cumsum(1) * mask  # 1, 2, 3, ... : later tokens count more
    return _sum(x, weights) / weights.sum(1, keepdim=True)


def _last_token(x: Tensor, mask: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device), mask.sum(1) - 1]


def _sum(x: Tensor, weights: Tensor) -> Tensor:
    return (x * weights[..., None]).sum(1)


# Under the names that sentence-transformers gives them, in the order in which it puts several side by side.
POOLING = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def pool(x: Tensor, mask: Tensor, modes: Sequence[str]) -> Tensor:
    """Make one vector of each text.

    Args:
        x: (B, S, H) hidden states, padded on the right.
        mask: (B, S) bool, True = a real token; every text has at least one.
        modes: keys of `POOLING`; the results of several are put side by side.

    Returns:
        (B, H * len(modes)) float32, summed in float32 whatever the dtype of `x`.

    Raises:
        ValueError: an unknown mode.
    """
    unknown = [mode for mode in modes if mode not in POOLING]
    if unknown:
        raise ValueError(f"pooling mode ({unknown[0]!r}) must be one of {', '.join(POOLING)}")
    x = x.float()
    return torch.cat([POOLING[mode](x, mask) for mode in modes], dim=-1)
