"""Masking: its rates, its replacements, and what it never touches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import minibert
from minibert.training.masking import Masking


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> minibert.BertTokenizer:
    """bert-base-uncased's."""
    return minibert.BertTokenizer.from_pretrained(minilm)


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_rates_are_those_of_bert(rate: float, tokenizer: minibert.BertTokenizer) -> None:
    masking = Masking.of(tokenizer, rate)
    random = np.random.default_rng(0)
    row = np.concatenate([[101], np.arange(2000, 2126), [102]])
    hidden = random_tokens = same = total = 0
    seen: list[int] = []
    for _ in range(2_000):
        example = masking(row, random)
        chosen = example.labels != -100
        total += chosen.sum()
        assert chosen.sum() == round(rate * 126)
        shown = example.rows[0]
        assert (shown[~chosen] == row[~chosen]).all()
        assert (example.labels[chosen] == row[chosen]).all()
        hidden += (shown[chosen] == 103).sum()
        same += (shown[chosen] == row[chosen]).sum()
        swapped = chosen & (shown != 103) & (shown != row)
        random_tokens += swapped.sum()
        seen += shown[swapped].tolist()
    for count, part in ((hidden, 0.8), (same, 0.1), (random_tokens, 0.1)):
        assert abs(count - part * total) < 5 * (part * (1 - part) * total) ** 0.5
    # the tokens shown at random are spread evenly over the ordinary ones
    bins = np.histogram(seen, bins=50, range=(999, 30522))[0]
    expected = np.histogram(np.flatnonzero(masking.ordinary), bins=50, range=(999, 30522))[0] / masking.ordinary.sum()
    statistic = ((bins - expected * len(seen)) ** 2 / (expected * len(seen))).sum()
    assert statistic < chi2.ppf(0.9999, 49)


def test_every_place_is_chosen_as_often(tokenizer: minibert.BertTokenizer) -> None:
    masking = Masking.of(tokenizer)
    random = np.random.default_rng(1)
    row = np.concatenate([[101], np.arange(2000, 2020), [102]])
    counts = sum((masking(row, random).labels != -100).astype(int) for _ in range(5_000))
    assert counts[0] == counts[-1] == 0
    expected = 5_000 * 3 / 20
    assert ((counts[1:-1] - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, 19)


@pytest.fixture(scope="module", params=[False, True])
def masking(request: pytest.FixtureRequest, tokenizer: minibert.BertTokenizer) -> Masking:
    """Of tokens, and of whole words."""
    return Masking.of(tokenizer, whole_words=request.param)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30521), max_size=60), st.integers(0, 2**32))
def test_special_tokens_are_never_chosen_and_never_shown_at_random(
    tokenizer: minibert.BertTokenizer, masking: Masking, ids: list[int], seed: int
) -> None:
    row = np.array([101, *ids, 102])
    example = masking(row, np.random.default_rng(seed))
    chosen = example.labels != -100
    assert not (set(row[chosen].tolist()) & set(tokenizer.all_special_ids))
    changed = example.rows[0] != row
    assert not (set(example.rows[0][changed].tolist()) & (set(tokenizer.all_special_ids) - {103}))
    ordinary = masking.ordinary[row].sum()
    assert chosen.any() == (ordinary > 0)


def test_the_same_seed_chooses_the_same_tokens(tokenizer: minibert.BertTokenizer) -> None:
    masking = Masking.of(tokenizer)
    row = np.concatenate([[101], np.arange(2000, 2060), [102]])
    one, two, other = (masking(row, np.random.default_rng([7, step])) for step in (1, 1, 2))
    assert (one.labels == two.labels).all()
    assert (one.rows[0] == two.rows[0]).all()
    assert (one.labels != other.labels).any()
    assert row[1] == 2000  # the row itself is left as it was


def test_whole_words_are_chosen_with_all_their_pieces(tokenizer: minibert.BertTokenizer) -> None:
    row = np.array(tokenizer.encode("The embeddings of unbelievable tokenizers transform encyclopaedias and a dog."))
    pieces = tokenizer.convert_ids_to_tokens(row.tolist())
    words = np.cumsum([not piece.startswith("##") for piece in pieces])
    masking = Masking.of(tokenizer, 0.3, whole_words=True)
    sizes = set()
    for seed in range(300):
        chosen = masking(row, np.random.default_rng(seed)).labels != -100
        for word in set(words[chosen].tolist()):
            assert chosen[words == word].all()
        sizes.add(int(chosen.sum()))
    ordinary = len(row) - 2
    assert max(sizes) <= max(round(0.3 * ordinary), max(np.bincount(words)))
    assert min(sizes) >= 1


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5])
def test_impossible_rates_are_refused(rate: float, tokenizer: minibert.BertTokenizer) -> None:
    with pytest.raises(minibert.MinibertError, match=r"mask_rate .* must be between 0 and 1"):
        Masking.of(tokenizer, rate)
