"""The explicit attention is the fused one; padded and packed texts go through one encoder."""

from __future__ import annotations

import math
import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from oracle import TINY, assert_same_vectors, batch, packed_and_padded, theirs_of

import minibert
from minibert.attention import Packed, Padded, attention, fused_attention
from minibert.encoder import Encoder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_the_explicit_form_and_the_fused_one_are_the_same(dtype: torch.dtype, masked: bool) -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64).to(dtype)
    mask = torch.rand(2, 1, 9, 9) > 0.3 if masked else None
    if mask is not None:
        mask[..., 0] = True  # each query has a key to attend to
    mixed, probabilities = attention(q, k, v, mask)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(mixed, fused_attention(q, k, v, mask), atol=tolerance, rtol=0)
    if mask is not None:
        assert (probabilities.masked_select(~mask.expand_as(probabilities)) == 0).all()


def test_attention_is_the_equation_of_the_paper_computed_by_hand() -> None:
    q, k, v = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[5.0, 7.0]]])
    k = torch.cat([k, torch.tensor([[0.0, 1.0]])])
    v = torch.cat([v, torch.tensor([[1.0, 2.0]])])
    e = math.exp(1 / math.sqrt(2))  # one score is 1 / sqrt(2), the other 0
    mixed, probabilities = attention(q, k, v)
    torch.testing.assert_close(probabilities, torch.tensor([[e / (e + 1), 1 / (e + 1)]]))
    torch.testing.assert_close(mixed, torch.tensor([[(5 * e + 1) / (e + 1), (7 * e + 2) / (e + 1)]]))


def test_probabilities_sum_to_one_and_a_fully_masked_row_stays_finite() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4)
    mixed, probabilities = attention(q, k, v, torch.zeros(1, 1, 1, 5, dtype=torch.bool))
    torch.testing.assert_close(probabilities, torch.full((1, 2, 5, 5), 0.2))
    torch.testing.assert_close(mixed, v.mean(2, keepdim=True).expand_as(v))
    fused = fused_attention(q, k, v, torch.zeros(1, 1, 5, 5, dtype=torch.bool))
    assert torch.equal(fused, torch.zeros_like(v))  # torch's own answer


def test_padding_does_not_change_other_tokens(tmp_path: Path) -> None:
    theirs_of("BertModel", tmp_path)
    model = minibert.BertModel.from_pretrained(tmp_path)
    inputs = batch(1, 7)
    alone = model(**inputs).last_hidden_state
    wide = {
        name: torch.nn.functional.pad(value, (0, 5), value=3 if name == "input_ids" else 0)
        for name, value in inputs.items()
    }
    mask = torch.tensor([[1] * 7 + [0] * 5])
    torch.testing.assert_close(model(**wide, attention_mask=mask).last_hidden_state[:, :7], alone, atol=1e-6, rtol=0)
    assert (model(**wide).last_hidden_state[:, :7] - alone).abs().max() > 1e-3  # without the mask it would


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_packed_and_padded_texts_go_through_one_encoder_with_one_result(lengths: list[int]) -> None:
    encoder, packed, expected = packed_and_padded(lengths)
    with torch.no_grad():
        assert_same_vectors(encoder(packed, Packed(lengths)).numpy(), expected.numpy())


def test_the_hidden_states_end_with_what_forward_gives() -> None:
    encoder = Encoder(minibert.BertConfig(**TINY)).eval()
    x = torch.randn(2, 5, 32)
    states = list(encoder.states(x, Padded()))
    assert len(states) == 4
    assert torch.equal(states[0], x)
    assert torch.equal(states[-1], encoder(x, Padded()))


def test_a_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("mask dtype (torch.int64) must be torch.bool; pass mask != 0")):
        Padded(torch.ones(2, 3, dtype=torch.long))


def test_lengths_that_do_not_add_up_are_refused() -> None:
    encoder = Encoder(minibert.BertConfig(**TINY)).eval()
    for lengths in ([3], [3, 3]):
        with pytest.raises(ValueError, match=re.escape(f"lengths (sum {sum(lengths)}) must add up to the number of")):
            encoder(torch.randn(5, 32), Packed(lengths))
