"""Packing: which texts are computed together, and how attention reads them.

Padding is the largest waste of an encoder: every text of a batch is padded to the longest. So texts are sorted by
length and packed end to end, (T, H). Attention runs within each text; every other layer works on each token alone. A
pass takes texts, the longest first, up to a budget of tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minibert.attention import Packed, fused_attention

# On CPUs, torch's fused attention takes 15 to 45 % less time for keys in multiples of 16, and for two short texts in 32
# keys than for each alone (measured with AMX and AVX-512, float32 and bfloat16, D = 32 and 64).
VIEW = 32
GRAIN = 16


class View(NamedTuple):
    """What attention reads at once: `number` views of one size, `step` tokens apart.

    Attributes:
        start: the first token of the first view.
        number: how many views.
        step: the distance between views, and the number of results used of each; the others are discarded.
        size: the number of tokens of each view.
        mask: which of them belong together, bool, (size, size) or (1, size); None: all do.
        before: the number of tokens before the first one whose result is used.
    """

    start: int
    number: int
    step: int
    size: int
    mask: Tensor | None
    before: int = 0


class Views(Packed):
    """`Packed`, but attention reads views of sizes that are fast on a CPU.

    A view starts where a text starts, and extends past its end into the next texts; results for these are discarded.
    Views overlap and copy nothing. Several short texts share one view. A last view with nothing after it starts earlier
    instead.

    Args:
        lengths: how many tokens each text has; neighbours of the same length are computed together.

    Attributes:
        views: all of them, in the order of the tokens that they are for.
        plain: whether none of them has a mask.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__(lengths)
        self.views = [view for group in self.groups for view in self._views(*group)]
        self.plain = all(view.mask is None for view in self.views)

    def _views(self, start: int, count: int, length: int) -> Iterator[View]:
        together = max(1, VIEW // length)
        step = together * length
        size = _whole_grains(max(VIEW, length))
        fitting = min(count // together, (self.total - start - size) // step + 1)
        if fitting > 0:
            yield View(start, fitting, step, size, _mask(size, length, together))
            start, count = start + fitting * step, count - fitting * together
        # what is left: fewer texts than share a view, or too near to the last token
        step = count * length
        size = _whole_grains(step)
        before = max(0, start + size - self.total)
        if count and before <= start:
            yield View(start - before, 1, step, size, _mask(size, length, count, before), before)
        elif count:
            yield View(start, count, length, length, None)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (T, A, D)."""
        if self.plain:
            return super().attend(q, k, v, dropout)
        self.check(v)
        mixed = torch.empty_like(v)
        for start, number, step, size, mask, before in self.views:
            end = start + (number - 1) * step + size
            # (T, A, D) -> (B, A, D, S) -> (B, A, S, D): B views of S tokens
            q_, k_, v_ = (x[start:end].unfold(0, size, step).transpose(2, 3) for x in (q, k, v))
            seen = fused_attention(q_, k_, v_, mask, dropout).transpose(1, 2)  # (B, A, S, D) -> (B, S, A, D)
            first = start + before
            mixed[first : first + number * step] = seen[:, before : before + step].reshape(number * step, *v.shape[1:])
        return mixed


def _whole_grains(tokens: int) -> int:
    return -(-tokens // GRAIN) * GRAIN


def _mask(size: int, length: int, count: int, before: int = 0) -> Tensor | None:
    """Which tokens of a view belong together: those of each of its `count` texts, `before` tokens from its begin."""
    if count == 1 and length == size:
        return None
    # the number, within its view, of the text that a token is of
    text = (torch.arange(size, device="cpu") - before) // length
    return text[:, None] == text if count > 1 else (text == 0)[None]


def passes(lengths: Sequence[int], most_tokens: int, most_texts: int | None = None) -> Iterator[tuple[list[int], int]]:
    """Choose which texts are computed together.

    Each pass takes the longest text left, then repeatedly the longest one that still fits. So nearly all passes are
    almost full, and most texts of a pass have similar lengths.

    Args:
        lengths: how many tokens each text has.
        most_tokens: tokens of a pass; a longer text has a pass of its own.
        most_texts: texts of a pass; None: any number.

    Yields:
        Indices into `lengths`, the longest text first, each once; and how many tokens to fill the pass up to.
    """
    waiting = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = [lengths[index] for index in waiting]
    while waiting:
        taken = [waiting.pop()]
        room = most_tokens - sizes.pop()
        while len(taken) != most_texts and (place := bisect_right(sizes, room)):
            taken.append(waiting.pop(place - 1))
            room -= sizes.pop(place - 1)
        tokens = sum(lengths[index] for index in taken)
        # the last of several passes, for which 4 sizes are enough, costs little beside the others
        steps = 16 if waiting else 8 if len(taken) == len(lengths) else 4
        yield taken, max(tokens, min(most_tokens, rounded_up(tokens, steps)))


def rounded_up(tokens: int, steps: int) -> int:
    """The next of a few sizes: `steps` of them for each doubling, from 64 on.

    oneDNN builds new kernels for each size (bfloat16: up to 10 ms each) and keeps them in memory. Filling up a pass
    costs less.
    """
    return tokens + -tokens % (1 << max(0, (tokens - 1).bit_length() - steps.bit_length())) if tokens > 64 else tokens
