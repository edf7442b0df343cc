"""Many token vectors become one vector for the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def _weighted_mean(x: Tensor) -> Tensor:
    weights = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]  # later tokens count more
    return (x * weights).sum(1) / weights.sum()


# Texts of one length, (B, S, H) -> (B, H). Under the names that sentence-transformers gives them, in the order in which
# it puts several side by side.
POOLING: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[:, 0],
    "max": lambda x: x.amax(1),
    "mean": lambda x: x.mean(1),
    "mean_sqrt_len_tokens": lambda x: x.sum(1) / x.shape[1] ** 0.5,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda x: x[:, -1],
}


def pool(x: Tensor, groups: Iterable[tuple[int, int, int]], modes: Sequence[str]) -> Tensor:
    """Make one vector of each text.

    Args:
        x: (T, H) hidden states, texts end to end.
        groups: (start, count, length) of neighbours of one length, as `Packed.groups` has them.
        modes: keys of `POOLING`; the results of several are put side by side.

    Returns:
        (texts, H * len(modes)) float32, summed in float32 whatever the dtype of `x`.

    Raises:
        ValueError: an unknown mode.
    """
    unknown = [mode for mode in modes if mode not in POOLING]
    if unknown:
        raise ValueError(f"pooling mode ({unknown[0]!r}) must be one of {', '.join(POOLING)}")
    vectors = []
    for start, count, length in groups:
        texts = x[start : start + count * length].float().view(count, length, -1)  # -> (B, S, H)
        vectors.append(torch.cat([POOLING[mode](texts) for mode in modes], dim=-1))
    return torch.cat(vectors)
