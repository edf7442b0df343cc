"""Many token vectors become one vector for the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from minibert.errors import MinibertError


def _weighted_mean(x: Tensor, skipped: int) -> Tensor:
    weights = (
        torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None] + skipped
    )  # later ones count more
    return (x * weights).sum(1) / weights.sum()


# Texts of one length, (B, S, H) -> (B, H), and how many tokens stood before the first. The names are those that
# sentence-transformers gives them, in the order in which it puts several side by side.
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
    """Make one vector of each text.

    Args:
        x: (T, H) hidden states, texts end to end.
        groups: (start, count, length) of neighbours of one length, as `Packed.groups` has them.
        modes: keys of `POOLING`; the results of several are put side by side.
        skip: how many tokens at the beginning of each text are left out; its last one never is.

    Returns:
        (texts, H * len(modes)) float32, summed in float32 whatever the dtype of `x`.
    """
    vectors = []
    for start, count, length in groups:
        skipped = min(skip, length - 1)
        texts = x[start : start + count * length].float().view(count, length, -1)[:, skipped:]  # (B, S, H)
        vectors.append(torch.cat([POOLING[mode](texts, skipped) for mode in modes], dim=-1))
    return torch.cat(vectors)
