"""From hidden states to a vector for each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minibert.engine.engine import Engine, Plan
from minibert.engine.rows import Rows
from minibert.vectors.pooling import pool


@torch.inference_mode()
def packed_vectors(
    engine: Engine,
    rows: Rows,
    pooling: Sequence[str],
    plan: Plan,
    skip: int = 0,
    device: torch.device | str = "cpu",
    done: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Tensor:
    """The pooled vectors of texts; of one with several windows, their mean, each weighted by the tokens of its own.

    Args:
        engine: of the model.
        rows: the texts.
        pooling: modes of `vectors.pooling`.
        plan, done: as for `Engine.states`.
        skip: how many tokens at the beginning of each row are not pooled.
        device: where the vectors are collected.

    Returns:
        (texts, n * H) float32, in the order of the texts, on `device`.
    """
    width = engine.width(plan) * len(pooling)
    vectors = torch.empty(len(rows.ids), width, dtype=torch.float32, device=device)
    for indices, groups, x in engine.states(rows, plan, done):
        vectors[indices] = pool(x, groups, pooling, skip)[: len(indices)].to(device)
    if not rows.texts or len(rows.texts) == rows.texts[-1] + 1:
        return vectors
    texts = torch.tensor(rows.texts, device=device)
    weights = torch.tensor(rows.weights, dtype=torch.float32, device=device)
    whole = weights.new_zeros(rows.texts[-1] + 1).index_add_(0, texts, weights)
    several = torch.bincount(texts) > 1
    mean = vectors.new_zeros(len(whole), width).index_add_(0, texts, vectors * weights[:, None]) / whole[:, None]
    mean[~several] = vectors[~several[texts]]  # to the bit what it is without windows; [CLS] [SEP] weighs nothing
    return mean
