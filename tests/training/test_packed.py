"""Attention over batches of similar lengths beside torch's, text by text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minibert.training import packed
from minibert.training.packed import Batches

CPU = torch.device("cpu")
LENGTHS = {
    "one": [7],
    "equal": [5, 5, 5],
    "falling": [40, 39, 38, 12, 3, 2, 1],
    "apart": [400, 390, 12, 11, 11],
    "questions": sorted(np.random.default_rng(0).integers(3, 40, 32).tolist(), reverse=True),
}


def inputs(tokens: int) -> list[torch.Tensor]:
    """Queries, keys and values of 3 heads of 8."""
    return [torch.randn(tokens, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("most", [0, 100, packed.PADDING])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
def test_each_text_attends_as_it_does_alone(lengths: list[int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PADDING", most)
    own = inputs(sum(lengths))
    apart = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in parts)).transpose(0, 1)
        for parts in zip(*(x.split(lengths) for x in own), strict=True)
    ]
    expected, above = torch.cat(apart), torch.randn(sum(lengths), 3, 8, dtype=torch.float64)
    of_expected = torch.autograd.grad(expected, own, above)
    for dtype, allowed in ((torch.float64, {}), (torch.float32, {"rtol": 1e-4, "atol": 1e-5})):  # explicit, fused
        parts = [x.detach().to(dtype).requires_grad_() for x in own]
        mixed = Batches(lengths, CPU).attend(*parts, 0.0)
        torch.testing.assert_close(mixed, expected.to(dtype), **allowed)
        gradients = torch.autograd.grad(mixed, parts, above.to(dtype))
        torch.testing.assert_close(gradients, tuple(x.to(dtype) for x in of_expected), **allowed)


def test_texts_of_similar_lengths_share_a_batch_and_others_do_not() -> None:
    assert Batches(LENGTHS["questions"], CPU).padded.groups[0][1] > 5
    assert Batches(LENGTHS["apart"], CPU).padded.groups == [(0, 2, 400), (800, 3, 12)]
    assert Batches(LENGTHS["equal"], CPU).masks == [None]


def test_dropout_drops_at_its_rate_in_texts_with_padding() -> None:
    lengths = [30, 20, 20, 10] * 20
    lengths.sort(reverse=True)
    layout = Batches(lengths, CPU)
    assert len(layout.padded.groups) < 10
    q, k, _ = (torch.zeros(sum(lengths), 12, 1) for _ in range(3))  # all tokens count alike
    mixed = layout.attend(q, k, torch.ones_like(q), 0.25)
    assert mixed.mean().item() == pytest.approx(1, abs=0.01)
    kept = mixed[:30] * 30 * 0.75  # of the first text: how many of 30 tokens were not dropped
    assert torch.allclose(kept, kept.round(), atol=1e-3)
    assert kept.mean().item() == pytest.approx(22.5, abs=0.6)
