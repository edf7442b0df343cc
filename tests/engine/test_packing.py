"""Texts end to end: laws of the passes, and attention through views beside attention with padding."""

from __future__ import annotations

import random
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from oracle import packed_and_padded
from sentence_transformers.sentence_transformer.modules import Pooling

from minibert.attention import Packed
from minibert.engine.engine import positions
from minibert.engine.packing import GRAIN, Views, passes, rounded_up
from minibert.vectors.pooling import POOLING, pool, pooling_modes

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=12)
MANY = st.lists(st.integers(1, 600), max_size=60)


@hypothesis.settings(deadline=None)
@hypothesis.given(MANY, st.integers(1, 1000), st.none() | st.integers(1, 9))
def test_every_text_is_in_one_pass_and_no_pass_is_over_the_budget(
    lengths: list[int], most_tokens: int, most_texts: int | None
) -> None:
    found = list(passes(lengths, most_tokens, most_texts))
    assert sorted(index for indices, _ in found for index in indices) == list(range(len(lengths)))
    for indices, size in found:
        tokens = sum(lengths[index] for index in indices)
        assert tokens <= size
        assert len(indices) == 1 or tokens <= most_tokens
        assert most_texts is None or len(indices) <= most_texts
        in_order = [lengths[index] for index in indices]
        assert in_order == sorted(in_order, reverse=True)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.integers(1, 100), max_size=60), st.integers(100, 1000))
def test_passes_are_full_as_long_as_texts_are_left_that_fit(lengths: list[int], most_tokens: int) -> None:
    found = [[lengths[index] for index in indices] for indices, _ in passes(lengths, most_tokens)]
    for number, taken in enumerate(found):
        assert all(sum(taken) + length > most_tokens for later in found[number + 1 :] for length in later)


def test_passes_come_in_few_sizes() -> None:
    """In a service, each new size would cost time and memory."""
    draw, sizes, computed, real = random.Random(0), set(), 0, 0
    for _ in range(200):
        lengths = [draw.choice([7, 9, 12, 15, 20, 31, 40, 66, 130, 256]) for _ in range(1000)]
        found = list(passes(lengths, 4096))
        assert [size for _, size in found[:-1]] == [4096] * (len(found) - 1)
        sizes.add(found[-1][1])
        computed, real = computed + sum(size for _, size in found), real + sum(lengths)
    assert len(sizes) <= 4 * 6
    assert computed / real < 1.006


def test_passes_that_cannot_be_full_are_filled_up_a_little() -> None:
    computed = [size for _, size in passes([260] * 30, 1024)]
    assert computed == [800] * 9 + [896]


@pytest.mark.parametrize("steps", [4, 8, 16])
def test_rounding_up_is_cheap(steps: int) -> None:
    assert all(tokens <= rounded_up(tokens, steps) < tokens * (1 + 1 / steps) for tokens in range(1, 10_000))
    assert len({rounded_up(tokens, steps) for tokens in range(65, 4097)}) == 6 * steps
    assert rounded_up(4096, steps) == 4096
    assert rounded_up(50, steps) == 50


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
def test_views_and_groups_and_padding_give_one_result(lengths: list[int], in_order: bool) -> None:
    lengths = sorted(lengths, reverse=True) if in_order else lengths
    encoder, packed, expected = packed_and_padded(lengths)
    with torch.no_grad():
        for layout in (Packed(lengths), Views(lengths)):
            torch.testing.assert_close(encoder(packed, layout), expected, atol=2e-6, rtol=0)


def test_views_are_what_attention_sees() -> None:
    """Without this, the test above would hold for views that are never used."""
    views = Views([50] * 4 + [9] * 10)
    assert [(start, count, step, size, before) for start, count, step, size, _, before in views.views] == [
        (0, 4, 50, 64, 0),
        (200, 3, 27, 32, 0),
        (274, 1, 9, 16, 7),  # nothing follows it: it reaches back
    ]
    masks = [mask for *_, mask, _ in views.views]
    assert all(mask is not None for mask in masks)
    assert [mask.shape for mask in masks] == [(1, 64), (32, 32), (1, 16)]
    assert masks[0].nonzero()[:, 1].tolist() == list(range(50))
    assert masks[2].nonzero()[:, 1].tolist() == list(range(7, 16))
    assert [row.nonzero()[:, 0].tolist() for row in masks[1]][:27] == [
        list(range(9 * (row // 9), 9 * (row // 9) + 9)) for row in range(27)
    ]
    assert not views.plain
    assert Views([64] * 3).plain
    assert Views([9]).plain  # alone, it has nothing to reach over into
    assert not Views([16, 16]).plain  # two share one


@hypothesis.settings(deadline=None)
@hypothesis.given(MANY.filter(lambda lengths: len(lengths) > 1))
def test_views_come_in_few_sizes(lengths: list[int]) -> None:
    """torch makes kernels anew for each size, and keeps them."""
    lengths = sorted(lengths, reverse=True)
    views = Views(lengths).views
    assert sum(count * step for _, count, step, *_ in views) == sum(lengths)
    exact = [size for *_, size, _, _ in views if size % GRAIN]
    assert not exact or sum(lengths) < max(lengths) + 2 * GRAIN


def test_views_check_their_lengths_too() -> None:
    x = torch.randn(99, 4, 8)
    with pytest.raises(ValueError, match=r"lengths \(sum 100\) must add up to the number of tokens \(99\)"):
        Views([50, 50]).attend(x, x, x, 0.0)


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("mode", POOLING)
def test_pooling_packed_texts_is_what_sentence_transformers_does_with_padded_ones(mode: str, skip: int) -> None:
    lengths = [7, 7, 3, 5] if skip else [7, 7, 3, 1, 1, 1, 5]
    texts = [torch.randn(length, 8) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).long()
    features = {"token_embeddings": padded, "attention_mask": mask, "prompt_length": skip}
    theirs = Pooling(8, mode, include_prompt=not skip)(features)["sentence_embedding"]
    ours = pool(torch.cat(texts), Packed(lengths).groups, (mode,), skip)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert pool(torch.cat(texts).bfloat16(), Packed(lengths).groups, (mode, mode)).dtype == torch.float32


def test_a_pooling_mode_that_is_none_is_refused() -> None:
    for wrong in ("median", ["mean", "median"], []):
        with pytest.raises(ValueError, match=r"pooling mode \('(median)?'\) must be one of cls, max, mean, "):
            pooling_modes(wrong)
    assert pooling_modes("mean_sqrt_len") == ("mean_sqrt_len_tokens",)
