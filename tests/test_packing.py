"""Texts end to end: laws of the passes, and attention through windows beside attention with padding."""

from __future__ import annotations

from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from oracle import TINY
from sentence_transformers.sentence_transformer.modules import Pooling

import minibert
from minibert.attention import Packed, Padded
from minibert.encoder import Encoder
from minibert.vectors.encode import positions
from minibert.vectors.packing import Windows, filler, passes
from minibert.vectors.pooling import POOLING, pool

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=12)
MANY = st.lists(st.integers(1, 600), max_size=60)


@hypothesis.settings(deadline=None)
@hypothesis.given(MANY, st.integers(1, 1000), st.none() | st.integers(1, 9))
def test_every_text_is_in_one_pass_and_no_pass_is_over_the_budget(
    lengths: list[int], most_tokens: int, most_texts: int | None
) -> None:
    found = list(passes(lengths, most_tokens, most_texts))
    assert sorted(index for indices in found for index in indices) == list(range(len(lengths)))
    for indices in found:
        assert len(indices) == 1 or sum(lengths[index] for index in indices) <= most_tokens
        assert most_texts is None or len(indices) <= most_texts
        in_order = [lengths[index] for index in indices]
        assert in_order == sorted(in_order, reverse=True)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.integers(1, 100), max_size=60), st.integers(100, 1000))
def test_passes_are_full_as_long_as_texts_are_left_that_fit(lengths: list[int], most_tokens: int) -> None:
    found = [[lengths[index] for index in indices] for indices in passes(lengths, most_tokens)]
    for number, taken in enumerate(found):
        assert all(sum(taken) + length > most_tokens for later in found[number + 1 :] for length in later)


def test_the_filler_is_small_and_leaves_few_sizes() -> None:
    assert all(0 <= filler(tokens) <= tokens / 32 for tokens in range(1, 10_000))
    assert len({tokens + filler(tokens) for tokens in range(1, 4097)}) == 256  # 32 for each doubling, then one in 64
    assert filler(4096) == filler(50) == 0


@hypothesis.given(LENGTHS)
def test_positions_begin_anew_with_each_text(lengths: list[int]) -> None:
    expected = [position for length in lengths for position in range(length)]
    assert positions(lengths).tolist() == expected


@hypothesis.given(st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_groups_are_the_runs_of_neighbours_of_one_length(lengths: list[int]) -> None:
    groups = Packed(lengths).groups
    assert [length for _, count, length in groups for _ in range(count)] == lengths
    assert [start for start, _, _ in groups] == [sum(n * size for _, n, size in groups[:i]) for i in range(len(groups))]
    assert all(one[2] != other[2] for one, other in pairwise(groups))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(LENGTHS, st.booleans())
def test_windows_and_groups_and_padding_give_one_result(lengths: list[int], in_order: bool) -> None:
    torch.manual_seed(len(lengths))
    lengths = sorted(lengths, reverse=True) if in_order else lengths
    encoder = Encoder(minibert.BertConfig(**TINY)).eval()
    texts = [torch.randn(length, 32) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # (B, S, H)
    mask = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        expected = encoder(padded, Padded(mask))[mask]  # the real tokens, (T, H)
        for layout in (Packed(lengths), Windows(lengths)):
            torch.testing.assert_close(encoder(torch.cat(texts), layout), expected, atol=2e-6, rtol=0)


def test_windows_are_what_attention_sees() -> None:
    """Without this, the test above would hold for windows that are never used."""
    windows = Windows([50] * 4 + [9] * 10)
    assert [(start, count, step, size) for start, count, step, size, _ in windows.windows] == [
        (0, 4, 50, 64),
        (200, 3, 27, 32),
        (281, 1, 9, 9),
    ]
    assert not windows.plain
    assert Windows([64] * 3).plain
    assert Windows([9]).plain  # alone, it has nothing to reach over into


def test_windows_check_their_lengths_too() -> None:
    x = torch.randn(99, 4, 8)
    with pytest.raises(ValueError, match=r"lengths \(sum 100\) must add up to the number of tokens \(99\)"):
        Windows([50, 50]).attend(x, x, x, 0.0)


@pytest.mark.parametrize("mode", POOLING)
def test_pooling_packed_texts_is_what_sentence_transformers_does_with_padded_ones(mode: str) -> None:
    lengths = [7, 7, 3, 1, 1, 1, 5]
    texts = [torch.randn(length, 8) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).long()
    theirs = Pooling(8, mode)({"token_embeddings": padded, "attention_mask": mask})["sentence_embedding"]
    ours = pool(torch.cat(texts), Packed(lengths).groups, (mode,))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert pool(torch.cat(texts).bfloat16(), Packed(lengths).groups, (mode, mode)).dtype == torch.float32


def test_a_pooling_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pooling mode \('median'\) must be one of cls, max, mean, "):
        pool(torch.randn(3, 8), [(0, 1, 3)], ("median",))
