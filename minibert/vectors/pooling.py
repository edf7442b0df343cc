"""Pooling: the token vectors of a text become one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from minibert.errors import MinibertError


def _weighted_mean(x: Tensor, skipped: int) -> Tensor:
    # later tokens count more
    weights = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None] + skipped
    return (x * weights).sum(1) / weights.sum()


# Each takes texts of one length and the number of tokens skipped before them: (B, S, H) -> (B, H). The names, and the
# order in which several are concatenated, are those of sentence-transformers.
POOLING: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda x, _: x[:, 0],
    "max": lambda x, _: x.amax(1),
    "mean": lambda x, _: x.mean(1),
    "mean_sqrt_len_tokens": lambda x, _: x.sum(1) / x.shape[1] ** 0.5,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda x, _: x[:, -1],
}


def pooling_modes(modes: str | Sequence[str]) -> tuple[str, ...]:
    """One mode or several, as keys of `POOLING`.

    Raises:
        MinibertError: an unknown mode, or none.
    """
    chosen = tuple(
        {"mean_sqrt_len": "mean_sqrt_len_tokens"}.get(m, m) for m in ([modes] if isinstance(modes, str) else modes)
    )
    unknown = [mode for mode in chosen if mode not in POOLING]
    if unknown or not chosen:
        raise MinibertError(f"pooling mode ({unknown[0] if chosen else ''!r}) must be one of {', '.join(POOLING)}")
    return chosen


def pool(x: Tensor, groups: Iterable[tuple[int, int, int]], modes: Sequence[str], skip: int = 0) -> Tensor:
    """Pool each text into one vector.

    Args:
        x: (T, H) hidden states, packed.
        groups: (start, count, length) of each run of texts of one length, as in `Packed.groups`.
        modes: keys of `POOLING`; the results of several are concatenated.
        skip: how many tokens to leave out at the beginning of each text; its last token always stays.

    Returns:
        (texts, H * len(modes)) float32, summed in float32 whatever the dtype of `x`.
    """
    vectors = []
    for start, count, length in groups:
        skipped = min(skip, length - 1)
        texts = x[start : start + count * length].float().view(count, length, -1)[:, skipped:]  # (B, S, H)
        vectors.append(torch.cat([POOLING[mode](texts, skipped) for mode in modes], dim=-1))
    return torch.cat(vectors)
